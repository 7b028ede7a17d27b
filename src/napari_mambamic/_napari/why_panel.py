"""The panel Why this class?: where in a tile or an object something speaks for its class."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import QSignalBlocker
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import QCheckBox, QFormLayout, QPushButton, QSpinBox

from napari_mambamic._napari.classified import Classified
from napari_mambamic._napari.eliding_box import ElidingBox
from napari_mambamic._napari.explained import (
    explained_of,
    heat_layer,
    iter_explained,
    update_heat_layer,
)
from napari_mambamic._napari.folding_row import FoldingRow
from napari_mambamic._napari.next_step import NextStep
from napari_mambamic._napari.reason_tip import NOTHING_RUNS, RUNS, ReasonTip
from napari_mambamic._napari.result_box import NO_RESULTS, ResultBox, no_results
from napari_mambamic._napari.run_panel import RunPanel, in_words
from napari_mambamic._napari.to_layers import results_of
from napari_mambamic.errors import MambamicError
from napari_mambamic.progress import Progress

if TYPE_CHECKING:
    from napari_mambamic.explain.heatmap import Heatmap

METHODS = {
    "Grad-CAM: fast, coarse": "grad-cam",
    "Occlusion: slow": "occlusion",
}
_IN_SHORT = {"grad-cam": "Grad-CAM", "occlusion": "occlusion"}
_SECONDS_BETWEEN_UPDATES = 0.5


class WhyPanel(RunPanel):
    """Choose a result, click a tile, see what in it speaks for its class."""

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__("Explain all")
        self._viewer = napari_viewer
        self._explained: Classified | None = None  # of the run
        self._tile: int | None = None  # that the run is about; None: all
        self._heatmap: Heatmap | None = None
        self._one: Image | None = None  # layer of the last tile
        self._all: Image | None = None  # layer of this run
        self._error = ""
        self._next_update = 0.0
        self._build_form()
        self._next_step = NextStep(napari_viewer, self.message, self._what_next)
        self._lay_out(self.form, self._one_row, self.click, self._actions, self.progress)
        self.widget().layout().insertWidget(5, self.message)
        self.result.chosen.connect(self._follow_result)
        self.result.follow_selection(napari_viewer)
        self._follow_result()

    def _what_next(self) -> str:
        if self.result.layer is None:
            return no_results(self._viewer)
        return "Tick 'Explain what I click' and click a tile or an object, or press a button."

    def start(self) -> None:
        """Explain all tiles or objects of the result, on the plane in view."""
        self._explain(None)

    def explain_one(self) -> None:
        """Explain the tile or object whose number is chosen."""
        self._explain(self.number.value())

    # ---- the form ----------------------------------------------------------------------------

    def _build_form(self) -> None:
        self.result = ResultBox(self._viewer, "Results")
        self.result.setToolTip("The layer of classes to explain, on the plane in view")
        self.target = ElidingBox()
        self.target.setToolTip("What speaks for this class: the predicted one, or another")
        self.method = ElidingBox()
        for text, method in METHODS.items():
            self.method.addItem(text, method)
        self.method.setToolTip(
            "Grad-CAM looks inside the network. Occlusion covers part after part, and sees what "
            "the class loses: some fifty times the work"
        )
        self.number = QSpinBox()
        self.number.setKeyboardTracking(False)
        self.one_button = QPushButton("Explain one")
        self.one_button.clicked.connect(self.explain_one)
        self.click = QCheckBox("Explain what I click")
        self.click.setToolTip("Then click a tile or an object in the picture")
        self.click.toggled.connect(self._listen)
        for widget, does in (
            (self.number, "Number of the tile or object, as in the status bar and the table"),
            (self.one_button, "Show where in this tile or object something speaks for it"),
            (self.run_button, "One heatmap over all that was classified on the plane in view"),
        ):
            ReasonTip(widget, does, why=lambda: RUNS if self.is_running else NO_RESULTS)
        ReasonTip(
            self.cancel_button,
            "Stop after the batch at work; what is done is kept",
            why=NOTHING_RUNS,
        )
        for widget, name in (
            (self.target, "Class to explain"),
            (self.method, "Method"),
            (self.number, "Number of the tile or object"),
        ):
            widget.setAccessibleName(name)
        self.form = QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.form.addRow("Results", self.result)
        self.form.addRow("Class", self.target)
        self.form.addRow("Method", self.method)
        self._one_row = FoldingRow(self.number, self.one_button)

    def _follow_result(self) -> None:
        """Offer the classes and the numbers of the chosen result."""
        layer = self.result.layer
        several = [] if layer is None else results_of(layer)
        names = several[0].class_names if several else ()
        chosen = self.target.currentData()
        with QSignalBlocker(self.target):
            self.target.clear()
            self.target.addItem("the predicted one", None)
            for name in names:
                self.target.addItem(name, name)
            self.target.setCurrentIndex(max(self.target.findData(chosen), 0))
        if several:
            ids = several[0].object_ids
            low, high = 1, len(several[0])
            if ids is not None:  # of points of several planes, each has some of the numbers
                low = min(int(each.object_ids.min()) for each in several)
                high = max(int(each.object_ids.max()) for each in several)
            self.number.setRange(low, high)
            self.number.setPrefix("tile " if ids is None else "object ")
        if not self.is_running:
            self._say("")  # what was said of another result
            self._next_step.show()
        self._set_running(self.is_running)

    # ---- clicking ----------------------------------------------------------------------------

    def _listen(self, listens: bool) -> None:
        callbacks = self._viewer.mouse_drag_callbacks
        if listens and self._click not in callbacks:
            callbacks.append(self._click)
        elif not listens and self._click in callbacks:
            callbacks.remove(self._click)

    def hideEvent(self, event: QHideEvent) -> None:
        """A panel that is away does not take clicks."""
        self._listen(False)
        super().hideEvent(event)

    def showEvent(self, event: QShowEvent) -> None:
        """Take clicks again."""
        self._listen(self.click.isChecked())
        super().showEvent(event)

    def _click(self, viewer: ViewerModel, event: Any) -> Generator[None, None, None]:
        yield
        if event.type == "mouse_move":
            return  # a drag moves the view
        try:
            explained = explained_of(self._viewer, self.result.layer)
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        tile = explained.tile_under(event.position)
        if tile is None:
            self._say("There is no tile or object where you clicked.")
            return
        self.number.setValue(explained.shown_number(tile))
        self.explain_one()

    # ---- running -----------------------------------------------------------------------------

    def _explain(self, shown: int | None) -> None:
        if self.is_running:
            return  # a second click, before the first is answered
        try:
            self._explained = explained_of(self._viewer, self.result.layer)
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        self._tile = None if shown is None else self._explained.tile_of(shown)
        if shown is not None and self._tile is None:
            self._say(f"There is no object {shown} on this plane.", is_error=True)
            return
        self._heatmap, self._all, self._error = None, None, ""
        self._target, self._method = self.target.currentData(), self.method.currentData()
        self._next_update = 0.0
        numbers = None if self._tile is None else [self._tile]
        self._run(iter_explained, self._explained, numbers, self._target, self._method)

    def _show_progress(self, progress: Progress) -> None:
        if progress.total:
            self.progress.setRange(0, progress.total)
            self.progress.setValue(progress.done)
        heatmap = getattr(progress, "heatmap", None)
        if heatmap is None:
            self._say(f"{progress.message} ...")
            return
        self._heatmap = heatmap
        if self._tile is not None or not progress.done or self._stopped:
            return
        left = progress.seconds_left or 0
        self._say(f"{progress.done:,} of {progress.total:,} · {in_words(left)} left")
        now = time.perf_counter()
        if now >= self._next_update:
            self._show_all()
            # Drawing takes at most a fifth of the time, however large the heatmap is.
            cost = time.perf_counter() - now
            self._next_update = now + cost + max(_SECONDS_BETWEEN_UPDATES, 4 * cost)

    def _take_result(self, result: Heatmap | str) -> None:
        if isinstance(result, str):
            self._error = result

    def _show_end(self) -> None:
        if self._error or self._heatmap is None or self._explained is None:
            self._say(self._error or "Stopped before the first tile.", is_error=bool(self._error))
            return
        if self._tile is not None:
            if self._heatmap.complete:
                self._show_one(self._tile)
            else:
                self._say("Stopped.")
            return
        done = self.progress.value()
        if done:
            self._show_all()
        of_class = self._target or "its own class"
        what = "tiles" if self._explained.results.object_ids is None else "objects"
        said = f"{done:,} {what}, each for {of_class}, by {_IN_SHORT[self._method]}"
        if self._all is not None and self._all in self._viewer.layers:
            self._all.refresh()  # its thumbnail as well
        if self._heatmap.complete:
            self._say(f"{said}. Yellow speaks for it most; each has its own scale.")
        else:
            if self._all is not None:
                self._all.name = f"{self._all.name} (partial)"
            self._say(f"Stopped; what is done is kept: {said}.")

    def _set_running(self, running: bool) -> None:
        super()._set_running(running)
        has_results = self.result.layer is not None
        for widget in (self.one_button, self.number, self.run_button):
            widget.setEnabled(has_results and not running)

    # ---- showing -----------------------------------------------------------------------------

    def _show_one(self, tile: int) -> None:
        explained, heatmap = self._explained, self._heatmap
        results, shown = explained.results, explained.shown_number(tile)
        what = "Tile" if results.object_ids is None else "Object"
        row = results.probabilities[tile]
        predicted = results.class_names[int(row.argmax())]
        of_class = self._target or predicted
        name = f"{explained.plane.layer.name} why: {what.lower()} {shown}, {of_class}"
        if self._one is not None and self._one in self._viewer.layers:
            if self._one.ndim == explained.plane.layer.ndim:
                update_heat_layer(self._one, explained, heatmap, name)
            else:  # of another image
                self._viewer.layers.remove(self._one)
                self._one = None
        if self._one is None or self._one not in self._viewer.layers:
            self._one = heat_layer(explained, heatmap, name)
            self._add(self._one)
        probability = float(row[results.class_names.index(of_class)])
        said = f"{what} {shown}: {of_class}, {probability:.1%}"
        if of_class != predicted:
            said += f" (predicted: {predicted}, {float(row.max()):.1%})"
        if not heatmap.pixels.any():
            self._say(f"{said}. By {_IN_SHORT[self._method]} nothing in it speaks for that class.")
            return
        self._say(f"{said}. By {_IN_SHORT[self._method]}, yellow speaks for it most.")

    def _show_all(self) -> None:
        if self._all is None:
            name = f"{self._explained.plane.layer.name} why: {self._target or 'each class'}"
            self._all = heat_layer(self._explained, self._heatmap, name)
            self._add(self._all)
        elif self._all in self._viewer.layers:
            self._all.refresh(thumbnail=False, extent=False)
            self._all.metadata = {**self._all.metadata, "mambamic": self._heatmap.provenance}

    def _add(self, layer: Image) -> None:
        """Add a layer, and leave the selection as it is."""
        selected = self._viewer.layers.selection.active
        self._viewer.add_layer(layer)
        if selected is not None and selected in self._viewer.layers:
            self._viewer.layers.selection.active = selected
