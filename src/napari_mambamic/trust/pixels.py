"""Brightness, contrast and colours of patches, told to the user by `trust.warnings`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.patches import PatchSpec, prepare_patches

_STATISTICS = ("mean", "contrast", "clipped", "colour")
_CLIPPED = 0.998  # of the range: 255 of 8 bit


@dataclass(frozen=True)
class PixelStatistics:
    """Brightness and colour of n patches, pixels being 0 ... 1: arrays (n,).

    Parameters
    ----------
    mean : ndarray
        Over pixels and channels.
    contrast : ndarray
        Standard deviation of the pixels, mean over channels.
    clipped : ndarray
        Share of the pixels at the very end of the range, the channel that has most.
    colour : ndarray
        Mean over the pixels of the brightest channel minus the darkest.
    """

    mean: NDArray[np.float32]
    contrast: NDArray[np.float32]
    clipped: NDArray[np.float32]
    colour: NDArray[np.float32]

    @classmethod
    def of(cls, patches: NDArray[np.float32]) -> PixelStatistics:
        """Of patches (n, channel, y, x) that were not normalised."""
        return cls(
            patches.mean(axis=(1, 2, 3)),
            patches.std(axis=(2, 3)).mean(axis=1),
            (patches >= _CLIPPED).mean(axis=(2, 3)).max(axis=1),
            np.ptp(patches, axis=1).mean(axis=(1, 2)),
        )

    def as_ranges(self) -> dict[str, list[float]]:
        """What 99.8 % of the patches have, and the median: [low, middle, high] by name."""
        return {
            name: [float(f"{v:.6g}") for v in np.quantile(getattr(self, name), [0.001, 0.5, 0.999])]
            for name in _STATISTICS
        }


def without_normalisation(spec: PatchSpec) -> PatchSpec:
    """The same patches, as pixels of 0 ... 1."""
    count = len(spec.channels)
    return replace(spec, mean=(0.0,) * count, std=(1.0,) * count)


def pixel_ranges(pixels: NDArray[Any], spec: PatchSpec) -> Mapping[str, list[float]]:
    """Ranges of training samples (n, y, x, channel), for `Manifest.trust`."""
    plain = without_normalisation(spec)
    parts = [prepare_patches(pixels[i : i + 256], plain) for i in range(0, len(pixels), 256)]
    measured = [PixelStatistics.of(part) for part in parts]
    columns = [np.concatenate([getattr(m, name) for m in measured]) for name in _STATISTICS]
    return PixelStatistics(*columns).as_ranges()
