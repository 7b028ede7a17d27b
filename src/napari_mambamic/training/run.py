"""A training run: what is done in which order."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from napari_mambamic.devices import DeviceChoice
from napari_mambamic.errors import ExportError
from napari_mambamic.patches import prepare_patches
from napari_mambamic.training.batches import Batches
from napari_mambamic.training.calibration import probabilities_of
from napari_mambamic.training.checkpoint import Checkpoint
from napari_mambamic.training.config import TrainConfig
from napari_mambamic.training.epochs import Best, Epoch, Epochs
from napari_mambamic.training.head import fit_linear
from napari_mambamic.training.learner import Learner
from napari_mambamic.training.metrics import evaluate
from napari_mambamic.training.outcome import checkpoint_of, with_test
from napari_mambamic.training.processes import Processes, is_first_process
from napari_mambamic.training.progress import TrainProgress
from napari_mambamic.training.resume import RunFolder, fingerprint
from napari_mambamic.training.samples import Samples
from napari_mambamic.training.seeding import seeded
from napari_mambamic.training.splits import Split
from napari_mambamic.training.start import begin
from napari_mambamic.trust.appearance import appearance_of
from napari_mambamic.trust.assessment import (
    MOST_TRAINING,
    Seen,
    appearance_of_samples,
    assess,
)
from napari_mambamic.trust.pixels import pixel_ranges


class Run:
    """A run, from its beginning or from where it was interrupted.

    Parameters
    ----------
    samples : Samples
    split : Split
    start : str, path or None
        Weights to start from; None trains from scratch.
    config : TrainConfig
    choice : DeviceChoice
    processes : Processes
        Those that share the work.
    """

    def __init__(
        self,
        samples: Samples,
        split: Split,
        start: str | Path | None,
        config: TrainConfig,
        choice: DeviceChoice,
        processes: Processes,
    ) -> None:
        self.samples, self.split, self.start, self.config = samples, split, start, config
        self.choice, self.processes = choice, processes
        with seeded(config.seed, 0):
            network, self.spec, self.origin = begin(samples, split, start, config)
        network.to(choice.device)
        processes.begin_alike(network)
        self.seconds = 0.0
        self.notes: list[str] = []
        self.epochs = Epochs(choose_best=config.choose_best)
        self.folder: RunFolder | None = None
        self.learner = Learner(
            network,
            Batches(samples, self.spec, config, choice.device),
            config,
            members=split.training,
            rate=config.learning_rate or (2e-3 if start is None else 5e-4),
            choice=choice,
            processes=processes,
            on_note=lambda note: self.notes.append(note),
        )

    @property
    def best(self) -> Best:
        """The best epoch so far, with the `TrainConfig.prior`.

        Raises
        ------
        TrainingError
            None is done yet.
        """
        best = self.epochs.best
        shift = self.learner.shift
        weights = best.weights | {"head.bias": best.weights["head.bias"] + shift}
        return replace(best, weights=weights, logits=best.logits + shift.numpy())

    # ---- in steps ---------------------------------------------------------------------------

    def fit(self) -> Generator[TrainProgress, None, Checkpoint]:
        """Train step by step and give the best weights."""
        learner, config = self.learner, self.config
        if self.start is not None and not learner.step:
            yield from self._fit_to_samples()
        while learner.step < learner.total:
            yield from self._train_for_an_epoch()
            if self.epochs.have_gained_nothing_in(config.patience):
                done = len(self.epochs.history)
                self.notes.append(f"stopped after {done} epochs, {config.patience} without gain")
                break
        checkpoint = yield from self._assessed()
        if not len(self.split.test):
            return checkpoint
        logits = yield from self._predict(self.split.test, "Testing")
        return with_test(checkpoint, logits, self.samples.labels[self.split.test])

    def _fit_to_samples(self) -> Generator[TrainProgress, None, None]:
        # A head that fits first, or its random gradients would spoil what the start knows.
        if self.config.mode == "all":
            for _ in self.learner.adapt(self.split.training):
                yield self._progress("Adapting")
        embedded = yield from self._predict(self.split.training, "Embedding", embed=True)
        self._set_head(embedded)

    def _train_for_an_epoch(self) -> Generator[TrainProgress, None, None]:
        learner, config = self.learner, self.config
        epoch = learner.step // learner.steps_per_epoch
        message = f"Epoch {epoch + 1} of {config.epochs}"
        losses = []
        order = np.random.default_rng([config.seed, epoch]).permutation(self.split.training)
        for chosen in order[: learner.steps_per_epoch * config.batch_size].reshape(
            learner.steps_per_epoch, -1
        ):
            begin = time.perf_counter()
            loss = learner.learn(chosen)
            self.seconds += time.perf_counter() - begin
            losses.append(loss)
            yield self._progress(message, loss)
        begin = time.perf_counter()
        # In the same order in every process, and one that is both only once.
        for network in dict.fromkeys((learner.network, learner.averaged)):
            self.processes.average_buffers(network)
        logits = yield from self._predict(self.split.validation, "Validating")
        self.seconds += time.perf_counter() - begin
        self._close_epoch(epoch, float(np.mean(losses)), logits)
        self._keep()
        yield replace(self._progress(message, losses[-1]), best=checkpoint_of(self))

    # ---- the head alone ---------------------------------------------------------------------

    def fit_head(self) -> Generator[TrainProgress, None, Checkpoint]:
        """Fit the head to embeddings that are computed once, and give the weights."""
        learner, sides = self.learner, (self.split.training, self.split.validation)
        begin = time.perf_counter()
        learner.total = 2 + sum(-(-len(members) // 64) for members in sides)
        embedded = []
        for members in sides:
            embedded.append((yield from self._predict(members, "Embedding", embed=True)))
        yield self._progress("Fitting the head")
        weight, bias = self._set_head(embedded[0])
        fitted, logits = (values @ weight.T + bias for values in embedded)
        loss = _cross_entropy(fitted, self.samples.labels[self.split.training])
        self.seconds = time.perf_counter() - begin
        learner.step = learner.total = 1
        self._close_epoch(0, loss, logits.astype(np.float32))
        return (yield from self._assessed())

    def _set_head(self, embedded: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
        labels = self.samples.labels[self.split.training]
        weight, bias = fit_linear(embedded, labels, self.learner.class_weights.numpy())
        self.learner.set_head(weight, bias)
        return weight, bias

    # ---- what both do -----------------------------------------------------------------------

    def _progress(self, message: str, loss: float | None = None) -> TrainProgress:
        return TrainProgress(
            self.learner.step,
            self.learner.total,
            self.seconds,
            "; ".join([message, *self.notes[-1:]]),
            tuple(self.epochs.history),
            loss,
        )

    def _predict(
        self, members: NDArray[np.int64], message: str, *, embed: bool = False
    ) -> Generator[TrainProgress, None, NDArray[np.float32]]:
        """Logits (n, n_classes), or embeddings (n, d), of samples as the classifier sees them."""
        network = self.learner.averaged
        network.eval()
        mine = self.processes.share(members)
        width = network.head.in_features if embed else len(self.samples.class_names)
        found = [np.empty((0, width), np.float32)]
        for first in range(0, len(mine), 64):
            yield self._progress(message)
            part = mine[first : first + 64]
            patches = torch.from_numpy(prepare_patches(self.samples.pixels[part], self.spec))
            with torch.inference_mode():
                batch = patches.to(self.choice.device)
                values = network.embed(batch) if embed else network(batch)
                found.append(values.float().cpu().numpy())
        return self.processes.joined(np.concatenate(found))

    def _close_epoch(self, epoch: int, loss: float, logits: NDArray[np.float32]) -> None:
        labels = self.samples.labels[self.split.validation]
        figures = evaluate(probabilities_of(logits), labels, self.samples.class_names, resamples=0)
        closed = Epoch(
            epoch + 1,
            loss,
            figures["overall_accuracy"],
            figures["balanced_accuracy"],
            _cross_entropy(logits, labels),
            self.seconds,
        )
        self.epochs.close(closed, self.learner.averaged, logits)

    def _assessed(self) -> Generator[TrainProgress, None, Checkpoint]:
        """The best weights, with what their predictions can be doubted by."""
        checkpoint, best = checkpoint_of(self), self.best
        self.learner.averaged.load_state_dict(best.weights)
        training, validation = self.split.training, self.split.validation
        if len(training) > MOST_TRAINING:
            order = np.random.default_rng(self.config.seed).permutation(training)
            training = np.sort(order[:MOST_TRAINING])
        labels, groups = self.samples.labels, self.samples.groups
        seen: list[Seen] = []
        for members in (training, validation):
            embedded = yield from self._predict(members, "Assessing", embed=True)
            look = [appearance_of_samples(self.samples.pixels[members], self.spec)]
            if not seen:
                look.append((yield from self._changed_appearance(members)))
            seen.append(Seen(embedded, np.concatenate(look), labels[members]))
        reference, trust = assess(
            seen[0],
            seen[1],
            probabilities_of(best.logits, checkpoint.manifest.temperature),
            groups=None if groups is None else groups[validation],
            seed=self.config.seed,
        )
        trust["pixels"] = pixel_ranges(self.samples.pixels[training], self.spec)
        manifest = replace(checkpoint.manifest, trust=trust)
        return replace(checkpoint, manifest=manifest, reference=reference)

    def _changed_appearance(
        self, members: NDArray[np.int64]
    ) -> Generator[TrainProgress, None, NDArray[np.float32]]:
        """Appearance (n, k) of samples as the training changes them."""
        found = []
        for first in range(0, len(members), 64):
            yield self._progress("Assessing")
            with seeded(self.config.seed, 0, first):
                pixels = self.learner.batches.changed_pixels(members[first : first + 64])
            found.append(appearance_of(pixels).cpu().numpy())
        return np.concatenate(found)

    # ---- resuming ---------------------------------------------------------------------------

    def keep_in(self, folder: Path) -> None:
        """Keep the state in a folder after each epoch, and go on from what is there."""
        device = self.choice.device
        run = fingerprint(self.samples, self.start, self.config, device)
        self.folder = RunFolder(folder, run)
        state = self.folder.read(device)
        if state is not None:
            self.learner.load_state(state)
            self.epochs.load_state(state)
            self.seconds, self.notes = state["seconds"], list(state["notes"])

    def _keep(self) -> None:
        if self.folder is None or not is_first_process():
            return
        state = self.learner.state() | {"seconds": self.seconds} | self.epochs.state()
        try:
            self.folder.write(state | {"notes": self.notes})
        except ExportError as error:
            self.notes.append(str(error))


def _cross_entropy(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> float:
    return functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()
