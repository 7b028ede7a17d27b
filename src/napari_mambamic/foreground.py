"""Which tiles are worth classifying: those that hold something, not glass or darkness."""

from __future__ import annotations

from collections.abc import Sequence

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


def _signal(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    colours = pixels[..., :3].astype(np.float32)
    low, high = np.nanmin(colours), np.nanmax(colours)
    if pixels.dtype.kind == "u":
        low, high = np.float32(0), np.float32(np.iinfo(pixels.dtype).max)
    scaled: NDArray[np.float32] = (colours - low) / max(float(high - low), 1e-12)
    if np.median(scaled) > 0.5:
        return 1 - scaled.min(axis=-1)
    return scaled.max(axis=-1)
