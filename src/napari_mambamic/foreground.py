"""Which tiles are worth classifying: those that hold something, not glass or darkness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from napari_mambamic.image import ImagePyramid
from napari_mambamic.tiling import Tile

_LEAST_SHARE = 0.02  # of a tile's pixels that must hold something


def foreground_of_tiles(image: ImagePyramid, tiles: Sequence[Tile]) -> NDArray[np.bool_]:
    """Tell for each tile whether it holds something.

    A bright image (bright-field) is measured by the light that is missing in its darkest colour,
    a dark one (fluorescence) by its brightest channel; the threshold is Otsu's over the whole
    plane, looked at in steps of an eighth of a tile.  An image of one value is all foreground.

    Returns
    -------
    ndarray
        (n_tiles,) bool.
    """
    step = max(1, min(tile.size for tile in tiles) // 8)
    signal = _signal(image.overview(step))
    if np.ptp(signal) == 0:
        return np.ones(len(tiles), bool)
    above = signal > threshold_otsu(signal)

    def share(tile: Tile) -> float:
        rows = slice(max(tile.y, 0) // step, -(-(tile.y + tile.size) // step))
        columns = slice(max(tile.x, 0) // step, -(-(tile.x + tile.size) // step))
        return float(above[rows, columns].mean())

    return np.array([share(tile) >= _LEAST_SHARE for tile in tiles])


def _signal(pixels: NDArray[Any]) -> NDArray[np.float32]:
    colours = pixels[..., :3].astype(np.float32)
    if pixels.dtype.kind == "u":
        low, high = 0.0, float(np.iinfo(pixels.dtype).max)
    else:
        low, high = float(np.nanmin(colours)), float(np.nanmax(colours))
    scaled = (colours - low) / max(high - low, 1e-12)
    is_bright = np.median(scaled) > 0.5
    signal: NDArray[np.float32] = 1 - scaled.min(axis=-1) if is_bright else scaled.max(axis=-1)
    return signal
