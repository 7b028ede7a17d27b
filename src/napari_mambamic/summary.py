"""How many tiles each class has, how much area that is, and how sure the network was; by region."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mambamic.atomic import write_json, written_atomically
from napari_mambamic.errors import ImageError
from napari_mambamic.exports.description import plane_shape_of
from napari_mambamic.results import TileResults
from napari_mambamic.stitching import label_geometry, tile_numbers
from napari_mambamic.tiling import TileGrid, middles_of, points_within, values_at

EVERYWHERE = "everywhere"  # the region that is meant when none are given
_PIXELS_AT_ONCE = 1 << 24


class SummaryRow(NamedTuple):
    """One class in one region; see `Summary`."""

    region: str
    class_name: str
    tiles: int
    share: float | None
    area: float | None
    mean_probability: float | None
    unsure: int = 0


@dataclass(frozen=True)
class Summary:
    """A table with a row per region and class.

    Parameters
    ----------
    regions : tuple of str
    class_names : tuple of str
    tiles : ndarray
        (n_regions, n_classes) int64: tiles, objects or points of each class.
    area : ndarray
        (n_regions, n_classes) float64: what they cover, in `area_unit`; NaN where it is not known.
    mean_probability : ndarray
        (n_regions, n_classes) float64: mean, over the tiles of a class, of the probability of that
        class; NaN where there is none.
    area_unit : str
        "um2", or "px" where the pixel size is not known.
    provenance : dict
        Of the results.
    unsure : ndarray
        (n_regions, n_classes) int64: tiles that are unsure, by their most probable class.  `tiles`,
        `area` and `mean_probability` include them, or not, as the run was told.
    """

    regions: tuple[str, ...]
    class_names: tuple[str, ...]
    tiles: NDArray[np.int64]
    area: NDArray[np.float64]
    mean_probability: NDArray[np.float64]
    area_unit: str
    provenance: dict[str, Any]
    unsure: NDArray[np.int64]

    @property
    def has_unsure(self) -> bool:
        """Whether the run had a threshold for what is unsure."""
        return bool(self.provenance.get("settings", {}).get("unsure_below"))

    @property
    def share(self) -> NDArray[np.float64]:
        """(n_regions, n_classes) tiles of the class / classified tiles of the region, or NaN."""
        total = self.tiles.sum(axis=1, keepdims=True)
        return np.where(total > 0, self.tiles / np.maximum(total, 1), np.nan)

    @property
    def rows(self) -> list[SummaryRow]:
        """Region by region, the classes in the order of the weights; None is not known."""
        table = []
        columns = (self.share, self.area, self.mean_probability)
        for i, region in enumerate(self.regions):
            for j, name in enumerate(self.class_names):
                numbers = (float(column[i, j]) for column in columns)
                known = (None if np.isnan(number) else number for number in numbers)
                tiles, unsure = int(self.tiles[i, j]), int(self.unsure[i, j])
                share, area, probability = known
                table.append(SummaryRow(region, name, tiles, share, area, probability, unsure))
        return table

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write one row per region and class; what is not known is empty.

        The provenance goes beside it, to ``<name>.provenance.json``.  Neither file is ever
        half-written.

        Returns
        -------
        Path
            Of the CSV file.

        Raises
        ------
        ExportError
            The file could not be written; what was there is untouched.
        """
        path = Path(path)
        with (
            written_atomically(path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            area = f"area_{self.area_unit}"
            heading = ["region", "class", "tiles", "share", area, "mean_probability"]
            writer.writerow([*heading, *(["unsure"] if self.has_unsure else [])])
            for region, name, tiles, *numbers, unsure in self.rows:
                digits = ["" if number is None else f"{number:.6g}" for number in numbers]
                rest = [unsure] if self.has_unsure else []
                writer.writerow([region, name, tiles, *digits, *rest])
        write_json(path.with_suffix(".provenance.json"), self.provenance)
        return path


def summarise(
    results: TileResults,
    *,
    regions: Mapping[str, Any] | ArrayLike | None = None,
    labels: Any = None,
    pixel_size_um: float | tuple[float, float] | None = None,
    tile_areas_px: NDArray[np.float64] | None = None,
) -> Summary:
    """Count the classified tiles of each class, by region.

    A tile, object or point belongs to the regions that its middle lies in.

    Parameters
    ----------
    results : TileResults
    regions : mapping or array-like, optional
        Polygons by name, each (k, 2) of (y, x) in px, or a list of several; or a label image (y, x)
        of the plane, of which each label that holds a tile is a region, 0 excepted.  By default
        there is one region, "everywhere".
    labels : array-like, optional
        The label image (y, x) that objects were cut by, for their areas.
    pixel_size_um : float or (float, float), optional
        Micrometres per px; by default that of the image that was classified.
    tile_areas_px : ndarray, optional
        (n_tiles,) of `areas_of_tiles`, for who needs several summaries of a large label image.

    Raises
    ------
    ImageError
        A label image or a polygon does not fit.

    Examples
    --------
    >>> from napari_mambamic.tiling import plan_tiles
    >>> sure = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], np.float32)
    >>> results = TileResults(("a", "b"), plan_tiles((4, 12), tile_size=4), sure, None, {})
    >>> for row in summarise(results, regions={"left": [(0, 0), (0, 7), (4, 7), (4, 0)]}).rows:
    ...     print(row.region, row.class_name, row.tiles, row.share, row.area)
    left a 1 0.5 16.0
    left b 1 0.5 16.0
    """
    names, numbers, tiles = _members(results, regions)
    classes = results.labels
    known = classes[tiles] >= 0
    numbers, tiles = numbers[known], tiles[known]
    shape = len(names), len(results.class_names)
    unsure = (numbers * shape[1] + classes[tiles])[results.is_unsure[tiles]]
    counted = results.is_counted[tiles]
    numbers, tiles = numbers[counted], tiles[counted]
    cells = numbers * shape[1] + classes[tiles]

    def summed(values: NDArray[Any] | None = None) -> NDArray[Any]:
        return np.bincount(cells, values, minlength=shape[0] * shape[1]).reshape(shape)

    areas = areas_of_tiles(results, labels) if tile_areas_px is None else tile_areas_px
    sizes = pixel_size_um or results.provenance.get("image", {}).get("pixel_size_um")
    per_px = float(np.prod(np.broadcast_to(sizes, 2))) if sizes else 1.0
    counts = summed()
    probabilities = summed(results.probabilities[tiles, classes[tiles]].astype(np.float64))
    return Summary(
        names,
        results.class_names,
        counts,
        summed(areas[tiles]) * per_px,
        np.where(counts > 0, probabilities / np.maximum(counts, 1), np.nan),
        "um2" if sizes else "px",
        results.provenance | {"complete": results.complete},
        np.bincount(unsure, minlength=shape[0] * shape[1]).reshape(shape),
    )


def joined(parts: Sequence[tuple[str, Summary]]) -> Summary:
    """One table of several, such as of the planes of a stack; each has a name for its regions.

    Regions are called ``<name>``, or ``<name>, <region>`` where regions were given.
    """
    first = parts[0][1]
    regions = [
        name if region == EVERYWHERE else f"{name}, {region}"
        for name, part in parts
        for region in part.regions
    ]

    def stacked(column: str) -> NDArray[Any]:
        return np.vstack([getattr(part, column) for _, part in parts])

    return Summary(
        tuple(regions),
        first.class_names,
        stacked("tiles"),
        stacked("area"),
        stacked("mean_probability"),
        first.area_unit,
        first.provenance,
        stacked("unsure"),
    )


def areas_of_tiles(results: TileResults, labels: Any = None) -> NDArray[np.float64]:
    """(n_tiles,) px that each tile speaks for; NaN where that is not known.

    Of a grid, a tile's own share: the part of the covered region that its label pixel shows, with
    the margins for the tiles at the border; so all shares together are the region.  Of objects, the
    pixels that have their label; not known without the label image, and for points.
    """
    tiles = results.tiles
    if isinstance(tiles, TileGrid):
        heights, widths = _own_shares(tiles)
        return np.outer(heights, widths).ravel()
    ids = results.object_ids
    if ids is None or labels is None:
        return np.full(len(tiles), np.nan)
    shape = plane_shape_of(results) or np.shape(labels)
    if np.shape(labels) != shape:
        raise ImageError(
            f"The label image has shape {np.shape(labels)}, and the image that was classified is "
            f"{shape[0]} x {shape[1]} px. Give the labels that the objects were cut by."
        )
    counts = np.zeros(len(tiles) + 1, np.int64)
    n_rows = max(_PIXELS_AT_ONCE // max(shape[1], 1), 1)
    for first in range(0, shape[0], n_rows):
        numbers = tile_numbers(np.asarray(labels[first : first + n_rows]), ids)
        counts += np.bincount(numbers.ravel(), minlength=len(counts))
    return counts[1:].astype(np.float64)


def _own_shares(grid: TileGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Heights of the rows of tiles and widths of the columns, each as far as the next begins."""
    (y, x), stride = label_geometry(grid)
    top, left, height, width = grid.region

    def lengths(middle: float, n: int, first: int, length: int) -> NDArray[np.float64]:
        edges = middle - (stride - 1) / 2 + stride * np.arange(n + 1, dtype=np.float64)
        edges[0], edges[-1] = first, first + length
        return np.diff(edges)

    n_rows, n_columns = grid.shape
    return lengths(y, n_rows, top, height), lengths(x, n_columns, left, width)


def _members(
    results: TileResults, regions: Mapping[str, Any] | ArrayLike | None
) -> tuple[tuple[str, ...], NDArray[np.intp], NDArray[np.intp]]:
    """Names of the regions; then pairs: number of a region, number of a tile that lies in it."""
    everything = np.arange(len(results))
    if regions is None:
        return (EVERYWHERE,), np.zeros_like(everything), everything
    middles = middles_of(results.tiles)
    if isinstance(regions, Mapping):
        inside = [
            np.flatnonzero(points_within(middles, _polygons(name, value)))
            for name, value in regions.items()
        ]
        numbers = np.repeat(np.arange(len(inside)), [len(tiles) for tiles in inside])
        return tuple(regions), numbers, np.concatenate([everything[:0], *inside])
    shape = plane_shape_of(results) or np.shape(regions)
    if np.shape(regions) != shape:
        raise ImageError(
            f"The label image of the regions has shape {np.shape(regions)}, and the image that was "
            f"classified is {shape[0]} x {shape[1]} px. Give labels of that image."
        )
    values = values_at(middles, regions)
    tiles = np.flatnonzero(values > 0)
    found, numbers = np.unique(values[tiles], return_inverse=True)
    return tuple(f"label {int(value)}" for value in found), numbers.reshape(-1), tiles


def _polygons(name: str, value: Any) -> list[NDArray[np.float64]]:
    """One polygon (k, 2), or several, as several."""
    several = [value] if len(value) and np.ndim(value[0]) == 1 else list(value)
    polygons = [np.asarray(polygon, np.float64) for polygon in several]
    for polygon in polygons:
        if polygon.ndim != 2 or polygon.shape[1] != 2 or len(polygon) < 3:
            raise ImageError(
                f"Region {name!r} has a polygon of shape {polygon.shape}; give (k, 2) numbers "
                f"(y, x) of at least three corners."
            )
    return polygons
