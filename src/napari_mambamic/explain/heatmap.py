"""Maps of tiles, each at its place, as one array over the part of the plane that they cover.

    plane      0 1 2 3 4 5 6 7 8 9 ...          px of the image
    heatmap          [--0--][--1--]             px of `step` px; here the part starts at 3

A pixel gets the mean of the maps that cover its centre.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.tiling import Tile, places_of

MOST_PIXELS = 2**23  # of a heatmap: 32 MB, and 16 MB to count what overlaps


@dataclass
class Heatmap:
    """Where in tiles something speaks for their classes.

    Parameters
    ----------
    pixels : ndarray
        (y, x) float32, 0 to 1; NaN where no tile was explained.
    first : (int, int)
        The px (y, x) of the image that the first pixel begins with.
    step : int
        Side of a pixel in px of the image.
    provenance : dict
        That of the results that are explained, and how.
    complete : bool
        False while a run goes on, and for ever when it was cancelled.
    """

    pixels: NDArray[np.float32]
    first: tuple[int, int]
    step: int
    provenance: dict[str, Any]
    complete: bool = False
    _counts: NDArray[np.uint16] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._counts = np.zeros(self.pixels.shape, np.uint16)

    @property
    def origin(self) -> tuple[float, float]:
        """Centre (y, x) of the first pixel in px of the image."""
        half = (self.step - 1) / 2
        return self.first[0] + half, self.first[1] + half

    def add(self, tile: Tile, tile_map: NDArray[np.float32]) -> None:
        """Lay the map (k, k) of a tile over its place; where maps overlap, their mean counts."""
        height, width = self.pixels.shape
        y, rows = _weights(tile.y - self.first[0], tile.size, self.step, height, len(tile_map))
        x, columns = _weights(tile.x - self.first[1], tile.size, self.step, width, len(tile_map))
        place = slice(y, y + len(rows)), slice(x, x + len(columns))
        counts, pixels = self._counts[place], self.pixels[place]
        counts += 1
        before = np.where(counts > 1, pixels, 0)
        pixels[...] = before + (rows @ tile_map @ columns.T - before) / counts


def heatmap_over(
    tiles: Sequence[Tile], plane_shape: tuple[int, int], provenance: dict[str, Any]
) -> Heatmap:
    """An empty heatmap over the part of a plane that some tiles cover.

    One pixel per px of the image where that is affordable, and coarser pixels where it is not.

    Parameters
    ----------
    tiles : sequence of Tile
        At least one.
    plane_shape : (int, int)
        Height and width of the image; what sticks out of it is not shown.
    provenance : dict
    """
    places = places_of(tiles)
    low = places[:, :2].min(axis=0).clip(0, np.array(plane_shape) - 1)
    high = (places[:, :2] + places[:, 2:]).max(axis=0).clip(low + 1, plane_shape)
    height, width = (int(n) for n in high - low)
    step = max(1, math.floor(math.sqrt(height * width / MOST_PIXELS)))
    while math.ceil(height / step) * math.ceil(width / step) > MOST_PIXELS:
        step += 1
    pixels = np.full((math.ceil(height / step), math.ceil(width / step)), np.nan, np.float32)
    return Heatmap(pixels, (int(low[0]), int(low[1])), step, provenance)


def _weights(
    start: int, size: int, step: int, length: int, n: int
) -> tuple[int, NDArray[np.float32]]:
    """The first pixel of a heatmap whose centre a tile covers along one axis, and the weights.

    Weights (pixels, n) tell how much each of the n pixels of the tile's map counts at each centre:
    linear in between, and level beyond the outer ones.
    """
    half = (step - 1) / 2
    first = max(math.ceil((start - 0.5 - half) / step), 0)
    stop = min(math.ceil((start + size - 0.5 - half) / step), length)
    if stop <= first:  # smaller than a pixel
        first = min(max(round((start + (size - 1) / 2 - half) / step), 0), length - 1)
        stop = first + 1
    return first, _linear(first * step + half - start, step, stop - first, size, n)


@lru_cache(maxsize=256)
def _linear(offset: float, step: int, count: int, size: int, n: int) -> NDArray[np.float32]:
    centres = offset + step * np.arange(count)  # in px of the tile
    at = ((centres + 0.5) * n / size - 0.5).clip(0, n - 1)
    distance = np.abs(at[:, np.newaxis] - np.arange(n))
    weights: NDArray[np.float32] = np.clip(1 - distance, 0, None).astype(np.float32)
    return weights
