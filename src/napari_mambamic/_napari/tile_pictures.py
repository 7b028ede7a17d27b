"""Tiles as pictures for people."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtGui import QImage, QPixmap

from napari_mambamic._napari.from_layer import LayerPlane
from napari_mambamic.patches import read_tiles
from napari_mambamic.tiling import Tile


def picture_of_tile(plane: LayerPlane, tile: Tile, *, side: int) -> NDArray[np.uint8]:
    """Picture (y, x, 3) of a tile, about `side` px long, on any thread.

    One channel is as bright as the layer shows it; several that are no colours lie in rows and
    columns, each stretched between its darkest and brightest pixel.
    """
    image = plane.image
    level = image.level_for(max(tile.size / side, 1.0))
    pixels = read_tiles(image, [tile], level=level)[0]
    step = max(1, len(pixels) // (2 * side))
    pixels = pixels[::step, ::step]
    shown: NDArray[Any] = pixels.astype(np.float32)
    if image.has_colours:
        shown = shown[..., :3]
        shown /= 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    elif image.n_channels == 1:
        low, high = plane.layer.contrast_limits
        shown = np.repeat((shown - low) / max(high - low, 1e-9), 3, axis=2)
    else:
        low, high = shown.min(axis=(0, 1)), shown.max(axis=(0, 1))
        shown = in_rows_and_columns((shown - low) / np.maximum(high - low, 1e-12))
    return np.ascontiguousarray((np.nan_to_num(shown).clip(0, 1) * 255).astype(np.uint8))


def in_rows_and_columns(pixels: NDArray[Any]) -> NDArray[Any]:
    """Channels of (y, x, channel) beside and below each other, as (y, x, 3).

    >>> in_rows_and_columns(np.array([[[1, 2, 3]]]))[..., 0].tolist()
    [[1, 2], [3, 0]]
    """
    height, width, count = pixels.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    grid = np.zeros((rows * columns, height, width), pixels.dtype)
    grid[:count] = np.moveaxis(pixels, 2, 0)
    grid = grid.reshape(rows, columns, height, width).swapaxes(1, 2)
    return np.repeat(grid.reshape(rows * height, columns * width, 1), 3, axis=2)


def pixmap_of(picture: NDArray[np.uint8]) -> QPixmap:
    """What Qt shows of a picture (y, x, 3)."""
    height, width, _ = picture.shape
    return QPixmap.fromImage(
        QImage(picture.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy()
    )
