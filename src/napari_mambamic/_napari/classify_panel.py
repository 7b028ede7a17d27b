"""The Classify panel: read the form, run the core in a thread, show layers and legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points, Shapes
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSpinBox,
    QWidget,
)
from superqt import QCollapsible

from napari_mambamic._napari.channels_box import ChannelsBox
from napari_mambamic._napari.classify_layer import (
    Planes,
    iter_request,
    request_of,
)
from napari_mambamic._napari.eliding_box import ElidingBox
from napari_mambamic._napari.export_commands import put_script_on_clipboard
from napari_mambamic._napari.folding_row import FoldingRow
from napari_mambamic._napari.from_layer import finest_of
from napari_mambamic._napari.layer_box import LayerBox
from napari_mambamic._napari.legend import Legend
from napari_mambamic._napari.next_step import NextStep
from napari_mambamic._napari.patch_preview import PatchPreview, preview_of
from napari_mambamic._napari.reason_tip import NOTHING_RUNS, RUNS, ReasonTip
from napari_mambamic._napari.run_panel import RunPanel, in_words
from napari_mambamic._napari.save_dialog import path_to_save
from napari_mambamic._napari.shown_run import ShownRun
from napari_mambamic._napari.to_layers import colours_in, maps_of
from napari_mambamic._napari.trust_options import TrustOptions
from napari_mambamic._napari.warnings_box import WarningsBox
from napari_mambamic._napari.weights_box import WeightsBox
from napari_mambamic._napari.workers import create_worker, or_sentence
from napari_mambamic.errors import MambamicError
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults
from napari_mambamic.stitching import BLENDS
from napari_mambamic.trust.warnings import told_once

CUTS = ("Tiles", "Objects of a Labels layer", "Points")
CUT_WORDS = ("tiles", "objects", "points")
DEVICES = {
    "Automatic": "auto",
    "CUDA GPU": "cuda",
    "Apple GPU": "mps",
    "CPU": "cpu",
}


class ClassifyPanel(RunPanel):
    """Choose an image, what to cut and weights; press Classify."""

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__("Classify")
        self._viewer = napari_viewer
        self._shown: ShownRun | None = None
        self._is_complete = False

        self.image = LayerBox(napari_viewer, Image, "Image")
        self.image.setToolTip(
            "The image to classify: the one that is selected in the layer list, or choose here. Of "
            "a stack, the planes chosen below"
        )
        self.cut = ElidingBox()
        self.cut.addItems(CUTS)
        self.cut.setAccessibleName("Cut")
        self.cut.setToolTip(
            "Tiles: a regular grid. Objects or points: one patch around each cell, as the "
            "blood-cell weights want it"
        )
        self.labels = LayerBox(napari_viewer, Labels, "Labels")
        self.points = LayerBox(napari_viewer, Points, "Points")
        self.weights = WeightsBox()
        self.channels = ChannelsBox(napari_viewer)
        self.planes = QComboBox()
        self.planes.setAccessibleName("Planes")
        self.planes.setToolTip(
            "Of a stack: the plane in view, some, or all; objects and points each in their own"
        )
        for text, name in (("In view", "current"), ("All", "all"), ("From ... to", "range")):
            self.planes.addItem(text, name)
        self.first_plane, self.last_plane = QSpinBox(), QSpinBox()
        for box, name in ((self.first_plane, "First plane"), (self.last_plane, "Last plane")):
            box.setAccessibleName(name)
            box.setToolTip(f"{name} of the range, counted from 0 along the first axis")
        self.planes_row = FoldingRow(self.planes, self.first_plane, self.last_plane)
        self.device = QComboBox()
        self.device.setAccessibleName("Device")
        for text, name in DEVICES.items():
            self.device.addItem(text, name)
        self.device.setToolTip(
            "Where the network runs; automatic: the GPU if there is one. A run tells which it used"
        )
        self.doctor_button = QPushButton("Check")
        ReasonTip(
            self.doctor_button,
            "Tell what this machine would compute with, and why",
            why="it is being found out",
        )
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
        self.form.addRow("Planes", self.planes_row)
        self.form.addRow("Device", device_row)
        self._lay_out(
            self.form,
            self.channels,
            self.advanced,
            self.preview,
            self._actions,
            self.progress,
            self.message,
            self.warnings,
            self.legend,
            self._results_row,
        )

        self.cut.currentIndexChanged.connect(self._show_fields)
        self.image.chosen.connect(self._show_fields)
        self.image.chosen.connect(self._show_channels)
        self.planes.currentIndexChanged.connect(self._show_fields)
        self.channels.axis.currentIndexChanged.connect(self._show_fields)
        self.weights.changed.connect(self._show_weights)
        self._show_weights()
        self._show_fields()
        self.image.follow_selection(napari_viewer, unless=self._is_channel)
        self._next_step = NextStep(napari_viewer, self.message, self._what_next)
        for changed in (self.cut.currentIndexChanged, self.image.chosen):
            changed.connect(self._next_step.show)

    def _what_next(self) -> str:
        cut = self.cut.currentIndex()
        if self.image.layer is None:
            return "Open an image, such as by dragging its file into the window."
        if cut == 1 and self.labels.layer is None:
            return "Make labels of the cells in the panel 'Find objects', or open a Labels layer."
        if cut == 2 and self.points.layer is None:
            return "Add a Points layer, and in it a point on each cell."
        return f"Press Classify: each of the {CUT_WORDS[cut]} gets a class."

    def _is_channel(self, layer: Layer) -> bool:
        """Whether a layer is chosen as a channel of the weights: then it is not another image."""
        return layer in [source.layer for source in self.channels.sources or ()]

    def _build_advanced(self) -> None:
        self.tile_size = QSpinBox()
        self.tile_size.setRange(0, 100_000)
        self.tile_size.setSpecialValueText("as the weights were trained")
        self.tile_size.setSuffix(" px")
        ReasonTip(
            self.tile_size,
            "Side of a tile in pixels of the image; 0 = as trained",
            why="each object has its own; untick 'Scale to each object'",
        )
        self.scale_objects = QCheckBox("Scale to each object")
        self.scale_objects.setToolTip("The patch is as large as the object times this factor")
        self.object_scale = QDoubleSpinBox()
        self.object_scale.setRange(0.1, 20)
        self.object_scale.setSingleStep(0.1)
        self.object_scale.setValue(1.5)
        self.object_scale.setPrefix("x ")
        self.object_scale.setEnabled(False)
        ReasonTip(
            self.object_scale,
            "Patch side / longer side of the object",
            why="tick 'Scale to each object'",
        )
        self.scale_objects.toggled.connect(self.object_scale.setEnabled)
        self.scale_objects.toggled.connect(self.tile_size.setDisabled)
        self.overlap = QSpinBox()
        self.overlap.setRange(0, 100_000)
        self.overlap.setSuffix(" px")
        self.overlap.setToolTip("Pixels that neighbouring tiles share")
        self.blend = QComboBox()
        self.blend.addItems(BLENDS)
        self.blend.setToolTip(
            "Where tiles overlap: each speaks for its own part, or all that cover a place are "
            "averaged, once the run is complete"
        )
        self.skip_background = QCheckBox("Skip background")
        self.skip_background.setToolTip("Leave out tiles that hold only glass or darkness")
        self.where = LayerBox(self._viewer, (Shapes, Labels), "Shapes or Labels", none="everywhere")
        self.where.setToolTip(
            "Classify only tiles whose middle lies in a shape or on a label; of a stack, a shape "
            "counts on the plane that it was drawn on"
        )
        self.use_pixels = QCheckBox("Use pixels as they are")
        self.use_pixels.setToolTip(
            "Take the tile size of the weights in pixels, whatever the pixel size is"
        )
        self.batch_size = QSpinBox()
        self.batch_size.setRange(0, 65_536)
        self.batch_size.setSpecialValueText("automatic")
        self.batch_size.setToolTip("Tiles that are classified at once; does not change the result")
        self.keep_embeddings = QCheckBox("Keep embeddings")
        self.keep_embeddings.setToolTip(
            "For the Embedding map panel, which otherwise computes them when it needs them. "
            "100,000 tiles take 300 to 400 MB of memory"
        )
        self.keep_long_runs = QCheckBox("Keep long runs")
        self.keep_long_runs.setChecked(True)
        self.keep_long_runs.setToolTip(
            "Of image files, what a long run has done is kept on disk until it is complete: when "
            "napari was closed or killed, the same run goes on from there. Not with embeddings"
        )
        self._trust = TrustOptions()
        self.unsure_below, self.coverage = self._trust.unsure_below, self._trust.coverage
        self.count_unsure = self._trust.count_unsure
        self._trust.changed.connect(self._show_unsure)
        self.heatmaps = QListWidget()
        self.heatmaps.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.heatmaps.setMaximumHeight(130)
        self.heatmaps.setToolTip(
            "Show the probability of these classes as images; entropy (1: all classes are as "
            "probable) and margin (0: the first two are) show where the network is unsure, "
            "distance how far tiles are from the training data, set size how many classes are "
            "possible"
        )
        self.advanced_form = QFormLayout()
        self.advanced_form.setContentsMargins(0, 0, 0, 0)
        for name, widget in (
            ("Tile size", self.tile_size),
            ("", self.use_pixels),
            ("", self.scale_objects),
            ("Object scale", self.object_scale),
            ("Overlap", self.overlap),
            ("Blend", self.blend),
            ("Where", self.where),
            ("", self.skip_background),
            ("Batch size", self.batch_size),
            ("", self.keep_embeddings),
            ("", self.keep_long_runs),
            ("Unsure below", self.unsure_below),
            ("", self.count_unsure),
            ("Set coverage", self.coverage),
            ("Heatmaps", self.heatmaps),
        ):
            widget.setAccessibleName(name)
            self.advanced_form.addRow(name, widget)
        content = QWidget()
        content.setLayout(self.advanced_form)
        self.advanced = QCollapsible("Advanced", collapsedIcon="▶", expandedIcon="▼")
        self.advanced.setContent(content)
        self.advanced.layout().setContentsMargins(0, 0, 0, 0)  # as wide as the other fields
        # Closed, it would be of no height, and its fields still take the keys.
        self.advanced.toggled.connect(content.setVisible)
        self.advanced.collapse(animate=False)
        self.advanced.toggleButton().setToolTip("Show or hide the settings that are seldom needed")

    def _build_actions(self) -> None:
        ReasonTip(
            self.run_button,
            "Classify every tile, object or point of the image",
            why=lambda: RUNS if self.is_running else "the chosen weights cannot be read",
        )
        ReasonTip(
            self.cancel_button,
            "Stop after the batch at work and keep what is done",
            why=NOTHING_RUNS,
        )
        self.preview_button = QPushButton("Preview")
        self.preview_button.setToolTip("Show some patches as the network will see them")
        self.preview_button.clicked.connect(self.show_preview)
        self._actions.insertWidget(1, self.preview_button, 1)
        self.preview = PatchPreview()
        self.warnings = WarningsBox()
        self.legend = Legend()
        self.save_button = QPushButton("Save table...")
        self.save_button.clicked.connect(self._choose_table)
        self.script_button = QPushButton("Copy as script")
        self.script_button.clicked.connect(self.copy_script)
        for button, does in (
            (self.save_button, "One row per tile, with all probabilities, as CSV"),
            (self.script_button, "Copy a Python script that repeats this run to the clipboard"),
        ):
            button.setEnabled(False)
            ReasonTip(button, does, why=lambda: RUNS if self.is_running else "press Classify first")
        self._results_row = FoldingRow(self.save_button, self.script_button)

    def start(self) -> None:
        """Read the form and run it in a thread."""
        try:
            request = request_of(self._viewer, self.image.layer, **self._form_values())
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        if self._shown is not None:
            self._shown.leave()
        self._shown = ShownRun(self._viewer, request, self._tell, self._show_counts, self)
        self._is_complete = False
        self._warn([])
        self._run(iter_request, request)
        self._show_weights()
        self._say("Loading torch and the weights ... (the first time takes some ten seconds more)")

    @property
    def results(self) -> TileResults | None:
        """Of the plane at work, or of the last one; None before there are any."""
        return self._shown.everything[-1] if self._shown and self._shown.everything else None

    def show_preview(self) -> None:
        """Read some patches in a thread, and show them."""
        manifest = self.weights.manifest
        try:
            request = request_of(self._viewer, self.image.layer, **self._form_values())
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        if manifest is None:
            return
        worker = create_worker(or_sentence, preview_of, request, manifest.patch)
        worker.returned.connect(self._take_preview)
        worker.errored.connect(self._show_error)
        worker.start()

    def _take_preview(self, picture: Any) -> None:
        if isinstance(picture, str):
            self._say(picture, is_error=True)
        else:
            self.preview.show_patches(picture)

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

    def copy_script(self) -> None:
        """Copy a script that repeats the last run, on all of its planes."""
        if self.results is None or self._shown.layers is None:
            return
        try:
            put_script_on_clipboard(
                self._viewer, self._shown.layers.main, self.results.provenance, self._say
            )
        except MambamicError as error:
            self._say(str(error), is_error=True)

    def _form_values(self) -> dict[str, Any]:
        """Keywords of `request_of`."""
        cut = self.cut.currentIndex()
        values: dict[str, Any] = {
            "weights": self.weights.weights,
            "device": self.device.currentData(),
            "batch_size": self.batch_size.value() or "auto",
            "channels": self.channels.sources,
            "channel_axis": self.channels.channel_axis,
            "planes": self._chosen_planes(),
            "within": self.where.layer,
            "use_pixels": self.use_pixels.isChecked(),
            "with_embeddings": self.keep_embeddings.isChecked(),
            "keeps_long_runs": self.keep_long_runs.isChecked(),
            **self._trust.values,
        }
        if cut == 1 and self.scale_objects.isChecked():
            values["object_scale"] = self.object_scale.value()
        else:
            values["tile_size"] = self.tile_size.value() or None
        if cut == 0:
            return values | {
                "overlap": self.overlap.value(),
                "blend": self.blend.currentText(),
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

    def _chosen_planes(self) -> Planes:
        axis = self._plane_axis()
        chosen: Planes | str = self.planes.currentData()
        if axis is None:
            return "current"
        if chosen != "range":
            return chosen
        first, last = sorted((self.first_plane.value(), self.last_plane.value()))
        return {axis: (first, last + 1)}

    def _plane_axis(self) -> int | None:
        """The first axis of the image along which planes lie."""
        image = self.image.layer
        if image is None:
            return None
        axes = [axis for axis in range(image.ndim - 2) if axis != self.channels.channel_axis]
        return axes[0] if axes else None

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
        self._shown.take(progress)

    def _tell(self, progress: Progress) -> None:
        """Say how far the run is."""
        if progress.done and not self._stopped:
            said = [f"{progress.done:,} of {progress.total:,}"]
            if progress.seconds_left is not None:
                said.append(f"{progress.tiles_per_second:,.0f} per second")
                said.append(f"{in_words(progress.seconds_left)} left")
            if progress.before:
                said.append(f"{progress.before:,} were there already")
            self._say(" · ".join(said))
        # A bar that moves is drawn at once, and so is the whole window, for there is OpenGL in it.
        self.progress.setUpdatesEnabled(False)
        self.progress.setRange(0, progress.total)
        self.progress.setValue(progress.done)
        self.progress.setUpdatesEnabled(True)

    def _show_counts(self, shown: ShownRun) -> None:
        counted = shown.everything[-1].counts_unsure
        self.legend.show_counts(shown.counts, unsure=shown.n_unsure, counted=counted)

    def _take_result(self, result: list[TileResults] | str) -> None:
        if isinstance(result, str):
            self._say(result, is_error=True)
            return
        self._is_complete = True
        before, self._shown.everything = self._shown.everything, result
        if result[-1].probabilities is not before[-1].probabilities:
            self._shown.take_again(result)  # blended

    def _finish(self) -> None:
        """A run has ended when all of it is shown."""
        self._shown.show_rest(super()._finish)

    def _show_end(self) -> None:
        results, everything = self.results, self._shown.everything
        if results is None:
            if self._stopped:
                self._say("Stopped before the first tile.")
            return
        self._shown.finish()
        self._warn(everything)
        done = sum(int(each.is_done.sum()) for each in everything)
        latest, request = self._shown.latest, self._shown.request
        total, n_there, n_planes = max(latest.total, done), latest.before, len(request.planes)
        # Of the planes, some may have nothing to classify; then only the end tells.
        complete = results.complete and (self._is_complete or len(everything) == n_planes)
        if self._stopped and not complete:
            self._say(f"Stopped: {done:,} of {total:,} {request.cut} are classified and kept.")
        elif complete:
            note = request.planes[0].note if n_planes == 1 else f"{n_planes} planes."
            if len(everything) < n_planes:
                note = (
                    f"{len(everything)} of {note[:-1]}; on the others there is nothing to classify."
                )
            there = f"{n_there:,} of {total:,} {request.cut} were there already"
            there = f"{there}, from an interrupted run." if n_there else ""
            notes = " ".join(filter(None, [note, request.note, there]))
            what = f"{done:,} {request.cut if done > 1 else request.cut[:-1]}"
            self._say(f"{what} classified on {results.provenance['device']}. {notes}".rstrip())

    def _warn(self, everything: list[TileResults]) -> None:
        """Tell what makes the results doubtful, below the message."""
        self.warnings.show_sentences(list(told_once(everything)))

    def _show_unsure(self) -> None:
        """Show the last run with another threshold."""
        if self._shown is None or self._shown.layers is None or self.is_running:
            return
        threshold, counted = self._trust.threshold, self.count_unsure.isChecked()
        everything = self._shown.everything
        self._shown.take_again([e.with_unsure(threshold, counted=counted) for e in everything])
        self._list_classes(self.results.class_names)
        self._shown.show_rest(self._shown.note_counts)

    def _list_classes(self, names: Sequence[str]) -> None:
        colours = colours_in(self._viewer, names)
        self.legend.show_classes(names, colours, unsure=self._trust.threshold > 0)

    def _choose_table(self) -> None:
        path = path_to_save(self, "Save table", "classes.csv", {"Table": [".csv"]})
        if path:
            self.save_table(str(path))

    def _show_fields(self) -> None:
        cut = self.cut.currentIndex()
        self.form.setRowVisible(self.labels, cut == 1)
        self.form.setRowVisible(self.points, cut == 2)
        for widget in (self.scale_objects, self.object_scale):
            self.advanced_form.setRowVisible(widget, cut == 1)
        for widget in (self.overlap, self.blend, self.skip_background, self.heatmaps):
            self.advanced_form.setRowVisible(widget, cut == 0)
        axis = self._plane_axis()
        self.form.setRowVisible(self.planes_row, axis is not None)
        for box in (self.first_plane, self.last_plane):
            box.setVisible(self.planes.currentData() == "range")
            if axis is not None:
                image = self.image.layer
                length = finest_of(image).shape[axis]
                box.setRange(0, length - 1)

    def _show_channels(self) -> None:
        self.channels.show_choices(self.image.layer, self.weights.manifest)
        self._show_fields()

    def _show_weights(self) -> None:
        manifest = self.weights.manifest
        names = manifest.class_names if manifest else ()
        kept = self._chosen_heatmaps()
        self.heatmaps.clear()
        for name in dict.fromkeys([*names, *(maps_of(manifest.trust) if manifest else ())]):
            item = QListWidgetItem(name)
            item.setFlags(Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled)
            item.setCheckState(Qt.CheckState.Checked if name in kept else Qt.CheckState.Unchecked)
            self.heatmaps.addItem(item)
        if manifest:
            self.tile_size.setSpecialValueText(f"as trained ({manifest.patch.tile_size} px)")
        self.channels.show_choices(self.image.layer, manifest)
        self._list_classes(names)
        self.run_button.setEnabled(manifest is not None and self._worker is None)

    def _set_running(self, running: bool) -> None:
        super()._set_running(running)
        for button in (self.save_button, self.script_button):
            button.setEnabled(not running and self.results is not None)


def _findings() -> str:
    from napari_mambamic.doctor import examine

    return "\n".join(f"{heading}: {finding}" for heading, finding in examine().items())
