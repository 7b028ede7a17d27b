"""The frame around the tile under review, in the viewer: a layer on which the keys work as well."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from napari.components import ViewerModel
from napari.layers import Points

from napari_mambamic._napari.camera import look_at
from napari_mambamic._napari.from_layer import LayerPlane
from napari_mambamic._napari.review_keys import LAYER_KEYS
from napari_mambamic._napari.to_layers import place_of
from napari_mambamic.tiling import Tile

_TILES_IN_VIEW = 5  # along the shorter side of the canvas, when a review begins


class ReviewFrame:
    """A square around one tile at a time.

    Parameters
    ----------
    viewer : napari.Viewer
    act : callable
        Told the action of each key that is pressed on the canvas while the frame is active.
    """

    def __init__(self, viewer: ViewerModel, act: Callable[[str], object]) -> None:
        self._viewer, self._act = viewer, act
        self.layer: Points | None = None

    @property
    def is_shown(self) -> bool:
        """Whether the frame is among the layers."""
        return self.layer is not None and self.layer in self._viewer.layers

    def begin(self, plane: LayerPlane, tile: Tile) -> None:
        """Lay a frame over a plane, and zoom so that some tiles of this size are in view."""
        self._add(plane)
        image = plane.layer
        corner, other = (
            np.asarray(image.data_to_world((*plane.index, *place)))[-2:]
            for place in ((0, 0), (tile.size, tile.size))
        )
        side = float(np.abs(other - corner).max()) or 1.0
        canvas = getattr(self._viewer, "canvas", None)
        shorter = min(canvas.size) if canvas is not None else 600
        self._viewer.scene.camera.zoom = shorter / (_TILES_IN_VIEW * side)

    def go_to(self, plane: LayerPlane, tile: Tile) -> None:
        """Frame a tile and bring it to the middle of the view."""
        layer = self.layer if self.is_shown else self._add(plane)
        middle = (*plane.index, tile.y + (tile.size - 1) / 2, tile.x + (tile.size - 1) / 2)
        layer.data = [middle]
        if layer.size[0] != tile.size:
            layer.size = tile.size
        look_at(self._viewer, layer, middle)

    def bring_to_top(self) -> None:
        """Lay the frame over all other layers."""
        if self.is_shown:
            layers = self._viewer.layers
            layers.move(layers.index(self.layer), len(layers))

    def _add(self, plane: LayerPlane) -> Points:
        if self.is_shown:
            self._viewer.layers.remove(self.layer)
        # One square point: napari moves it in half the time that it needs for a shape.
        layer = Points(
            np.zeros((1, plane.layer.ndim)),
            name="tile under review",
            symbol="square",
            face_color="transparent",
            border_color="yellow",
            border_width=0.03,
            metadata={"mambamic": {"review": True}},
            **place_of(plane.layer),
        )
        layer.editable = False
        for number in range(1, 10):
            layer.bind_key(str(number), self._key(str(number)))
        for key, action in LAYER_KEYS.items():
            layer.bind_key(key, self._key(action))
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = layer
        self.layer = layer
        return layer

    def _key(self, action: str) -> Callable[[Points], None]:
        def press(layer: Points) -> None:
            self._act(action)

        return press
