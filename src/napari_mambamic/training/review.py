"""Going through the tiles of a result, the most useful first, and what the labels say about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from napari_mambamic.results import TileResults
from napari_mambamic.training.corrections import Corrections
from napari_mambamic.training.queue import review_order

SPOT_CHECK = 5  # each so-manieth tile is drawn at random
FEWEST_CHECKS = 5  # before an error rate is told


@dataclass(frozen=True)
class ErrorRate:
    """Share of tiles whose class is wrong, from tiles that were drawn at random.

    Parameters
    ----------
    n_checked, n_wrong : int
    low, high : float
        95 % interval (Clopper-Pearson).
    """

    n_checked: int
    n_wrong: int
    low: float
    high: float


class Review:
    """The queue of tiles to look at, and a place in it.

    Tiles that the order brings are the uncertain ones: of them more are wrong than of all.  So each
    fifth tile is taken from a random permutation of all tiles, and from those alone the error rate
    is estimated.

    Parameters
    ----------
    results : TileResults
        Of one plane.
    corrections : Corrections
        What is known of the plane's tiles already.
    """

    def __init__(self, results: TileResults, corrections: Corrections) -> None:
        self.results, self.corrections = results, corrections
        self._numbers = {tile: i for i, tile in enumerate(results.tiles)}
        self._told = results.labels
        done = np.flatnonzero(results.is_done)
        self._checks = np.random.default_rng(0).permutation(done)
        self.order: NDArray[np.intp] = review_order(
            results.probabilities, labelled=self.labelled[0], how="margin"
        )
        self._skipped: set[int] = set()
        self._path: list[int] = []
        self._at = -1

    @property
    def current(self) -> int | None:
        """Number of the tile that is looked at; None when all are labelled or skipped."""
        return self._path[self._at] if self._path else None

    @property
    def labelled(self) -> tuple[NDArray[np.intp], list[str]]:
        """Numbers of the tiles with a label, and their classes; not those of other cuts."""
        pairs = [
            (self._numbers[tile], name)
            for tile, name in zip(self.corrections.tiles, self.corrections.classes, strict=True)
            if tile in self._numbers
        ]
        return np.array([i for i, _ in pairs], np.intp), [name for _, name in pairs]

    @property
    def n_corrected(self) -> int:
        """How many labels differ from what the weights said."""
        numbers, names = self.labelled
        return sum(self.told(i) != name for i, name in zip(numbers.tolist(), names, strict=True))

    def told(self, number: int) -> str:
        """What the weights said of a tile."""
        return str(self.results.class_names[self._told[number]])

    def class_of(self, number: int) -> str | None:
        """What the person said of a tile."""
        return self.corrections.class_of(self.results.tiles[number])

    def label(self, number: int, name: str | None) -> None:
        """Give a tile a class, or take it away with None."""
        self._skipped.discard(number)
        self.corrections.correct(self.results.tiles[number], name, old=self.told(number))

    def skip(self, number: int) -> None:
        """Leave a tile without a class; it comes again when nothing else is left."""
        self._skipped.add(number)

    def undo(self) -> int | None:
        """Take the last label back and go to its tile; returns its number."""
        tile = self.corrections.undo()
        number = None if tile is None else self._numbers.get(tile)
        if number is not None:
            self._go(number)
        return number

    def forward(self) -> int | None:
        """Go to the next tile: one that was looked at later, else the next of the queue.

        A tile that is left without a class is skipped.
        """
        if self._at + 1 < len(self._path):
            self._at += 1
            return self.current
        if self.current is not None and self.class_of(self.current) is None:
            self.skip(self.current)
        number = self._next()
        if number is not None:
            self._go(number)
        elif self.current is not None and self.class_of(self.current) is not None:
            self._path, self._at = [], -1
        return self.current

    def back(self) -> int | None:
        """Go to the tile that was looked at before."""
        self._at = max(self._at - 1, min(len(self._path), 1) - 1)
        return self.current

    def error_rate(self) -> ErrorRate | None:
        """Estimate from the spot checks; None before there are some.

        They are the first tiles of the permutation, up to the first one without a label; those that
        were skipped do not count.
        """
        checked, wrong = 0, 0
        for number in self._checks.tolist():
            name = self.class_of(number)
            if name is None:
                if number in self._skipped:
                    continue
                break
            checked += 1
            wrong += name != self.told(number)
        if checked < FEWEST_CHECKS:
            return None
        found = binomtest(wrong, checked).proportion_ci(method="exact")
        return ErrorRate(checked, wrong, float(found.low), float(found.high))

    def _next(self) -> int | None:
        is_check = len(self._path) % SPOT_CHECK == SPOT_CHECK - 1
        for source in (self._checks if is_check else self.order, self._checks):
            number = next(self._waiting(source), None)
            if number is not None:
                return number
        again = [i for i in self._skipped if i != self.current]
        self._skipped.clear()
        return next(self._waiting(np.array(again, np.intp)), None)

    def _waiting(self, source: NDArray[np.intp]) -> Iterator[int]:
        """Tiles without a label that were not skipped; not the one that is looked at."""
        current = self.current
        for number in source:
            i = int(number)
            if i != current and i not in self._skipped and self.class_of(i) is None:
                yield i

    def _go(self, number: int) -> None:
        del self._path[self._at + 1 :]
        self._path.append(number)
        self._at = len(self._path) - 1
