"""How far a tile is from what a network was trained on, by its embedding.

The Mahalanobis distance to the nearest class mean, under one covariance for all classes (Lee et
al., NeurIPS 2018, arXiv 1807.03888)::

    distance(e)² = min over classes c of  (e - mean_c)ᵀ covariance⁻¹ (e - mean_c)

The covariance is shrunk towards a sphere, so that it can be inverted.  ``whitening`` is a matrix w
with w wᵀ = covariance⁻¹: in the whitened space it is the ordinary distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

METHOD = "Mahalanobis distance to the nearest class mean, one shrunk covariance"
PASSED = 0.99  # of samples that were held back and are like those of the training
_LEAST_SHRINKAGE = 0.01  # of those tried, 0.01 to 0.3, the best on distorted cells
_MEANS, _WHITENING = "trust.means", "trust.whitening"


@dataclass(frozen=True)
class Reference:
    """Statistics of the embeddings of a training set.

    Parameters
    ----------
    means : ndarray
        (n_classes, d) float32: whitened means of the classes that had samples.
    whitening : ndarray
        (d, d) float16.
    """

    means: NDArray[np.float32]
    whitening: NDArray[np.float16]

    def distances(self, embeddings: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """(n,) of embeddings (n, d)."""
        whitened = embeddings.astype(np.float32) @ self.whitening.astype(np.float32)
        nearest = np.full(len(whitened), np.inf, np.float32)
        for mean in self.means:
            np.minimum(nearest, ((whitened - mean) ** 2).sum(axis=1), out=nearest)
        return np.sqrt(nearest)

    @property
    def tensors(self) -> dict[str, NDArray[Any]]:
        """What is stored in a weights file."""
        return {_MEANS: self.means, _WHITENING: self.whitening}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Reference | None:
        """From what was stored; None where nothing was."""
        if not tensor_names() <= set(tensors):
            return None
        return cls(tensors[_MEANS], tensors[_WHITENING])


def tensor_names() -> set[str]:
    """Names in a weights file that are not of the network."""
    return {_MEANS, _WHITENING}


def fit_reference(embeddings: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> Reference:
    """Statistics of embeddings (n, d) of training samples with their classes (n,)."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    values = embeddings.astype(np.float64)
    classes, members = np.unique(labels, return_inverse=True)
    means = np.stack([values[members == c].mean(axis=0) for c in range(len(classes))])
    rest = values - means[members]
    # Ledoit and Wolf's shrinkage grows as samples become few.
    shrinkage = max(_LEAST_SHRINKAGE, float(ledoit_wolf_shrinkage(rest, assume_centered=True)))
    variances, directions = np.linalg.eigh(rest.T @ rest / len(rest))
    sphere = max(float(variances.mean()), 1e-12)
    shrunk = (1 - shrinkage) * np.maximum(variances, 0) + shrinkage * sphere
    whitening = (directions / np.sqrt(shrunk)).astype(np.float16)
    return Reference((means @ whitening.astype(np.float64)).astype(np.float32), whitening)


def threshold_of(distances: NDArray[np.floating[Any]], passed: float = PASSED) -> float:
    """The distance that a share of tiles like these (n,) does not exceed.

    Of n + 1 such tiles, the last one exceeds it with a probability of at most ``1 - passed``; of
    too few to tell, it is the largest.

    >>> threshold_of(np.arange(1.0, 100.0))
    99.0
    """
    ordered = np.sort(distances)
    rank = math.ceil((len(ordered) + 1) * passed - 1e-9)
    return float(ordered[min(rank, len(ordered)) - 1])
