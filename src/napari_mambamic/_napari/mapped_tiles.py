"""A map of embeddings with what is asked of its tiles: threads compute it, the panel shows it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Layer
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_mambamic._napari.classified import iter_embeddings_of
from napari_mambamic._napari.from_layer import LayerPlane
from napari_mambamic.errors import ImageError
from napari_mambamic.explain.embedding_map import (
    EmbeddingMap,
    Method,
    iter_embedding_map,
    iter_find_similar,
)
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import middles_of, places_of

CLOSED = (
    "The image that was classified, or one of its channels, is closed, so its tiles cannot be "
    "shown. Open and classify it again."
)
_MOST_QUERIES = 200  # selected tiles that others are compared with
_MOST_NAMES = 50  # kinds of annotations that are coloured


@dataclass(frozen=True)
class Mapped:
    """A map, and what is asked of its tiles again and again.

    Parameters
    ----------
    layer : Layer
        Of classes.
    plane : LayerPlane or None
        That was classified; None when the image is closed.
    results : TileResults
    map : EmbeddingMap
    shown : ndarray
        (k,) numbers of the tiles on the map, in the order of its points.
    rows : ndarray
        (n,) the point of each tile, -1 for none.
    labels, certainty : ndarray
        (k,) class of each point, and its probability.
    places, middles : ndarray
        (n, 3) and (n, 2) of the tiles.
    tree : cKDTree
        Of the middles.
    """

    layer: Layer
    plane: LayerPlane | None
    results: TileResults
    map: EmbeddingMap
    shown: NDArray[np.intp]
    rows: NDArray[np.intp]
    labels: NDArray[np.int64]
    certainty: NDArray[np.float32]
    places: NDArray[np.int64]
    middles: NDArray[np.float64]
    tree: cKDTree

    def tiles_at(self, points: NDArray[np.float64]) -> NDArray[np.intp]:
        """(n,) number of the tile with the nearest middle that holds each point; -1 for none."""
        distance, nearest = self.tree.query(points, p=np.inf)
        inside = distance <= self.places[nearest, 2] / 2
        return np.where(inside, nearest, -1)

    def nearest_to(self, place: NDArray[np.float64]) -> int:
        """Number of the tile on the map whose middle is the nearest to a place (y, x)."""
        apart = self.middles[self.shown] - place
        return int(self.shown[np.square(apart).sum(axis=1).argmin()])

    def describe(self, tile: int) -> str:
        """Number, class and probability of a tile."""
        results = self.results
        text = f"Tile {tile + 1}"
        if results.object_ids is not None:
            text = f"Object {results.object_ids[tile]}"
        row = results.probabilities[tile]
        if not np.isfinite(row[0]):
            return f"{text}: not classified"
        best = int(row.argmax())
        return f"{text}: {results.class_names[best]}, probability {row[best]:.3f}"

    def describe_all(self, tiles: NDArray[np.intp]) -> str:
        """How many tiles of which classes some are; they are on the map."""
        if not len(tiles):
            return "No tile is selected."
        if len(tiles) == 1:
            return f"{self.describe(int(tiles[0]))}."
        names = self.results.class_names
        counts = np.bincount(self.labels[self.rows[tiles]], minlength=len(names))
        most = [f"{counts[i]:,} {names[i]}" for i in np.argsort(-counts) if counts[i]]
        rest = ", ..." if len(most) > 4 else "."
        selected = f"{len(tiles):,} of {len(self.shown):,} tiles selected"
        return f"{selected}: {', '.join(most[:4])}{rest}"


@dataclass(frozen=True)
class Similar:
    """The tiles that are most like some others, the nearest first."""

    tiles: NDArray[np.intp]
    distances: NDArray[np.float64]
    n_queries: int


def iter_mapped(
    layer: Layer, plane: LayerPlane | None, results: TileResults, method: Method
) -> Generator[Progress, None, Mapped]:
    """Draw a map, in the worker's thread."""
    done = results.is_done
    if plane is not None:
        results.embeddings = yield from iter_embeddings_of(plane.image, results)
    elif results.embeddings is None:
        raise ImageError(CLOSED)
    drawn = yield from iter_embedding_map(results.embeddings, method=method)
    shown = np.flatnonzero(np.isfinite(drawn.coordinates[:, 0]) & done)
    rows = np.full(len(results), -1)
    rows[shown] = np.arange(len(shown))
    labels = results.labels_of(shown)
    middles = middles_of(results.tiles)
    return Mapped(
        layer,
        plane,
        results,
        drawn,
        shown,
        rows,
        labels,
        results.probabilities[shown, labels],
        places_of(results.tiles),
        middles,
        cKDTree(middles),
    )


def iter_similar(
    results: TileResults, queries: NDArray[np.intp], count: int
) -> Generator[Progress, None, Similar]:
    """Find tiles like some others, without these, in the worker's thread."""
    if len(queries) > _MOST_QUERIES:
        queries = queries[np.linspace(0, len(queries) - 1, _MOST_QUERIES).astype(int)]
    more = count + len(queries)
    found, distances = yield from iter_find_similar(
        results.embeddings, results.embeddings[queries], more
    )
    others = ~np.isin(found, queries)
    return Similar(found[others][:count], distances[others][:count], len(queries))


def annotated(
    mapped: Mapped, points: NDArray[np.float64], texts: Any
) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """What tiles are called by points on them: the names, and of each point of the map which."""
    tiles = mapped.tiles_at(points)
    known = np.array([isinstance(t, str) and bool(t) for t in texts]) & (tiles >= 0)
    words = np.asarray(texts, object)[known].astype(str)
    class_names = mapped.results.class_names
    found = sorted(set(words))[:_MOST_NAMES]
    names = class_names if set(found) <= set(class_names) else tuple(found)
    numbers = {name: i for i, name in enumerate(names)}
    kinds = np.full(len(mapped.results), -1)
    kinds[tiles[known]] = [numbers.get(word, -1) for word in words]
    return tuple(names), kinds[mapped.shown]
