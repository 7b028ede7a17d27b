"""Coordinates and embeddings of tiles as features of a layer, for other plugins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from napari.layers import Labels, Layer, Points
from numpy.typing import NDArray

from napari_mambamic._napari.mapped_tiles import Mapped
from napari_mambamic._napari.to_layers import place_of
from napari_mambamic.results import TileResults


def features_of(
    mapped: Mapped, kept: pd.DataFrame | None, with_embeddings: bool
) -> pd.DataFrame | Points:
    """The features of a layer of classes and more; or, in place of them, a point on each tile."""
    results = mapped.results
    if kept is None:
        tiles = mapped.shown
        kept = pd.DataFrame(
            {
                "tile": tiles + 1,
                "class": pd.Categorical.from_codes(mapped.labels, list(results.class_names)),
                "probability": mapped.certainty,
            }
        )
        as_points = True
    else:
        tiles, as_points = tiles_of_features(mapped.layer, results), False
    kept = kept.drop(columns=[c for c in kept if str(c).startswith(("map_", "embedding_"))])
    parts = [kept, _columns("map", mapped.map.coordinates[tiles], kept.index, first=1)]
    if with_embeddings:
        parts.append(_columns("embedding", results.embeddings[tiles], kept.index))
    features = pd.concat(parts, axis=1)
    return _points_on_tiles(mapped, features) if as_points else features


def _columns(name: str, values: NDArray[Any], index: pd.Index, *, first: int = 0) -> pd.DataFrame:
    names = [f"{name}_{i}" for i in range(first, first + values.shape[1])]
    return pd.DataFrame(values, columns=names, index=index)


def _points_on_tiles(mapped: Mapped, features: pd.DataFrame) -> Points:
    """A layer that can have features of tiles where the pixels of the classes cannot."""
    image, index = mapped.plane.layer, mapped.plane.index
    places = np.zeros((len(mapped.shown), len(index) + 2))
    places[:, : len(index)] = index
    places[:, -2:] = mapped.middles[mapped.shown]
    return Points(
        places,
        name=f"{mapped.layer.name} tiles",
        features=features,
        size=float(np.median(mapped.places[:, 2])) / 3,
        visible=False,  # 100,000 points take napari a second to draw
        metadata={"mambamic": mapped.results.provenance},
        **place_of(image),
    )


def tiles_of_features(layer: Layer, results: TileResults) -> NDArray[np.intp] | None:
    """Number of the tile of each row of the features of a layer of classes.

    None where the rows are classes or of several planes, or the layer is a heatmap.
    """
    if isinstance(layer, Points):  # of several planes, the rows are those of all
        return np.arange(len(results)) if len(results) == len(layer.data) else None
    if not isinstance(layer, Labels) or "probability" not in layer.features:
        return None
    values = layer.features["index"].to_numpy()
    ids = results.object_ids
    if ids is None:
        return values - 1
    order = np.argsort(ids)
    tiles: NDArray[np.intp] = order[np.searchsorted(ids, values, sorter=order)]
    return tiles
