"""What a training run says about itself while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_mambamic.training.checkpoint import Checkpoint
    from napari_mambamic.training.epochs import Epoch


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
