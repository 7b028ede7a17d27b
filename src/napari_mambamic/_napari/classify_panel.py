"""The Classify panel: read the form, run the core in a thread, show layers and legend."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Labels, Points
from napari.qt.threading import create_worker
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSpinBox,
    QWidget,
)
from superqt import QCollapsible

from napari_mambamic._napari.classify_layer import (
    Request,
    iter_request,
    request_of,
    result_layers_of,
)
from napari_mambamic._napari.layer_box import LayerBox
from napari_mambamic._napari.legend import Legend
from napari_mambamic._napari.run_panel import RunPanel, in_words
from napari_mambamic._napari.to_layers import ResultLayers
from napari_mambamic._napari.weights_box import WeightsBox
from napari_mambamic.errors import MambamicError
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults

CUTS = ("Tiles", "Objects of a Labels layer", "Points")
DEVICES = {
    "Automatic: GPU if there is one": "auto",
    "CUDA GPU": "cuda",
    "Apple GPU": "mps",
    "CPU": "cpu",
}
_SECONDS_BETWEEN_UPDATES = 0.2


class ClassifyPanel(RunPanel):
    """Choose an image, what to cut and weights; press Classify."""

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__("Classify", width=340)
        self._viewer = napari_viewer
        self._request: Request | None = None
        self._shown: ResultLayers | None = None
        self._next_update = 0.0
        self.results: TileResults | None = None

        self.image = LayerBox(napari_viewer, Image, "Image")
        self.image.setToolTip("The image to classify; of a volume, the plane in view")
        self.cut = QComboBox()
        self.cut.addItems(CUTS)
        self.cut.setAccessibleName("Cut")
        self.cut.setToolTip(
            "Tiles: a regular grid. Objects or points: one patch around each cell, as the "
            "blood-cell weights want it"
        )
        self.labels = LayerBox(napari_viewer, Labels, "Labels")
        self.points = LayerBox(napari_viewer, Points, "Points")
        self.weights = WeightsBox()
        self.device = QComboBox()
        self.device.setAccessibleName("Device")
        for text, name in DEVICES.items():
            self.device.addItem(text, name)
        self.device.setToolTip("Where the network runs; a run tells which device it used")
        self.doctor_button = QPushButton("Check")
        self.doctor_button.setToolTip("Tell what this machine would compute with, and why")
        self.doctor_button.clicked.connect(self.check_device)
        device_row = QHBoxLayout()
        device_row.addWidget(self.device, 1)
        device_row.addWidget(self.doctor_button)
        self._build_advanced()
        self._build_actions()

        self.form = QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.form.addRow("Image", self.image)
        self.form.addRow("Cut", self.cut)
        self.form.addRow("Labels", self.labels)
        self.form.addRow("Points", self.points)
        self.form.addRow("Weights", self.weights)
        self.form.addRow("Device", device_row)
        self._lay_out(
            self.form,
            self.advanced,
            self._actions,
            self.progress,
            self.message,
            self.legend,
            self.save_button,
        )

        self.cut.currentIndexChanged.connect(self._show_fields)
        self.image.chosen.connect(self._show_fields)
        self.weights.changed.connect(self._show_weights)
        self._show_fields()
        self._show_weights()

    def _build_advanced(self) -> None:
        self.tile_size = QSpinBox()
        self.tile_size.setRange(0, 100_000)
        self.tile_size.setSpecialValueText("as the weights were trained")
        self.tile_size.setSuffix(" px")
        self.tile_size.setToolTip("Side of a tile in pixels of the image; 0 = as trained")
        self.scale_objects = QCheckBox("Scale to each object")
        self.scale_objects.setToolTip("The patch is as large as the object times this factor")
        self.object_scale = QDoubleSpinBox()
        self.object_scale.setRange(0.1, 20)
        self.object_scale.setSingleStep(0.1)
        self.object_scale.setValue(1.5)
        self.object_scale.setPrefix("x ")
        self.object_scale.setEnabled(False)
        self.object_scale.setToolTip("Patch side / longer side of the object")
        self.scale_objects.toggled.connect(self.object_scale.setEnabled)
        self.scale_objects.toggled.connect(self.tile_size.setDisabled)
        self.overlap = QSpinBox()
        self.overlap.setRange(0, 100_000)
        self.overlap.setSuffix(" px")
        self.overlap.setToolTip("Pixels that neighbouring tiles share")
        self.skip_background = QCheckBox("Skip background")
        self.skip_background.setToolTip("Leave out tiles that hold only glass or darkness")
        self.batch_size = QSpinBox()
        self.batch_size.setRange(0, 65_536)
        self.batch_size.setSpecialValueText("automatic")
        self.batch_size.setToolTip("Tiles that are classified at once; does not change the result")
        self.heatmaps = QListWidget()
        self.heatmaps.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.heatmaps.setMaximumHeight(130)
        self.heatmaps.setToolTip("Show the probability of these classes as images")
        self.advanced_form = QFormLayout()
        for name, widget in (
            ("Tile size", self.tile_size),
            ("", self.scale_objects),
            ("Object scale", self.object_scale),
            ("Overlap", self.overlap),
            ("", self.skip_background),
            ("Batch size", self.batch_size),
            ("Heatmaps", self.heatmaps),
        ):
            widget.setAccessibleName(name)
            self.advanced_form.addRow(name, widget)
        content = QWidget()
        content.setLayout(self.advanced_form)
        self.advanced = QCollapsible("Advanced")
        self.advanced.setContent(content)
        self.advanced.collapse(animate=False)

    def _build_actions(self) -> None:
        self.run_button.setToolTip("Classify every tile, object or point of the image")
        self.cancel_button.setToolTip("Stop after the batch at work and keep what is done")
        self.legend = Legend()
        self.save_button = QPushButton("Save table...")
        self.save_button.setToolTip("One row per tile, with all probabilities, as CSV")
        self.save_button.clicked.connect(self._choose_table)
        self.save_button.setEnabled(False)

    def start(self) -> None:
        """Read the form and run it in a thread."""
        try:
            self._request = request_of(self._viewer, self.image.layer, **self._form_values())
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        self.results, self._shown, self._next_update = None, None, 0.0
        self._run(_results_or_sentence, self._request)
        self._show_weights()
        self._say("Loading torch and the weights ... (the first time takes some ten seconds more)")

    def check_device(self) -> None:
        """Examine torch, the driver and the scans in a thread, and tell."""
        self.doctor_button.setEnabled(False)
        self._say("Checking ...")
        doctor = create_worker(_findings)
        doctor.returned.connect(self._say)
        doctor.errored.connect(self._show_error)
        doctor.finished.connect(lambda: self.doctor_button.setEnabled(True))
        doctor.start()

    def save_table(self, path: str) -> None:
        """Write the results of the last run as CSV."""
        if self.results is None:
            return
        try:
            self._say(f"Saved {self.results.to_csv(path)}")
        except MambamicError as error:
            self._say(str(error), is_error=True)

    def _form_values(self) -> dict[str, Any]:
        """Keywords of `request_of`."""
        cut = self.cut.currentIndex()
        values: dict[str, Any] = {
            "weights": self.weights.weights,
            "device": self.device.currentData(),
            "batch_size": self.batch_size.value() or "auto",
        }
        if cut == 1 and self.scale_objects.isChecked():
            values["object_scale"] = self.object_scale.value()
        else:
            values["tile_size"] = self.tile_size.value() or None
        if cut == 0:
            return values | {
                "overlap": self.overlap.value(),
                "skip_background": self.skip_background.isChecked(),
                "heatmaps": self._chosen_heatmaps(),
            }
        box = self.labels if cut == 1 else self.points
        if box.layer is None:
            raise MambamicError(
                f"There are no {'objects' if cut == 1 else 'points'}: the viewer has no "
                f"{'Labels' if cut == 1 else 'Points'} layer. Add one, or cut the image into tiles."
            )
        return values | {"objects": box.layer}

    def _chosen_heatmaps(self) -> list[str]:
        items = [self.heatmaps.item(i) for i in range(self.heatmaps.count())]
        return [i.text() for i in items if i.checkState() == Qt.CheckState.Checked]

    def _show_progress(self, progress: Progress) -> None:
        if progress.results is None:
            if progress.total:
                self.progress.setRange(0, progress.total)
                self.progress.setValue(progress.done)
                self._say(f"{progress.message}: {progress.fraction:.0%}")
            return
        self.results = progress.results
        self.progress.setRange(0, progress.total)
        self.progress.setValue(progress.done)
        if progress.done and not self._stopped:
            left = progress.seconds_left or 0
            self._say(
                f"{progress.done:,} of {progress.total:,} · {progress.tiles_per_second:,.0f} per "
                f"second · {in_words(left)} left"
            )
        now = time.perf_counter()
        if now < self._next_update:
            return
        if self._shown is None:
            self._shown = result_layers_of(self._viewer, self._request, progress.results)
        elif self._shown.are_shown:
            self._shown.update(progress.results)
        self.legend.show_counts(progress.results.counts)
        # Drawing takes at most a fifth of the time, however many tiles there are.
        cost = time.perf_counter() - now
        self._next_update = now + cost + max(_SECONDS_BETWEEN_UPDATES, 4 * cost)

    def _take_result(self, result: TileResults | str) -> None:
        if isinstance(result, str):
            self._say(result, is_error=True)

    def _show_end(self) -> None:
        results = self.results
        if results is None:
            if self._stopped:
                self._say("Stopped before the first tile.")
            return
        if self._shown is not None and self._shown.are_shown:
            self._shown.finish(results)
        self.legend.show_counts(results.counts)
        self.save_button.setEnabled(True)
        done = int(results.is_done.sum())
        if self._stopped and not results.complete:
            self._say(f"Stopped: {done:,} of {len(results):,} tiles are classified and kept.")
        elif results.complete:
            self._say(
                f"{done:,} classified on {results.provenance['device']}. {self._request.plane.note}"
            )

    def _choose_table(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save table", "classes.csv", "Table (*.csv)")
        if path:
            self.save_table(path)

    def _show_fields(self) -> None:
        cut = self.cut.currentIndex()
        self.form.setRowVisible(self.labels, cut == 1)
        self.form.setRowVisible(self.points, cut == 2)
        for widget in (self.scale_objects, self.object_scale):
            self.advanced_form.setRowVisible(widget, cut == 1)
        for widget in (self.overlap, self.skip_background, self.heatmaps):
            self.advanced_form.setRowVisible(widget, cut == 0)

    def _show_weights(self) -> None:
        manifest = self.weights.manifest
        names = manifest.class_names if manifest else ()
        kept = self._chosen_heatmaps()
        self.heatmaps.clear()
        for name in names:
            item = QListWidgetItem(name)
            item.setFlags(Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled)
            item.setCheckState(Qt.CheckState.Checked if name in kept else Qt.CheckState.Unchecked)
            self.heatmaps.addItem(item)
        if manifest:
            self.tile_size.setSpecialValueText(f"as trained ({manifest.patch.tile_size} px)")
        self.legend.show_classes(names)
        self.run_button.setEnabled(manifest is not None and self._worker is None)

    def _set_running(self, running: bool) -> None:
        super()._set_running(running)
        self.save_button.setEnabled(not running and self.results is not None)


def _results_or_sentence(
    request: Request,
) -> Generator[Progress, None, TileResults | str]:
    """Run a request in the worker's thread.

    An error that is a sentence for the user is returned as one: if it were raised, napari would
    show it as a defect of the program, with its traceback.
    """
    try:
        return (yield from iter_request(request))
    except MambamicError as error:
        return str(error)


def _findings() -> str:
    from napari_mambamic.doctor import examine

    return "\n".join(f"{heading}: {finding}" for heading, finding in examine().items())
