"""How good predictions are: the figures of the papers, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, roc_auc_score


def evaluate(
    probabilities: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures of merit of predictions, ready for JSON.

    Parameters
    ----------
    probabilities : ndarray
        (n, n_classes)
    labels : ndarray
        (n,) true classes.
    class_names : sequence of str
    resamples : int
        Of the bootstrap, for the intervals.
    seed : int

    Returns
    -------
    dict
        ``overall_accuracy``, ``balanced_accuracy`` and the means over classes of ``precision``,
        ``sensitivity``, ``specificity``, ``f1`` and ``auc`` (one class against the rest), each from
        0 to 1; ``intervals`` with the 2.5 and 97.5 % quantiles of the first two (where nothing or
        everything is right, which no resampling changes, of the exact binomial distribution);
        ``per_class``; ``confusion_matrix`` with true classes as rows.

        Of a class without samples (its ``n`` is 0) ``sensitivity`` and ``auc`` have no meaning, and
        nothing that is told to be of it can be right: it has None for these, ``precision`` and
        ``f1``, and means leave it out.  The macro means of scikit-learn, which the papers report,
        do so too unless the class is predicted; then they count it as 0.  A class that has
        samples and is never predicted counts as precision 0 in both.
    """
    n_classes = len(class_names)
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, labels=np.arange(n_classes))
    hits = np.diag(confusion)
    true, called = confusion.sum(axis=1), confusion.sum(axis=0)
    rest = confusion.sum() - true
    present = true > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = hits / true
        precision = np.where(called > 0, hits / called, 0.0)
        specificity = (rest - (called - hits)) / rest
        f1 = np.where(hits > 0, 2 * precision * sensitivity / (precision + sensitivity), 0.0)
        precision, f1 = (np.where(present, values, np.nan) for values in (precision, f1))
    auc = np.array([_auc(labels == k, probabilities[:, k]) for k in range(n_classes)])
    columns = {
        "precision": precision,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "f1": f1,
        "auc": auc,
    }
    rng = np.random.default_rng(seed)
    draws = [rng.integers(len(labels), size=len(labels)) for _ in range(resamples)]

    def interval(figure: Callable[[NDArray[Any], NDArray[Any]], float]) -> list[float]:
        right = int((labels == predicted).sum())
        if right in (0, len(labels)):
            exact = binomtest(right, len(labels)).proportion_ci(method="exact")
            return [float(exact.low), float(exact.high)]
        values = [figure(labels[draw], predicted[draw]) for draw in draws]
        return [float(v) for v in np.quantile(values, (0.025, 0.975))] if values else []

    return {
        "n": len(labels),
        "overall_accuracy": _accuracy(labels, predicted),
        "balanced_accuracy": _balanced_accuracy(labels, predicted),
        **{
            name: _number(np.nanmean(values[present])) if present.any() else None
            for name, values in columns.items()
            if not np.isnan(values[present]).all()
        },
        "intervals": {
            "overall_accuracy": interval(_accuracy),
            "balanced_accuracy": interval(_balanced_accuracy),
        },
        "per_class": {
            name: {"n": int(true[k])}
            | {column: _number(values[k]) for column, values in columns.items()}
            for k, name in enumerate(class_names)
        },
        "confusion_matrix": confusion.tolist(),
    }


def _accuracy(labels: NDArray[Any], predicted: NDArray[Any]) -> float:
    return float((labels == predicted).mean())


def _balanced_accuracy(labels: NDArray[Any], predicted: NDArray[Any]) -> float:
    counts = np.bincount(labels)
    hits = np.bincount(labels[labels == predicted], minlength=len(counts))
    return float((hits[counts > 0] / counts[counts > 0]).mean())


def _auc(is_class: NDArray[np.bool_], probability: NDArray[Any]) -> float:
    if is_class.all() or not is_class.any():
        return float("nan")
    return float(roc_auc_score(is_class, probability))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
