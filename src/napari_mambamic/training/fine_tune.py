"""Training: from samples to weights.

Every step is seeded by the run's seed and its own number, so that a run which was interrupted, or
another run with the same seed, does the same on the same device.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import time
import warnings
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_mambamic.atomic import written_atomically
from napari_mambamic.classifier import TileClassifier
from napari_mambamic.devices import DeviceChoice, choose_device, choose_precision
from napari_mambamic.errors import DeviceError, ExportError, TrainingError
from napari_mambamic.memory import freed_memory_kept
from napari_mambamic.networks import build_network
from napari_mambamic.networks.triton_loading import load_triton
from napari_mambamic.patches import PatchSpec, prepare_patches
from napari_mambamic.training.augment import make_augmentation
from napari_mambamic.training.calibration import fit_temperature, reliability
from napari_mambamic.training.metrics import evaluate
from napari_mambamic.training.processes import Processes, is_first_process
from napari_mambamic.training.samples import Samples
from napari_mambamic.training.splits import Split, split_samples
from napari_mambamic.trust.assessment import (
    MOST_TRAINING,
    Seen,
    appearance_of_samples,
    assess,
)
from napari_mambamic.trust.pixels import pixel_ranges
from napari_mambamic.trust.reference import Reference
from napari_mambamic.weights.checkpoint import load_network, logits_of, save_weights
from napari_mambamic.weights.manifest import Manifest
from napari_mambamic.weights.store import locate_weights

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork

_CHECKPOINT = "last.checkpoint"
_RGB = ("red", "green", "blue")


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Parameters
    ----------
    mode : str
        "head": the last layer alone, on embeddings that are computed once: seconds.
        "last stage": the last stage and the head.  "all": everything.
    network : str
        Trained from scratch, where `start` is None; else the network of the start is taken.
    patch_size : int, optional
        In px; by default that of the start, or 64 from scratch.
    epochs, batch_size : int
    optimiser : str
        "adamw" or "adam".
    learning_rate : float, optional
        The highest; by default 2e-3 from scratch and 5e-4 from a start.
    weight_decay : float
        Of matrices and kernels; none on vectors and on the state matrices of the scan.
    schedule : str
        "one-cycle": up during the first 15 % of the steps, then down to nothing; "cosine": up
        during 10 epochs, then down.
    label_smoothing, mixup, clip, averaging : float
        `mixup` is the alpha of its beta distribution, `clip` the largest norm of the gradient,
        `averaging` the decay of the running mean of the weights; 0 turns each off.
    balance : str
        Weights of the classes in the loss: "none", "root" (by the root of their inverse frequency)
        or "full" (inverse frequency).
    augmentation : str
        A preset of `make_augmentation`, or "auto": bright-field for RGB, else fluorescence.
    zoom : float
        Largest zoom of the augmentation; 1 where the size tells classes apart.
    gain : float, optional
        Largest change of brightness; 1 where brightness tells classes apart, such as the amount of
        DNA.  By default that of the augmentation.
    patience : int, optional
        Stop after so many epochs without a better validation.
    choose_best : bool
        Keep the epoch with the best balanced accuracy on the validation samples; else the last.
    validation_share, test_share : float
    seed : int
    device, precision : str
        As `load_classifier` takes them.
    """

    mode: Literal["head", "last stage", "all"] = "all"
    network: str = "mambamic-t"
    patch_size: int | None = None
    epochs: int = 30
    batch_size: int = 32
    optimiser: Literal["adamw", "adam"] = "adamw"
    learning_rate: float | None = None
    weight_decay: float = 0.05
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    label_smoothing: float = 0.05
    mixup: float = 0.0
    clip: float = 5.0
    averaging: float = 0.998
    balance: Literal["none", "root", "full"] = "root"
    augmentation: str = "auto"
    zoom: float = 1.2
    gain: float | None = None
    patience: int | None = None
    choose_best: bool = True
    validation_share: float = 0.2
    test_share: float = 0.0
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"

    @classmethod
    def published(cls, **changes: Any) -> TrainConfig:
        """Give the recipe of the papers.

        Adam, 1e-4, weight decay 1e-4, cross-entropy, cosine after ten epochs of warm-up, early
        stopping, batches of 16, a split of 6:2:2, no augmentation.
        """
        recipe: dict[str, Any] = {
            "epochs": 100,
            "batch_size": 16,
            "optimiser": "adam",
            "learning_rate": 1e-4,
            "weight_decay": 1e-4,
            "schedule": "cosine",
            "label_smoothing": 0.0,
            "clip": 0.0,
            "averaging": 0.0,
            "balance": "none",
            "augmentation": "none",
            "patience": 20,
            "patch_size": 224,
            "test_share": 0.2,
        }
        return cls(**(recipe | changes))


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to; accuracies on the validation samples."""

    number: int
    loss: float
    accuracy: float
    balanced_accuracy: float
    validation_loss: float
    seconds: float


@dataclass(frozen=True)
class TrainProgress:
    """One step of a training run.

    Parameters
    ----------
    done, total : int
        Steps so far, and in all.
    seconds : float
        Time so far, that of runs which were interrupted included.
    message : str
        What is going on, in words.
    history : tuple of Epoch
    loss : float or None
        Of the last step.
    best : Checkpoint or None
        The best so far: what remains when the run is cancelled.
    """

    done: int
    total: int
    seconds: float
    message: str
    history: tuple[Epoch, ...] = ()
    loss: float | None = None
    best: Checkpoint | None = field(default=None, repr=False)

    @property
    def seconds_left(self) -> float | None:
        """Time left at the mean speed so far, or None while it is unknown."""
        return (self.total - self.done) * self.seconds / self.done if self.done else None


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with all that is needed to use it and to judge it.

    Parameters
    ----------
    network : StagedNetwork
        In evaluation mode, on the CPU.
    manifest : Manifest
        Without a hash, which it gets when it is saved.
    report : dict
        ``config``, ``split``, ``history``, ``validation`` and ``test`` figures, ``calibration``,
        and what is predicted for each validation sample; ready for JSON.
    example, example_logits : ndarray
        A patch (y, x, channel) and its logits under the weights as they are stored, for the
        self-test.
    reference : Reference or None
        Statistics of the training samples; of a run that was cancelled there are none.
    """

    network: StagedNetwork
    manifest: Manifest
    report: dict[str, Any]
    example: NDArray[Any]
    example_logits: NDArray[np.float32]
    reference: Reference | None = None

    def save(self, path: str | Path) -> Path:
        """Write weights, manifest and report, none ever half-written.

        Parameters
        ----------
        path : path
            Ends in ``.safetensors``; manifest and report go beside it, to ``.json`` and
            ``.report.json``.
        """
        path = Path(path).with_suffix(".safetensors")
        title = f"{path.stem}: {self.manifest.title}"
        manifest = replace(self.manifest, name=path.stem, title=title)
        test = self.example, self.example_logits
        save_weights(self.network, path, manifest, self_test=test, reference=self.reference)
        with written_atomically(path.with_suffix(".report.json")) as temporary:
            temporary.write_text(json.dumps(self.report, indent=1) + "\n", encoding="utf-8")
        return path

    def classifier(self, *, device: str = "auto") -> TileClassifier:
        """Classifier with these weights, without saving them."""
        choice = choose_device(device)
        return TileClassifier(deepcopy(self.network), self.manifest, choice, self.reference)


def fine_tune(
    samples: Samples,
    *,
    start: str | Path | None = "default",
    config: TrainConfig | None = None,
    folder: str | Path | None = None,
    on_epoch: Callable[[TrainProgress], object] | None = None,
) -> Checkpoint:
    """Train on samples.

    A script that ``accelerate launch`` or ``torchrun`` starts in several processes trains on as
    many GPUs: each batch is shared between them, and all return the same checkpoint.

    Parameters
    ----------
    samples : Samples
    start : str, path or None
        Weights to start from, by name or path; None trains ``config.network`` from scratch.
    config : TrainConfig, optional
    folder : path, optional
        Where the state is kept after each epoch; a run that was interrupted goes on from there.
    on_epoch : callable, optional
        Called after each epoch; of several processes, in the first.

    Raises
    ------
    SamplesError
        The samples cannot be split, or nothing can be learned from them.
    TrainingError
        The loss became infinite or not a number, or the folder holds another run.
    """
    run = iter_fine_tune(samples, start=start, config=config, folder=folder)
    epochs = 0
    while True:
        try:
            progress = next(run)
        except StopIteration as stop:
            result: Checkpoint = stop.value
            return result
        if on_epoch is not None and len(progress.history) > epochs and is_first_process():
            epochs = len(progress.history)
            on_epoch(progress)


def iter_fine_tune(
    samples: Samples,
    *,
    start: str | Path | None = "default",
    config: TrainConfig | None = None,
    folder: str | Path | None = None,
) -> Generator[TrainProgress, None, Checkpoint]:
    """Train one step at a time: what `fine_tune` drains.  Parameters as there."""
    config = config or TrainConfig()
    if config.epochs < 1 or config.batch_size < 1:
        raise TrainingError("Epochs and batch size must be at least 1.")
    yield TrainProgress(0, 1, 0.0, "Splitting the samples")
    split = split_samples(
        samples,
        validation_share=config.validation_share,
        test_share=config.test_share,
        seed=config.seed,
    )
    processes = Processes.found(cpu=config.device == "cpu")
    if processes.count > min(config.batch_size, len(split.training)):
        raise TrainingError(
            f"{processes.count} processes share batches of "
            f"{min(config.batch_size, len(split.training))} samples. Choose larger batches, or "
            f"fewer processes."
        )
    choice = choose_device(processes.device or config.device)
    run = _Run(samples, split, start, config, choice, processes)
    if folder is not None:
        run.keep_in(Path(folder))
    with freed_memory_kept():
        if config.mode == "head":
            return (yield from run.fit_head())
        return (yield from run.fit())


class _Run:
    def __init__(
        self,
        samples: Samples,
        split: Split,
        start: str | Path | None,
        config: TrainConfig,
        choice: DeviceChoice,
        processes: Processes,
    ) -> None:
        self.samples, self.split, self.config, self.choice = samples, split, config, choice
        self.processes = processes
        self.device = choice.device
        self.start = start
        with _seeded(config.seed, 0):
            self.network, self.spec, self.origin = _begin(samples, split, start, config)
        self.network.to(self.device)
        processes.begin_alike(self.network)
        self.trained = _unfreeze(self.network, config.mode)
        self.average = (
            AveragedModel(
                self.network,
                multi_avg_fn=get_ema_multi_avg_fn(config.averaging),
                use_buffers=True,
            )
            if config.averaging
            else None
        )
        preset = config.augmentation
        if preset == "auto":
            preset = "bright-field" if samples.channels == _RGB else "fluorescence"
        self.augmentation = preset
        self.augment = make_augmentation(preset, zoom=config.zoom, gain=config.gain)
        rate = config.learning_rate or (2e-3 if start is None else 5e-4)
        load_triton()  # before torch does, which it does to make an optimiser
        kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
        self.optimiser = kind(_decayed(self.network, config.weight_decay), lr=rate)
        self.rate = rate
        self.steps_per_epoch = max(1, len(split.training) // config.batch_size)
        self.total = self.steps_per_epoch * config.epochs
        self.class_weights = _class_weights(samples.labels[split.training], samples, config.balance)
        self.lowered = choose_precision(config.precision, self.device) == "bfloat16"
        self.micro_batch = config.batch_size
        self.step = 0
        self.seconds = 0.0
        self.history: list[Epoch] = []
        self.best: tuple[float, dict[str, Tensor], NDArray[np.float32]] | None = None
        self.folder: Path | None = None
        self.notes: list[str] = []

    # ---- training ---------------------------------------------------------------------------

    def fit(self) -> Generator[TrainProgress, None, Checkpoint]:
        config = self.config
        if self.start is not None and not self.step:
            # A head that fits first, or its random gradients would spoil what the start knows.
            if config.mode == "all":
                yield from self._adapt()
            embedded = yield from self._predict(self.split.training, "Embedding", embed=True)
            self._set_head(embedded)
        while self.step < self.total:
            epoch = self.step // self.steps_per_epoch
            losses = []
            order = np.random.default_rng([config.seed, epoch]).permutation(self.split.training)
            for chosen in order[: self.steps_per_epoch * config.batch_size].reshape(
                self.steps_per_epoch, -1
            ):
                begin = time.perf_counter()
                loss = self._train_on(chosen)
                self.seconds += time.perf_counter() - begin
                losses.append(loss)
                yield self._progress(f"Epoch {epoch + 1} of {config.epochs}", loss)
            begin = time.perf_counter()
            # In the same order in every process, and one that is both only once.
            for network in dict.fromkeys((self.network, self._averaged())):
                self.processes.average_buffers(network)
            logits = yield from self._predict(self.split.validation, "Validating")
            self.seconds += time.perf_counter() - begin
            self._close_epoch(epoch, float(np.mean(losses)), logits)
            self._keep()
            yield self._progress(f"Epoch {epoch + 1} of {config.epochs}", losses[-1], best=True)
            if self._has_lost_patience():
                self.notes.append(
                    f"stopped after {epoch + 1} epochs, {config.patience} without gain"
                )
                break
        checkpoint = yield from self._assessed()
        if len(self.split.test):
            self._load_best()
            logits = yield from self._predict(self.split.test, "Testing")
            labels = self.samples.labels[self.split.test]
            probabilities = _softmax(logits / checkpoint.manifest.temperature)
            checkpoint.report["test"] = evaluate(probabilities, labels, self.samples.class_names)
            metrics = dict(checkpoint.manifest.metrics)
            metrics["test"] = _headline(checkpoint.report["test"])
            checkpoint = replace(checkpoint, manifest=replace(checkpoint.manifest, metrics=metrics))
        return checkpoint

    def _adapt(self) -> Generator[TrainProgress, None, None]:
        """Measure the statistics of BatchNorm anew, on these samples.

        With those of the start, a network sees images of another kind in evaluation quite
        differently from how it sees them in training.
        """
        norms = [m for m in self.network.modules() if isinstance(m, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean
        self.network.train()
        order = np.random.default_rng([self.config.seed]).permutation(self.split.training)
        for number, first in enumerate(range(0, min(len(order), 2000), 64)):
            yield self._progress("Adapting")
            with torch.no_grad(), _seeded(self.config.seed, 0, number):
                self.network(self._batch(order[first : first + 64])[0])
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self._averaged().load_state_dict(self.network.state_dict())

    def _train_on(self, chosen: NDArray[np.int64]) -> float:
        config = self.config
        self._set_rate()
        self.network.train()
        _freeze_statistics(self.network, self.trained)
        share = self.processes.share(chosen)
        with _seeded(config.seed, self.step + 1, *self.processes.seed):
            patches, labels = self._batch(share)
            targets = functional.one_hot(labels, len(self.samples.class_names)).float()
            if config.mixup:
                patches, targets = _mixed(patches, targets, config.mixup)
            # Shares differ by one sample at most; each sample counts the same.
            weight = len(share) * self.processes.count / len(chosen)
            loss = self.processes.average(self._backward(patches, targets, weight))
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} in step {self.step + 1} (epoch "
                f"{self.step // self.steps_per_epoch + 1}). The best weights before are kept. "
                f"Lower the learning rate, which was {self.rate:g}, and check the images."
            )
        self.processes.average_gradients(self.network)
        if config.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        self.optimiser.step()
        if self.average is not None:
            self._average()
        self.step += 1
        return loss

    def _average(self) -> None:
        """Update the running mean; early on, when it knows little, faster."""
        assert self.average is not None
        decay = min(self.config.averaging, (self.step + 1) / (self.step + 10))
        self.average.multi_avg_fn = get_ema_multi_avg_fn(decay)
        self.average.update_parameters(self.network)

    def _backward(self, patches: Tensor, targets: Tensor, weight: float) -> float:
        """Gradient of `weight` times the mean loss; in smaller pieces where memory is short."""
        while True:
            self.optimiser.zero_grad(set_to_none=True)
            total = 0.0
            try:
                for piece, target in zip(
                    patches.split(self.micro_batch), targets.split(self.micro_batch), strict=True
                ):
                    with torch.autocast(self.device.type, torch.bfloat16, enabled=self.lowered):
                        logits = self.network(piece)
                    loss = functional.cross_entropy(
                        logits.float(),
                        target,
                        weight=self.class_weights.to(self.device),
                        label_smoothing=self.config.label_smoothing,
                    ) * (weight * len(piece) / len(patches))
                    loss.backward()
                    total += float(loss.detach())
                return total
            except torch.OutOfMemoryError as error:
                if self.micro_batch == 1:
                    raise DeviceError(
                        f"The memory of {self.choice.reason} does not suffice to train with one "
                        f"patch of {self.spec.patch_size} px. Choose smaller patches or the CPU."
                    ) from error
                self.micro_batch = (self.micro_batch + 1) // 2
                self.notes.append(f"memory was short: {self.micro_batch} patches at a time")

    def _batch(self, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        spec = self.spec
        # At the samples' own size, so that turning and zooming do not blur what is shrunk after.
        own = replace(
            spec,
            patch_size=self.samples.tile_size,
            mean=(0.0,) * len(spec.mean),
            std=(1.0,) * len(spec.std),
        )
        pixels = torch.from_numpy(prepare_patches(self.samples.pixels[chosen], own))
        patches = self.augment(pixels.to(self.device))
        if patches.shape[-1] != spec.patch_size:
            patches = functional.interpolate(
                patches, spec.patch_size, mode="bilinear", antialias=True
            )
        mean, std = (
            torch.tensor(v, device=self.device).view(1, -1, 1, 1) for v in (spec.mean, spec.std)
        )
        labels = torch.from_numpy(self.samples.labels[chosen]).to(self.device)
        return (patches - mean) / std, labels

    def _set_rate(self) -> None:
        config, done = self.config, self.step / self.total
        if config.schedule == "one-cycle":
            rise = 0.15
            share = done / rise if done < rise else _cosine((done - rise) / (1 - rise))
        else:
            rise = min(10 * self.steps_per_epoch, self.total // 2)
            share = (
                (self.step + 1) / (rise + 1)
                if self.step < rise
                else _cosine((self.step - rise) / max(1, self.total - rise))
            )
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * max(share, 1e-3)

    # ---- prediction -------------------------------------------------------------------------

    def _predict(
        self, members: NDArray[np.int64], message: str, *, embed: bool = False
    ) -> Generator[TrainProgress, None, NDArray[np.float32]]:
        """Logits (n, n_classes), or embeddings (n, d), of samples as the classifier sees them."""
        network = self._averaged()
        network.eval()
        mine = self.processes.share(members)
        width = network.head.in_features if embed else len(self.samples.class_names)
        found = [np.empty((0, width), np.float32)]
        for first in range(0, len(mine), 64):
            yield self._progress(message)
            part = mine[first : first + 64]
            patches = torch.from_numpy(prepare_patches(self.samples.pixels[part], self.spec))
            with torch.inference_mode():
                batch = patches.to(self.device)
                values = network.embed(batch) if embed else network(batch)
                found.append(values.float().cpu().numpy())
        return self.processes.joined(np.concatenate(found))

    def _averaged(self) -> StagedNetwork:
        averaged: Any = self.network if self.average is None else self.average.module
        network: StagedNetwork = averaged
        return network

    def _close_epoch(self, epoch: int, loss: float, logits: NDArray[np.float32]) -> None:
        labels = self.samples.labels[self.split.validation]
        figures = evaluate(_softmax(logits), labels, self.samples.class_names, resamples=0)
        validation_loss = _cross_entropy(logits, labels)
        closed = Epoch(
            epoch + 1,
            loss,
            figures["overall_accuracy"],
            figures["balanced_accuracy"],
            validation_loss,
            self.seconds,
        )
        self.history.append(closed)
        # Of equal accuracies the one with the smaller loss.
        merit = closed.balanced_accuracy - 1e-6 * min(validation_loss, 100.0)
        if self.best is None or merit >= self.best[0] or not self.config.choose_best:
            state = {k: v.detach().cpu().clone() for k, v in self._averaged().state_dict().items()}
            self.best = merit, state, logits

    def _has_lost_patience(self) -> bool:
        patience = self.config.patience
        if patience is None or len(self.history) <= patience:
            return False
        accuracies = [epoch.balanced_accuracy for epoch in self.history]
        return max(accuracies[-patience:]) <= max(accuracies[:-patience])

    # ---- head -------------------------------------------------------------------------------

    def fit_head(self) -> Generator[TrainProgress, None, Checkpoint]:
        self.average = None
        begin = time.perf_counter()
        self.total = 2 + sum(-(-len(m) // 64) for m in (self.split.training, self.split.validation))
        embedded = []
        for members in (self.split.training, self.split.validation):
            embedded.append((yield from self._predict(members, "Embedding", embed=True)))
        yield self._progress("Fitting the head")
        weight, bias = self._set_head(embedded[0])
        fitted, logits = (values @ weight.T + bias for values in embedded)
        loss = _cross_entropy(fitted, self.samples.labels[self.split.training])
        self.seconds = time.perf_counter() - begin
        self.step = self.total = 1
        self._close_epoch(0, loss, logits.astype(np.float32))
        return (yield from self._assessed())

    def _set_head(self, embedded: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
        labels = self.samples.labels[self.split.training]
        weight, bias = fit_linear(embedded, labels, self.class_weights.numpy())
        for network in (self.network, self._averaged()):
            network.head.load_state_dict(
                {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}
            )
        return weight, bias

    # ---- what remains -----------------------------------------------------------------------

    def _progress(
        self, message: str, loss: float | None = None, *, best: bool = False
    ) -> TrainProgress:
        return TrainProgress(
            self.step,
            self.total,
            self.seconds,
            "; ".join([message, *self.notes[-1:]]),
            tuple(self.history),
            loss,
            self._checkpoint() if best else None,
        )

    def _load_best(self) -> None:
        assert self.best is not None
        self._averaged().load_state_dict(self.best[1])

    def _checkpoint(self) -> Checkpoint:
        assert self.best is not None
        _, state, logits = self.best
        network = deepcopy(self._averaged()).cpu()
        network.load_state_dict(state)
        network.eval().requires_grad_(False)
        samples, split = self.samples, self.split
        labels = samples.labels[split.validation]
        temperature = fit_temperature(logits, labels)
        before, after = (_softmax(logits / t) for t in (1.0, temperature))
        figures = evaluate(after, labels, samples.class_names)
        calibration = {
            "temperature": temperature,
            "before": reliability(before, labels),
            "after": reliability(after, labels),
        }
        counts = {
            name: np.bincount(samples.labels[members], minlength=len(samples.class_names)).tolist()
            for name, members in (
                ("training", split.training),
                ("validation", split.validation),
                ("test", split.test),
            )
        }
        described = {"method": split.method, "counts": counts}
        report = {
            "class_names": list(samples.class_names),
            "config": asdict(self.config) | {"augmentation": self.augmentation},
            "start": None if self.start is None else str(self.start),
            "device": self.choice.reason,
            "seconds": self.seconds,
            "notes": self.notes,
            "split": described,
            "history": [asdict(epoch) for epoch in self.history],
            "validation": figures,
            "calibration": calibration,
            "validation_indices": split.validation.tolist(),
            "validation_labels": labels.tolist(),
            "validation_predictions": after.argmax(axis=1).tolist(),
            "validation_confidences": [round(float(v), 4) for v in after.max(axis=1)],
        }
        manifest = Manifest(
            name="trained-here",
            title=f"trained on {len(samples)} samples of {len(samples.class_names)} classes",
            network=self.origin.network,
            class_names=samples.class_names,
            patch=self.spec,
            sha256="",
            licence="not stated",
            training_data=f"{len(samples)} samples, {date.today().isoformat()}",
            split=described,
            metrics={"validation": _headline(figures)},
            published_filter=self.origin.published_filter,
            temperature=temperature,
        )
        example = samples.pixels[split.validation[0]]
        stored = deepcopy(network).half().float()  # what will be read back
        example_logits = logits_of(stored, prepare_patches(example[np.newaxis], self.spec))[0]
        return Checkpoint(network, manifest, report, example, example_logits)

    def _assessed(self) -> Generator[TrainProgress, None, Checkpoint]:
        """The best checkpoint, with what its predictions can be doubted by."""
        assert self.best is not None
        checkpoint = self._checkpoint()
        self._load_best()
        training, validation = self.split.training, self.split.validation
        if len(training) > MOST_TRAINING:
            order = np.random.default_rng(self.config.seed).permutation(training)
            training = np.sort(order[:MOST_TRAINING])
        labels, groups = self.samples.labels, self.samples.groups
        seen = []
        for members in (training, validation):
            embedded = yield from self._predict(members, "Assessing", embed=True)
            look = appearance_of_samples(self.samples.pixels[members], self.spec)
            seen.append(Seen(embedded, look, labels[members]))
        reference, trust = assess(
            seen[0],
            seen[1],
            _softmax(self.best[2] / checkpoint.manifest.temperature),
            groups=None if groups is None else groups[validation],
            seed=self.config.seed,
        )
        trust["pixels"] = pixel_ranges(self.samples.pixels[training], self.spec)
        manifest = replace(checkpoint.manifest, trust=trust)
        return replace(checkpoint, manifest=manifest, reference=reference)

    # ---- resuming ---------------------------------------------------------------------------

    def keep_in(self, folder: Path) -> None:
        """Keep the state in a folder, and go on from what is there."""
        if self.config.mode == "head":
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        path = folder / _CHECKPOINT
        if not path.exists():
            return
        try:
            if not zipfile.is_zipfile(path):  # what torch writes; of anything else it makes guesses
                raise EOFError("it is damaged")
            state = torch.load(path, map_location=self.device, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise TrainingError(
                f"{path} cannot be read ({error}). Remove it to train from the start."
            ) from error
        if state["fingerprint"] != self._fingerprint():
            raise TrainingError(
                f"{folder} holds a run with other samples or settings. Choose another folder, or "
                f"remove {path.name} there."
            )
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        merit, weights, logits = state["best"]
        self.best = merit, weights, logits.cpu().numpy()
        self.notes = list(state["notes"])

    def _keep(self) -> None:
        if self.folder is None or self.best is None or not is_first_process():
            return
        merit, weights, logits = self.best
        state = {
            "fingerprint": self._fingerprint(),
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "history": [asdict(epoch) for epoch in self.history],
            "best": (merit, weights, torch.from_numpy(logits)),
            "notes": self.notes,
        }
        try:
            with written_atomically(self.folder / _CHECKPOINT) as temporary:
                torch.save(state, temporary)
        except (ExportError, RuntimeError) as error:  # torch tells of a full disk as the latter
            self.notes.append(f"the state could not be kept in {self.folder}: {error}")

    def _fingerprint(self) -> str:
        """Digest of what decides the outcome."""
        digest = hashlib.sha256()
        settings = asdict(self.config) | {"device": self.device.type}
        digest.update(json.dumps([settings, str(self.start)], sort_keys=True).encode())
        digest.update(self.samples.labels.tobytes())
        some = self.samples.pixels[:: max(1, len(self.samples) // 64)]
        digest.update(some.tobytes())
        return digest.hexdigest()


def fit_linear(
    embeddings: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    class_weights: NDArray[np.floating[Any]] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Head (n_classes, d) and its bias (n_classes,) by logistic regression on embeddings (n, d).

    Of two classes, each gets a row as well.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # One scale for all dimensions: divided by its own deviation, a dimension that hardly varies
    # here would decide about patches that are a little different.
    mean, std = embeddings.mean(axis=0), float(embeddings.std(axis=0).mean()) + 1e-12
    weights = None if class_weights is None else dict(enumerate(class_weights.tolist()))
    model = LogisticRegression(C=0.1, max_iter=200, class_weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 steps are near enough
        model.fit((embeddings - mean) / std, labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / std
    bias = bias - weight @ mean
    return weight.astype(np.float32), bias.astype(np.float32)


def _begin(
    samples: Samples, split: Split, start: str | Path | None, config: TrainConfig
) -> tuple[StagedNetwork, PatchSpec, Manifest]:
    """Network with a new head, what it is fed, and the manifest that it comes from."""
    n_classes = len(samples.class_names)
    if start is None:
        if config.mode != "all":
            raise TrainingError("From scratch, everything is trained: choose the mode 'all'.")
        network = build_network(
            config.network, n_classes=n_classes, in_channels=len(samples.channels)
        )
        mean, std = _statistics(samples, split)
        spec = PatchSpec(
            tile_size=samples.tile_size,
            patch_size=config.patch_size or 64,
            channels=samples.channels,
            mean=mean,
            std=std,
            pixel_size_um=samples.pixel_size_um,
        )
        origin = Manifest("", "", config.network, samples.class_names, spec, "")
        return network, spec, origin
    loaded, origin, _ = load_network(locate_weights(start))
    # Grey samples can stand in for RGB; other channels have statistics of their own.
    same = origin.patch.channels == samples.channels or (
        origin.patch.is_rgb and samples.channels == ("grey",)
    )
    spec = replace(
        origin.patch,
        tile_size=samples.tile_size,
        patch_size=config.patch_size or origin.patch.patch_size,
        pixel_size_um=samples.pixel_size_um,
    )
    if not same:
        mean, std = _statistics(samples, split)
        spec = replace(spec, channels=samples.channels, mean=mean, std=std)
    network = build_network(origin.network, n_classes=n_classes, in_channels=len(spec.channels))
    state = {k: v for k, v in loaded.state_dict().items() if not k.startswith("head.")}
    if not same:
        first = next(k for k in ("stem.0.weight", "stem.weight") if k in state)
        mean = state[first].mean(dim=1, keepdim=True)
        count = len(spec.channels)
        state[first] = mean.repeat(1, count, 1, 1) * state[first].shape[1] / count
    network.load_state_dict(state, strict=False)
    if origin.published_filter:
        network.published_filter = True  # type: ignore[assignment]
    return network, spec, origin


def _statistics(samples: Samples, split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of (up to 2000) training samples, at 0 to 1."""
    count = len(samples.channels)
    some = split.training[:: max(1, len(split.training) // 2000)]
    spec = PatchSpec(
        samples.tile_size, samples.tile_size, samples.channels, (0.0,) * count, (1.0,) * count
    )
    values = prepare_patches(samples.pixels[some], spec)
    mean, std = (getattr(values, name)(axis=(0, 2, 3)) for name in ("mean", "std"))
    return (
        tuple(round(float(v), 5) for v in mean),
        tuple(max(round(float(v), 5), 1e-4) for v in std),
    )


def _unfreeze(network: StagedNetwork, mode: str) -> tuple[nn.Module, ...]:
    """Let the modules of a mode learn, and no others; returns them."""
    if mode == "all":
        trained: tuple[nn.Module, ...] = (network,)
    elif mode == "last stage":
        trained = (network.merges[-1], network.stages[-1], network.head)
    elif mode == "head":
        trained = (network.head,)
    else:
        raise TrainingError(f"There is no mode {mode!r}. Choose head, last stage or all.")
    network.requires_grad_(False)
    for module in trained:
        module.requires_grad_(True)
    return trained


def _freeze_statistics(network: nn.Module, trained: tuple[nn.Module, ...]) -> None:
    """Leave what does not learn in evaluation mode, so that its BatchNorm keeps its statistics."""
    learning = {id(module) for root in trained for module in root.modules()}
    for module in network.modules():
        if id(module) not in learning:
            module.training = False


def _decayed(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    free: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            small = parameter.ndim < 2 or name.split(".")[-1] in ("a_log", "skip", "dt_bias")
            (free if small else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def _class_weights(labels: NDArray[np.int64], samples: Samples, balance: str) -> Tensor:
    counts = np.bincount(labels, minlength=len(samples.class_names)).clip(1)
    power = {"none": 0.0, "root": 0.5, "full": 1.0}.get(balance)
    if power is None:
        raise TrainingError(f"There is no balance {balance!r}. Choose none, root or full.")
    weights = (counts.mean() / counts) ** power
    # The mean over samples is 1, so that the learning rate means the same.
    return torch.tensor(weights * counts.sum() / (weights * counts).sum(), dtype=torch.float32)


def _mixed(patches: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(patches), device=patches.device)
    return (
        torch.lerp(patches[order], patches, share),
        torch.lerp(targets[order], targets, share),
    )


@contextmanager
def _seeded(*numbers: int) -> Iterator[None]:
    """Seed torch for a while, and leave its random state as it was."""
    seed = int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "big")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    probabilities: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def _cross_entropy(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> float:
    return functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()


def _headline(figures: dict[str, Any]) -> dict[str, Any]:
    names = ("n", "overall_accuracy", "balanced_accuracy", "f1", "auc")
    return {name: figures[name] for name in names if name in figures}
