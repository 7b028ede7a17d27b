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
from scipy.sparse import csr_array

from napari_mambamic.errors import ExportError
from napari_mambamic.tiling import TileGrid

BLENDS = ("none", "mean", "gaussian")


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


def blended(grid: TileGrid, probabilities: NDArray[np.float32], how: str) -> NDArray[np.float32]:
    """Probabilities where tiles overlap: of each label pixel, from all tiles over its centre.

    Parameters
    ----------
    grid : TileGrid
    probabilities : ndarray
        (n_tiles, n_classes); rows of NaN are tiles that were not classified, and stay so.
    how : str
        "none"; "mean": every tile counts the same; "gaussian": by the distance of its middle, with
        a standard deviation of a quarter of the tile.

    Returns
    -------
    ndarray
        (n_tiles, n_classes) in the order of the tiles; without overlap the very array that was
        given.

    Raises
    ------
    ExportError
        There is no such way to blend.
    """
    if how not in BLENDS:
        raise ExportError(f"There is no blending {how!r}. Choose {', '.join(BLENDS)}.")
    if how == "none" or not grid.overlap:
        return probabilities
    origin, stride = label_geometry(grid)
    rows, columns = (
        _weights(start + stride * np.arange(len(starts)), starts, grid.tile_size, how)
        for start, starts in zip(origin, (grid.rows, grid.columns), strict=True)
    )
    known = np.isfinite(probabilities[:, 0]).reshape(grid.shape)
    filled = np.nan_to_num(probabilities).reshape(*grid.shape, -1)
    total = rows @ known @ columns.T
    alone = total == 0  # the middle of a label pixel that sticks out of the plane
    mixed = np.empty_like(filled)
    for index in range(filled.shape[-1]):
        mixed[..., index] = (rows @ filled[..., index] @ columns.T) / np.where(total > 0, total, 1)
    mixed[alone] = filled[alone]
    mixed[~known] = np.nan
    return mixed.reshape(probabilities.shape)


def _weights(centres: NDArray[Any], starts: Sequence[int], size: int, how: str) -> csr_array:
    """How much each tile (columns) counts at each centre (rows) along one axis."""
    distance = centres[:, np.newaxis] - (np.array(starts) + (size - 1) / 2)
    weights = (np.abs(distance) <= size / 2).astype(float)
    if how == "gaussian":
        weights *= np.exp(-0.5 * np.square(distance / (size / 4)))
    return csr_array(weights)


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
