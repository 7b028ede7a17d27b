"""Text that breaks anywhere, so that a long file name does not make its panel wide."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QResizeEvent, QTextDocument, QTextOption, QWheelEvent
from qtpy.QtWidgets import QFrame, QPlainTextEdit, QSizePolicy


class Message(QPlainTextEdit):
    """Plain text for reading, as high as it needs to be; it can be selected and copied.

    A label breaks lines between words only, and asks for the width of the longest.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._text = ""
        self.setAccessibleName(name)
        self.setReadOnly(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWordWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        self.document().setDocumentMargin(0)
        policy = QSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)

    def text(self) -> str:
        """What is said."""
        return self._text

    def setText(self, text: str) -> None:
        """Say something else."""
        if text != self._text:
            self._text = text
            self.setPlainText(text)
            self._fit()

    def heightForWidth(self, width: int) -> int:
        """All lines that the text takes."""
        lines = QTextDocument(self._text)
        lines.setDefaultFont(self.font())
        lines.setDefaultTextOption(self.document().defaultTextOption())
        lines.setDocumentMargin(0)
        around = self.width() - self.viewport().width()
        lines.setTextWidth(max(width - around, 1))
        return int(lines.size().height()) + self.height() - self.viewport().height() + 1

    def sizeHint(self) -> QSize:
        """As wide as its layout makes it."""
        return QSize(0, self.heightForWidth(self.width()))

    def minimumSizeHint(self) -> QSize:
        """One line, however narrow."""
        return QSize(0, self.fontMetrics().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """What is around the text is known when a style has been applied."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        """Have the panel laid out anew, but only where the text takes another height."""
        if self.heightForWidth(self.width()) != self.height():
            self.updateGeometry()

    def changeEvent(self, event: QEvent) -> None:
        """Other letters take other room."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self.updateGeometry()

    def wheelEvent(self, event: QWheelEvent) -> None:
        """The panel scrolls, not its text."""
        event.ignore()
