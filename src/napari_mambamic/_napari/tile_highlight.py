"""Chosen tiles in the viewer: outlines of a few, colour on many.

A square as four vectors lies exactly where its tile does, whatever the layer's transforms; napari
takes 0.1 s for 20,000 of them.  More tiles are a Labels layer: of a grid with a pixel per tile, of
objects with pixels of a thousandth of the plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels, Layer, Vectors
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_mambamic._napari.from_layer import LayerPlane
from napari_mambamic._napari.to_layers import placed_on
from napari_mambamic.stitching import label_geometry
from napari_mambamic.tiling import Tile, TileGrid

_MOST_OUTLINED = 500
_CELLS = 1000  # along the longer side of the plane
_COLOUR = "#00FF00"  # seen on glass, stain and darkness
_THICKNESS = 0.04  # of a tile's side


class TileHighlight:
    """The layers that show which tiles are chosen; they are added when there is something to show.

    Parameters
    ----------
    viewer : napari.Viewer
    name : str
        Of the layers.
    """

    def __init__(self, viewer: ViewerModel, name: str) -> None:
        self._viewer, self._name = viewer, name
        self.outlines: Vectors | None = None
        self.area: Labels | None = None
        self._of: tuple[Any, ...] = ()

    def show(
        self,
        plane: LayerPlane,
        tiles: Sequence[Tile],
        places: NDArray[np.int64],
        chosen: NDArray[np.intp],
    ) -> None:
        """Show some of the tiles of a plane, by their numbers.

        Parameters
        ----------
        plane : LayerPlane
        tiles : sequence of Tile
        places : ndarray
            (n, 3) of (y, x, size), of `places_of`.
        chosen : ndarray
            (k,) numbers.
        """
        of = (plane.layer.unique_id, plane.index, id(tiles))
        if of != self._of:
            self.clear()
            self._of = of
        few = len(chosen) <= _MOST_OUTLINED
        if few and len(chosen):
            self._outline(plane, places[chosen])
        elif len(chosen):
            self._fill(plane, tiles, places, chosen)
        for layer, shows in ((self.outlines, few), (self.area, not few)):
            if layer is not None:
                layer.visible = bool(shows and len(chosen))

    def clear(self) -> None:
        """Remove the layers."""
        for layer in (self.outlines, self.area):
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self.outlines, self.area, self._of = None, None, ()

    def _outline(self, plane: LayerPlane, places: NDArray[np.int64]) -> None:
        squares = squares_of(places, plane.index)
        width = _THICKNESS * float(np.median(places[:, 2]))
        if self.outlines is not None and self.outlines in self._viewer.layers:
            self.outlines.data = squares
            self.outlines.edge_width = width
            return
        self.outlines = Vectors(
            squares,
            name=self._name,
            edge_color=_COLOUR,
            edge_width=width,
            vector_style="line",
            opacity=1,
            metadata={"mambamic": "selected tiles"},
            **placed_on(plane, (0, 0), 1),
        )
        self._add(self.outlines)

    def _fill(
        self,
        plane: LayerPlane,
        tiles: Sequence[Tile],
        places: NDArray[np.int64],
        chosen: NDArray[np.intp],
    ) -> None:
        if isinstance(tiles, TileGrid):
            origin, side = label_geometry(tiles)
            cells = np.zeros(len(tiles), np.uint8)
            cells[chosen] = 1
            cells = cells.reshape(tiles.shape)
        else:
            side = max(1, -(-max(plane.image.plane_shape) // _CELLS))
            origin = ((side - 1) / 2, (side - 1) / 2)
            cells = covered_cells(places[chosen], plane.image.plane_shape, side)
        data = cells.reshape((1,) * len(plane.index) + cells.shape)
        if self.area is not None and self.area in self._viewer.layers:
            self.area.data = data
            return
        self.area = Labels(
            data,
            name=f"{self._name} (many)",
            opacity=0.6,
            colormap=DirectLabelColormap(
                color_dict={None: "transparent", 0: "transparent", 1: _COLOUR}
            ),
            metadata={"mambamic": "selected tiles"},
            **placed_on(plane, origin, side),
        )
        self.area.editable = False
        self._add(self.area)

    def _add(self, layer: Layer) -> None:
        active = self._viewer.layers.selection.active
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = active


def squares_of(places: NDArray[np.int64], index: tuple[int, ...]) -> NDArray[np.float64]:
    """The outlines of tiles as vectors (4 n, 2, ndim): where each begins, and where it goes."""
    ndim = len(index) + 2
    vectors = np.zeros((len(places), 4, 2, ndim))
    vectors[..., 0, : len(index)] = index
    corners = np.array([(0, 0), (0, 1), (1, 1), (1, 0)])
    steps = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
    side = places[:, 2, np.newaxis, np.newaxis]
    # Pixel i reaches from i - 0.5 to i + 0.5.
    vectors[:, :, 0, -2:] = places[:, np.newaxis, :2] - 0.5 + corners * side
    vectors[:, :, 1, -2:] = steps * side
    return vectors.reshape(-1, 2, ndim)


def covered_cells(
    places: NDArray[np.int64], plane_shape: tuple[int, int], side: int
) -> NDArray[np.uint8]:
    """(rows, columns) of square cells of a plane: 1 where a tile lies on their middle.

    >>> covered_cells(np.array([[2, 0, 4]]), (8, 8), 2).tolist()
    [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    """
    shape = [-(-length // side) for length in plane_shape]
    middle = (side - 1) / 2
    first = np.ceil((places[:, :2] - middle) / side).astype(int).clip(0, shape)
    stop = np.ceil((places[:, :2] + places[:, 2:] - middle) / side).astype(int).clip(0, shape)
    # Each tile is +1 and -1 at its corners; sums along both axes fill it.
    changes = np.zeros((shape[0] + 1, shape[1] + 1), np.int32)
    np.add.at(changes, (first[:, 0], first[:, 1]), 1)
    np.add.at(changes, (stop[:, 0], stop[:, 1]), 1)
    np.add.at(changes, (first[:, 0], stop[:, 1]), -1)
    np.add.at(changes, (stop[:, 0], first[:, 1]), -1)
    return (changes.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0).astype(np.uint8)
