"""Choosing weights, and reading what they are for."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mambamic._napari.eliding_box import ElidingBox
from napari_mambamic._napari.folding_row import FoldingRow
from napari_mambamic.errors import MambamicError
from napari_mambamic.weights.manifest import Manifest
from napari_mambamic.weights.store import is_here, list_weights, read_manifest


class WeightsBox(QWidget):
    """Registered weights in a list, files by a button, and the manifest in words below."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.names = ElidingBox()
        self.names.setToolTip("The network and the classes that it was trained to tell apart")
        self.names.setAccessibleName("Weights")
        self.open_button = QPushButton("File...")
        self.open_button.setToolTip("Use a .safetensors file with its manifest (.json) beside it")
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.about.setObjectName("about_weights")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(FoldingRow(self.names, self.open_button))
        layout.addWidget(self.about)
        for name in list_weights():
            self._add(name)
        self.names.currentIndexChanged.connect(self._describe)
        self.open_button.clicked.connect(self._choose_file)
        self._describe()

    @property
    def weights(self) -> str:
        """A registered name or the path of a file."""
        return str(self.names.currentData())

    @property
    def manifest(self) -> Manifest | None:
        """Of the chosen weights; None when it cannot be read."""
        try:
            return read_manifest(self.weights)
        except MambamicError:
            return None

    def add_file(self, path: str | Path) -> None:
        """Offer a weights file and choose it; a damaged one is explained below the list."""
        self._add(str(path))
        self.names.setCurrentIndex(self.names.count() - 1)

    def choose(self, name: str) -> None:
        """Choose registered weights, also those that were registered after this list was made."""
        index = self.names.findData(name)
        if index < 0:
            self._add(name)
            index = self.names.count() - 1
        self.names.setCurrentIndex(index)
        self._describe()

    def _add(self, weights: str) -> None:
        try:
            manifest = read_manifest(weights)
            text = f"{manifest.title.split(':')[0]} ({manifest.network})"
            if weights in list_weights() and not is_here(weights):
                text += " - to download"
        except MambamicError:
            text = Path(weights).name
        self.names.addItem(text, weights)

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Weights", "", "Weights (*.safetensors *.pth *.pt)"
        )
        if path:
            self.add_file(path)

    def _describe(self) -> None:
        try:
            manifest = read_manifest(self.weights)
        except MambamicError as error:
            self.about.setText(str(error))
        else:
            score = f" {manifest.score}" if manifest.score else ""
            names = manifest.class_names
            self.about.setText(
                f"<b>{len(names)} classes:</b> {', '.join(names)}.<br>"
                f"<b>Trained on</b> {manifest.training_data}.{score}"
            )
            self.about.setToolTip(f"{manifest.credit}\nLicence: {manifest.licence}")
        self.changed.emit()
