"""Lines over epochs or confidences, drawn as training goes on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import QEvent, QPointF, QRect, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

_COLOURS = ("#6fa8ff", "#ff9d5c", "#7fd18b", "#d08cf0", "#e6c84f", "#f27ba0", "#4fd0d6")
# Corners of marks around (0, 0): who does not see the colours tells the lines by these.
_MARKS = (
    [(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 12, endpoint=False)],
    [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    [(0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
    [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
    [(0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
)
_DASHES = (
    Qt.PenStyle.SolidLine,
    Qt.PenStyle.DashLine,
    Qt.PenStyle.DotLine,
    Qt.PenStyle.DashDotLine,
)
_MARK = 3  # px from the middle of a mark
_MOST_MARKS = 25  # on a line
_DARKER = 190  # per cent, of lines on a light background


class Chart(QWidget):
    """A few lines with a legend above; the vertical axis begins at 0.

    Each line has a colour, a mark and, of more than five, a pattern of its own.

    Parameters
    ----------
    label : str
        Of the horizontal axis.
    name : str
        Its accessible name.
    top : float, optional
        End of the vertical axis; by default the largest value.
    diagonal : bool
        Both axes go from 0 to 1, with a line where they are equal.
    rows : int
        Its height, in lines of letters.
    """

    def __init__(
        self,
        label: str,
        name: str,
        *,
        top: float | None = None,
        diagonal: bool = False,
        rows: int = 10,
    ) -> None:
        super().__init__()
        self._label, self._top, self._diagonal, self._rows = label, top, diagonal, rows
        self.lines: dict[str, tuple[list[float], list[float]]] = {}
        self.setAccessibleName(name)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._fit()

    def show_lines(self, lines: dict[str, tuple[Sequence[float], Sequence[float]]]) -> None:
        """Draw lines of (x, y) by name."""
        self.lines = {name: (list(x), list(y)) for name, (x, y) in lines.items()}
        said = [
            f"{name}: from {y[0]:.3g} to {y[-1]:.3g}" for name, (_, y) in self.lines.items() if y
        ]
        self.setAccessibleDescription("; ".join(said))
        self.update()

    def changeEvent(self, event: QEvent) -> None:
        """Larger letters take more room."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._fit()

    def _fit(self) -> None:
        self.setFixedHeight(self._rows * self._line)

    @property
    def _line(self) -> int:
        """Height of a line of letters, in px."""
        return int(self.fontMetrics().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw axes, lines and legend."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        line, text = self._line, self.palette().text().color()
        faint = QColor(text)
        faint.setAlpha(110)
        left = self.fontMetrics().horizontalAdvance("0.000") + 8
        right = 10
        numbers, label = self.below(self.width() - left - right)
        bottom = numbers + label + 6
        legend = self._legend_places(4, right)
        # Half a line more, for the number at the top of the axis.
        top = 1.5 * line + 8 + max((y for _, y in legend), default=0)
        area = QRectF(left, top, self.width() - left - right, self.height() - top - bottom)
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
        painter.setPen(text)
        beside = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for number, y in ((f"{highest:.3g}", area.top()), ("0", area.bottom())):
            painter.drawText(QRectF(0, y - line / 2, left - 5, line), beside, number)
        below = QRectF(area.left(), area.bottom() + 3, area.width(), line)
        wraps = Qt.AlignmentFlag.AlignHCenter | Qt.TextFlag.TextWordWrap
        if label:  # below the numbers, and as wide as the chart
            painter.drawText(QRectF(0, below.bottom(), self.width(), label), wraps, self._label)
        else:
            painter.drawText(below, wraps, self._label)
        if xs:
            painter.drawText(below, Qt.AlignmentFlag.AlignLeft, f"{first:g}")
            painter.drawText(below, Qt.AlignmentFlag.AlignRight, f"{last:g}")
        for number, (name, (x, y)) in enumerate(self.lines.items()):
            points = [place(u, v) for u, v in zip(x, y, strict=True) if np.isfinite(v)]
            colour = self._colour(number, text)
            painter.setPen(QPen(colour, 2, _DASHES[number // len(_MARKS) % len(_DASHES)]))
            painter.drawPolyline(QPolygonF(points))
            painter.setPen(QPen(colour, 1))
            painter.setBrush(colour)
            step = max(1, len(points) // _MOST_MARKS)
            across, down = legend[number]
            beside_name = QPointF(across + _MARK + 1, line / 2 + 4 + down)
            for point in (*points[::step], beside_name):
                painter.drawPolygon(_mark(number, point))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(text)
            room = QRectF(across + 3 * _MARK + 2, 4 + down, self.width(), line)
            painter.drawText(room, Qt.AlignmentFlag.AlignLeft, name)
        painter.end()

    def _colour(self, number: int, text: QColor) -> QColor:
        """Of a line: where letters are dark, the background is light."""
        colour = QColor(_COLOURS[number % len(_COLOURS)])
        return colour.darker(_DARKER) if text.lightnessF() < 0.5 else colour

    def below(self, width: int) -> tuple[int, int]:
        """Heights in px of the numbers under an axis, and of its label where that stands below."""
        metrics = self.fontMetrics()
        beside = width - 2 * metrics.horizontalAdvance("0.000")
        if metrics.horizontalAdvance(self._label) <= beside:
            return self._line, 0
        room = QRect(0, 0, self.width(), 10 * self._line)
        wraps = Qt.AlignmentFlag.AlignHCenter | Qt.TextFlag.TextWordWrap
        return self._line, metrics.boundingRect(room, wraps, self._label).height()

    def _legend_places(self, left: int, right: int) -> list[tuple[float, float]]:
        """Where marks begin (x, y) in px: side by side, as many to a row as have room."""
        places, x, y = [], float(left), 0.0
        for name in self.lines:
            width = self.fontMetrics().horizontalAdvance(name) + 3 * _MARK + 2
            if x > left and x + width > self.width() - right:
                x, y = float(left), y + self._line + 2
            places.append((x, y))
            x += width + 14
        return places


def _mark(number: int, middle: QPointF) -> QPolygonF:
    corners = _MARKS[number % len(_MARKS)]
    return QPolygonF([middle + QPointF(_MARK * float(x), _MARK * float(y)) for x, y in corners])
