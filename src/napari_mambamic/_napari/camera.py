"""Where the viewer looks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer

_LEAST_ON_SCREEN = 60  # px of the screen that a tile takes when it is looked at


def look_at(
    viewer: ViewerModel, layer: Layer, place: Sequence[float], *, side: float | None = None
) -> None:
    """Bring a place of a layer into the middle of the view, and move the sliders to its plane.

    Parameters
    ----------
    viewer : napari.Viewer
    layer : Layer
    place : sequence of float
        Along all axes of the layer, in its px.
    side : float, optional
        Of the tile there, in px of the layer: it is zoomed in as far as it takes to see it.
    """
    world = np.asarray(layer.data_to_world(place))
    for axis, value in enumerate(world[:-2], start=viewer.dims.ndim - len(world)):
        viewer.dims.set_point(axis, value)
    camera = viewer.scene.camera
    camera.center = (*camera.center[:-2], *world[-2:])
    if side is not None:
        beside = np.asarray(layer.data_to_world((*place[:-1], place[-1] + side)))
        camera.zoom = max(camera.zoom, _LEAST_ON_SCREEN / float(np.linalg.norm(beside - world)))
