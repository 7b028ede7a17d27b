"""A row of tiles as small pictures, each with what is known of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QAbstractItemView, QListView, QListWidget, QListWidgetItem

from napari_mambamic._napari.tile_pictures import pixmap_of

MOST = 50  # pictures
SIDE = 64  # px on the screen


class TileStrip(QListWidget):
    """Pictures side by side; a click or Enter on one emits `chosen` with its tile's number."""

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Tiles")
        self.setToolTip("Click a tile, or choose it with the arrow keys and Enter, to go there")
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setFlow(QListView.Flow.LeftToRight)
        self.setWrapping(False)
        self.setMovement(QListView.Movement.Static)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setIconSize(QSize(SIDE, SIDE))
        self.setSpacing(2)
        self.setFixedHeight(SIDE + 4 * self.fontMetrics().height())
        self.itemClicked.connect(self._choose)
        self.itemActivated.connect(self._choose)

    def show_tiles(
        self,
        numbers: Sequence[int],
        captions: Sequence[str],
        texts: Sequence[str],
        pictures: Sequence[NDArray[np.uint8]],
    ) -> None:
        """Show tiles by their numbers: a caption below each, a text to read when it is hovered."""
        self.clear()
        rows = zip(numbers, captions, texts, pictures, strict=True)
        for number, caption, text, picture in rows:
            pixmap = pixmap_of(picture).scaled(SIDE, SIDE, Qt.AspectRatioMode.KeepAspectRatio)
            item = QListWidgetItem(QIcon(pixmap), caption)
            item.setToolTip(text)
            item.setData(Qt.ItemDataRole.AccessibleTextRole, text)
            item.setData(Qt.ItemDataRole.UserRole, int(number))
            self.addItem(item)

    def _choose(self, item: QListWidgetItem) -> None:
        self.chosen.emit(item.data(Qt.ItemDataRole.UserRole))
