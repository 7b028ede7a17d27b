"""The lower half of the Train panel: how good the new weights are."""

from __future__ import annotations

from html import escape
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QLabel,
    QSizePolicy,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mambamic._napari.chart import Chart
from napari_mambamic._napari.fitted_table import FittedTable
from napari_mambamic._napari.upright_header import UprightHeader

_DEEPEST = 0.45  # of a shade, so that letters stand out in both themes
_TELL_TENTHS = 500  # samples, of which one is less than half a percent
_NOT_HELD_BACK = "No sample of this class was held back; means leave it out"
_COLUMNS = ("precision", "sensitivity", "specificity", "f1", "auc")


class TrainingResult(QWidget):
    """Headline, confusion matrix, figures of each class, reliability."""

    cell_chosen = Signal(int, int)  # true class, predicted class

    def __init__(self) -> None:
        super().__init__()
        self.headline = QLabel()
        self.headline.setWordWrap(True)
        self.confusion = _table("Confusion matrix")
        self.confusion.setToolTip(
            "Rows: true class; columns: predicted. Click, or press Enter, to see the tiles"
        )
        self.confusion.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.confusion.cellClicked.connect(self.cell_chosen)
        self.confusion.cellActivated.connect(self.cell_chosen)  # Enter
        self.figures = _table("Figures of each class")
        self.reliability = Chart("confidence", "Accuracy by confidence", top=1.0, diagonal=True)
        self.reliability.setToolTip(
            "Of the validation samples classified with some confidence, the share that is right; "
            "on the dashed line, probabilities mean what they say"
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        explained = QLabel(
            "<b>Confusion matrix</b>: rows true, columns predicted; click a number to see the tiles"
        )
        explained.setWordWrap(True)
        for widget in (
            self.headline,
            explained,
            self.confusion,
            self.figures,
            self.reliability,
        ):
            layout.addWidget(widget)
        self.hide()

    def show_report(self, report: dict[str, Any]) -> None:
        """Show the report of a `Checkpoint`."""
        from napari_mambamic.training.report import (
            accuracy_in_words,
            calibration_in_words,
            unknown_in_words,
        )

        figures, calibration = report["validation"], report["calibration"]
        share, _, rest = accuracy_in_words(figures).partition(" ")
        others = (rest, unknown_in_words(figures), calibration_in_words(calibration))
        self.headline.setText(f"<b>{share}</b> {escape(' '.join(filter(None, others)))}")
        names = report["class_names"]
        self._show_confusion(figures["confusion_matrix"], names)
        self._show_figures(figures["per_class"])
        bins = calibration["after"]
        self.reliability.setVisible(bins is not None)
        if bins is not None:
            self.reliability.show_lines({"accuracy": (bins["confidence"], bins["accuracy"])})
        self.show()

    def _show_confusion(self, matrix: list[list[int]], names: list[str]) -> None:
        table = self.confusion
        table.setRowCount(len(names))
        table.setColumnCount(len(names))
        table.setHorizontalHeaderLabels(names)
        table.setVerticalHeaderLabels(names)
        for row, counts in enumerate(matrix):
            for column, count in enumerate(counts):
                share = count / max(sum(counts), 1)
                colour = QColor("#4a9a5b" if row == column else "#d1603d")
                colour.setAlphaF(_DEEPEST * share)
                item = _cell(str(count))
                item.setBackground(colour)
                item.setToolTip(
                    f"{count} of {names[row]} are classified as {names[column]} ({share:.0%})"
                )
                table.setItem(row, column, item)
        table.fit()

    def _show_figures(self, per_class: dict[str, dict[str, Any]]) -> None:
        table = self.figures
        table.setRowCount(len(per_class))
        table.setColumnCount(1 + len(_COLUMNS))
        table.setHorizontalHeaderLabels(["n", *_COLUMNS])
        table.setVerticalHeaderLabels(list(per_class))
        for row, figures in enumerate(per_class.values()):
            table.setItem(row, 0, _cell(str(figures["n"])))
            for column, name in enumerate(_COLUMNS, 1):
                value = figures[name]
                item = _cell("-" if value is None else _percent(value, figures["n"]))
                if not figures["n"]:
                    item.setToolTip(_NOT_HELD_BACK)
                table.setItem(row, column, item)
        table.fit()


def _percent(share: float, n: int) -> str:
    """A share of n samples, as exactly as they can tell it.

    >>> _percent(1 / 3, 6), _percent(1 / 3, 6000)
    ('33%', '33.3%')
    """
    return f"{share:.0%}" if n < _TELL_TENTHS else f"{share:.1%}"


def _table(name: str) -> FittedTable:
    table = FittedTable(name)
    table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
    table.setHorizontalHeader(UprightHeader())
    table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    # As wide as the panel, never wider: what does not fit scrolls.
    table.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return table


def _cell(text: str) -> QTableWidgetItem:
    item = QTableWidgetItem(text)
    item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
    return item
