"""Outlines of the objects of a label image, as polygons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours

from napari_mambamic.errors import ExportError
from napari_mambamic.exports.description import plane_shape_of
from napari_mambamic.results import TileResults
from napari_mambamic.stitching import tile_numbers

Ring = NDArray[np.float64]  # (n, 2) of (y, x); the last vertex is the first


def label_plane(results: TileResults, labels: Any) -> NDArray[Any]:
    """The label image of results of objects, as it was when they were cut.

    Raises
    ------
    ExportError
        The results are not of objects, or the label image is not of their plane.
    """
    if results.object_ids is None:
        raise ExportError(
            "A label image was given for results of a grid of tiles. Give one only for objects."
        )
    array = np.asarray(labels)
    if array.ndim != 2:
        raise ExportError(f"The label image has shape {array.shape}; give one plane (y, x).")
    if array.shape != (plane_shape_of(results) or array.shape):
        raise ExportError(
            f"The label image has shape {array.shape}, and the objects were cut from an image of "
            f"shape {plane_shape_of(results)}. Give the label image that they were cut by."
        )
    if array.dtype == bool:
        array, _ = ndimage.label(array)  # as `tiles_of_objects` numbers them
    return array


def outlines_of_objects(results: TileResults, labels: Any) -> Iterator[list[list[Ring]]]:
    """Polygons of each tile's object, in the order of the tiles.

    Each object is a list of polygons, more than one where its pixels hang together only by corners
    or not at all; each polygon is a list of rings, the outer one first, then those of holes.
    Coordinates are px of the image; pixel i reaches from i to i + 1.

    Raises
    ------
    ExportError
        The label image lacks an object.
    """
    ids = results.object_ids
    numbers = tile_numbers(label_plane(results, labels), np.asarray(ids))
    boxes = ndimage.find_objects(numbers, max_label=len(results))
    for number, box in enumerate(boxes, start=1):
        if box is None:
            raise ExportError(
                f"The label image has no object {np.asarray(ids)[number - 1]}, which was "
                f"classified. Give the label image that the results are of."
            )
        corner = [side.start for side in box]
        yield [
            [ring + corner for ring in polygon]
            for polygon in _polygons_of_mask(numbers[box] == number)
        ]


def _polygons_of_mask(mask: NDArray[np.bool_]) -> list[list[Ring]]:
    parts, n_parts = ndimage.label(np.pad(mask, 1))
    polygons = []
    for part in range(1, n_parts + 1):
        # Contours run half-way between pixels' centres: the area is that of the pixels less half a
        # pixel in all, as the corners that are cut and those that are filled cancel out.
        rings = find_contours((parts == part).astype(np.float32), 0.5)
        rings.sort(key=lambda ring: -abs(_area(ring)))
        polygons.append([_without_midpoints(ring - 0.5) for ring in rings])
    return polygons


def _area(ring: Ring) -> float:
    y, x = ring.T
    return float(y[:-1] @ x[1:] - y[1:] @ x[:-1]) / 2


def _without_midpoints(ring: Ring) -> Ring:
    """The ring without the vertices that lie on a straight line between their neighbours."""
    steps = np.diff(ring, axis=0)
    before = np.roll(steps, 1, axis=0)
    turns = before[:, 0] * steps[:, 1] != before[:, 1] * steps[:, 0]
    kept = ring[:-1][turns]
    return np.vstack([kept, kept[:1]])
