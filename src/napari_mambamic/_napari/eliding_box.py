"""A list to choose from that does not make its panel wide."""

from __future__ import annotations

import html

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QHelpEvent, QPaintEvent, QPalette
from qtpy.QtWidgets import (
    QComboBox,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QToolTip,
)

_MOST = 240  # px that it asks for, however long the names are; fits a panel that is 300 px wide


class ElidingBox(QComboBox):
    """Shows the end of a long name as well as its beginning; the tooltip has it whole.

    Names of layers and weights tend to differ at their ends.
    """

    def minimumSizeHint(self) -> QSize:
        """No wider than a narrow panel has room for."""
        hint = super().minimumSizeHint()
        return QSize(min(hint.width(), _MOST), hint.height())

    def shown_text(self) -> str:
        """What there is room for."""
        option = self._option()
        style = self.style()
        room = style.subControlRect(
            QStyle.ComplexControl.CC_ComboBox,
            option,
            QStyle.SubControl.SC_ComboBoxEditField,
            self,
        )
        metrics = self.fontMetrics()
        return metrics.elidedText(option.currentText, Qt.TextElideMode.ElideMiddle, room.width())

    def paintEvent(self, event: QPaintEvent) -> None:
        """As Qt does, with the shorter text."""
        option = self._option()
        option.currentText = self.shown_text()
        painter = QStylePainter(self)
        painter.setPen(self.palette().color(QPalette.ColorRole.Text))
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)

    def event(self, event: QEvent) -> bool:
        """A name that is cut comes first in the tooltip."""
        if isinstance(event, QHelpEvent) and self.shown_text() != self._option().currentText:
            whole = html.escape(self._option().currentText)
            text = f"<p><b>{whole}</b></p><p>{self.toolTip()}</p>"
            QToolTip.showText(event.globalPos(), text, self)
            return True
        return bool(super().event(event))

    def _option(self) -> QStyleOptionComboBox:
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        if self.currentIndex() < 0:
            option.currentText = self.placeholderText()
        return option
