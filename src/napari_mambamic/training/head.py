"""The head: a linear layer on embeddings, fitted in one go."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray


def fit_linear(
    embeddings: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    class_weights: NDArray[np.floating[Any]] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Head (n_classes, d) and its bias (n_classes,) by logistic regression on embeddings (n, d).

    Of two classes, each gets a row as well.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # One scale for all dimensions: divided by its own deviation, a dimension that hardly varies
    # here would decide about patches that are a little different.
    mean, std = embeddings.mean(axis=0), float(embeddings.std(axis=0).mean()) + 1e-12
    weights = None if class_weights is None else dict(enumerate(class_weights.tolist()))
    # C: of 0.03 to 3 a compromise, for 40 to 1,000 labels on five pairs of weights and images.
    model = LogisticRegression(C=0.3, max_iter=200, class_weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 steps are near enough
        model.fit((embeddings - mean) / std, labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / std
    bias = bias - weight @ mean
    return weight.astype(np.float32), bias.astype(np.float32)
