"""A network that learns, one step at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_mambamic.devices import DeviceChoice, choose_precision
from napari_mambamic.errors import DeviceError, TrainingError
from napari_mambamic.training.batches import Batches, mixed
from napari_mambamic.training.class_weights import shift_of_prior, weights_of_classes
from napari_mambamic.training.config import TrainConfig
from napari_mambamic.training.optimiser import (
    freeze_statistics,
    make_optimiser,
    share_of_rate,
    unfreeze,
)
from napari_mambamic.training.processes import Processes
from napari_mambamic.training.seeding import seeded

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork


class Learner:
    """A network with its optimiser and the running mean of its weights.

    Parameters
    ----------
    network : StagedNetwork
        On the device that trains.
    batches : Batches
    config : TrainConfig
    members : ndarray
        Numbers (n,) of the samples to learn from.
    rate : float
        The highest learning rate.
    choice : DeviceChoice
    processes : Processes
    on_note : callable
        Told what the person who trains should know, in words.
    """

    def __init__(
        self,
        network: StagedNetwork,
        batches: Batches,
        config: TrainConfig,
        *,
        members: NDArray[np.int64],
        rate: float,
        choice: DeviceChoice,
        processes: Processes,
        on_note: Callable[[str], object],
    ) -> None:
        self.network, self.batches, self.config = network, batches, config
        self.rate, self.choice, self.processes, self.on_note = rate, choice, processes, on_note
        self.trained = unfreeze(network, config.mode)
        self.average: AveragedModel | None = None
        if config.averaging and config.mode != "head":
            mean = get_ema_multi_avg_fn(config.averaging)
            self.average = AveragedModel(network, multi_avg_fn=mean, use_buffers=True)
        self.optimiser = make_optimiser(network, config, rate)
        samples = batches.samples
        self.class_weights = weights_of_classes(
            samples.labels[members], len(samples.class_names), config.balance
        )
        self.shift = shift_of_prior(self.class_weights, config.prior)
        self.lowered = choose_precision(config.precision, choice.device) == "bfloat16"
        self.micro_batch = config.batch_size
        self.steps_per_epoch = max(1, len(members) // config.batch_size)
        self.step, self.total = 0, self.steps_per_epoch * config.epochs

    @property
    def averaged(self) -> StagedNetwork:
        """The network with the running mean of the weights; it is what is judged and kept."""
        averaged: Any = self.network if self.average is None else self.average.module
        network: StagedNetwork = averaged
        return network

    def adapt(self, members: NDArray[np.int64]) -> Iterator[None]:
        """Measure the statistics of BatchNorm anew, on these samples, batch by batch.

        With those of the start, a network sees images of another kind in evaluation quite
        differently from how it sees them in training.
        """
        norms = [m for m in self.network.modules() if isinstance(m, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean
        self.network.train()
        order = np.random.default_rng([self.config.seed]).permutation(members)
        for number, first in enumerate(range(0, min(len(order), 2000), 64)):
            yield
            with torch.no_grad(), seeded(self.config.seed, 0, number):
                self.network(self.batches.of(order[first : first + 64])[0])
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.averaged.load_state_dict(self.network.state_dict())

    def set_head(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        """Give the network a head (n_classes, d) and its bias (n_classes,)."""
        for network in (self.network, self.averaged):
            network.head.load_state_dict(
                {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}
            )

    def learn(self, chosen: NDArray[np.int64]) -> float:
        """Take one step on a batch of samples, by their numbers (n,), and give its loss.

        Raises
        ------
        TrainingError
            The loss is infinite or not a number.
        DeviceError
            The memory does not suffice for a single patch.
        """
        config = self.config
        self._set_rate()
        self.network.train()
        freeze_statistics(self.network, self.trained)
        share = self.processes.share(chosen)
        with seeded(config.seed, self.step + 1, *self.processes.seed):
            patches, labels = self.batches.of(share)
            targets = functional.one_hot(labels, len(self.class_weights)).float()
            if config.mixup:
                patches, targets = mixed(patches, targets, config.mixup)
            # Shares differ by one sample at most; each sample counts the same.
            weight = len(share) * self.processes.count / len(chosen)
            loss = self.processes.average(self.backward(patches, targets, weight))
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
            self._update(self.average)
        self.step += 1
        return loss

    def backward(self, patches: Tensor, targets: Tensor, weight: float) -> float:
        """Gradient of `weight` times the mean loss; in smaller pieces where memory is short."""
        while True:
            self.optimiser.zero_grad(set_to_none=True)
            total = 0.0
            try:
                for piece, target in zip(
                    patches.split(self.micro_batch), targets.split(self.micro_batch), strict=True
                ):
                    with torch.autocast(
                        self.choice.device.type, torch.bfloat16, enabled=self.lowered
                    ):
                        logits = self.network(piece)
                    loss = functional.cross_entropy(
                        logits.float(),
                        target,
                        weight=self.class_weights.to(self.choice.device),
                        label_smoothing=self.config.label_smoothing,
                    ) * (weight * len(piece) / len(patches))
                    loss.backward()
                    total += float(loss.detach())
                return total
            except torch.OutOfMemoryError as error:
                if self.micro_batch == 1:
                    raise DeviceError(
                        f"The memory of {self.choice.reason} does not suffice to train with one "
                        f"patch of {self.batches.spec.patch_size} px. Choose smaller patches or "
                        f"the CPU."
                    ) from error
                self.micro_batch = (self.micro_batch + 1) // 2
                self.on_note(f"memory was short: {self.micro_batch} patches at a time")

    def state(self) -> dict[str, Any]:
        """What `load_state` goes on from."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from where another run was."""
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]

    def _set_rate(self) -> None:
        share = share_of_rate(
            self.config.schedule,
            self.step,
            steps_per_epoch=self.steps_per_epoch,
            total=self.total,
        )
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * share

    def _update(self, average: AveragedModel) -> None:
        """Update the running mean; early on, when it knows little, faster."""
        decay = min(self.config.averaging, (self.step + 1) / (self.step + 10))
        average.multi_avg_fn = get_ema_multi_avg_fn(decay)
        average.update_parameters(self.network)
