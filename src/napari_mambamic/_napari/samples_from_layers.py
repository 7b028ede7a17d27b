"""From annotated layers to samples, cut as the classifier cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points, Shapes
from numpy.typing import NDArray
from skimage.measure import points_in_poly

from napari_mambamic._napari.from_layer import (
    LayerPlane,
    labels_of_layer,
    plane_of_layer,
    points_of_layer,
    polygon_of,
    vertices_of_layer,
)
from napari_mambamic.errors import SamplesError
from napari_mambamic.image import ImagePyramid
from napari_mambamic.tiling import Tile, plan_tiles, tiles_at_points
from napari_mambamic.training.samples import Samples, samples_from_image

_MAJORITY = 0.5  # share of a tile that paint of one class has to cover


@dataclass(frozen=True)
class AnnotatedTiles:
    """Tiles of an image with their classes; no pixels are read yet."""

    image: ImagePyramid
    tiles: list[Tile]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Tiles of each class."""
        counted = np.bincount(self.labels, minlength=len(self.class_names)).tolist()
        return dict(zip(self.class_names, counted, strict=True))

    def read(self) -> Samples:
        """Read the pixels, on any thread."""
        return samples_from_image(self.image, self.tiles, self.labels, class_names=self.class_names)


def samples_from_layers(
    viewer: ViewerModel,
    image: Image,
    annotations: Layer,
    *,
    tile_size: int,
    column: str | None = None,
) -> Samples:
    """Samples from an image layer and a layer that was annotated by hand.

    Parameters
    ----------
    viewer : napari.Viewer
    image : Image
        Of a volume, the plane in view.
    annotations : Points, Shapes or Labels
        Points: one tile around each.  Shapes: one tile around the middle of each, or, of those
        that are larger than a tile, the tiles of the grid whose centre lies inside.  Labels: the
        tiles of the grid of which paint of one label covers at least half; 0 is no class.
    tile_size : int
        In px of the image.
    column : str, optional
        The feature that names the class; by default the first that holds words.  Without any, the
        classes are the colours of the points or shapes, or the numbers of the labels.

    Raises
    ------
    SamplesError
        Nothing is annotated.
    """
    return annotated_tiles(viewer, image, annotations, tile_size=tile_size, column=column).read()


def annotated_tiles(
    viewer: ViewerModel,
    image: Image,
    annotations: Layer,
    *,
    tile_size: int,
    column: str | None = None,
    plane: LayerPlane | None = None,
) -> AnnotatedTiles:
    """Find what is annotated, on the thread of the window; see `samples_from_layers`.

    The `plane` is by default the one in view.
    """
    plane = plane or plane_of_layer(viewer, image)
    if isinstance(annotations, Points):
        places, numbers = points_of_layer(plane, annotations)
        tiles: Sequence[Tile] = tiles_at_points(
            places, tile_size=tile_size, plane_shape=plane.image.plane_shape
        )
        words = _classes_of(annotations, column)[numbers]
    elif isinstance(annotations, Shapes):
        tiles, words = _tiles_of_shapes(plane, annotations, tile_size, column)
    elif isinstance(annotations, Labels):
        tiles, words = _tiles_of_paint(plane, annotations, tile_size, column)
    else:
        raise SamplesError(
            f"{annotations.name!r} is no Points, Shapes or Labels layer. Annotate with one of them."
        )
    if not len(tiles):
        raise SamplesError(
            f"Layer {annotations.name!r} annotates no tile of {tile_size} px. Annotate more, or "
            f"choose smaller tiles."
        )
    names = sorted(set(words.tolist()))
    labels = np.array([names.index(word) for word in words])
    return AnnotatedTiles(plane.image, list(tiles), labels, tuple(names))


def class_columns(layer: Layer) -> list[str]:
    """Features of a layer that hold words, and so may name classes."""
    features = getattr(layer, "features", None)
    if features is None:
        return []
    return [str(n) for n in features.columns if features[n].dtype.kind not in "biufcM"]


def _classes_of(layer: Points | Shapes, column: str | None) -> NDArray[Any]:
    columns = class_columns(layer)
    if column is None and columns:
        column = columns[0]
    if column is not None:
        values = layer.features[column].astype(object)
        missing = values.isna() | (values.astype(str).str.strip() == "")
        if missing.any():
            raise SamplesError(
                f"{int(missing.sum())} of {len(values)} annotations in layer {layer.name!r} have "
                f"no value in the column {column!r}. Fill them in, or delete these annotations."
            )
        return values.astype(str).to_numpy()
    colours = (np.asarray(layer.face_color)[:, :3] * 255).round().astype(int)
    return np.array([f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours])


def _tiles_of_shapes(
    plane: LayerPlane, layer: Shapes, tile_size: int, column: str | None
) -> tuple[list[Tile], NDArray[Any]]:
    grid = [*plan_tiles(plane.image.plane_shape, tile_size=tile_size)]
    centres = np.array([(t.y, t.x) for t in grid]) + (tile_size - 1) / 2
    tiles: list[Tile] = []
    words: list[str] = []
    classes = _classes_of(layer, column) if len(layer.data) else np.array([])
    for vertices, kind, word in zip(
        vertices_of_layer(plane, layer), layer.shape_type, classes, strict=True
    ):
        if not len(vertices):
            continue  # on another plane
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        if (high - low).min() > tile_size:
            inside = np.flatnonzero(points_in_poly(centres, polygon_of(vertices, kind)))
            found = [grid[i] for i in inside]
        else:
            found = list(tiles_at_points([(low + high) / 2], tile_size=tile_size))
        tiles += found
        words += [str(word)] * len(found)
    return tiles, np.array(words)


def _tiles_of_paint(
    plane: LayerPlane, layer: Labels, tile_size: int, column: str | None
) -> tuple[list[Tile], NDArray[Any]]:
    painted = np.asarray(labels_of_layer(plane, layer))
    features, columns = layer.features, class_columns(layer)
    named: dict[int, str] = {}
    if columns and "index" in features:
        column = column or columns[0]
        named = dict(zip(features["index"].tolist(), features[column].astype(str), strict=True))
    tiles, words = [], []
    for tile in plan_tiles(painted.shape, tile_size=tile_size):
        part = painted[tile.y : tile.y + tile_size, tile.x : tile.x + tile_size]
        values, counts = np.unique(part[part > 0], return_counts=True)
        if len(counts) and counts.max() >= _MAJORITY * tile_size**2:
            value = int(values[counts.argmax()])
            tiles.append(tile)
            words.append(named.get(value, f"label {value}"))
    return tiles, np.array(words)
