"""A line around what has the keyboard's focus, which napari's themes do not show."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QApplication, QFocusFrame, QWidget

_WIDTH = 2  # px


class FocusRing(QFocusFrame):
    """Follows the focus within a panel.

    Parameters
    ----------
    panel : QWidget
    """

    def __init__(self, panel: QWidget) -> None:
        super().__init__(panel)
        self._panel = panel
        self.hide()
        QApplication.instance().focusChanged.connect(self._follow)

    def _follow(self, before: QWidget | None, now: QWidget | None) -> None:
        inside = now is not None and self._panel.isAncestorOf(now)
        self.setWidget(now if inside else None)

    def paintEvent(self, event: QPaintEvent) -> None:
        """In the colour of the letters."""
        painter = QPainter(self)
        pen = QPen(self._panel.palette().color(self.foregroundRole()), _WIDTH)
        pen.setJoinStyle(Qt.PenJoinStyle.MiterJoin)
        painter.setPen(pen)
        painter.drawRect(self.rect().adjusted(1, 1, -1, -1))
