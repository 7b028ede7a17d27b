"""What a microscope does to a picture without changing what is on it, in measured steps.

Seven perturbations, each at five strengths.  They act on a patch with its surroundings, whose
values are 0 to 1, so that a patch that is turned or moved shows what really lies beside it::

    +-----------+
    |  margin   |      side = size + 2 margin
    |  +-----+  |
    |  | size|  |      what is given back is size x size
    |  +-----+  |
    +-----------+

Each patch gets its own direction (turn to the left or to the right, brighter or darker ...), the
same at every strength.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.filters import gaussian
from skimage.transform import rotate

Pixels = NDArray[np.float32]

_FARTHEST = 0.25  # of the tile's side: the largest translation; a turn by 45 degrees needs 0.21
_NEUTRAL_K = 6500.0
_GAMMA = 2.2
# XYZ to linear sRGB, IEC 61966-2-1.
_XYZ_TO_RGB = np.array(
    [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
)


@dataclass(frozen=True)
class Draw:
    """How one patch is perturbed: what chance decides.

    Parameters
    ----------
    margin : int
        Px of surroundings on each side of the patch.
    sign : float
        1 or -1: more or less, to the left or to the right.
    direction : float
        In radians: where to.
    seed : tuple of int
        Of the noise.
    spread : ndarray
        (channel,) the range of values that all patches take, channel by channel.
    """

    margin: int
    sign: float
    direction: float
    seed: tuple[int, ...]
    spread: Pixels


@dataclass(frozen=True)
class Perturbation:
    """One kind of change.

    Parameters
    ----------
    name : str
    strengths : tuple of float
        Five, rising; 0 changes nothing.
    unit : str
        What a strength is, with ``{}`` for its number.
    change : callable
        From pixels (side, side, channel), strength and `Draw` to pixels (size, size, channel).
    needs_colour : bool
        Whether it is for RGB alone.
    """

    name: str
    strengths: tuple[float, ...]
    unit: str
    change: Callable[[Pixels, float, Draw], Pixels]
    needs_colour: bool = False

    def in_words(self, strength: float) -> str:
        """A strength for people.

        >>> PERTURBATIONS[0].in_words(20)
        'by 20 degrees'
        """
        return self.unit.format(f"{strength:g}")

    def __call__(self, pixels: Pixels, strength: float, draw: Draw) -> Pixels:
        """Change pixels (side, side, channel); values stay within 0 to 1."""
        changed: Pixels = np.clip(self.change(pixels, strength, draw), 0, 1).astype(np.float32)
        return changed


def margin_for(size: int) -> int:
    """Px of surroundings that every perturbation of a patch of `size` px finds enough.

    >>> margin_for(96)
    24
    """
    return math.ceil(_FARTHEST * size)


def reflected(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Patches (n, size, size, channel) in surroundings made of their mirror images."""
    margin = margin_for(pixels.shape[1])
    around = [(0, 0), (margin, margin), (margin, margin), (0, 0)]
    return np.pad(pixels, around, mode="reflect" if pixels.shape[1] > margin else "edge")


def inside(pixels: NDArray[np.float32], margin: int) -> NDArray[np.float32]:
    """Patches (..., size, size, channel) without their surroundings."""
    middle = slice(margin, pixels.shape[-2] - margin)
    return pixels[..., middle, middle, :]


def _turned(pixels: Pixels, degrees: float, draw: Draw) -> Pixels:
    turned = rotate(pixels, draw.sign * degrees, order=1, mode="reflect", preserve_range=True)
    return inside(turned, draw.margin)


def _moved(pixels: Pixels, percent: float, draw: Draw) -> Pixels:
    """By whole pixels, so that nothing is blurred."""
    size = len(pixels) - 2 * draw.margin
    distance = percent / 100 * size
    y = draw.margin + round(distance * math.sin(draw.direction))
    x = draw.margin + round(distance * math.cos(draw.direction))
    return pixels[y : y + size, x : x + size]


def _blurred(pixels: Pixels, percent: float, draw: Draw) -> Pixels:
    size = len(pixels) - 2 * draw.margin
    blurred = gaussian(
        pixels, percent / 100 * size, mode="reflect", channel_axis=-1, preserve_range=True
    )
    return inside(blurred, draw.margin)


def _noisy(pixels: Pixels, percent: float, draw: Draw) -> Pixels:
    patch = inside(pixels, draw.margin)
    noise = np.random.default_rng(draw.seed).standard_normal(patch.shape, np.float32)
    return patch + noise * np.float32(percent / 100) * draw.spread


def _lit(pixels: Pixels, percent: float, draw: Draw) -> Pixels:
    return inside(pixels, draw.margin) * _factor(percent, draw)


def _contrasted(pixels: Pixels, percent: float, draw: Draw) -> Pixels:
    patch = inside(pixels, draw.margin)
    mean: Pixels = patch.mean(axis=(0, 1), keepdims=True)
    return mean + (patch - mean) * _factor(percent, draw)


def _tinted(pixels: Pixels, mired: float, draw: Draw) -> Pixels:
    temperature = 1e6 / (1e6 / _NEUTRAL_K + draw.sign * mired)
    gains = daylight(temperature) / daylight(_NEUTRAL_K)
    # Pixels are values of a screen, not of light.
    gains = (gains / gains[1]) ** (1 / _GAMMA)
    tinted: Pixels = inside(pixels, draw.margin) * gains.astype(np.float32)
    return tinted


def _factor(percent: float, draw: Draw) -> np.float32:
    """Up or down, by the same factor."""
    return np.float32((1 + percent / 100) ** draw.sign)


def daylight(kelvin: float) -> NDArray[np.float64]:
    """Linear (red, green, blue) of daylight of a colour temperature from 4000 to 25,000 K.

    The series D of CIE 15:2004, section 3.1.
    """
    t = 1000 / kelvin
    if kelvin <= 7000:
        x = 0.244063 + 0.09911 * t + 2.9678 * t**2 - 4.6070 * t**3
    else:
        x = 0.237040 + 0.24748 * t + 1.9018 * t**2 - 2.0064 * t**3
    y = -3 * x**2 + 2.87 * x - 0.275
    rgb: NDArray[np.float64] = _XYZ_TO_RGB @ [x / y, 1.0, (1 - x - y) / y]
    return rgb


PERTURBATIONS = (
    Perturbation("rotation", (10, 20, 30, 45, 90), "by {} degrees", _turned),
    Perturbation("translation", (5, 10, 15, 20, 25), "by {} % of the tile's side", _moved),
    Perturbation(
        "blur", (0.5, 1, 2, 3, 4), "Gaussian, standard deviation {} % of the tile's side", _blurred
    ),
    Perturbation(
        "noise", (2, 4, 6, 8, 10), "Gaussian, standard deviation {} % of the range", _noisy
    ),
    Perturbation("brightness", (10, 20, 30, 40, 50), "{} % more or less light", _lit),
    Perturbation("contrast", (10, 20, 30, 40, 50), "{} % more or less contrast", _contrasted),
    Perturbation(
        "colour temperature",
        (15, 30, 45, 60, 75),
        "{} mired warmer or cooler than 6500 K",
        _tinted,
        needs_colour=True,
    ),
)
