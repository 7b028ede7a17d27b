"""A layer that shows where two runs disagree, laid exactly over the classes of the first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from napari.components import ViewerModel
from napari.layers import Labels, Layer, Points
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_mambamic._napari.camera import look_at
from napari_mambamic._napari.to_layers import MOST_NUMBERED, place_of
from napari_mambamic.compare import Comparison
from napari_mambamic.tiling import TileGrid, places_of

_AGREES, _DISAGREES, _CHOSEN = 1, 2, 3
_KINDS = ("not compared", "agree", "disagree", "chosen")
DISAGREES = (0.9, 0.1, 0.6, 0.9)
_COLOURS = np.array([[0, 0, 0, 0], [1, 1, 1, 0.15], DISAGREES, [1, 1, 0, 1]], np.float32)
_BESIDE_CHOSEN = 0.3  # opacity of the other disagreements


class DisagreementLayer:
    """Tiles that agree are pale, those that do not are strong; some of them can be chosen.

    Up to 2,500 tiles or objects have a number each, with both classes in ``features``; of more,
    the values of the layer are 1: agree, 2: disagree, 3: chosen.

    Parameters
    ----------
    viewer : napari.Viewer
    classes : Labels or Points
        The layer of classes of the first run, of one plane.
    comparison : Comparison
    name : str
    """

    def __init__(
        self, viewer: ViewerModel, classes: Layer, comparison: Comparison, *, name: str
    ) -> None:
        self._viewer, self.comparison = viewer, comparison
        results = comparison.a
        self._grid = results.tiles if isinstance(results.tiles, TileGrid) else None
        self._ids = np.arange(1, len(results) + 1)  # values of the tiles in a numbered layer
        if self._grid is None and isinstance(classes, Labels):
            self._ids = np.asarray(results.object_ids)
        self._numbered = len(results) <= MOST_NUMBERED
        self._objects = np.asarray(classes.data)
        keywords: dict[str, Any] = {
            "name": name,
            "metadata": {
                "comparison": comparison.provenance,
                "image": classes.metadata.get("image"),
            },
            **place_of(classes),
        }
        if isinstance(classes, Points):
            self.layer: Layer = Points(
                classes.data,
                size=np.asarray(classes.size) * 1.3,
                border_color="transparent",
                features=self._features().reindex(range(len(results))),
                **keywords,
            )
        elif self._numbered:
            self.layer = Labels(classes.data, opacity=0.8, **keywords)
            self.layer.features = self._features().assign(index=self._ids[comparison.tiles_a])
        else:
            self._shown = np.zeros(
                self._objects.shape if self._grid is None else self._grid.shape, np.uint8
            )
            shown = np.broadcast_to(self._shown, classes.data.shape)
            self.layer = Labels(shown, opacity=0.8, **keywords)
        if isinstance(self.layer, Labels):
            self.layer.editable = False
        self.show()
        viewer.add_layer(self.layer)

    @property
    def is_shown(self) -> bool:
        """Whether the user still has the layer."""
        return self.layer in self._viewer.layers

    def show(self, chosen: NDArray[np.intp] | None = None) -> None:
        """Show all disagreements, or highlight some tiles: places in ``comparison.tiles_a``."""
        compared = self.comparison.tiles_a
        kinds = np.zeros(len(self.comparison.a), np.uint8)
        kinds[compared] = np.where(self.comparison.agrees, _AGREES, _DISAGREES)
        colours = _COLOURS.copy()
        if chosen is not None:
            kinds[compared[chosen]] = _CHOSEN
            colours[_DISAGREES, 3] = _BESIDE_CHOSEN
        if isinstance(self.layer, Points):
            self.layer.face_color = colours[kinds]
        elif self._numbered:
            of_ids = zip(self._ids.tolist(), colours[kinds], strict=True)
            self._colour(dict(of_ids))
        else:
            self._paint(kinds)
            self._colour({kind: colours[kind] for kind in (_AGREES, _DISAGREES, _CHOSEN)})
            counts = np.bincount(kinds, minlength=4)
            self.layer.features = pd.DataFrame(
                {"index": range(1, 4), "runs": _KINDS[1:], "tiles": counts[1:]}
            )

    def look_at(self, place: int) -> None:
        """Bring one tile into the middle of the view, large enough to be seen."""
        tile = int(self.comparison.tiles_a[place])
        y, x, size = places_of(self.comparison.a.tiles[tile : tile + 1])[0]
        where: tuple[float, ...] = (y + (size - 1) / 2, x + (size - 1) / 2)
        side = float(size)
        if isinstance(self.layer, Points):
            where = tuple(self.layer.data[tile])
        elif self._grid is not None:
            where, side = divmod(tile, self._grid.shape[1]), 1.0  # a pixel is a tile
        leading = (0,) * (self.layer.ndim - len(where))
        look_at(self._viewer, self.layer, (*leading, *where), side=side)

    def _features(self) -> pd.DataFrame:
        c = self.comparison
        table = {
            "class a": np.array(c.a.class_names)[c.labels_a],
            "probability a": c.sure_a,
            "class b": np.array(c.b.class_names)[c.labels_b],
            "probability b": c.sure_b,
            "agree": c.agrees,
        }
        return pd.DataFrame(table, index=c.tiles_a)

    def _colour(self, colours: dict[int, Any]) -> None:
        self.layer.colormap = DirectLabelColormap(
            color_dict={None: "transparent", 0: "transparent", **colours}
        )

    def _paint(self, kinds: NDArray[np.uint8]) -> None:
        if self._grid is not None:
            self._shown.reshape(-1)[:] = kinds
        else:
            values = np.zeros(int(self._ids.max()) + 1, np.uint8)
            values[self._ids] = kinds
            labels = self._objects
            self._shown[...] = values[np.where(labels < len(values), labels, 0)]
        self.layer.refresh()
