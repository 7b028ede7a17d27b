"""The upper half of the Train panel: where samples come from, and how many there are."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points, Shapes
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QLineEdit,
    QListWidget,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_mambamic._napari.annotate import HELP, Annotator
from napari_mambamic._napari.eliding_box import ElidingBox
from napari_mambamic._napari.folding_row import FoldingRow
from napari_mambamic._napari.from_layer import labels_of_layer, plane_at, plane_of_layer
from napari_mambamic._napari.layer_box import LayerBox
from napari_mambamic._napari.message import Message
from napari_mambamic._napari.samples_from_layers import AnnotatedTiles, annotated_tiles
from napari_mambamic.errors import MambamicError, SamplesError
from napari_mambamic.tiling import ObjectTiles, tiles_of_objects
from napari_mambamic.training.datasets import gives_places, samples_from_path
from napari_mambamic.training.samples import Samples, join_samples, without_copies

KINDS: dict[str, type[Layer] | None] = {
    "Click tiles of the image": None,
    "Click objects of a Labels layer": Labels,
    "Points layer": Points,
    "Shapes layer": Shapes,
    "Painted Labels layer": Labels,
    "Folder of class folders": None,
    "File: .csv, .npz or corrections": None,
}
_CLICK, _CLICK_OBJECTS, _FOLDER, _FILE = 0, 1, 5, 6


@dataclass(frozen=True)
class Source:
    """Where samples come from, and how they are read when training starts."""

    place: Hashable  # what is added from the same place again stands for what was before
    read: Callable[[], Samples]


class SampleSources(QWidget):
    """Choose and add sources; `reader` gives the samples of all."""

    changed = Signal()  # the labels or the list

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._added: list[Source] = []
        self.annotator: Annotator | None = None
        self.kind = ElidingBox()
        self.kind.addItems(list(KINDS))
        self.kind.setAccessibleName("Samples from")
        self.kind.setToolTip("How you tell which tile or cell is of which class")
        self.image = LayerBox(viewer, Image, "Image")
        self.image.setToolTip(
            "The image that is annotated: the one selected in the layer list, or choose here"
        )
        self.image.follow_selection(viewer)
        self.layers = {
            kind: LayerBox(viewer, kind, kind.__name__) for kind in (Points, Shapes, Labels)
        }
        self.layers[Points].setToolTip("Class = the first feature with words, or the colour")
        self.layers[Shapes].setToolTip("Class = the first feature with words, or the colour")
        self.layers[Labels].setToolTip(
            "Objects: one tile around each. Painted: a tile has the class that covers at least half"
        )
        self.tile_size = QSpinBox()
        self.tile_size.setRange(8, 4096)
        self.tile_size.setValue(96)
        self.tile_size.setSuffix(" px")
        self.tile_size.setAccessibleName("Tile size")
        self.tile_size.setToolTip("Side of a tile in pixels of the image; Classify will use it too")
        self.size_on_disk = QSpinBox()
        self.size_on_disk.setRange(0, 4096)
        self.size_on_disk.setSpecialValueText("automatic")
        self.size_on_disk.setSuffix(" px")
        self.size_on_disk.setAccessibleName("Tile size of files")
        self.size_on_disk.setToolTip(
            "Side of the tiles around the places of a .csv file, which need it, or around boxes; "
            "whole images of folders and tables are resampled to it. Automatic: their median size"
        )
        self.class_names = QLineEdit()
        self.class_names.setPlaceholderText("normal, infected, ...")
        self.class_names.setAccessibleName("Classes")
        self.class_names.setToolTip("Names of the classes, with commas; keys 1-9 stand for them")
        self.class_names.editingFinished.connect(self._rename_classes)
        self.lenient = QCheckBox("Skip broken and copies")
        self.lenient.setToolTip(
            "Leave out images that cannot be read, and copies of others; without this, the first "
            "such image stops the training"
        )
        self.label_button = QPushButton("Start labelling")
        self.label_button.setToolTip(HELP)
        self.label_button.clicked.connect(self.start_labelling)
        self.add_button = QPushButton("Add samples")
        self.add_button.setToolTip("Add these samples to the list; several images can be added")
        self.add_button.clicked.connect(self.add)
        self.remove_button = QPushButton("Remove")
        self.remove_button.setToolTip("Take the chosen samples off the list")
        self.remove_button.clicked.connect(self.remove)
        self.sources = QListWidget()
        self.sources.setAccessibleName("Samples")
        self.sources.setMaximumHeight(74)
        self.sources.setWordWrap(True)
        self.sources.setToolTip("What Train learns from")
        self.message = Message("Message on the samples")
        self.message.hide()
        self.form = QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.form.addRow("Samples from", self.kind)
        self.form.addRow("Image", self.image)
        for kind, box in self.layers.items():
            self.form.addRow(kind.__name__, box)
        self.form.addRow("Tile size", self.tile_size)
        self.form.addRow("Tile size", self.size_on_disk)
        self.form.addRow("Classes", self.class_names)
        self.form.addRow("", self.lenient)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self.form)
        layout.addWidget(self.label_button)
        layout.addWidget(FoldingRow(self.add_button, self.remove_button))
        layout.addWidget(self.message)
        layout.addWidget(self.sources)
        self.kind.currentIndexChanged.connect(self._show_fields)
        self._show_fields()

    def start_labelling(self) -> None:
        """Put a layer of annotations on the image and make it the active one."""
        image = self.image.layer
        names = self._names()
        if not isinstance(image, Image):
            self._say("There is no image to label. Open one first.", is_error=True)
            return
        if len(names) < 2:
            self._say("Name at least two classes first, with a comma between them.", is_error=True)
            return
        try:
            tiles = self._object_tiles(image)
            if self._labels_already(image, tiles):
                self.annotator.set_classes(names)
            else:
                self.annotator = Annotator(
                    self._viewer,
                    image,
                    tile_size=self.tile_size.value(),
                    class_names=names,
                    tiles=tiles,
                    on_change=self._show_counts,
                )
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        self._viewer.layers.selection.active = self.annotator.layer
        self._show_counts()

    def _labels_already(self, image: Image, tiles: ObjectTiles | None) -> bool:
        """Whether these tiles of the plane in view are those that are being labelled."""
        annotator = self.annotator
        return (
            annotator is not None
            and annotator.layer in self._viewer.layers
            and annotator.image is image
            and annotator.tile_size == self.tile_size.value()
            and annotator.plane.index == plane_of_layer(self._viewer, image).index
            and annotator.is_of(tiles)
        )

    def _object_tiles(self, image: Image) -> ObjectTiles | None:
        if self.kind.currentIndex() != _CLICK_OBJECTS:
            return None
        plane = plane_of_layer(self._viewer, image)
        objects = labels_of_layer(plane, self.layers[Labels].layer)
        return tiles_of_objects(objects, tile_size=self.tile_size.value())

    @property
    def is_on_disk(self) -> bool:
        """Whether the samples are to be chosen as a folder or a file."""
        return self.kind.currentIndex() in (_FOLDER, _FILE)

    @property
    def n_sources(self) -> int:
        """How many were added."""
        return len(self._added)

    def add(self) -> None:
        """Add the source that the form describes."""
        kind = self.kind.currentIndex()
        try:
            if self.is_on_disk:
                self._choose_path(folder=kind == _FOLDER)
            elif kind in (_CLICK, _CLICK_OBJECTS):
                self._add_annotations()
            else:
                layer = self.layers[KINDS[self.kind.currentText()]].layer
                if layer is None:
                    name = KINDS[self.kind.currentText()].__name__
                    raise SamplesError(
                        f"The viewer has no {name} layer. Add one, annotate in it, and press Add "
                        f"samples again."
                    )
                self._add_layer(layer)
        except MambamicError as error:
            self._say(str(error), is_error=True)

    def add_path(self, path: str | Path) -> None:
        """Add a folder or a file; it is read when training starts.

        Raises
        ------
        SamplesError
            It is a table of places in images, and no tile size is chosen.
        """
        lenient, size = self.lenient.isChecked(), self.size_on_disk.value() or None
        if size is None and gives_places(path):
            raise SamplesError(
                f"{Path(path).name} gives places in images. Set a tile size, then choose it again."
            )

        def read() -> Samples:
            samples = samples_from_path(path, tile_size=size, skip_unreadable=lenient)
            return without_copies(samples) if lenient else samples

        self._append(Source(Path(path).absolute(), read), str(path))

    def add_corrections(self, name: str, place: Hashable, tiles: AnnotatedTiles) -> None:
        """Add what was corrected, at some place, in the panel "Review and correct"."""
        self._append_tiles(place, name, tiles)

    def remove(self) -> None:
        """Take the chosen source off the list, or the last."""
        row = self.sources.currentRow()
        row = row if row >= 0 else len(self._added) - 1
        if row >= 0:
            del self._added[row]
            self.sources.takeItem(row)
            self.changed.emit()

    def reader(self) -> Callable[[], Samples]:
        """Function that reads all samples, for another thread.

        Raises
        ------
        SamplesError
            There are no sources.
        """
        if not self._added:
            raise SamplesError("There are no samples yet. Label some tiles, and press Add samples.")
        sources = list(self._added)
        return lambda: join_samples([source.read() for source in sources])

    def _add_annotations(self) -> None:
        annotator = self.annotator
        if annotator is None or not len(annotator.annotations):
            raise SamplesError("No tile is labelled. Press Start labelling and click some tiles.")
        image, layer, index = annotator.image, annotator.layer, annotator.plane.index
        found = annotated_tiles(
            self._viewer,
            image,
            layer,
            tile_size=annotator.tile_size,
            plane=plane_at(image, index),  # with its pixels of now
        )
        self._append_tiles(annotator.annotations.journal, layer.name, found)

    def _add_layer(self, layer: Layer) -> None:
        image, size = self.image.layer, self.tile_size.value()
        plane = plane_of_layer(self._viewer, image)
        found = annotated_tiles(self._viewer, image, layer, tile_size=size, plane=plane)
        place = (layer.unique_id, image.unique_id, plane.index)
        self._append_tiles(place, layer.name, found)

    def _append_tiles(self, place: Hashable, name: str, found: AnnotatedTiles) -> None:
        counts = ", ".join(f"{kind} {n}" for kind, n in found.counts.items())
        self._append(Source(place, found.read), f"{name}: {counts}")

    def _append(self, source: Source, text: str) -> None:
        for row, known in enumerate(self._added):
            if known.place == source.place:  # annotated further
                self._added[row] = source
                self.sources.item(row).setText(text)
                break
        else:
            self._added.append(source)
            self.sources.addItem(text)
        self._say("")
        self.changed.emit()

    def _choose_path(self, *, folder: bool) -> None:
        if folder:
            path = QFileDialog.getExistingDirectory(self, "Folder of class folders")
        else:
            path, _ = QFileDialog.getOpenFileName(
                self, "Samples", "", "Samples (*.csv *.npz *.mambamic.json)"
            )
        if path:
            self.add_path(path)

    def _names(self) -> list[str]:
        return list(
            dict.fromkeys(n.strip() for n in self.class_names.text().split(",") if n.strip())
        )

    def _rename_classes(self) -> None:
        if self.annotator is not None and len(self._names()) > 1:
            self.annotator.set_classes(self._names())

    def _show_counts(self) -> None:
        annotator = self.annotator
        if annotator is None:
            return
        counts = annotator.annotations.counts
        said = ", ".join(
            f"{i}: {name} {counts.get(name, 0)}" for i, name in enumerate(annotator.class_names, 1)
        )
        clicks = annotator.class_names[annotator.current]
        if annotator.refusal:
            self._say(annotator.refusal, is_error=True)
        else:
            total = f"{len(annotator.tiles):,} tiles"
            self._say(f"{said} - of {total}. A click gives {clicks!r}. {HELP}")
        self.changed.emit()

    def _show_fields(self) -> None:
        index = self.kind.currentIndex()
        kind = KINDS[self.kind.currentText()]
        for layer_kind, box in self.layers.items():
            self.form.setRowVisible(box, layer_kind is kind)
        clicks = index in (_CLICK, _CLICK_OBJECTS)
        for widget in (self.image, self.tile_size):
            self.form.setRowVisible(widget, index < _FOLDER)
        self.form.setRowVisible(self.size_on_disk, index >= _FOLDER)
        self.form.setRowVisible(self.class_names, clicks)
        self.form.setRowVisible(self.lenient, index >= _FOLDER)
        self.label_button.setVisible(clicks)
        self.add_button.setText("Add samples" if index < _FOLDER else "Choose...")

    def _say(self, text: str, *, is_error: bool = False) -> None:
        self.message.setText(f"⚠ {text}" if is_error else text)
        self.message.setVisible(bool(text))
