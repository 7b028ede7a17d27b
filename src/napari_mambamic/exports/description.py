"""What a file says about the results in it, so that they can be understood and read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.errors import ExportError
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import ObjectTiles, Tile, TileGrid

KEY = "mambamic"  # what the description is kept under, in every format


def describe(results: TileResults) -> dict[str, Any]:
    """Class names, provenance, what was cut and, for a grid, where its tiles lie: plain values."""
    tiles = results.tiles
    grid = None
    if isinstance(tiles, TileGrid):
        grid = {
            "tile_size": tiles.tile_size,
            "overlap": tiles.overlap,
            "rows": list(tiles.rows),
            "columns": list(tiles.columns),
            "region": list(tiles.region),
        }
    return {
        "class_names": list(results.class_names),
        "complete": results.complete,
        "grid": grid,
        "objects": results.object_ids is not None,
        "provenance": results.provenance,
    }


def described_results(
    description: dict[str, Any],
    *,
    numbers: NDArray[np.int64],
    places: NDArray[np.int64],
    object_ids: NDArray[np.int64] | None,
    probabilities: NDArray[np.float32],
    distances: NDArray[np.float32] | None = None,
) -> TileResults:
    """Results from a description and the rows of a file.

    Parameters
    ----------
    description : dict
        From `describe`.
    numbers : ndarray
        (n,) of the tiles that the file holds.
    places : ndarray
        (n, 3) their y, x and size.
    object_ids : ndarray or None
        (n,) of objects or points.
    probabilities : ndarray
        (n, n_classes).
    distances : ndarray, optional
        (n,) as `TileResults.distances`.
    """
    names, grid = tuple(description["class_names"]), description["grid"]
    tiles: Sequence[Tile]
    if grid is not None:
        tiles = TileGrid(
            grid["tile_size"],
            grid["overlap"],
            tuple(grid["rows"]),
            tuple(grid["columns"]),
            (*grid["region"],),
        )
        filled = np.full((len(tiles), len(names)), np.nan, np.float32)
        filled[numbers] = probabilities
        probabilities = filled
        if distances is not None:
            all_distances = np.full(len(tiles), np.nan, np.float32)
            all_distances[numbers] = distances
            distances = all_distances
    else:
        tiles = tuple(Tile(y, x, size) for y, x, size in places.tolist())
        if object_ids is not None:
            centres = places[:, :2] + (places[:, 2:] - 1) / 2
            tiles = ObjectTiles(tiles, object_ids, centres)
    return TileResults(
        names,
        tiles,
        probabilities,
        None,
        description["provenance"],
        description["complete"],
        distances,
    )


def parsed_description(text: str | bytes, path: object) -> dict[str, Any]:
    """A description from its JSON, or a sentence."""
    try:
        description = json.loads(text)
        if {"class_names", "complete", "grid", "objects", "provenance"} <= set(description):
            return dict(description)
    except (ValueError, TypeError):
        pass
    raise not_ours(path)


def not_ours(path: object) -> ExportError:
    """The error for a file that was not written here, or was changed since."""
    return ExportError(
        f"{path} does not hold results that were saved by napari-mambamic, or was changed by "
        f"another program since. Choose a file as it was saved."
    )


def plane_shape_of(results: TileResults) -> tuple[int, int] | None:
    """(height, width) of the image that was classified, where it is known."""
    shape = results.provenance.get("image", {}).get("plane_shape")
    return (int(shape[0]), int(shape[1])) if shape else None
