"""Tables, lists and charts in the size of letters that is set in napari.

napari's style sheet gives that size to labels, buttons and inputs, and leaves out tables and what
plugins draw.
"""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QAbstractItemView, QLabel, QTableView, QWidget

from napari_mambamic._napari.chart import Chart
from napari_mambamic._napari.fitted_table import row_height


class SameLetters(QObject):
    """Gives the font of a label, now and later, to the tables, lists and charts of a panel."""

    def __init__(self, label: QLabel, panel: QWidget) -> None:
        super().__init__(panel)
        self._label, self._panel = label, panel
        label.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Another size was set in napari."""
        if event.type() == QEvent.Type.FontChange and watched is self._label:
            self._take()
        return False

    def _take(self) -> None:
        font = self._label.font()
        for kind in (QAbstractItemView, Chart):
            for widget in self._panel.findChildren(kind):
                widget.setFont(font)
                if isinstance(widget, QTableView):
                    widget.verticalHeader().setDefaultSectionSize(row_height(widget))
