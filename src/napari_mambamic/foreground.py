"""Which tiles are worth classifying: those that hold something, not glass or darkness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from napari_mambamic.image import ImagePyramid
from napari_mambamic.tiling import Tile, places_of

_LEAST_SHARE = 0.02  # of a tile's pixels that must hold something
_MOST_PIXELS = 2**26  # of a level that are looked at as a whole; of a larger one, some windows
_WINDOWS, _WINDOW = 64, 256  # how many, and their side in px


@dataclass(frozen=True)
class Foreground:
    """What sets the things in an image apart from glass or darkness.

    A bright image (bright-field) is measured by the light that is missing in its darkest colour,
    a dark one (fluorescence) by its brightest channel; the threshold is Otsu's.

    Parameters
    ----------
    low, high : float
        Pixel values that stand for black and white.
    is_bright : bool
    threshold : float or None
        Of the signal, 0 to 1; None in an image of one value, which is all foreground.
    """

    low: float
    high: float
    is_bright: bool
    threshold: float | None

    @classmethod
    def of_pixels(cls, pixels: NDArray[Any]) -> Foreground:
        """Measure pixels (..., channel)."""
        colours = pixels[..., :3].astype(np.float32)
        if pixels.dtype.kind == "u":
            low, high = 0.0, float(np.iinfo(pixels.dtype).max)
        else:
            low, high = float(np.nanmin(colours)), float(np.nanmax(colours))
        is_bright = bool(np.median((colours - low) / max(high - low, 1e-12)) > 0.5)
        rule = cls(low, high, is_bright, None)
        signal = rule.signal(pixels)
        if np.ptp(signal) == 0:
            return rule
        return cls(low, high, is_bright, float(threshold_otsu(signal)))

    def signal(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """How much there is at each pixel (..., channel): 0 to 1."""
        colours = pixels[..., :3].astype(np.float32)
        scaled = (colours - self.low) / max(self.high - self.low, 1e-12)
        signal: NDArray[np.float32] = (
            1 - scaled.min(axis=-1) if self.is_bright else scaled.max(axis=-1)
        )
        return signal

    def above(self, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        """Mask of the pixels (..., channel) that hold something."""
        if self.threshold is None:
            return np.ones(pixels.shape[:-1], bool)
        return self.signal(pixels) > self.threshold

    def of_patches(self, patches: NDArray[Any]) -> NDArray[np.bool_]:
        """(n,) whether patches (n, y, x, channel) hold something."""
        held: NDArray[np.bool_] = self.above(patches).mean(axis=(1, 2)) >= _LEAST_SHARE
        return held


def can_be_overseen(image: ImagePyramid, step: int) -> bool:
    """Whether a look at every `step`-th pixel of an image reads few enough pixels."""
    height, width = image.shape_of(image.level_for(step))
    return height * width <= _MOST_PIXELS


def sampled_foreground(image: ImagePyramid, step: int) -> Foreground:
    """Measure an image that is too large to be looked at as a whole, by some of its windows."""
    level = image.level_for(step)
    height, width = image.shape_of(level)
    side = min(_WINDOW, height, width)
    rng = np.random.default_rng(0)
    places = rng.integers(0, (height - side + 1, width - side + 1), (_WINDOWS, 2)).tolist()
    windows = [image.read(y, x, side, side, level=level)[::4, ::4] for y, x in places]
    return Foreground.of_pixels(np.stack(windows))


def foreground_of_tiles(image: ImagePyramid, tiles: Sequence[Tile]) -> NDArray[np.bool_]:
    """Tell for each tile whether it holds something, by an overview of the plane.

    The plane is looked at in steps of an eighth of a tile.  An image of one value is all
    foreground.

    Returns
    -------
    ndarray
        (n_tiles,) bool.
    """
    step = overview_step(tiles)
    pixels = image.overview(step)
    above = Foreground.of_pixels(pixels).above(pixels)
    sums = np.pad(above, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    places = places_of(tiles)
    first, stop = [], []
    for axis, spacing in enumerate(image.overview_spacing(step)):
        length = above.shape[axis]
        first.append((np.maximum(places[:, axis], 0) // spacing).astype(int).clip(0, length - 1))
        ends = np.ceil((places[:, axis] + places[:, 2]) / spacing).astype(int)
        stop.append(np.clip(ends, first[-1] + 1, length))
    (y0, x0), (y1, x1) = first, stop
    held = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    foreground: NDArray[np.bool_] = held / ((y1 - y0) * (x1 - x0)) >= _LEAST_SHARE
    return foreground


def overview_step(tiles: Sequence[Tile]) -> int:
    """Px of level 0 between the pixels that tell whether tiles hold something."""
    return max(1, int(places_of(tiles)[:, 2].min()) // 8)
