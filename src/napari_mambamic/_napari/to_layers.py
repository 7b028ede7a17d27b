"""From results to napari's layers, exactly where the tiles lie.

A grid becomes a Labels layer with one pixel per tile: the pixel's side is the stride.  Label
value = number of the tile + 1, so that hovering and ``features`` speak of single tiles; of more
than 2,500 tiles, and of stacks, value = number of the class + 1.
`stitching.py` has the drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points
from napari.utils.colormaps import DirectLabelColormap
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from napari_mambamic._napari.from_layer import LayerPlane, finest_of, index_in_labels
from napari_mambamic.colours import UNSURE, colours_beside
from napari_mambamic.results import TileResults, entropy_of, margin_of
from napari_mambamic.stitching import label_geometry
from napari_mambamic.tiling import TileGrid

# Heatmaps that are not of a class: their name, and what they show of some tiles.
MAPS: dict[str, Callable[[TileResults, NDArray[np.intp] | slice], NDArray[Any]]] = {
    "entropy": lambda results, tiles: entropy_of(results.probabilities[tiles]),
    "margin": lambda results, tiles: margin_of(results.probabilities[tiles]),
    "distance": lambda results, tiles: _distances(results)[tiles],
    "set size": lambda results, tiles: _set_sizes(results, tiles),
}
_USUAL_COVERAGE = 0.95
MOST_NUMBERED = 2500  # tiles that get a colour each


def place_of(layer: Layer) -> dict[str, Any]:
    """Keywords that put a layer where another one is."""
    names = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
    return {name: getattr(layer, name) for name in names}


def results_of(layer: Layer) -> list[TileResults]:
    """What a layer of classes or a heatmap shows, plane by plane; of another layer nothing."""
    results = layer.metadata.get("results", [])
    several = results if isinstance(results, list) else [results]
    return [each for each in several if isinstance(each, TileResults)]


def first_point_of(layer: Layer, results: TileResults) -> int:
    """Number of the point of a layer of classes that shows the first tile of some results of it."""
    index = tuple((results.provenance.get("layer") or {}).get("plane") or ())
    return int(layer.metadata.get("first points", {}).get(index, 0))


def colours_in(viewer: ViewerModel, class_names: Sequence[str]) -> NDArray[np.float32]:
    """(n_classes, 4) colours of classes, the same for a name in all layers of the viewer."""
    known: dict[str, NDArray[np.float32]] = {}
    for layer in viewer.layers:
        known = layer.metadata.get("colours", {}) | known
    return colours_beside(class_names, known)


def map_of(
    results: TileResults, name: str, tiles: NDArray[np.intp] | slice = slice(None)
) -> NDArray[Any]:
    """(n_tiles,) what a heatmap shows: the probability of a class, or one of `MAPS`."""
    if name in results.class_names:
        return results.probabilities[tiles, results.class_names.index(name)]
    return MAPS[name](results, tiles)


def maps_of(trust: Mapping[str, Any]) -> tuple[str, ...]:
    """The `MAPS` that weights with this `Manifest.trust` have."""
    needed = {"distance": "distance", "set size": "conformal"}
    return tuple(name for name in MAPS if needed.get(name) in (None, *trust))


def _distances(results: TileResults) -> NDArray[np.float32]:
    """(n_tiles,) with NaN where they are not known yet."""
    if results.distances is None:
        return np.full(len(results), np.nan, np.float32)
    return results.distances


def _set_sizes(results: TileResults, tiles: NDArray[np.intp] | slice) -> NDArray[np.float32]:
    some = replace(results, probabilities=results.probabilities[tiles])
    sizes = some.prediction_sets(results.coverage or _USUAL_COVERAGE).sum(axis=1)
    return np.where(sizes > 0, sizes, np.nan)


def _brightest(results: TileResults, name: str) -> float:
    """The value that a heatmap shows brightest; tiles as far as half of that are unlike."""
    if name in results.class_names or name not in ("distance", "set size"):
        return 1.0
    return 2 * (results.distance_threshold or 1) if name == "distance" else len(results.class_names)


def placed_on(plane: LayerPlane, origin: tuple[float, float], side: float) -> dict[str, Any]:
    """Keywords that place a layer on an image plane.

    Parameters
    ----------
    plane : LayerPlane
    origin : (float, float)
        Where the centre of the new layer's first pixel lies, in px of the image.
    side : float
        Side of the new layer's pixels, in px of the image.
    """
    layer = plane.layer
    scale = np.array(layer.scale, dtype=float)
    scale[-2:] *= side
    world = layer.data_to_world((*plane.index, *origin))
    return {
        "scale": scale,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine,
        # The layer's own translation comes before its affine transform.
        "translate": np.asarray(layer.affine.inverse(np.asarray(world))),
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


@cache
def compile_colormaps() -> None:
    """Let napari compile what colours labels, which takes it seconds, before the window needs it.

    May be called on any thread.
    """
    colours = {None: "transparent", 0: "transparent", 1: "red"}
    for kind in (np.uint8, np.int32):
        Labels(np.ones((2, 2), kind), colormap=DirectLabelColormap(color_dict=colours))


class ResultLayers:
    """The layers that show a run: added at once, filled while it goes on.

    A layer that the user deletes meanwhile is left alone.

    The metadata of each layer are "mambamic": the provenance; "results": `TileResults`, of a stack
    a list of those of each plane so far; "image", "objects" and "within": the ``unique_id`` of the
    layers that were classified, and of that which limited them; "first points": see
    `first_point_of`; "colours": that of each class.  Their event tells who shows them elsewhere
    that there is more.

    Parameters
    ----------
    viewer : napari.Viewer
    planes : sequence of LayerPlane
        The planes that are classified, of one layer; results are given for one after the other.
    results : TileResults
        Of the first that has any.
    objects : Labels or Points, optional
    within : Shapes or Labels, optional
        What the run was limited to.
    heatmaps : sequence of str
        Classes whose probability is shown, and names of `MAPS` (tiles only).
    channel_axis : int, optional
        An axis of the image's layer that holds channels: the result is shown with each of them.
    name : str, optional
    points : sequence of (ndarray, ndarray)
        For points of several planes: of each, the (n, 2) of (y, x) in px and their numbers.
    first : int
        Which of the planes `results` are of.
    tiles : ndarray, optional
        Those of them to show for now; by default everything.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        planes: Sequence[LayerPlane],
        results: TileResults,
        *,
        objects: Layer | None = None,
        within: Layer | None = None,
        heatmaps: Sequence[str] = (),
        channel_axis: int | None = None,
        name: str | None = None,
        points: Sequence[tuple[NDArray[np.float64], NDArray[np.intp]]] = (),
        first: int = 0,
        tiles: NDArray[np.intp] | None = None,
    ) -> None:
        self._viewer, self._channel_axis = viewer, channel_axis
        self._planes = [plane.at_first_channel(channel_axis) for plane in planes]
        self.class_names = results.class_names
        self._colours = colours_in(viewer, results.class_names)
        self._results: dict[int, TileResults] = {}
        self._counts: dict[int, list[int]] = {}  # of each plane, the unsure last
        plane = self._planes[0]
        self._metadata: dict[str, Any] = {
            "mambamic": results.provenance,
            "results": results,
            "image": plane.layer.unique_id,
            "objects": None if objects is None else objects.unique_id,
            "within": None if within is None else within.unique_id,
            "colours": dict(zip(results.class_names, self._colours, strict=True)),
        }
        name = name or f"{plane.layer.name} classes"
        # A colour for each of many tiles takes napari seconds (21 s for a million).
        self._by_class = not isinstance(objects, Points) and (
            len(planes) > 1
            or (len(results) > MOST_NUMBERED and isinstance(results.tiles, TileGrid))
        )
        # Whether some tiles are updated faster than all; objects are drawn as a whole.
        self.takes_parts = self._by_class and isinstance(results.tiles, TileGrid)
        self._heatmaps: list[tuple[Layer, str]] = []
        if isinstance(results.tiles, TileGrid):
            self._heatmaps = self._heatmaps_of(results, heatmaps)
            self.main: Layer = self._grid_layer(results, name)
        elif isinstance(objects, Points):
            several = points if len(planes) > 1 else [(np.empty((0, 2)), results.object_ids)]
            self.main = self._points_layer(planes, objects, name, several)
        else:
            self.main = self._objects_layer(objects, name)
        if isinstance(self.main, Labels):
            self.main.editable = False
        if self._by_class:
            self._colour_by_class()
        self.update(results, tiles=tiles, plane=first)
        for layer in self.layers:
            viewer.add_layer(layer)
        viewer.layers.selection.active = self.main
        if objects is not None:
            # The result shows the same objects; two colours on top of each other are none.
            objects.visible = False

    @property
    def layers(self) -> list[Layer]:
        """The layers, topmost last."""
        return [*(layer for layer, _ in self._heatmaps), self.main]

    def update(
        self, results: TileResults, *, tiles: NDArray[np.intp] | None = None, plane: int = 0
    ) -> None:
        """Show what is done so far, and keep it; parameters as of `fill`."""
        self.fill(results, tiles=tiles, plane=plane)
        self.note(results, plane=plane)

    def fill(
        self, results: TileResults, *, tiles: NDArray[np.intp] | None = None, plane: int = 0
    ) -> None:
        """Show what is done so far.

        Parameters
        ----------
        results : TileResults
            Of a plane.
        tiles : ndarray, optional
            What is new since the last time; by default everything.
        plane : int
            Which of the planes.
        """
        self._results[plane] = results
        chosen = slice(None) if tiles is None else tiles
        filled = [layer for layer, _ in self._heatmaps]
        if isinstance(self.main, Points):
            self._name_points()
        elif self._by_class:
            self._fill_by_class(results, chosen, plane)
            filled.append(self.main)
        else:
            self._name_each(results)
        for layer, name in self._heatmaps:
            self._part(layer, plane).reshape(-1)[chosen] = map_of(results, name, chosen)
        for layer in filled:
            # A thumbnail has the whole list of layers drawn again.
            layer.refresh(thumbnail=tiles is None, extent=False)

    def note(self, results: TileResults, *, plane: int = 0) -> None:
        """Keep results where they are found by who has a layer."""
        self._results[plane] = results
        several = len(self._planes) > 1
        self._metadata |= {
            "mambamic": results.provenance,
            "results": list(self._results.values()) if several else results,
        }
        for layer in self.layers:
            layer.metadata = dict(self._metadata)

    def finish(
        self, results: TileResults, *, plane: int = 0, counts: Sequence[int] | None = None
    ) -> None:
        """Show results that are final, and mark them when the run was stopped before its end.

        Parameters
        ----------
        results : TileResults
            Of a plane.
        plane : int
            Which of the planes.
        counts : sequence of int, optional
            Where everything is shown already, how many tiles of all planes have each class, the
            unsure last: a million tiles are neither drawn nor counted again.
        """
        if counts is not None and self._by_class:
            self.note(results, plane=plane)
            for layer in self.layers:
                layer.refresh(extent=False)  # its thumbnail as well
        else:
            self.update(results, plane=plane)
        if self._by_class:
            if counts is None:
                self._counts[plane] = [*results.counts.values(), int(results.is_unsure.sum())]
                counts = np.sum(list(self._counts.values()), axis=0).tolist()
            self.note_counts(counts)
        if not results.complete:
            for layer in self.layers:
                layer.name = f"{layer.name} (partial)"

    def note_counts(self, counts: Sequence[int]) -> None:
        """Keep how many tiles have each class, the unsure last, where a layer has them."""
        if self._by_class:
            self.main.features = self.main.features.assign(tiles=counts)

    def hide_earlier(self) -> None:
        """Hide what earlier runs say of the same planes: two colours on each other are a third.

        Other objects of the same image stay; this run says nothing of them.  A comparison speaks
        of earlier runs, so it goes.
        """
        planes = [list(plane.index) for plane in self._planes]
        for layer in self._viewer.layers:
            several = results_of(layer)
            if layer in self.layers or layer.metadata.get("image") != self._metadata["image"]:
                continue
            if "comparison" in layer.metadata:
                layer.visible = False
            objects = {layer.metadata.get("objects"), self._metadata["objects"]}
            if len(objects - {None}) < 2 and several:
                where = [each.provenance.get("layer", {}).get("plane") for each in several]
                if all(plane in planes for plane in where):
                    layer.visible = False

    @property
    def are_shown(self) -> bool:
        """Whether the user still has the main layer."""
        return self.main in self._viewer.layers

    # ---- making ------------------------------------------------------------------------------

    def _grid_layer(self, results: TileResults, name: str) -> Labels:
        grid = results.tiles
        if self._by_class:
            shown = np.zeros(grid.shape, np.uint8 if len(self.class_names) < 254 else np.uint16)
        else:
            shown = np.arange(1, len(grid) + 1, dtype=np.int32).reshape(grid.shape)
        return Labels(
            self._stacked(shown),
            name=name,
            opacity=0.5,
            metadata=self._metadata,
            **self._place(grid),
        )

    def _heatmaps_of(self, results: TileResults, names: Sequence[str]) -> list[tuple[Layer, str]]:
        grid = results.tiles
        return [
            (
                Image(
                    self._stacked(np.full(grid.shape, np.nan, np.float32)),
                    name=f"{self._planes[0].layer.name} {name}",
                    colormap="magma",
                    contrast_limits=(0, _brightest(results, name)),
                    opacity=0.6,
                    metadata=self._metadata,
                    **self._place(grid),
                ),
                name,
            )
            for name in names
        ]

    def _points_layer(
        self,
        planes: Sequence[LayerPlane],
        objects: Points,
        name: str,
        points: Sequence[tuple[NDArray[np.float64], NDArray[np.intp]]],
    ) -> Points:
        """All points, plane by plane, where they are in their own layer."""
        counts = [len(each) for _, each in points]
        self._first_points = [0, *np.cumsum(counts).tolist()]
        if len(planes) > 1:
            where = [plane.index for plane in self._planes]
            self._metadata["first points"] = dict(zip(where, self._first_points, strict=False))
        numbers = np.concatenate([each for _, each in points])
        data, size = np.asarray(objects.data)[numbers], np.asarray(objects.size)[numbers]
        place = place_of(objects)
        if len(np.unique(numbers)) < len(numbers):
            # Points (y, x) are in every plane, and have another class in each.
            image = planes[0].layer
            depths = np.repeat([plane.index for plane in planes], counts, axis=0)
            data = np.hstack([depths, np.concatenate([each for each, _ in points])])
            size = size * np.mean(objects.scale[-2:]) / np.mean(image.scale[-2:])
            place = place_of(image)
        return Points(
            data,
            name=name,
            size=size,
            symbol="disc",
            border_color="white",
            border_width=0.05,
            opacity=0.8,
            metadata=self._metadata,
            **place,
        )

    def _objects_layer(self, objects: Labels, name: str) -> Labels:
        data = finest_of(objects)
        plane = self._planes[0]
        if self._by_class:
            shown = self._stacked(np.zeros(data.shape[-2:], np.uint16))
        else:
            shown = self._stacked(np.asarray(data[index_in_labels(plane, data)]))
        self._objects = data
        return Labels(
            shown, name=name, opacity=0.6, metadata=self._metadata, **placed_on(plane, (0, 0), 1)
        )

    def _place(self, grid: TileGrid) -> dict[str, Any]:
        return placed_on(self._planes[0], *label_geometry(grid))

    def _stacked(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """As many copies of a plane as the planes need, along the layer's leading axes."""
        indices = np.array([plane.index for plane in self._planes])
        if not indices.size:
            return pixels
        extent = tuple(np.ptp(indices, axis=0) + 1)
        copies = np.broadcast_to(pixels, extent + pixels.shape).copy()
        if self._channel_axis is None:
            return copies
        # The same pixels for every channel: a stride of 0.
        layer = self._planes[0].layer
        shape, strides = list(copies.shape), list(copies.strides)
        data = finest_of(layer)
        shape[self._channel_axis], strides[self._channel_axis] = data.shape[self._channel_axis], 0
        return as_strided(copies, shape, strides)

    def _part(self, layer: Layer, plane: int) -> NDArray[Any]:
        """The pixels of a plane in a layer."""
        first = np.min([p.index for p in self._planes], axis=0)
        offset = np.array(self._planes[plane].index) - first
        part: NDArray[Any] = layer.data[tuple(offset.astype(int))]
        return part

    def _colour_by_class(self) -> None:
        values = range(1, len(self.class_names) + 2)  # the last one: unsure
        colours = dict(zip(values, [*self._colours, UNSURE], strict=True))
        self.main.colormap = DirectLabelColormap(
            color_dict={None: "transparent", 0: "transparent", **colours}
        )
        names = [*self.class_names, "unsure"]
        self.main.features = pd.DataFrame({"index": values, "class": names})

    # ---- filling -----------------------------------------------------------------------------

    def _fill_by_class(
        self, results: TileResults, tiles: NDArray[np.intp] | slice, plane: int
    ) -> None:
        part = self._part(self.main, plane)
        if isinstance(results.tiles, TileGrid):
            part.reshape(-1)[tiles] = self._values(results, tiles)
        else:
            ids = results.object_ids
            values = np.zeros(int(ids.max()) + 1, part.dtype)
            values[ids] = self._values(results, slice(None))
            at = index_in_labels(self._planes[plane], self._objects)
            labels = np.asarray(self._objects[at])
            part[...] = values[np.where(labels < len(values), labels, 0)]

    def _values(
        self, results: TileResults, tiles: NDArray[np.intp] | slice
    ) -> NDArray[np.integer[Any]]:
        """What stands for each tile in a layer that is coloured by class."""
        unsure = results.unsure(results.unsure_below, tiles)
        values: NDArray[np.integer[Any]] = results.labels_of(tiles) + 1
        return np.where(unsure, len(self.class_names) + 1, values)

    def _said_of(
        self, results: TileResults, done: NDArray[np.intp]
    ) -> tuple[dict[str, Any], NDArray[np.float32]]:
        """Columns of a table of some tiles, and their colours."""
        labels = results.labels_of(done)
        table = {
            "class": pd.Categorical.from_codes(labels, list(results.class_names)),
            "probability": results.probabilities[done, labels],
            **{name: column[done] for name, column in results.trust_columns().items()},
        }
        shown = self._colours[labels]
        shown[results.is_unsure[done]] = UNSURE
        return table, shown

    def _name_points(self) -> None:
        tables = []
        colours = np.zeros((len(self.main.data), 4), np.float32)
        for plane, results in self._results.items():
            done = np.flatnonzero(results.is_done)
            rows = done + self._first_points[plane]
            table, colours[rows] = self._said_of(results, done)
            tables.append(pd.DataFrame(table, index=rows))
        filled = [table for table in tables if len(table)] or tables[:1]
        self.main.features = pd.concat(filled).reindex(range(len(colours)))
        self.main.face_color = colours

    def _name_each(self, results: TileResults) -> None:
        done = np.flatnonzero(results.is_done)
        table, shown = self._said_of(results, done)
        ids = results.object_ids
        values = (done + 1 if ids is None else ids[done]).tolist()
        colours_of = dict(zip(values, shown, strict=True))
        self.main.colormap = DirectLabelColormap(
            color_dict={None: "transparent", 0: "transparent", **colours_of}
        )
        self.main.features = pd.DataFrame({"index": values, **table})
