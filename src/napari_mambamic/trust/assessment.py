"""What is measured on training and validation samples, so that predictions can be doubted later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.patches import PatchSpec, prepare_patches
from napari_mambamic.trust.conformal import calibration_of, coverage_of, sets_of
from napari_mambamic.trust.reference import METHOD, PASSED, Reference, fit_reference, threshold_of

MOST_TRAINING = 4000  # samples that statistics are from; more of them change little
_COVERAGES = (0.8, 0.9, 0.95, 0.99)
_STATISTICS = ("mean", "contrast", "clipped", "colour")
_CLIPPED = 0.998  # of the range: 255 of 8 bit


@dataclass(frozen=True)
class Seen:
    """Samples as the network sees them.

    Parameters
    ----------
    embeddings : ndarray
        (n, d).
    labels : ndarray
        (n,)
    """

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]


def assess(
    training: Seen,
    validation: Seen,
    probabilities: NDArray[np.floating[Any]],
    *,
    groups: NDArray[Any] | None = None,
    seed: int = 0,
) -> tuple[Reference, dict[str, Any]]:
    """Fit statistics to training samples, and thresholds to one half of the validation samples.

    The rates are those of the other half.

    Parameters
    ----------
    training, validation : Seen
    probabilities : ndarray
        (n, n_classes) of the validation samples, calibrated.
    groups : ndarray, optional
        (n,) what may not be torn apart: each group of validation samples is in one half.
    seed : int
        Of the halves.

    Returns
    -------
    Reference
    dict
        ``distance`` and ``conformal``, for `Manifest.trust`.
    """
    reference = fit_reference(training.embeddings, training.labels)
    distances = reference.distances(validation.embeddings)
    first, second = halves(len(distances), groups=groups, seed=seed)
    threshold = threshold_of(distances[first])
    calibration = calibration_of(probabilities[first], validation.labels[first])
    tested = [sets_of(probabilities[second], calibration, coverage) for coverage in _COVERAGES]
    return reference, {
        "distance": {
            "method": METHOD,
            "threshold": threshold,
            "passed": PASSED,
            "n_training": len(training.labels),
            "n_calibration": len(first),
            "held_out": {
                "n": len(second),
                "unlike_training": float((distances[second] > threshold).mean()),
            },
        },
        "conformal": calibration
        | {
            "held_out": [
                {
                    "n": len(second),
                    "asked": asked,
                    "covered": coverage_of(sets, validation.labels[second]),
                    "mean_size": float(sets.sum(axis=1).mean()),
                }
                for asked, sets in zip(_COVERAGES, tested, strict=True)
            ]
        },
    }


def halves(
    n: int, *, groups: NDArray[Any] | None = None, seed: int = 0
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of two halves of n samples, drawn by lot; whole groups, where there are several."""
    rng = np.random.default_rng(seed)
    members = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    order = rng.permutation(int(members.max()) + 1)
    if len(order) < 2:
        members, order = np.arange(n), rng.permutation(n)
    sizes = np.bincount(members)[order].cumsum()
    n_first = int(np.clip(np.searchsorted(sizes, n / 2) + 1, 1, max(len(order) - 1, 1)))
    is_first = np.isin(members, order[:n_first])
    return np.flatnonzero(is_first), np.flatnonzero(~is_first)


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
