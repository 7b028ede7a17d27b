"""Tables, lists, texts and charts in the size of letters that is set in napari.

napari's style sheet gives that size to labels, buttons and most inputs, and leaves out tables,
texts and what plugins draw.
"""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import (
    QAbstractItemView,
    QAbstractSpinBox,
    QLabel,
    QLineEdit,
    QTableView,
    QWidget,
)

from napari_mambamic._napari.chart import Chart
from napari_mambamic._napari.fitted_table import row_height
from napari_mambamic._napari.message import Message


class SameLetters(QObject):
    """Gives the font of a panel's labels, now and later, to what it has in another one."""

    def __init__(self, panel: QWidget) -> None:
        super().__init__(panel)
        self._label, self._panel = panel.findChild(QLabel), panel
        self._label.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Another size was set in napari."""
        if event.type() == QEvent.Type.FontChange and watched is self._label:
            self._take()
        return False

    def _take(self) -> None:
        font = self._label.font()
        for kind in (QAbstractItemView, Chart, Message, QLineEdit):
            for widget in self._panel.findChildren(kind):
                if isinstance(widget.parent(), QAbstractSpinBox):
                    continue  # has the letters of its box
                widget.setFont(font)
                if isinstance(widget, QTableView):
                    widget.verticalHeader().setDefaultSectionSize(row_height(widget))
