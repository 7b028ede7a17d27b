"""Lists of the viewer's layers of one kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.components import ViewerModel
from napari.layers import Layer, Points
from qtpy.QtCore import QSignalBlocker, Signal

from napari_mambamic._napari.eliding_box import ElidingBox

_EDITS = ("data", "features", "paint", "scale", "translate", "rotate", "shear", "affine")


class LayerBox(ElidingBox):
    """The layers of one kind that the viewer has now; keeps its choice when others come and go.

    Parameters
    ----------
    viewer : napari.Viewer
    kind : type or tuple of type
    what : str
        Its accessible name.
    none : str, optional
        What to say for no layer, where none need be chosen.
    """

    chosen = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        kind: type[Layer] | tuple[type[Layer], ...],
        what: str,
        *,
        none: str | None = None,
    ) -> None:
        super().__init__()
        self._layers, self._kind, self._none = viewer.layers, kind, none
        self._shown: list[Layer | None] = []
        self.setAccessibleName(what)
        self.setToolTip(f"A {what} layer of the viewer")
        self.setPlaceholderText(f"no {what} layer")
        self.currentIndexChanged.connect(self.chosen)
        events = self._layers.events
        for event in (events.inserted, events.removed, events.reordered, events.renamed):
            event.connect(self._refresh)
        self._refresh()

    @property
    def layer(self) -> Layer | None:
        """The chosen layer."""
        index = self.currentIndex()
        return self._shown[index] if 0 <= index < len(self._shown) else None

    def choose(self, layer: Layer) -> None:
        """Choose a layer that the viewer has."""
        self.setCurrentIndex(self._shown.index(layer))

    def follow_selection(
        self, viewer: ViewerModel, *, unless: Callable[[Layer], bool] = lambda layer: False
    ) -> None:
        """Choose the layer that is selected in the layer list, now and whenever that changes.

        Parameters
        ----------
        viewer : napari.Viewer
        unless : callable, optional
            Tells layers that are selected for another reason.
        """
        self._unless = unless
        self._followed: Layer | None = None
        selection = viewer.layers.selection
        selection.events.active.connect(self._take_selected)
        self._take(selection.active)

    def _take_selected(self, event: Any) -> None:
        self._take(event.value)

    def _take(self, layer: Layer | None) -> None:
        # What was followed last is selected again when layers over it come and go: that is no wish
        # to leave what was chosen here since.
        if layer in self._shown and layer not in (None, self._followed) and not self._unless(layer):
            self._followed = layer
            self.choose(layer)

    def _offers(self, layer: Layer) -> bool:
        """Whether a layer of the kind may be chosen: what the plugin wrote is not its own input."""
        return not {"mambamic", "comparison"} & set(layer.metadata)

    def _refresh(self, event: object = None) -> None:
        before = self.layer
        offered = [
            layer for layer in self._layers if isinstance(layer, self._kind) and self._offers(layer)
        ]
        optional = self._none is not None
        self._shown = [None, *offered] if optional else list(offered)
        with QSignalBlocker(self):
            self.clear()
            self.addItems([layer.name if layer else self._none for layer in self._shown])
            if before in self._shown:
                self.setCurrentIndex(self._shown.index(before))
            else:
                self.setCurrentIndex(0 if optional else len(self._shown) - 1)
        # Not "is not": a plugin's viewer hands out a new proxy of the same layer each time.
        if self.layer != before:
            self.chosen.emit()


class WatchedLayerBox(LayerBox):
    """Layers of one kind, of which the chosen one may be drawn in, moved or selected in meanwhile.

    The signal `edited` tells of that, and of another choice.
    """

    edited = Signal()

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._watched: Layer | None = None
        self.chosen.connect(self._watch)
        self._watch()

    def _watch(self) -> None:
        for event in _edits_of(self._watched):
            event.disconnect(self._tell)
        self._watched = self.layer
        for event in _edits_of(self._watched):
            event.connect(self._tell)
        self._tell()

    def _tell(self, event: object = None) -> None:
        self.edited.emit()


def _edits_of(layer: Layer | None) -> list[Any]:
    """Events after which the places that a layer marks are others."""
    if layer is None:
        return []
    events = [getattr(layer.events, name) for name in _EDITS if hasattr(layer.events, name)]
    if isinstance(layer, Points):
        events.append(layer.selected_data.events.items_changed)
    return events
