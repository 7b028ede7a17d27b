"""A row of tiles as small pictures, each with what is known of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QListView, QListWidget, QListWidgetItem

from napari_mambamic._napari.from_layer import LayerPlane
from napari_mambamic.patches import read_tiles
from napari_mambamic.tiling import Tile

MOST = 50  # pictures
_SIDE = 64  # px on the screen


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
        self.setIconSize(QSize(_SIDE, _SIDE))
        self.setSpacing(2)
        self.setFixedHeight(_SIDE + 4 * self.fontMetrics().height())
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
            height, width, _ = picture.shape
            image = QImage(picture.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
            pixmap = QPixmap.fromImage(image).scaled(_SIDE, _SIDE)
            item = QListWidgetItem(QIcon(pixmap), caption)
            item.setToolTip(text)
            item.setData(Qt.ItemDataRole.AccessibleTextRole, text)
            item.setData(Qt.ItemDataRole.UserRole, int(number))
            self.addItem(item)

    def _choose(self, item: QListWidgetItem) -> None:
        self.chosen.emit(item.data(Qt.ItemDataRole.UserRole))


def pictures_of(plane: LayerPlane, tiles: Sequence[Tile]) -> list[NDArray[np.uint8]]:
    """Pixels (side, side, 3) of each tile, as bright as the layer shows them."""
    image, layer = plane.image, plane.layer
    found = []
    for tile in tiles:
        pixels = read_tiles(image, [tile], level=image.level_for(tile.size / _SIDE))[0]
        step = max(1, len(pixels) // (2 * _SIDE))
        pixels = pixels[::step, ::step]
        if layer.rgb:
            shown = pixels[..., :3].astype(np.float32)
            shown = shown if pixels.dtype.kind == "f" else shown / np.iinfo(pixels.dtype).max
        else:
            low, high = layer.contrast_limits
            shown = (pixels[..., :1].astype(np.float32) - low) / max(high - low, 1e-9)
            shown = np.repeat(shown, 3, axis=2)
        shown = np.nan_to_num(shown).clip(0, 1)
        found.append(np.ascontiguousarray((shown * 255).astype(np.uint8)))
    return found
