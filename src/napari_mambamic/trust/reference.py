"""How far a tile is from what a network was trained on, by its embedding and by its appearance.

Of the embedding, the Mahalanobis distance to the nearest class mean, under one covariance for all
classes (Lee et al., NeurIPS 2018, arXiv 1807.03888)::

    distance(v)² = min over classes c of  (v - mean_c)ᵀ covariance⁻¹ (v - mean_c)

The covariance is shrunk towards a sphere, so that it can be inverted.  ``whitening`` is a matrix w
with w wᵀ = covariance⁻¹: in the whitened space it is the ordinary distance.  Of the appearance it
is the same, with one mean for all classes, brought to the scale of the other.  The distance of a
tile is the larger of the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_mambamic.trust.appearance import n_statistics

METHOD = (
    "the larger of two Mahalanobis distances, each under one shrunk covariance: of the embedding "
    "to the nearest class mean, and of light, contrast, colours and sharpness to their mean"
)
PASSED = 0.99  # of samples that were held back and are like those of the training
_LEAST_SHRINKAGE = 0.01  # of those tried, 0.01 to 0.3, the best on distorted cells
_OF_EMBEDDINGS, _OF_APPEARANCE = "trust.", "trust.appearance."
_MEANS, _WHITENING = "means", "whitening"


@dataclass(frozen=True)
class Clusters:
    """Classes of vectors (d,), each around its mean, all spread alike.

    Parameters
    ----------
    means : Tensor
        (n_classes, d) float32: whitened means of the classes that had samples.
    whitening : Tensor
        (d, d) float32.
    """

    means: Tensor
    whitening: Tensor

    def distances(self, vectors: Tensor) -> Tensor:
        """(n,) from vectors (n, d) to the nearest mean."""
        whitened = vectors.float() @ self.whitening
        # By differences: of squares and products, those of near vectors would be rounding errors.
        differences = "donot_use_mm_for_euclid_dist"
        return torch.cdist(whitened, self.means, compute_mode=differences).amin(dim=1)

    def scaled(self, factor: float) -> Clusters:
        """The same, with all distances times a factor."""
        return Clusters(self.means * factor, self.whitening * factor)

    def to(self, device: torch.device) -> Clusters:
        """The same on a device."""
        return Clusters(self.means.to(device), self.whitening.to(device))


@dataclass(frozen=True)
class Reference:
    """Statistics of a training set.

    Parameters
    ----------
    embeddings : Clusters
    appearance : Clusters, optional
        Of `appearance_of`; weights that were made before there was such a thing have none.
    """

    embeddings: Clusters
    appearance: Clusters | None = None

    def distances(self, embeddings: Tensor, appearance: Tensor | None) -> Tensor:
        """(n,) of embeddings (n, d) and of what `appearance_of` gave for the same patches."""
        distances = self.embeddings.distances(embeddings)
        if self.appearance is None or appearance is None:
            return distances
        return torch.maximum(distances, self.appearance.distances(appearance))

    def to(self, device: torch.device) -> Reference:
        """The same on a device."""
        look = None if self.appearance is None else self.appearance.to(device)
        return Reference(self.embeddings.to(device), look)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is stored in a weights file; the large matrix as float16."""
        found = {
            _OF_EMBEDDINGS + _MEANS: self.embeddings.means,
            _OF_EMBEDDINGS + _WHITENING: self.embeddings.whitening.half(),
        }
        if self.appearance is not None:
            found[_OF_APPEARANCE + _MEANS] = self.appearance.means
            found[_OF_APPEARANCE + _WHITENING] = self.appearance.whitening
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Reference | None:
        """From what was stored; None where nothing was."""
        embeddings, appearance = (
            Clusters(tensors[prefix + _MEANS].float(), tensors[prefix + _WHITENING].float())
            if {prefix + _MEANS, prefix + _WHITENING} <= set(tensors)
            else None
            for prefix in (_OF_EMBEDDINGS, _OF_APPEARANCE)
        )
        return None if embeddings is None else cls(embeddings, appearance)


def tensor_widths(width: int, channels: int) -> dict[str, int]:
    """Names in a weights file that are not of the network, and how many columns each has.

    Parameters
    ----------
    width : int
        Of an embedding.
    channels : int
        Of a patch.
    """
    widths = {_OF_EMBEDDINGS: width, _OF_APPEARANCE: n_statistics(channels)}
    return {prefix + name: w for prefix, w in widths.items() for name in (_MEANS, _WHITENING)}


def fit_clusters(
    vectors: NDArray[np.floating[Any]], labels: NDArray[np.int64], *, least_spread: float = 0.0
) -> Clusters:
    """Statistics of vectors (n, d) of training samples with their classes (n,).

    Parameters
    ----------
    least_spread : float
        Above 0, dimensions are first divided by their standard deviations, or by this where they
        vary less, and shrinkage is towards no correlation: for dimensions that have no common unit.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    values = vectors.astype(np.float64)
    classes, members = np.unique(labels, return_inverse=True)
    means = np.stack([values[members == c].mean(axis=0) for c in range(len(classes))])
    rest = values - means[members]
    units = np.maximum(rest.std(axis=0), least_spread) if least_spread else np.ones(rest.shape[1])
    rest = rest / units
    # Ledoit and Wolf's shrinkage grows as samples become few.
    shrinkage = max(_LEAST_SHRINKAGE, float(ledoit_wolf_shrinkage(rest, assume_centered=True)))
    covariance = rest.T @ rest / len(rest)
    if least_spread:
        np.fill_diagonal(covariance, 1.0)  # also of dimensions that vary less
    variances, directions = np.linalg.eigh(covariance)
    sphere = max(float(variances.mean()), 1e-6)
    shrunk = (1 - shrinkage) * np.maximum(variances, 0) + shrinkage * sphere
    # Of what is stored, the means are to be those of the whitening as it will be read back.
    whitening = directions / units[:, np.newaxis] / np.sqrt(shrunk)
    stored = torch.from_numpy(whitening).half().double()
    return Clusters((torch.from_numpy(means) @ stored).float(), stored.float())


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
