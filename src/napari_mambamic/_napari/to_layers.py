"""From results to napari's layers, exactly where the tiles lie.

A grid becomes a Labels layer with one pixel per tile: the pixel's side is the stride.  Label
value = number of the tile + 1, so that hovering and ``features`` speak of single tiles.
`stitching.py` has the drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points
from napari.utils.colormaps import DirectLabelColormap

from napari_mambamic._napari.from_layer import LayerPlane
from napari_mambamic.colours import class_colours
from napari_mambamic.results import TileResults
from napari_mambamic.stitching import label_geometry
from napari_mambamic.tiling import TileGrid


def place_of(layer: Layer) -> dict[str, Any]:
    """Keywords that put a layer where another one is."""
    names = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
    return {name: getattr(layer, name) for name in names}


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


class ResultLayers:
    """The layers that show a run: added at once, filled while it goes on.

    A layer that the user deletes meanwhile is left alone.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        plane: LayerPlane,
        results: TileResults,
        *,
        objects: Layer | None = None,
        heatmaps: Sequence[str] = (),
        name: str | None = None,
    ) -> None:
        self._viewer = viewer
        self.class_names = results.class_names
        self._colours = class_colours(len(results.class_names))
        self._heatmaps: list[tuple[Layer, int]] = []
        metadata = {"mambamic": results.provenance, "results": results}
        name = name or f"{plane.layer.name} classes"
        if isinstance(results.tiles, TileGrid):
            grid = results.tiles
            place = placed_on(plane, *label_geometry(grid))
            for class_name in heatmaps:
                self._heatmaps.append(
                    (
                        Image(
                            self._on_plane(np.full(grid.shape, np.nan, np.float32), plane),
                            name=f"{plane.layer.name} {class_name}",
                            colormap="magma",
                            contrast_limits=(0, 1),
                            opacity=0.6,
                            metadata=metadata,
                            **place,
                        ),
                        results.class_names.index(class_name),
                    )
                )
            numbers = np.arange(1, len(grid) + 1, dtype=np.int32).reshape(grid.shape)
            self.main: Layer = Labels(
                self._on_plane(numbers, plane), name=name, opacity=0.5, metadata=metadata, **place
            )
        elif isinstance(objects, Points):
            chosen = np.asarray(objects.data)[results.object_ids]
            self.main = Points(
                chosen,
                name=name,
                size=np.asarray(objects.size)[results.object_ids],
                symbol="disc",
                border_color="white",
                border_width=0.05,
                opacity=0.8,
                metadata=metadata,
                **place_of(objects),
            )
        else:
            data = objects.data[0] if objects.multiscale else objects.data
            shown = np.asarray(data[plane.index]) if plane.index else data
            self.main = Labels(
                self._on_plane(shown, plane),
                name=name,
                opacity=0.6,
                metadata=metadata,
                **placed_on(plane, (0, 0), 1),
            )
        if isinstance(self.main, Labels):
            self.main.editable = False
        self.update(results)
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

    def update(self, results: TileResults) -> None:
        """Show what is done so far."""
        done = np.flatnonzero(results.is_done)
        labels = results.labels[done]
        table = {
            "class": pd.Categorical.from_codes(labels, list(results.class_names)),
            "probability": results.probabilities[done, labels],
        }
        if isinstance(self.main, Points):
            features = pd.DataFrame(table, index=done).reindex(range(len(results)))
            self.main.features = features
            colours = np.zeros((len(results), 4), np.float32)
            colours[done] = self._colours[labels]
            self.main.face_color = colours
        else:
            ids = results.object_ids
            values = (done + 1 if ids is None else ids[done]).tolist()
            colours_of = dict(zip(values, self._colours[labels], strict=True))
            self.main.colormap = DirectLabelColormap(
                color_dict={None: "transparent", 0: "transparent", **colours_of}
            )
            self.main.features = pd.DataFrame({"index": values, **table})
        for layer, index in self._heatmaps:
            layer.data[...] = results.probabilities[:, index].reshape(layer.data.shape)
            layer.refresh()

    def finish(self, results: TileResults) -> None:
        """Show the last state, and mark it when the run was stopped before its end."""
        self.update(results)
        if not results.complete:
            for layer in self.layers:
                layer.name = f"{layer.name} (partial)"

    @property
    def are_shown(self) -> bool:
        """Whether the user still has the main layer."""
        return self.main in self._viewer.layers

    @staticmethod
    def _on_plane(pixels: Any, plane: LayerPlane) -> Any:
        return pixels.reshape((1,) * len(plane.index) + pixels.shape) if plane.index else pixels
