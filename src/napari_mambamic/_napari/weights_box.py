"""Choosing weights, and reading what they are for."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QAction
from qtpy.QtWidgets import (
    QFileDialog,
    QLabel,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mambamic._napari.eliding_box import ElidingBox
from napari_mambamic._napari.folding_row import FoldingRow
from napari_mambamic.errors import MambamicError
from napari_mambamic.weights.manifest import Manifest
from napari_mambamic.weights.store import (
    is_here,
    list_weights,
    may_be_removed,
    read_manifest,
    remove_weights,
)


class WeightsBox(QWidget):
    """Registered weights in a list, files by a button, and the manifest in words below."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.names = ElidingBox()
        self.names.setToolTip(
            "The network and the classes that it was trained to tell apart. A right click removes "
            "those that you trained, added or downloaded"
        )
        self.names.setAccessibleName("Weights")
        self.remove_action = QAction("Remove from this computer...", self.names)
        self.remove_action.triggered.connect(self._ask_to_remove)
        self.names.addAction(self.remove_action)
        self.names.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
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

    def remove(self) -> None:
        """Remove the chosen weights from this computer; what cannot be is told below the list."""
        name = self.weights
        try:
            freed = remove_weights(name)
        except MambamicError as error:
            self.about.setText(f"⚠ {error}")
            return
        index = self.names.currentIndex()
        if name in list_weights():  # they can be downloaded again
            self.names.setItemText(index, title_of(name))
        else:
            self.names.removeItem(index)
            self.names.setCurrentIndex(0)
        self._describe()
        self.about.setText(
            f"Removed {name!r}: {freed / 1e6:.1f} MB are free again.<br>{self.about.text()}"
        )

    def _ask_to_remove(self) -> None:
        yes = QMessageBox.StandardButton.Yes
        answer = QMessageBox.question(
            self,
            "Remove weights",
            f"Remove the weights {self.weights!r} from this computer? What was trained here cannot "
            f"be brought back.",
            yes | QMessageBox.StandardButton.No,
        )
        if answer == yes:
            self.remove()

    def _add(self, weights: str) -> None:
        self.names.addItem(title_of(weights), weights)

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Weights", "", "Weights (*.safetensors *.pth *.pt)"
        )
        if path:
            self.add_file(path)

    def _describe(self) -> None:
        self.remove_action.setEnabled(may_be_removed(self.weights))
        try:
            manifest = read_manifest(self.weights)
        except MambamicError as error:
            self.about.setText(f"⚠ {error}")
        else:
            score = f" {manifest.score}" if manifest.score else ""
            names = manifest.class_names
            self.about.setText(
                f"<b>{len(names)} classes:</b> {', '.join(names)}.<br>"
                f"<b>Trained on</b> {manifest.training_data}.{score}"
            )
            self.about.setToolTip(f"{manifest.credit}\nLicence: {manifest.licence}")
        self.changed.emit()


def title_of(weights: str) -> str:
    """Weights in the words of the list."""
    try:
        manifest = read_manifest(weights)
    except MambamicError:
        return Path(weights).name
    title = f"{manifest.title.split(':')[0]} ({manifest.network})"
    return title if is_here(weights) or weights not in list_weights() else f"{title} - to download"
