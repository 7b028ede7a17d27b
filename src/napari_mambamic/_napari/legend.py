"""The classes with their colour, count and share."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_mambamic.colours import class_colours

_ROW, _MOST_ROWS = 22, 14  # height in px; more classes scroll


class Legend(QTableWidget):
    """One row per class, in the order of the weights."""

    def __init__(self) -> None:
        super().__init__(0, 3)
        self.setAccessibleName("Classes")
        self.setHorizontalHeaderLabels(["class", "count", "share"])
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(_ROW)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setShowGrid(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.horizontalHeader()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in (1, 2):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)

    def show_classes(self, names: Sequence[str]) -> None:
        """List classes without counts."""
        self.setRowCount(len(names))
        for row, (name, colour) in enumerate(zip(names, class_colours(len(names)), strict=True)):
            swatch = QPixmap(14, 14)
            swatch.fill(QColor.fromRgbF(*(float(c) for c in colour)))
            item = QTableWidgetItem(name)
            item.setData(Qt.ItemDataRole.DecorationRole, swatch)
            self.setItem(row, 0, item)
            for column in (1, 2):
                number = QTableWidgetItem("")
                number.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(row, column, number)
        header = self.horizontalHeader().sizeHint().height()
        self.setFixedHeight(min(len(names), _MOST_ROWS) * _ROW + header + 6)

    def show_counts(self, counts: dict[str, int]) -> None:
        """Fill in counts and shares of the classes that are listed."""
        total = max(sum(counts.values()), 1)
        for row, count in enumerate(counts.values()):
            self.item(row, 1).setText(f"{count:,}")
            self.item(row, 2).setText(f"{count / total:.1%}")
