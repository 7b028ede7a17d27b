"""What a long computation says about itself while it runs."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_mambamic.results import TileResults

Step = TypeVar("Step")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a run.

    Parameters
    ----------
    done, total : int
        Tiles classified so far, and in all.
    seconds : float
        Time since the first batch was started.
    message : str
        What is going on, in words.
    tiles : ndarray or None
        Numbers (k,) of the tiles of the batch that was just classified; in the first step of a run
        that goes on, of those that were classified before.
    results : TileResults or None
        The results so far: one object that fills while the run goes on.
    before : int
        How many of those that are done were there when the run went on.
    """

    done: int
    total: int
    seconds: float = 0.0
    message: str = ""
    tiles: NDArray[np.intp] | None = field(default=None, repr=False)
    results: TileResults | None = field(default=None, repr=False)
    before: int = 0

    @property
    def fraction(self) -> float:
        """Share that is done, 0 to 1."""
        return self.done / self.total if self.total else 1.0

    @property
    def tiles_per_second(self) -> float:
        """Mean speed so far, or 0 before the first batch."""
        return (self.done - self.before) / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time left at the mean speed so far, or None while it is unknown."""
        speed = self.tiles_per_second
        return (self.total - self.done) / speed if speed > 0 else None


def drained(
    steps: Generator[Step, None, Result], on_progress: Callable[[Step], object] | None = None
) -> Result:
    """Run a generator to its end and give what it returns; `on_progress` is told each step."""
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            result: Result = stop.value
            return result
        if on_progress is not None:
            on_progress(step)
