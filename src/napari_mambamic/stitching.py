"""From tiles to arrays: one pixel per tile of a grid, one row per tile of a table.

The pixel's side is the stride.

    tile i       [ i * stride ............ i * stride + tile size ]
    its pixel          [ offset + i * stride ... + stride ]            0 <= offset <= overlap

So every pixel lies in its tile.  The last tile of a row is moved back inside the plane; when that
moves it by more than the overlap, its pixel sticks out of the plane, and the part of the pixel that
is on the plane lies in its tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.tiling import Tile, TileGrid


def label_geometry(grid: TileGrid) -> tuple[tuple[float, float], int]:
    """Centre (y, x) of the first label pixel in px of the image, and the side of a label pixel."""

    def centre_of_first(starts: tuple[int, ...], first: int, length: int) -> float:
        room = first + length - (starts[0] + len(starts) * grid.stride)
        offset = min(grid.overlap / 2, max(room, 0))
        return starts[0] + offset + (grid.stride - 1) / 2

    y, x, height, width = grid.region
    return (
        centre_of_first(grid.rows, y, height),
        centre_of_first(grid.columns, x, width),
    ), grid.stride


def tile_places(tiles: Sequence[Tile]) -> NDArray[np.int64]:
    """(n_tiles, 3): y, x and size of each tile in px of the image, in the order of the tiles."""
    if isinstance(tiles, TileGrid):
        places = np.empty((*tiles.shape, 3), np.int64)
        places[..., 0] = np.array(tiles.rows)[:, np.newaxis]
        places[..., 1] = np.array(tiles.columns)
        places[..., 2] = tiles.tile_size
        return places.reshape(-1, 3)
    numbers = (number for tile in tiles for number in (tile.y, tile.x, tile.size))
    return np.fromiter(numbers, np.int64, 3 * len(tiles)).reshape(-1, 3)


def tile_numbers(labels: NDArray[Any], object_ids: NDArray[np.int64]) -> NDArray[np.int32]:
    """Tell for each pixel of a label image which tile speaks for it.

    Parameters
    ----------
    labels : ndarray
        (y, x) integers.
    object_ids : ndarray
        (n_tiles,) the number of each tile's object.

    Returns
    -------
    ndarray
        (y, x) int32: number of the tile + 1; 0 for background and for objects without a tile.

    >>> tile_numbers(np.array([[0, 7, 4]]), np.array([4, 7]))
    array([[0, 2, 1]], dtype=int32)
    """
    numbers = np.zeros(labels.shape, np.int32)
    if not len(object_ids):
        return numbers
    order = np.argsort(object_ids)
    for row, labels_of_row in zip(numbers, labels, strict=True):  # a whole plane takes 8 B a pixel
        nearest = np.searchsorted(object_ids, labels_of_row, sorter=order)
        tile = order[nearest.clip(max=len(order) - 1)]
        row[:] = np.where(object_ids[tile] == labels_of_row, tile + 1, 0)
    return numbers
