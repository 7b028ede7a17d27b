"""What the epochs of a run came to, and which of them was the best."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_mambamic.errors import TrainingError

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to; accuracies on the validation samples."""

    number: int
    loss: float
    accuracy: float
    balanced_accuracy: float
    validation_loss: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Best:
    """The best epoch so far.

    Parameters
    ----------
    merit : float
        Balanced accuracy on the validation samples; of equal ones the smaller loss is better.
    weights : dict of Tensor
        State of the network.
    logits : ndarray
        (n, n_classes) of the validation samples.
    """

    merit: float
    weights: dict[str, Tensor]
    logits: NDArray[np.float32]


class Epochs:
    """The epochs that are done.

    Parameters
    ----------
    choose_best : bool
        Keep the weights of the best; else of the last.
    """

    def __init__(self, *, choose_best: bool = True) -> None:
        self.choose_best = choose_best
        self.history: list[Epoch] = []
        self._best: Best | None = None

    @property
    def best(self) -> Best:
        """The best epoch.

        Raises
        ------
        TrainingError
            None is done yet.
        """
        if self._best is None:
            raise TrainingError("No epoch is done yet, so there are no trained weights.")
        return self._best

    def close(self, epoch: Epoch, network: StagedNetwork, logits: NDArray[np.float32]) -> None:
        """Enter an epoch, and keep its weights where it is the best so far."""
        self.history.append(epoch)
        merit = epoch.balanced_accuracy - 1e-6 * min(epoch.validation_loss, 100.0)
        if self._best is None or merit >= self._best.merit or not self.choose_best:
            state = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}
            self._best = Best(merit, state, logits)

    def have_gained_nothing_in(self, patience: int | None) -> bool:
        """Whether the last `patience` epochs were no better than those before."""
        if patience is None or len(self.history) <= patience:
            return False
        accuracies = [epoch.balanced_accuracy for epoch in self.history]
        return max(accuracies[-patience:]) <= max(accuracies[:-patience])

    def state(self) -> dict[str, Any]:
        """What `load_state` goes on from."""
        best = self.best
        return {
            "history": [asdict(epoch) for epoch in self.history],
            "best": (best.merit, best.weights, torch.from_numpy(best.logits)),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what another run came to."""
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        merit, weights, logits = state["best"]
        self._best = Best(merit, weights, logits.cpu().numpy())
