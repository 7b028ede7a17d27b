"""What is measured on training and validation samples, so that predictions can be doubted later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_mambamic.patches import PatchSpec, prepare_patches
from napari_mambamic.trust.appearance import appearance_of
from napari_mambamic.trust.conformal import calibration_of, coverage_of, sets_of
from napari_mambamic.trust.pixels import without_normalisation
from napari_mambamic.trust.reference import METHOD, PASSED, Reference, fit_clusters, threshold_of

MOST_TRAINING = 4000  # samples that statistics are from; more of them change little
_COVERAGES = (0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Seen:
    """Samples as the network sees them.

    Parameters
    ----------
    embeddings : ndarray
        (n, d).
    appearance : ndarray
        (m, k) as `appearance_of_samples` gives it: of the samples, and of training samples also as
        the training changed them, because what the network has learnt to overlook is not strange.
    labels : ndarray
        (n,)
    """

    embeddings: NDArray[np.float32]
    appearance: NDArray[np.float32]
    labels: NDArray[np.int64]


def appearance_of_samples(pixels: NDArray[Any], spec: PatchSpec) -> NDArray[np.float32]:
    """Appearance (n, k) of samples (n, y, x, channel) as patches."""
    plain = without_normalisation(spec)
    found = [
        appearance_of(torch.from_numpy(prepare_patches(pixels[i : i + 256], plain))).numpy()
        for i in range(0, len(pixels), 256)
    ]
    return np.concatenate(found)


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
    first, second = halves(len(validation.labels), groups=groups, seed=seed)
    reference = fit_reference(training, validation, first)
    distances = distances_of(reference, validation)
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


def fit_reference(training: Seen, validation: Seen, first: NDArray[np.intp]) -> Reference:
    """Statistics of training samples.

    Distances by appearance are scaled so that 99 % of the `first` validation samples are below the
    same distance by each of the two: neither has the word alone.
    """
    embeddings = fit_clusters(training.embeddings, training.labels)
    # One mean for all classes: with one for each, cells in slightly other light were flagged.
    one_class = np.zeros(len(training.appearance), np.int64)
    appearance = fit_clusters(training.appearance, one_class, least_spread=1.0)
    by_embedding, by_appearance = (
        threshold_of(clusters.distances(torch.from_numpy(vectors[first])).numpy())
        for clusters, vectors in (
            (embeddings, validation.embeddings),
            (appearance, validation.appearance),
        )
    )
    if by_embedding > 0 and by_appearance > 0:
        appearance = appearance.scaled(by_embedding / by_appearance)
    return Reference(embeddings, appearance)


def distances_of(reference: Reference, seen: Seen) -> NDArray[np.float32]:
    """Distances (n,) of samples."""
    vectors = (torch.from_numpy(each) for each in (seen.embeddings, seen.appearance))
    distances: NDArray[np.float32] = reference.distances(*vectors).numpy()
    return distances


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
