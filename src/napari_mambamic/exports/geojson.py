"""GeoJSON that QuPath 0.4 and later opens as tiles and detections.

A FeatureCollection with one feature a line.  Coordinates are (x, y) in px of level 0, from the
corner of the first pixel.  QuPath reads ``objectType``, ``classification`` and ``measurements``
(https://github.com/qupath/qupath/pull/1099) and passes over the rest: ``tile`` (number, y, x, size)
of each feature and the description at the top, from which results are read back.  The ``name`` of a
detection is the number of its object.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.atomic import written_atomically
from napari_mambamic.colours import Colours, colours_beside
from napari_mambamic.errors import ExportError
from napari_mambamic.exports.description import (
    KEY,
    describe,
    described_results,
    not_ours,
    parsed_description,
    plane_shape_of,
)
from napari_mambamic.exports.outlines import Ring, outlines_of_objects
from napari_mambamic.results import DISTANCE, TileResults
from napari_mambamic.tiling import places_of

_FEATURES_AT_ONCE = 10_000


def write_geojson(
    results: TileResults,
    path: str | os.PathLike[str],
    *,
    labels: Any = None,
    colours: Colours | None = None,
) -> Path:
    """Write GeoJSON, feature by feature; see `TileResults.to_geojson`."""
    path = Path(path)
    header = {"type": "FeatureCollection", KEY: describe(results)}
    with written_atomically(path) as temporary, _opened(temporary, "wt", path) as file:
        file.write(json.dumps(header)[:-1] + ', "features": [')
        separator = "\n"
        for features in filter(None, _features(results, labels, colours or {})):
            file.write(separator + ",\n".join(features))
            separator = ",\n"
        file.write("\n]}\n")
    return path


def read_geojson(path: str | os.PathLike[str]) -> TileResults:
    """Read a file of `write_geojson`; tiles of a grid that it leaves out come back unclassified."""
    path = Path(path)
    names: list[str] = []

    def compact(found: dict[str, Any]) -> Any:
        """Keep of each feature what is needed, while the file is parsed."""
        if "class_names" in found:
            names[:] = found["class_names"]
        elif found.get("type") == "Feature":
            properties = found["properties"]
            measured = properties["measurements"]
            values = [*(measured[f"p_{n}"] for n in names), measured.get(DISTANCE, np.nan)]
            return properties["tile"], int(properties.get("name", 0)), np.array(values, np.float32)
        return found

    try:
        with _opened(path, "rt", path) as file:
            parsed = json.load(file, object_hook=compact)
        description = parsed_description(json.dumps(parsed[KEY]), path)
        features = parsed["features"]
        numbers = np.array([tile for tile, _, _ in features], np.int64).reshape(-1, 4)
        ids = np.array([object_id for _, object_id, _ in features], np.int64)
        values = np.array([v for _, _, v in features], np.float32).reshape(-1, len(names) + 1)
        known = np.isfinite(values[:, -1]).any()
        return described_results(
            description,
            numbers=numbers[:, 0],
            places=numbers[:, 1:],
            object_ids=ids if description["objects"] else None,
            probabilities=values[:, :-1],
            distances=values[:, -1] if known else None,
        )
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise not_ours(path) from error


def _features(results: TileResults, labels: Any, colours: Colours) -> Iterator[list[str]]:
    """Features as JSON, some thousands at a time, without the tiles that were not classified."""
    templates = _templates(results, colours)
    trust = [column.astype(np.float64) for column in results.trust_columns().values()]
    values = np.column_stack([results.probabilities, *trust])
    ids, classes, places = results.object_ids, results.labels, places_of(results.tiles)
    columns = [np.arange(len(results))[:, np.newaxis], places]
    columns += [] if ids is None else [ids[:, np.newaxis]]
    whole_numbers = np.hstack(columns)
    outlines = None if labels is None else outlines_of_objects(results, labels)
    for first in range(0, len(results), _FEATURES_AT_ONCE):
        some = slice(first, first + _FEATURES_AT_ONCE)
        geometries: Iterable[str]
        if outlines is None:
            geometries = _squares(places[some], plane_shape_of(results))
        else:
            geometries = (_geometry(outline) for outline in outlines)
        yield [
            templates[label] % (geometry, *shares, *numbers)
            for label, shares, numbers, geometry in zip(
                classes[some].tolist(),
                values[some].tolist(),
                whole_numbers[some].tolist(),
                geometries,
                strict=False,  # outlines go on
            )
            if label >= 0
        ]


def _templates(results: TileResults, known: Colours) -> list[str]:
    """A feature of each class, to be filled with geometry, probabilities and numbers by ``%``."""

    def literal(value: Any) -> str:
        return json.dumps(value, separators=(",", ":")).replace("%", "%%")

    is_grid = results.object_ids is None
    # Nine digits bring back every float32 exactly.
    names = [*(f"p_{name}" for name in results.class_names), *results.trust_columns()]
    shares = ",".join(literal(name) + ":%.9g" for name in names)
    shown = colours_beside(results.class_names, known)[:, :3]
    colours = (shown * 255).round().astype(int).tolist()
    return [
        '{"type":"Feature","geometry":%s,"properties":{"objectType":'
        + literal("tile" if is_grid else "detection")
        + ',"classification":'
        + literal(_qupath_class(name, number) | {"color": colour})
        + ',"measurements":{'
        + shares
        + '},"tile":[%d,%d,%d,%d]'
        + ("" if is_grid else ',"name":"%d"')
        + "}}"
        for number, (name, colour) in enumerate(zip(results.class_names, colours, strict=True))
    ]


def _qupath_class(name: str, number: int) -> dict[str, Any]:
    """A class as QuPath names it: without line breaks, parts between colons being subclasses.

    >>> _qupath_class("Tumor: Positive", 0)
    {'names': ['Tumor', 'Positive']}
    """
    parts = [" ".join(part.split()) for part in name.split(":")]
    parts = [part for part in parts if part] or [f"Class {number + 1}"]
    return {"names": parts} if len(parts) > 1 else {"name": parts[0]}


def _squares(places: NDArray[np.int64], plane_shape: tuple[int, int] | None) -> list[str]:
    """Geometries of tiles, without what sticks out of the plane."""
    top_left, bottom_right = places[:, :2], places[:, :2] + places[:, 2:]
    if plane_shape is not None:
        top_left, bottom_right = top_left.clip(0, plane_shape), bottom_right.clip(0, plane_shape)
    corners = np.hstack([top_left, bottom_right])[:, [1, 0, 3, 0, 3, 2, 1, 2, 1, 0]]
    square = '{"type":"Polygon","coordinates":[[[%d,%d],[%d,%d],[%d,%d],[%d,%d],[%d,%d]]]}'
    return [square % tuple(row) for row in corners.tolist()]


def _geometry(outline: list[list[Ring]]) -> str:
    polygons = [[ring[:, ::-1].tolist() for ring in polygon] for polygon in outline]
    geometry = (
        {"type": "Polygon", "coordinates": polygons[0]}
        if len(polygons) == 1
        else {"type": "MultiPolygon", "coordinates": polygons}
    )
    return json.dumps(geometry, separators=(",", ":"))


def _opened(path: Path, mode: Literal["rt", "wt"], named: Path) -> IO[str]:
    if named.suffix.lower() == ".gz":
        return gzip.open(path, mode, compresslevel=4, encoding="utf-8")
    return open(path, mode, encoding="utf-8")
