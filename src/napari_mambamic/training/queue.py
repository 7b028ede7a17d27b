"""Which tiles to label next: those that teach most, and not the same thing twice."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mambamic.errors import TrainingError

How = Literal[
    "margin", "margin+diversity", "entropy", "disagreement", "badge", "k-centre", "random"
]
HOWS: tuple[How, ...] = (
    "margin", "margin+diversity", "entropy", "disagreement", "badge", "k-centre", "random",
)  # fmt: skip
DEFAULT: How = "margin"
_CANDIDATES = 50  # uncertain tiles that are looked at for each one that is picked


def review_order(
    probabilities: ArrayLike,
    embeddings: ArrayLike | None = None,
    *,
    labelled: ArrayLike = (),
    how: How = DEFAULT,
    batch: int = 20,
    seed: int = 0,
) -> NDArray[np.intp]:
    """Order the tiles that have no label: the most useful to label first.

    Parameters
    ----------
    probabilities : array-like
        (n, n_classes), or (n_views, n, n_classes) of several views of each tile, such as turned
        and mirrored ones, whose mean counts.  Tiles with NaN are left out.
    embeddings : array-like, optional
        (n, d); what needs them falls back on the uncertainty alone without them.
    labelled : array-like
        Numbers of the tiles that have a label, or (n,) bool.
    how : str
        "margin": small difference between the two most probable classes first; "entropy": large
        entropy first; "disagreement": views that disagree first (mutual information).
        "margin+diversity": the tiles with the smallest margins in clusters, and of each the middle
        (Zhdanov, arXiv:1901.05954).  "badge": k-means++ on the gradients of the head (Ash et
        al., ICLR 2020).  "k-centre": farthest from all that is labelled (core-set, Sener and
        Savarese, ICLR 2018).  "random": any.
    batch : int
        Tiles that are labelled before the order is asked for again.  So many are picked one by one
        for their diversity; those behind them follow by uncertainty.
    seed : int
        Of what is random.

    Returns
    -------
    ndarray
        (m,) numbers of tiles, each once.

    Raises
    ------
    TrainingError
        The shapes do not fit together, or there is no such way.
    """
    views = np.asarray(probabilities, np.float32)
    if views.ndim == 2:
        views = views[np.newaxis]
    vectors = None if embeddings is None else np.asarray(embeddings, np.float32)
    _check(views, vectors, how)
    mean: NDArray[np.float32] = views.mean(axis=0)
    known = _as_mask(labelled, len(mean))
    free = np.flatnonzero(~known & np.isfinite(mean).all(axis=1))
    rng = np.random.default_rng(seed)
    if how == "random":
        return rng.permutation(free)
    if how == "disagreement":
        score = disagreement(views[:, free])
    else:
        score = entropy(mean[free]) if how == "entropy" else margin_uncertainty(mean[free])
    # Stable, so that equal tiles come in the order in which they lie.
    order = np.argsort(-score, kind="stable")
    if vectors is None or how in ("margin", "entropy", "disagreement") or not len(free):
        return free[order]
    finite = np.asarray(np.isfinite(vectors[free]).all(axis=1))
    anchors = vectors[np.flatnonzero(known & np.isfinite(vectors).all(axis=1))]
    if how == "margin+diversity":
        candidates = order[finite[order]][: _CANDIDATES * batch]
        picked = _clustered(vectors[free[candidates]], score[candidates], batch, seed)
    elif how == "k-centre":
        candidates = np.flatnonzero(finite)
        picked = _spread(vectors[free[candidates]], anchors, batch)
    else:
        candidates = np.flatnonzero(finite)
        chosen = free[candidates]
        picked = _badge(mean[chosen], vectors[chosen], batch, rng)
    first = candidates[picked]
    rest = order[~np.isin(order, first)]
    ordered: NDArray[np.intp] = free[np.concatenate([first, rest])]
    return ordered


def margin_uncertainty(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """(n,) 1 - difference of the two largest probabilities: 0 sure, 1 undecided."""
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities), np.float32)
    top = np.partition(probabilities, -2, axis=1)[:, -2:]
    return (1 - (top[:, 1] - top[:, 0])).astype(np.float32)


def entropy(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """(n,) entropy of probabilities (..., n, n_classes) in nats."""
    logarithms = np.log(np.maximum(probabilities, 1e-12))
    return np.asarray(-(probabilities * logarithms).sum(axis=-1), np.float32)


def disagreement(views: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """(n,) mutual information of the class and the view, of probabilities (n_views, n, n_classes).

    0 where all views say the same, however unsure they are.
    """
    return np.asarray(entropy(views.mean(axis=0)) - entropy(views).mean(axis=0), np.float32)


def _clustered(
    vectors: NDArray[np.float32], score: NDArray[np.float32], count: int, seed: int
) -> NDArray[np.intp]:
    """Pick the middles of clusters; vectors with a high score weigh more."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if len(vectors) <= count:
        return np.arange(len(vectors))
    clusters = KMeans(count, n_init=1, max_iter=20, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different tiles than clusters
        distances = clusters.fit_transform(vectors, sample_weight=score + 1e-6)
    return np.unique(distances.argmin(axis=0))  # in their order, the least sure first


def _spread(
    vectors: NDArray[np.float32], anchors: NDArray[np.float32], count: int
) -> NDArray[np.intp]:
    """Pick vectors one by one: each the farthest from the anchors and from those before it."""
    if not len(anchors):
        anchors = vectors.mean(axis=0, keepdims=True)
    squares = (vectors**2).sum(axis=1)

    def distance_to(others: NDArray[np.float32]) -> NDArray[np.float32]:
        """Squared, to the nearest of them; in parts, or they would fill the memory."""
        nearest = np.full(len(vectors), np.inf, np.float32)
        for start in range(0, len(others), 64):
            part = others[start : start + 64]
            squared = squares[:, np.newaxis] - 2 * vectors @ part.T + (part**2).sum(axis=1)
            np.minimum(nearest, squared.min(axis=1), out=nearest)
        return nearest

    nearest = distance_to(anchors)
    picked = np.zeros(min(count, len(vectors)), np.intp)
    for i in range(len(picked)):
        picked[i] = nearest.argmax()
        nearest = np.minimum(nearest, distance_to(vectors[picked[i : i + 1]]))
        nearest[picked[: i + 1]] = -np.inf
    return picked


def _badge(
    probabilities: NDArray[np.float32],
    vectors: NDArray[np.float32],
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """Pick by k-means++ on the gradients that tiles would have, were their classes as predicted.

    The gradient of the head is the outer product of (p - one-hot) and the embedding; products of
    gradients are products of products, so that none of them is ever made.
    """
    error = probabilities.copy()
    error[np.arange(len(error)), error.argmax(axis=1)] -= 1
    squares = (error**2).sum(axis=1) * (vectors**2).sum(axis=1)
    count = min(count, len(vectors))
    picked = [int(squares.argmax())] if count else []
    nearest = np.full(len(vectors), np.inf, np.float32)
    while len(picked) < count:
        last = picked[-1]
        inner = (error @ error[last]) * (vectors @ vectors[last])
        nearest = np.minimum(nearest, np.maximum(squares + squares[last] - 2 * inner, 0))
        nearest[picked] = 0
        total = float(nearest.sum())
        if total <= 0:
            break  # all that is left equals what is picked
        share = nearest.astype(np.float64) / nearest.astype(np.float64).sum()
        picked.append(int(rng.choice(len(vectors), p=share)))
    return np.array(picked, np.intp)


def _as_mask(labelled: ArrayLike, n: int) -> NDArray[np.bool_]:
    given = np.asarray(labelled)
    if given.dtype == bool and given.shape == (n,):
        return given
    mask = np.zeros(n, bool)
    mask[given.astype(np.intp)] = True
    return mask


def _check(views: NDArray[np.float32], vectors: NDArray[np.float32] | None, how: str) -> None:
    if how not in HOWS:
        raise TrainingError(f"There is no order {how!r}. Choose one of {', '.join(HOWS)}.")
    if views.ndim != 3:
        raise TrainingError(
            f"The probabilities have shape {views.shape}; give (n, n_classes) or "
            f"(n_views, n, n_classes)."
        )
    if how == "disagreement" and len(views) < 2:
        raise TrainingError(
            "Disagreement needs several views of each tile, and there is one. Choose 'margin'."
        )
    if vectors is not None and (vectors.ndim != 2 or len(vectors) != views.shape[1]):
        raise TrainingError(
            f"There are {views.shape[1]} tiles and embeddings of shape {vectors.shape}; give "
            f"(n, d)."
        )
