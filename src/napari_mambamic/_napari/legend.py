"""The classes with their colour, count and share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidgetItem

from napari_mambamic._napari.fitted_table import FittedTable
from napari_mambamic.colours import UNSURE


class Legend(FittedTable):
    """One row per class, in the order of the weights; then the unsure, where there may be some."""

    def __init__(self) -> None:
        super().__init__("Classes", 3)
        self.setHorizontalHeaderLabels(["class", "count", "share"])
        self.verticalHeader().hide()
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setToolTip("Colour, number and share of each class")
        self.setShowGrid(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.horizontalHeader()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in (1, 2):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)

    def show_classes(
        self, names: Sequence[str], colours: NDArray[np.float32], *, unsure: bool = False
    ) -> None:
        """List classes without counts, in `colours` (n_classes, 4)."""
        colours = np.vstack([colours.reshape(-1, 4), UNSURE])
        names = [*names, "unsure"] if unsure else names
        self.setRowCount(len(names))
        for row, (name, colour) in enumerate(zip(names, colours, strict=False)):
            swatch = QPixmap(14, 14)
            swatch.fill(QColor.fromRgbF(*(float(c) for c in colour)))
            item = QTableWidgetItem(name)
            item.setToolTip(name)
            item.setData(Qt.ItemDataRole.DecorationRole, swatch)
            self.setItem(row, 0, item)
            for column in (1, 2):
                number = QTableWidgetItem("")
                number.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(row, column, number)
        self.fit()

    def show_counts(self, counts: dict[str, int], *, unsure: int = 0, counted: bool = True) -> None:
        """Fill in counts and shares of the classes that are listed.

        Parameters
        ----------
        counts : dict
            Tiles of each class.
        unsure : int
            Tiles that are unsure.
        counted : bool
            Whether these are in `counts` too.
        """
        total = max(sum(counts.values()) + (0 if counted else unsure), 1)
        for row, count in enumerate([*counts.values(), unsure][: self.rowCount()]):
            self.item(row, 1).setText(f"{count:,}")
            self.item(row, 2).setText(f"{count / total:.1%}")
