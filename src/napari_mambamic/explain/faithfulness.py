"""Whether maps tell what the network looks at: three checks that a wrong map fails.

Deletion (Petsiuk et al., BMVC 2018, arXiv 1806.07421): what the map calls important is taken away
first, and the probability of the class should fall soon.  Insertion: the same is added first to a
blurred patch, and the probability should rise soon.  Cascading randomisation (Adebayo et al.,
NeurIPS 2018, arXiv 1810.03292): where the weights are replaced by fresh ones, from the head
downwards, the map should become another.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from skimage.transform import resize

from napari_mambamic.classifier import TileClassifier
from napari_mambamic.errors import ImageError
from napari_mambamic.explain.maps import Target, targets_of
from napari_mambamic.networks import build_network
from napari_mambamic.networks.lean import lean_copy
from napari_mambamic.patches import prepare_patches

_BLUR = 0.08  # standard deviation, of the side of a patch


def deletion_score(
    classifier: TileClassifier,
    patches: NDArray[Any],
    maps: NDArray[np.float32],
    *,
    target: Target | None = None,
    steps: int = 10,
) -> NDArray[np.float64]:
    """Mean probability of the class while its pixels give way to the patch's mean colour.

    The pixels that the map calls most important go first.  The lower, the better the map.

    Parameters
    ----------
    classifier : TileClassifier
    patches : ndarray
        (n, y, x, channel) or (n, y, x), as for `explain_patches`.
    maps : ndarray
        (n, y, x): of each patch.  Pixels that are equal go in a random order, always the same.
    target : int, str or sequence of int, optional
        As for `explain_patches`.
    steps : int
        Parts that the pixels are taken away in.

    Returns
    -------
    ndarray
        (n,) 0 to 1: the area under the curve of the probability over the share that is gone.
    """
    return _score(classifier, patches, maps, target, steps, "deletion")


def insertion_score(
    classifier: TileClassifier,
    patches: NDArray[Any],
    maps: NDArray[np.float32],
    *,
    target: Target | None = None,
    steps: int = 10,
) -> NDArray[np.float64]:
    """Mean probability of the class while pixels come back into the blurred patch.

    The pixels that the map calls most important come first.  The higher, the better the map.
    Parameters and result are those of `deletion_score`.
    """
    return _score(classifier, patches, maps, target, steps, "insertion")


def randomised_cascade(
    classifier: TileClassifier, *, seed: int = 0
) -> Iterator[tuple[str, TileClassifier]]:
    """Copies of a classifier with more and more fresh weights, from the head down to the stem.

    Yields
    ------
    (str, TileClassifier)
        The part that has lost its weights now, beside those before; each copy is one of its own.
    """
    manifest = classifier.manifest
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh: Any = lean_copy(
            build_network(
                manifest.network,
                n_classes=len(manifest.class_names),
                in_channels=len(manifest.patch.channels),
            )
        )
    network = copy.deepcopy(classifier.network)
    last = len(network.stages) - 1
    parts = ["head", f"stages.{last}"]
    for stage in reversed(range(last)):
        parts += [f"merges.{stage}", f"stages.{stage}"]
    for part in [*parts, "stem"]:
        network.set_submodule(part, fresh.get_submodule(part))
        yield part, TileClassifier(network, manifest, classifier.device)


def rank_correlation(maps: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Mean over n maps (n, y, x) of Spearman's correlation; 0 where a map is the same everywhere.

    >>> rank_correlation(np.eye(3)[None], 2 * np.eye(3)[None])
    1.0
    """
    correlations = [
        0.0
        if np.ptp(one) == 0 or np.ptp(other) == 0
        else float(spearmanr(one.ravel(), other.ravel()).statistic)
        for one, other in zip(maps, others, strict=True)
    ]
    return round(float(np.mean(correlations)), 12)


def _score(
    classifier: TileClassifier,
    patches: NDArray[Any],
    maps: NDArray[np.float32],
    target: Target | None,
    steps: int,
    kind: Literal["deletion", "insertion"],
) -> NDArray[np.float64]:
    if len(maps) != len(patches) or np.ndim(maps) != 3:
        raise ImageError(
            f"There are {len(patches)} patches and maps of shape {np.shape(maps)}. Give one map "
            f"(y, x) for each patch."
        )
    prepared = prepare_patches(np.asarray(patches), classifier.manifest.patch)
    targets = targets_of(classifier, target, len(prepared))
    if targets is None:
        targets = _probabilities(classifier, prepared).argmax(axis=1)
    ranks = _ranks(maps, prepared.shape[-1])
    first, then = prepared, np.broadcast_to(prepared.mean((2, 3), keepdims=True), prepared.shape)
    if kind == "insertion":
        sigma = _BLUR * prepared.shape[-1]
        first, then = gaussian_filter(prepared, (0, 0, sigma, sigma), mode="reflect"), prepared
    curve = []
    for step in range(steps + 1):
        changed = np.where(ranks[:, np.newaxis] < step / steps, then, first)
        probabilities = _probabilities(classifier, changed)
        curve.append(probabilities[np.arange(len(targets)), targets])
    scores: NDArray[np.float64] = np.trapezoid(np.array(curve, float), dx=1 / steps, axis=0)
    return scores


def _ranks(maps: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """Share (n, size, size) of the pixels that are more important than each."""
    rng = np.random.default_rng(0)
    ranks = np.empty((len(maps), size * size))
    for rank, one in zip(ranks, maps, strict=True):
        resized = resize(np.asarray(one, float), (size, size), order=1, mode="edge")
        # Maps are level over large parts; there, reading order would favour the upper left.
        order = np.lexsort((rng.random(size * size), -resized.ravel()))
        rank[order] = np.arange(size * size) / (size * size)
    return ranks.reshape(-1, size, size)


def _probabilities(
    classifier: TileClassifier, prepared: NDArray[np.float32]
) -> NDArray[np.float32]:
    size = classifier.batch_size()
    parts = [
        classifier.predict_prepared(np.ascontiguousarray(prepared[i : i + size])).probabilities
        for i in range(0, len(prepared), size)
    ]
    return np.concatenate(parts)
