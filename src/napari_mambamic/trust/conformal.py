"""Sets of classes that hold the right one as often as is asked for: split conformal prediction.

The score of a class is 1 - its probability (LAC: Sadinle, Lei and Wasserman, JASA 2019, arXiv
1609.00451).  Of n samples that were not trained on, the scores of their true classes are kept;
classes of a tile whose score is at most the ceil((n + 1) * coverage)-th smallest of them make up
its set.  If tiles come from where the samples came from, at least `coverage` of the sets hold the
right class, whatever the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mambamic.errors import ImageError

_MOST_KEPT = 200  # scores
_LARGEST_KEPT = 50  # of them the largest ones: high coverages are what is asked for


def calibration_of(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64]
) -> dict[str, Any]:
    """Scores of samples that were not trained on: plain values, for a manifest.

    Parameters
    ----------
    probabilities : ndarray
        (n, n_classes).
    labels : ndarray
        (n,) true classes.

    Returns
    -------
    dict
        ``method``, ``n``, and some ``scores``, with their ``ranks`` among all, from 1 on.
    """
    n = len(labels)
    scores = np.sort(1 - probabilities[np.arange(n), labels].astype(np.float64))
    spread = np.linspace(1, max(n, 1), _MOST_KEPT - _LARGEST_KEPT).round()
    largest = np.arange(max(n - _LARGEST_KEPT, 0) + 1, n + 1)
    ranks = np.union1d(spread, largest).astype(int)
    ranks = ranks[ranks <= n]
    # Rounded up: a smaller threshold would cover less.
    kept = np.ceil(scores[ranks - 1] * 1e6) / 1e6
    return {"method": "LAC", "n": n, "ranks": ranks.tolist(), "scores": kept.tolist()}


def threshold_for(calibration: Mapping[str, Any], coverage: float) -> float:
    """The largest score of classes in a set; infinite where the samples are too few to tell.

    >>> threshold_for({"n": 3, "ranks": [1, 2, 3], "scores": [0.1, 0.2, 0.7]}, 0.5)
    0.2
    >>> threshold_for({"n": 3, "ranks": [1, 2, 3], "scores": [0.1, 0.2, 0.7]}, 0.9)
    inf
    """
    if not 0 < coverage < 1:
        raise ImageError(f"The coverage is {coverage}. Choose more than 0 and less than 1.")
    # 1e-9: 0.95 * 20 is a little more than 19.
    rank = math.ceil((calibration["n"] + 1) * coverage - 1e-9)
    place = int(np.searchsorted(calibration["ranks"], rank))  # the next one that was kept
    return float(calibration["scores"][place]) if place < len(calibration["scores"]) else math.inf


def sets_of(
    probabilities: NDArray[np.floating[Any]], calibration: Mapping[str, Any], coverage: float
) -> NDArray[np.bool_]:
    """(n, n_classes) which classes are in the set of each row; rows of NaN have none.

    The most probable class always is, so that coverage can only be higher.
    """
    threshold = threshold_for(calibration, coverage)
    rows = probabilities.astype(np.float64)
    held: NDArray[np.bool_] = (1 - rows <= threshold) | (rows == rows.max(axis=1, keepdims=True))
    return held & np.isfinite(rows)


def coverage_of(sets: NDArray[np.bool_], labels: ArrayLike) -> float:
    """Share of the sets (n, n_classes) that hold the true class (n,)."""
    return float(sets[np.arange(len(sets)), np.asarray(labels)].mean())
