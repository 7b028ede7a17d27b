"""Which tiles come next: those in view first, from its centre; the others block by block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.tiling import Tile, places_of

View = tuple[float, float, float, float]  # (y, x, height, width) in px of the image


class Schedule:
    """The tiles that are still to be done.

    Parameters
    ----------
    tiles : sequence of Tile
    wanted : ndarray
        (k,) numbers of the tiles that are to be done.
    block : (int, int) or None
        Height and width of the blocks that the image is stored in: tiles of one block come one
        after the other, so that each block is read once.  None: in the order of the tiles.
    """

    def __init__(
        self, tiles: Sequence[Tile], wanted: NDArray[np.intp], *, block: tuple[int, int] | None
    ) -> None:
        places = places_of(tiles)
        self._centres = places[:, :2] + places[:, 2:] / 2
        self._rank = np.arange(len(tiles))
        if block is not None:
            rows, columns = (np.maximum(places[:, i], 0) // block[i] for i in range(2))
            self._rank[np.lexsort((self._rank.copy(), columns, rows))] = np.arange(len(tiles))
        self._queue = wanted[np.argsort(self._rank[wanted])]
        self._view: View | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def look_at(self, view: View | None) -> None:
        """Put the tiles whose centre is in view first, the one nearest to its centre foremost."""
        if view == self._view:
            return
        self._view = view
        rest = self._queue[np.argsort(self._rank[self._queue])]
        if view is not None:
            corner, size = np.array(view[:2]), np.array(view[2:])
            offsets = self._centres[rest] - corner
            inside = ((offsets >= 0) & (offsets <= size)).all(axis=1)
            distance = np.square(offsets[inside] - size / 2).sum(axis=1)
            rest = np.concatenate(
                [rest[inside][np.argsort(distance, kind="stable")], rest[~inside]]
            )
        self._queue = rest

    def take(self, count: int) -> NDArray[np.intp]:
        """Numbers of the next tiles, `count` at most; they are done for the schedule."""
        taken, self._queue = self._queue[:count], self._queue[count:]
        return taken
