"""The Find objects panel: a Labels layer of cells for images that nobody has segmented."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QPushButton,
    QSlider,
    QSpinBox,
)

from napari_mambamic._napari.eliding_box import ElidingBox
from napari_mambamic._napari.folding_row import FoldingRow
from napari_mambamic._napari.from_layer import LayerPlane, finest_of, plane_of_layer
from napari_mambamic._napari.layer_box import LayerBox
from napari_mambamic._napari.next_step import NextStep
from napari_mambamic._napari.object_preview import Found, ObjectPreview
from napari_mambamic._napari.open_panel import open_panel
from napari_mambamic._napari.reason_tip import NOTHING_RUNS, RUNS, ReasonTip
from napari_mambamic._napari.run_panel import RunPanel
from napari_mambamic._napari.to_layers import place_of
from napari_mambamic.errors import MambamicError
from napari_mambamic.objects import ObjectSettings, iter_find_objects
from napari_mambamic.progress import Progress

CHANNELS = {
    "All colours": None,
    "Nuclei: purple, not pink": "nuclei",
    "Red": 0,
    "Green": 1,
    "Blue": 2,
}
DIRECTIONS = {"Automatic": None, "Darker than the background": False, "Brighter": True}
_STEPS = 1000  # of the slider of the threshold; it goes by the square root, finer where it is pale


class FindObjectsPanel(RunPanel):
    """Choose an image, watch the preview, press Make labels."""

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__("Make labels")
        self._viewer = napari_viewer
        self._plane: LayerPlane | None = None
        self._settings_of_run = ObjectSettings()
        self._is_away = False  # closed, or behind another tab
        self._made: tuple[Image, Labels] | None = None
        self._preview = ObjectPreview(
            napari_viewer,
            on_found=self._show_found,
            on_sentence=self._show_sentence,
            on_deleted=self._take_deleted,
        )
        self._build_form()
        self._build_actions()
        self._lay_out(
            self.form,
            self.live,
            self.found,
            self._actions,
            self.progress,
            self.message,
            self.classify_button,
        )
        self.image.chosen.connect(self._take_image)
        # A panel that goes away takes its preview with it, see also `hideEvent`.
        self.destroyed.connect(self._preview.close)
        self._tab.came_to_front.connect(self._take_front)
        self._take_image()
        self._next_step = NextStep(napari_viewer, self.message, self._what_next)
        self.image.chosen.connect(self._next_step.show)

    @property
    def settings(self) -> ObjectSettings:
        """What the form says."""
        layer = self.image.layer
        by_colour = layer is not None and layer.rgb
        return ObjectSettings(
            channel=self.channel.currentData() if by_colour else None,
            bright=self.direction.currentData(),
            threshold="auto" if self.automatic.isChecked() else self.threshold.value() / 100,
            smoothing_px=self.smoothing.value(),
            min_size_px=self.min_size.value(),
            split=self.split.isChecked(),
            neck=self.neck.value() / 100,
            fill_holes=self.fill_holes.isChecked(),
            clear_border=self.clear_border.isChecked(),
        )

    @property
    def preview(self) -> ObjectPreview:
        """What shows the objects while the settings change."""
        return self._preview

    def _what_next(self) -> str:
        if self.image.layer is None:
            return "Open an image: its objects are outlined here."
        return "Press Make labels to get the outlined objects as a Labels layer."

    def _build_form(self) -> None:
        self.image = LayerBox(self._viewer, Image, "Image")
        self.image.setToolTip(
            "The image to find objects in: the one that is selected in the layer list, or choose "
            "here. Of a volume, the plane in view"
        )
        self.image.follow_selection(self._viewer)
        self.channel = ElidingBox()
        for text, channel in CHANNELS.items():
            self.channel.addItem(text, channel)
        self.channel.setToolTip(
            "Which colour shows the objects. Nuclei: white cells and platelets of a stained smear, "
            "without the red cells"
        )
        self.direction = ElidingBox()
        for text, bright in DIRECTIONS.items():
            self.direction.addItem(text, bright)
        self.direction.setToolTip("Bright field: darker; fluorescence: brighter")
        self._build_threshold()
        self.smoothing = QDoubleSpinBox()
        self.smoothing.setRange(0, 50)
        self.smoothing.setSingleStep(0.5)
        self.smoothing.setDecimals(1)
        self.smoothing.setSuffix(" px")
        self.smoothing.setToolTip("Evens out noise, and ragged outlines where objects are split")
        self.min_size = QSpinBox()
        self.min_size.setRange(0, 10_000_000)
        self.min_size.setSingleStep(50)
        self.min_size.setSuffix(" px")
        self.min_size.setToolTip("Smaller objects are left out: their area in pixels")
        self.split = QCheckBox("Split touching objects")
        self.split.setToolTip("Cut objects where they have a neck")
        self.neck = QSlider(Qt.Orientation.Horizontal)
        self.neck.setRange(50, 100)
        ReasonTip(
            self.neck,
            "How slight a neck is cut. To the right: more cuts; to the left: only thin necks",
            why="tick 'Split touching objects'",
        )
        self.split.toggled.connect(self.neck.setEnabled)
        self.fill_holes = QCheckBox("Fill holes")
        self.fill_holes.setToolTip("Such as the pale middle of a red cell")
        self.clear_border = QCheckBox("Skip border objects")
        self.clear_border.setToolTip("Leave out cells that are cut off by the border of the image")
        self._show_settings(ObjectSettings())
        self.form = QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for name, field in (
            ("Image", self.image),
            ("Channel", self.channel),
            ("Objects are", self.direction),
            ("Threshold", self._threshold_row),
            ("", self.automatic),
            ("Smoothing", self.smoothing),
            ("Least size", self.min_size),
            ("", self.split),
            ("Necks", self.neck),
            ("", self.fill_holes),
            ("", self.clear_border),
        ):
            if not isinstance(field, FoldingRow) and name:
                field.setAccessibleName(name)
            self.form.addRow(name, field)
        for changed in (
            self.channel.currentIndexChanged,
            self.direction.currentIndexChanged,
            self.automatic.toggled,
            self.threshold.valueChanged,
            self.smoothing.valueChanged,
            self.min_size.valueChanged,
            self.split.toggled,
            self.neck.valueChanged,
            self.fill_holes.toggled,
            self.clear_border.toggled,
        ):
            changed.connect(self._refresh)
        self.channel.currentIndexChanged.connect(self._spare_lobes)

    def _build_threshold(self) -> None:
        self.automatic = QCheckBox("Automatic")
        self.automatic.setToolTip("Find the threshold from the image; moving it ends this")
        self.threshold_slider = QSlider(Qt.Orientation.Horizontal)
        self.threshold_slider.setRange(0, _STEPS)
        self.threshold_slider.setAccessibleName("Threshold")
        self.threshold_slider.setMinimumWidth(100)  # or it could not be moved with care
        self.threshold = QDoubleSpinBox()
        self.threshold.setRange(0, 100)
        self.threshold.setDecimals(1)
        self.threshold.setSuffix(" %")
        self.threshold.setAccessibleName("Threshold in percent")
        for widget in (self.threshold_slider, self.threshold):
            widget.setToolTip(
                "How far from the background a pixel of an object is at least: 0 % is the "
                "background, 100 % is black, or the brightest of a dark image"
            )
        self.threshold_slider.valueChanged.connect(
            lambda step: self.threshold.setValue(100 * (step / _STEPS) ** 2)
        )
        self.threshold.valueChanged.connect(self._take_threshold)
        self._threshold_row = FoldingRow(self.threshold_slider, self.threshold)

    def _build_actions(self) -> None:
        self.live = QCheckBox("Live preview")
        self.live.setToolTip("Outline what the settings find, on the part of the image in view")
        self.live.setChecked(True)
        self.live.toggled.connect(self._toggle_live)
        self.found = QLabel()
        self.found.setWordWrap(True)
        ReasonTip(
            self.run_button,
            "Find the objects of the whole plane, into a Labels layer",
            why=lambda: RUNS if self.is_running else "open an image first",
        )
        ReasonTip(self.cancel_button, "Stop; no layer is added", why=NOTHING_RUNS)
        self.classify_button = QPushButton("Classify these objects")
        self.classify_button.setToolTip("Open the Classify panel with this image and its labels")
        self.classify_button.clicked.connect(self.classify)
        self.classify_button.hide()

    def start(self) -> None:
        """Read the form and find the objects of the plane in a thread."""
        try:
            self._plane = plane_of_layer(self._viewer, self.image.layer)
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        self._made = None
        self.classify_button.hide()
        self._settings_of_run = self.settings
        self._run(_iter_labels, self._plane, self._settings_of_run)

    def classify(self) -> None:
        """Open the Classify panel with the image and the labels that were made."""
        if self._made is None or any(layer not in self._viewer.layers for layer in self._made):
            self._say(
                "The image or its labels were deleted. Press Make labels again.", is_error=True
            )
            return
        panel = open_panel(self._viewer, "Classify tiles and cells")
        image, labels = self._made
        panel.image.choose(image)
        panel.cut.setCurrentIndex(1)
        panel.labels.choose(labels)

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        if not event.spontaneous():  # a window that is minimised comes back as it was
            self._take_front(False)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._take_front(True)

    def _take_front(self, is_in_front: bool) -> None:
        """The preview is there while the panel is to be seen."""
        was_away, self._is_away = self._is_away, not is_in_front
        if self._is_away:
            self._preview.close()
        elif was_away and self._made is None:
            self._refresh()

    def _show_settings(self, settings: ObjectSettings) -> None:
        self.automatic.setChecked(settings.threshold == "auto")
        self.smoothing.setValue(settings.smoothing_px)
        self.min_size.setValue(settings.min_size_px)
        self.split.setChecked(settings.split)
        self.neck.setValue(round(100 * settings.neck))
        self.fill_holes.setChecked(settings.fill_holes)
        self.clear_border.setChecked(settings.clear_border)

    def _take_image(self) -> None:
        layer = self.image.layer
        self.form.setRowVisible(self.channel, layer is not None and layer.rgb)
        self.run_button.setEnabled(layer is not None and not self.is_running)
        self._refresh()

    def _take_threshold(self, percent: float) -> None:
        """A threshold that the user sets is no longer found automatically."""
        with QSignalBlocker(self.threshold_slider), QSignalBlocker(self.automatic):
            self.threshold_slider.setValue(round(_STEPS * (percent / 100) ** 0.5))
            self.automatic.setChecked(False)

    def _spare_lobes(self) -> None:
        """Nuclei of white cells have lobes, which are not cells."""
        if self.channel.currentData() == "nuclei":
            self.split.setChecked(False)

    def _toggle_live(self, wanted: bool) -> None:
        if wanted:
            self._refresh()
        else:
            self._preview.close()
            self._say_found("")

    def _take_deleted(self) -> None:
        self.live.setChecked(False)

    def _refresh(self) -> None:
        """Show what the form finds now."""
        if self.image.layer is None:
            self._preview.close()
            self._say_found("")
        elif self.live.isChecked() and not self.is_running and not self._is_away:
            self._preview.show(self.image.layer, self.settings)

    def _show_found(self, found: Found) -> None:
        text = _in_words(found.sizes_px, found.plane.image.pixel_size_um)
        if not np.isfinite(found.signal.threshold):
            text = "No objects: all pixels of the image have the same value."
        elif not found.is_whole:
            _, _, height, width = found.region
            text += f". Previewed: {height:,} x {width:,} px in the middle of the view"
        self._say_found(text)
        if self.automatic.isChecked() and np.isfinite(found.signal.threshold):
            with QSignalBlocker(self.threshold_slider), QSignalBlocker(self.threshold):
                self.threshold.setValue(100 * found.signal.threshold)
                self.threshold_slider.setValue(round(_STEPS * found.signal.threshold**0.5))

    def _show_sentence(self, text: str) -> None:
        self._say_found(f"⚠ {text}")

    def _say_found(self, text: str) -> None:
        self.found.setText(text)
        self.found.setVisible(bool(text))

    def _show_progress(self, progress: Progress) -> None:
        self.progress.setRange(0, progress.total)
        self.progress.setValue(progress.done)
        if not self._stopped:
            self._say(f"{progress.message} ...")

    def _take_result(self, result: NDArray[np.int32] | str) -> None:
        if isinstance(result, str):
            self._say(result, is_error=True)
            return
        plane = self._plane
        sizes = np.bincount(result[plane.index].ravel())[1:]
        if not len(sizes):
            self._say(
                "No objects were found, so no labels are made. Lower the threshold or the least "
                "size.",
                is_error=True,
            )
            return
        image = plane.layer
        self._preview.close()
        labels = Labels(
            result,
            name=f"{image.name} objects",
            opacity=0.5,
            metadata={"found with": asdict(self._settings_of_run)},
            **place_of(image),
        )
        self._viewer.add_layer(labels)
        self._made = (image, labels)
        self.classify_button.show()
        self._say_found("")
        self._say(f"{_in_words(sizes, plane.image.pixel_size_um)}. {plane.note}".strip())

    def _show_end(self) -> None:
        if self._stopped:
            self._say("Stopped: no labels were made.")

    def _set_running(self, running: bool) -> None:
        super()._set_running(running)
        if not running:
            self.run_button.setEnabled(self.image.layer is not None)


def _in_words(sizes_px: NDArray[np.intp], pixel_size_um: tuple[float, float] | None) -> str:
    """How many objects, and how large the one in the middle is.

    >>> _in_words(np.array([50, 314, 900]), (0.5, 0.5))
    '3 objects, median 314 px (20 px or 10.0 µm across)'
    """
    if not len(sizes_px):
        return "No objects"
    median = float(np.median(sizes_px))
    across = 2 * (median / np.pi) ** 0.5
    in_um = ""
    if pixel_size_um is not None:
        in_um = f" or {across * (pixel_size_um[0] * pixel_size_um[1]) ** 0.5:.1f} µm"
    what = "object" if len(sizes_px) == 1 else "objects"
    return f"{len(sizes_px):,} {what}, median {median:,.0f} px ({across:.0f} px{in_um} across)"


def _iter_labels(
    plane: LayerPlane, settings: ObjectSettings
) -> Generator[Progress, None, NDArray[np.int32] | str]:
    """Find the objects in the worker's thread, in an array of all planes of the layer."""
    found = yield from iter_find_objects(plane.image, settings)
    if not plane.index:
        return found
    data = finest_of(plane.layer)
    try:
        # Labels of a volume are labels of all of its planes; zeros take memory once written.
        labels = np.zeros((*data.shape[: len(plane.index)], *found.shape), np.int32)
    except MemoryError:
        return (
            f"Labels of all planes of {plane.layer.name!r} do not fit into the memory. Crop the "
            f"layer to fewer planes (right click > Duplicate, then slice its data)."
        )
    labels[plane.index] = found
    return labels
