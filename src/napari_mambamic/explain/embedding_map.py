"""Tiles that look alike to the network lie side by side: embeddings in the plane, and neighbours.

t-SNE and UMAP take long for many tiles.  They lay out a part of them, drawn at random; each of the
others goes where its nearest neighbours of that part are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.errors import EmbeddingError
from napari_mambamic.progress import Progress, drained

Method = Literal["pca", "t-sne", "umap"]
Metric = Literal["cosine", "euclidean"]
METHODS: tuple[Method, ...] = ("pca", "t-sne", "umap")
METRICS: tuple[Metric, ...] = ("cosine", "euclidean")

_COMPONENTS = 50  # that t-SNE and UMAP see: what is left out is mostly noise
_MOST: dict[Method, int] = {"t-sne": 5_000, "umap": 20_000}  # tiles that are laid out
_NEIGHBOURS = 5  # that place each of the others
_CHUNK = 8_192  # rows of embeddings at once: 50 MB in double precision


@dataclass(frozen=True)
class EmbeddingMap:
    """Where tiles lie on a map.

    Parameters
    ----------
    coordinates : ndarray
        (n, 2) float32; a row of NaN is a tile without an embedding.
    method : str
    laid_out : ndarray
        (n,) whether the method itself placed the tile; else its neighbours did.
    explained : float or None
        PCA: the part of the variance that the two axes show.
    """

    coordinates: NDArray[np.float32]
    method: Method
    laid_out: NDArray[np.bool_]
    explained: float | None = None

    @property
    def note(self) -> str:
        """What the reader of the map should know."""
        shown = int(np.isfinite(self.coordinates[:, 0]).sum())
        text = f"{_NAMES[self.method]} of {shown:,} tiles."
        if self.explained is not None:
            text += f" The two axes show {self.explained:.0%} of the variance."
        own = int(self.laid_out.sum())
        if own < shown:
            text += (
                f" {own:,} tiles, drawn at random, were laid out; the other {shown - own:,} lie "
                f"where their {_NEIGHBOURS} nearest neighbours of these do."
            )
        if self.method != "pca":
            text += " Distances between far groups mean little."
        return text


_NAMES: dict[Method, str] = {"pca": "PCA", "t-sne": "t-SNE", "umap": "UMAP"}


def embedding_map(
    embeddings: Any, *, method: Method = "pca", seed: int = 0, most: int | None = None
) -> NDArray[np.float32]:
    """Lay tiles out in the plane by their embeddings.

    Parameters
    ----------
    embeddings : array-like
        (n, d); rows that are not finite, of tiles that were not classified, get no place.
    method : str
        "pca": a projection; fast, distances mean what they say.  "t-sne", "umap": neighbours stay
        neighbours.  UMAP needs the extra ``umap``.
    seed : int
        The same embeddings and seed give the same map.
    most : int, optional
        Tiles that t-SNE and UMAP lay out, by default 5,000 and 20,000; each of the others goes
        where its nearest neighbours are.

    Returns
    -------
    ndarray
        (n, 2) float32; NaN where there is no embedding.

    Raises
    ------
    EmbeddingError
        There are fewer than two embeddings, there is no such method, or umap-learn is missing.
    """
    steps = iter_embedding_map(embeddings, method=method, seed=seed, most=most)
    return drained(steps).coordinates


def iter_embedding_map(
    embeddings: Any, *, method: Method = "pca", seed: int = 0, most: int | None = None
) -> Generator[Progress, None, EmbeddingMap]:
    """As `embedding_map`, step by step; a `Progress` counts tiles that have a place."""
    vectors = _checked(embeddings)
    if method not in METHODS:
        raise EmbeddingError(f"There is no map {method!r}. Choose {', '.join(METHODS)}.")
    umap = _umap() if method == "umap" else None
    rows = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    if len(rows) < 2:
        raise EmbeddingError(
            f"A map needs at least two tiles with an embedding, and there are {len(rows)}. "
            f"Classify more tiles."
        )
    coordinates = np.full((len(vectors), 2), np.nan, np.float32)
    laid_out = np.zeros(len(vectors), bool)
    begin = time.perf_counter()

    def step(message: str) -> Progress:
        done = int(np.isfinite(coordinates[:, 0]).sum())
        return Progress(done, len(rows), time.perf_counter() - begin, message)

    yield step("Principal components")
    reduced, shares = _principal(vectors[rows], 2 if method == "pca" else _COMPONENTS)
    if method == "pca":
        coordinates[rows], laid_out[rows] = reduced, True
        return EmbeddingMap(coordinates, method, laid_out, float(shares.sum()))
    chosen = np.arange(len(rows))
    most = _MOST[method] if most is None else most
    if len(rows) > most:
        chosen = np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))
    yield step(f"{_NAMES[method]} of {len(chosen):,} tiles")
    placed = _neighbours_kept(reduced[chosen], umap, seed)
    coordinates[rows[chosen]], laid_out[rows[chosen]] = placed, True
    others = np.setdiff1d(np.arange(len(rows)), chosen, assume_unique=True)
    for first in range(0, len(others), _CHUNK):
        yield step("Placing the others")
        part = others[first : first + _CHUNK]
        coordinates[rows[part]] = _among(reduced[part], reduced[chosen], placed)
    return EmbeddingMap(coordinates, method, laid_out)


def find_similar(
    embeddings: Any, query: Any, k: int, *, metric: Metric = "cosine"
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Rank tiles by how near their embeddings are to some others.

    Parameters
    ----------
    embeddings : array-like
        (n, d); rows that are not finite are never found.
    query : array-like
        (d,) or (m, d) embeddings; of several, the nearest counts.  A tile of the list finds itself
        first, at distance 0.
    k : int
        How many at most.
    metric : str
        "cosine", 0 (same direction) to 2, or "euclidean".

    Returns
    -------
    indices : ndarray
        (k,) of rows, the nearest first; of equally near ones the first.
    distances : ndarray
        (k,) of each to the nearest query.

    Raises
    ------
    EmbeddingError
        The shapes do not fit, or there is no such metric.
    """
    return drained(iter_find_similar(embeddings, query, k, metric=metric))


def iter_find_similar(
    embeddings: Any, query: Any, k: int, *, metric: Metric = "cosine"
) -> Generator[Progress, None, tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """As `find_similar`, chunk by chunk; every distance is computed."""
    vectors = _checked(embeddings)
    wanted = np.atleast_2d(np.asarray(query, np.float64))
    if wanted.ndim != 2 or wanted.shape[1] != vectors.shape[1] or not len(wanted):
        raise EmbeddingError(
            f"The query has shape {np.shape(query)} and the embeddings {vectors.shape}. Give (d,) "
            f"or (m, d) with the same d."
        )
    if not np.isfinite(wanted).all():
        raise EmbeddingError("The query is not finite: its tile was not classified. Take another.")
    distances_to = _DISTANCES.get(metric)
    if distances_to is None:
        raise EmbeddingError(f"There is no distance {metric!r}. Choose {', '.join(METRICS)}.")
    distances = np.full(len(vectors), np.inf)
    begin = time.perf_counter()
    for first in range(0, len(vectors), _CHUNK):
        yield Progress(first, len(vectors), time.perf_counter() - begin, "Comparing")
        part = vectors[first : first + _CHUNK].astype(np.float64)
        known = np.isfinite(part).all(axis=1)
        distances[first : first + _CHUNK][known] = distances_to(part[known], wanted).min(axis=1)
    nearest = np.argsort(distances, kind="stable")[: max(int(k), 0)]
    nearest = nearest[np.isfinite(distances[nearest])]
    return nearest, distances[nearest]


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, m) distances; a vector of zeros has no direction, and distance 1 to all."""
    lengths = [np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b)]
    one, other = (
        v / np.where(length > 0, length, 1) for v, length in zip((a, b), lengths, strict=True)
    )
    return (1 - one @ other.T).clip(0, 2)


def _euclidean(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial.distance import cdist

    distances: NDArray[np.float64] = cdist(a, b)
    return distances


_DISTANCES: dict[str, Callable[..., NDArray[np.float64]]] = {
    "cosine": _cosine,
    "euclidean": _euclidean,
}


def _checked(embeddings: Any) -> NDArray[np.float32]:
    vectors = np.asarray(embeddings, np.float32)
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise EmbeddingError(f"The embeddings have shape {vectors.shape}; give (n tiles, d).")
    return vectors


def _principal(
    vectors: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Principal components (n, count) and their shares of the variance; (n, 2) at least."""
    from sklearn.decomposition import PCA

    possible = min(count, *vectors.shape)
    components = PCA(possible, svd_solver="covariance_eigh").fit(vectors)
    reduced = np.zeros((len(vectors), max(possible, 2)), np.float32)
    reduced[:, :possible] = components.transform(vectors)
    return reduced, np.nan_to_num(components.explained_variance_ratio_)


def _neighbours_kept(vectors: NDArray[np.float32], umap: Any, seed: int) -> NDArray[np.float32]:
    """t-SNE, or UMAP by its module: (n, 2)."""
    if umap is not None:
        layout = umap.UMAP(n_neighbors=min(15, len(vectors) - 1), random_state=seed, n_jobs=1)
    else:
        from sklearn.manifold import TSNE

        # A perplexity must be less than the number of tiles; 30 is usual.
        perplexity = min(30.0, max((len(vectors) - 1) / 3, 0.5))
        layout = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    placed: NDArray[np.float32] = layout.fit_transform(vectors).astype(np.float32)
    return placed


def _among(
    others: NDArray[np.float32], chosen: NDArray[np.float32], placed: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Places (n, 2) of others: the mean of their nearest chosen ones, the nearer the heavier."""
    from sklearn.neighbors import NearestNeighbors

    count = min(_NEIGHBOURS, len(chosen))
    distances, nearest = NearestNeighbors(n_neighbors=count).fit(chosen).kneighbors(others)
    weights = 1 / np.maximum(distances, 1e-12)
    weights /= weights.sum(axis=1, keepdims=True)
    mean: NDArray[np.float32] = np.einsum("nk,nkd->nd", weights, placed[nearest]).astype(np.float32)
    return mean


def _umap() -> Any:
    try:
        import umap
    except ImportError as error:
        raise EmbeddingError(
            "UMAP needs umap-learn, which is not installed. Choose t-SNE, or install it: pip "
            "install 'napari-mambamic[umap]', and start again."
        ) from error
    return umap
