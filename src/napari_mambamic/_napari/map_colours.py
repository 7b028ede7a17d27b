"""What the points of an embedding map are coloured by, and the legend that tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from napari.components import ViewerModel
from napari.layers import Points
from napari.utils.colormaps import ensure_colormap
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QLabel

from napari_mambamic._napari.eliding_box import ElidingBox
from napari_mambamic._napari.from_layer import points_of_layer
from napari_mambamic._napari.latest import Newest
from napari_mambamic._napari.legend import Legend
from napari_mambamic._napari.mapped_tiles import CLOSED, Mapped, annotated
from napari_mambamic._napari.tile_pictures import pixmap_of
from napari_mambamic._napari.to_layers import colours_in, results_of
from napari_mambamic.errors import MambamicError

_RAMP = "viridis"
_UNKNOWN = (0.5, 0.5, 0.5, 0.4)  # colour of tiles that nobody annotated


class MapColours:
    """The class of each point, its probability, or what a Points layer calls its tile.

    Parameters
    ----------
    viewer : napari.Viewer
    show : callable
        Takes the colours (k, 4) of the points.
    say : callable
        Takes a sentence about what cannot be done.
    finding : Newest
        Looks up annotations in a thread.

    Attributes
    ----------
    choice : ElidingBox
        What to colour by.
    kinds : ElidingBox
        The names in the legend.
    legend : Legend
    ramp : QLabel
        The legend of probabilities.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        show: Callable[[NDArray[np.float32]], object],
        say: Callable[[str], object],
        finding: Newest,
    ) -> None:
        self._viewer, self._show, self._say, self._finding = viewer, show, say, finding
        self._mapped: Mapped | None = None
        self._columns: list[tuple[Points, str]] = []  # annotations that can colour the map
        self._names: tuple[str, ...] = ()
        self._kind_of: NDArray[np.intp] = np.zeros(0, np.intp)  # of each point, -1 for none
        self.choice = ElidingBox()
        self.choice.setAccessibleName("Colour")
        self.choice.setToolTip("Class, its probability, or the labels of a Points layer")
        self.choice.currentIndexChanged.connect(self._recolour)
        self.kinds = ElidingBox()
        self.kinds.setAccessibleName("Class")
        self.kinds.setToolTip("A class of the legend")
        self.legend = Legend()
        self.ramp = QLabel()
        self.ramp.setAccessibleName("Probability from 0 to 1")
        self.ramp.setToolTip("Probability of the class, from 0 on the left to 1 on the right")
        self.ramp.setScaledContents(True)
        ramp = _shades()[np.newaxis, :, :3] * 255
        self.ramp.setPixmap(pixmap_of(ramp.astype(np.uint8)))
        self.ramp.setFixedHeight(12)
        self.legend.hide()
        self.ramp.hide()

    @property
    def chosen_tiles(self) -> NDArray[np.intp]:
        """Numbers of the tiles of the kind that is chosen."""
        return self._mapped.shown[self._kind_of == self.kinds.currentIndex()]

    def show_map(self, mapped: Mapped) -> None:
        """Colour another map."""
        self._mapped = mapped
        self._show_kinds((mapped.results.class_names, mapped.labels))
        self.list_choices()
        self._recolour()

    def list_choices(self) -> None:
        """Offer the columns of text of the Points layers that the viewer has now."""
        columns = [
            (layer, str(name))
            for layer in self._viewer.layers
            if isinstance(layer, Points) and not results_of(layer)
            for name, column in layer.features.items()
            if len(column) and not pd.api.types.is_numeric_dtype(column)
        ]
        if columns == self._columns and self.choice.count():
            return
        before = self.choice.currentText()
        texts = ["class", "probability", *(f"{each.name}: {name}" for each, name in columns)]
        self._columns = columns
        with QSignalBlocker(self.choice):
            self.choice.clear()
            self.choice.addItems(texts)
            self.choice.setCurrentIndex(texts.index(before) if before in texts else 0)
        if before and before not in texts:
            self._recolour()

    def _recolour(self) -> None:
        mapped, chosen = self._mapped, self.choice.currentIndex()
        if mapped is None:
            return
        self._finding.forget()
        self.legend.setVisible(chosen != 1)
        self.ramp.setVisible(chosen == 1)
        if chosen >= 2:
            self._ask_annotations(mapped, *self._columns[chosen - 2])
            return
        self._show_kinds((mapped.results.class_names, mapped.labels))
        if chosen == 1:
            self._show(_shades()[(mapped.certainty * 255).astype(int)])

    def _ask_annotations(self, mapped: Mapped, layer: Points, column: str) -> None:
        """Look up in a thread which points of a layer lie on which tiles."""
        if mapped.plane is None:
            self._say(CLOSED)
            return
        try:
            points, numbers = points_of_layer(mapped.plane, layer)
        except MambamicError as error:
            self._say(str(error))
            return
        texts = layer.features[column].iloc[numbers]
        self._finding.ask(annotated, self._show_kinds, mapped, points, texts)

    def _show_kinds(self, found: tuple[tuple[str, ...], NDArray[Any]]) -> None:
        """Colour each point by its kind, and list the kinds."""
        names, self._kind_of = found
        if names != self._names or not self.kinds.count():
            self._names = names
            self.kinds.clear()
            self.kinds.addItems(list(names))
            self.legend.show_classes(names, colours_in(self._viewer, names))
        counts = np.bincount(self._kind_of[self._kind_of >= 0], minlength=len(names)).tolist()
        self.legend.show_counts(dict(zip(names, counts, strict=True)))
        palette = np.vstack([colours_in(self._viewer, names).reshape(-1, 4), [_UNKNOWN]])
        self._show(palette.astype(np.float32)[self._kind_of])  # -1 is the last


def _shades() -> NDArray[np.float32]:
    """(256, 4) colours of probabilities from 0 to 1."""
    shades: NDArray[np.float32] = ensure_colormap(_RAMP).map(np.linspace(0, 1, 256))
    return shades.astype(np.float32)
