"""Headings of columns that are read from the bottom to the top, so that narrow columns have them.

A confusion matrix has as many columns as classes, of a few digits each; names of classes beside
each other would be cut to two letters.
"""

from __future__ import annotations

from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QIcon, QPainter
from qtpy.QtWidgets import QHeaderView, QStyle, QStyleOptionHeader, QWidget

_SWATCH = 12  # px
_AROUND = 6  # px beside and between swatch and name
_MOST_LETTERS = 30  # of a name; longer ones are cut short, and the tooltip has them whole


class UprightHeader(QHeaderView):
    """Names turned by a quarter, each above its swatch, in columns of equal width."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(Qt.Orientation.Horizontal, parent)
        self.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)

    def sectionSizeFromContents(self, logical: int) -> QSize:
        """As wide as four digits, as high as the name is long."""
        metrics = self.fontMetrics()
        length = metrics.horizontalAdvance(self._text(logical)) + 2 * _AROUND
        if not self._icon(logical).isNull():
            length += _SWATCH + _AROUND
        most = metrics.averageCharWidth() * _MOST_LETTERS
        width = max(metrics.horizontalAdvance("0000"), metrics.height()) + _AROUND
        return QSize(width, min(length, most))

    def paintSection(self, painter: QPainter, rect: QRect, logical: int) -> None:
        """Draw the ground of a heading as the style has it, then swatch and name upwards."""
        option = QStyleOptionHeader()
        self.initStyleOption(option)
        option.rect, option.section = rect, logical
        painter.save()
        self.style().drawControl(QStyle.ControlElement.CE_HeaderSection, option, painter, self)
        painter.restore()
        painter.save()
        painter.translate(rect.left(), rect.bottom() + 1)
        painter.rotate(-90)  # now x goes up and y goes right
        at, icon = _AROUND, self._icon(logical)
        if not icon.isNull():
            icon.paint(painter, QRect(at, (rect.width() - _SWATCH) // 2, _SWATCH, _SWATCH))
            at += _SWATCH + _AROUND
        place = QRect(at, 0, rect.height() - at - _AROUND // 2, rect.width())
        text = self.fontMetrics().elidedText(
            self._text(logical), Qt.TextElideMode.ElideRight, place.width()
        )
        painter.setFont(self.font())
        painter.setPen(self.palette().color(self.foregroundRole()))
        painter.drawText(place, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, text)
        painter.restore()

    def _text(self, logical: int) -> str:
        return str(self._of(logical, Qt.ItemDataRole.DisplayRole) or "")

    def _icon(self, logical: int) -> QIcon:
        icon = self._of(logical, Qt.ItemDataRole.DecorationRole)
        return icon if isinstance(icon, QIcon) else QIcon()

    def _of(self, logical: int, role: Qt.ItemDataRole) -> object:
        model = self.model()
        return None if model is None else model.headerData(logical, self.orientation(), role)
