"""Lines over epochs or confidences, drawn as training goes on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

_COLOURS = ("#6fa8ff", "#ff9d5c", "#7fd18b", "#d08cf0", "#e6c84f", "#f27ba0", "#4fd0d6")
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 22, 22  # px around the axes
_LEGEND_ROW = 16  # px


class Chart(QWidget):
    """A few lines with a legend above; the vertical axis begins at 0.

    Parameters
    ----------
    label : str
        Of the horizontal axis.
    top : float, optional
        End of the vertical axis; by default the largest value.
    diagonal : bool
        Both axes go from 0 to 1, with a line where they are equal.
    """

    def __init__(self, label: str, *, top: float | None = None, diagonal: bool = False) -> None:
        super().__init__()
        self._label, self._top, self._diagonal = label, top, diagonal
        self.lines: dict[str, tuple[list[float], list[float]]] = {}
        self.setFixedHeight(150)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_lines(self, lines: dict[str, tuple[Sequence[float], Sequence[float]]]) -> None:
        """Draw lines of (x, y) by name."""
        self.lines = {name: (list(x), list(y)) for name, (x, y) in lines.items()}
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw axes, lines and legend."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().text().color()
        faint = QColor(text)
        faint.setAlpha(110)
        legend = self._legend_places()
        top = _TOP + max((y for _, y in legend), default=0)
        area = QRectF(_LEFT, top, self.width() - _LEFT - _RIGHT, self.height() - top - _BOTTOM)
        xs = [v for x, _ in self.lines.values() for v in x]
        ys = [v for _, y in self.lines.values() for v in y if np.isfinite(v)]
        first, last = (0.0, 1.0) if self._diagonal or not xs else (min(xs), max(xs))
        highest = self._top or max([*ys, 1e-9])

        def place(x: float, y: float) -> QPointF:
            across = (x - first) / ((last - first) or 1.0)
            return QPointF(
                area.left() + across * area.width(), area.bottom() - y / highest * area.height()
            )

        painter.setPen(QPen(faint, 1))
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        painter.drawLine(area.bottomLeft(), area.topLeft())
        if self._diagonal:
            painter.setPen(QPen(faint, 1, Qt.PenStyle.DashLine))
            painter.drawLine(place(0, 0), place(1, 1))
        painter.setPen(faint)
        right = Qt.AlignmentFlag.AlignRight
        painter.drawText(QRectF(0, area.top() - 7, _LEFT - 5, 16), right, f"{highest:.3g}")
        painter.drawText(QRectF(0, area.bottom() - 9, _LEFT - 5, 16), right, "0")
        below = QRectF(area.left(), area.bottom() + 3, area.width(), 16)
        painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, self._label)
        if xs:
            painter.drawText(below, Qt.AlignmentFlag.AlignLeft, f"{first:g}")
            painter.drawText(below, Qt.AlignmentFlag.AlignRight, f"{last:g}")
        for number, (name, (x, y)) in enumerate(self.lines.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            painter.setPen(QPen(QColor(colour), 2))
            points = [place(u, v) for u, v in zip(x, y, strict=True) if np.isfinite(v)]
            painter.drawPolyline(points)
            if len(points) < 25:
                painter.setBrush(QColor(colour))
                for point in points:
                    painter.drawEllipse(point, 2, 2)
            across, down = legend[number]
            painter.drawText(QPointF(across, 14 + down), name)
        painter.end()

    def _legend_places(self) -> list[tuple[float, float]]:
        """Where names begin (x, y) in px: side by side, as many to a row as have room."""
        places, x, y = [], float(_LEFT), 0.0
        for name in self.lines:
            width = self.fontMetrics().horizontalAdvance(name)
            if x > _LEFT and x + width > self.width() - _RIGHT:
                x, y = float(_LEFT), y + _LEGEND_ROW
            places.append((x, y))
            x += width + 16
        return places
