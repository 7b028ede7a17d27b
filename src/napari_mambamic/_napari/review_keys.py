"""The keys of a review: what they mean, and where in the panel they work."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QPushButton, QWidget

_KEYS = {
    Qt.Key.Key_Return: "accept",
    Qt.Key.Key_Enter: "accept",
    Qt.Key.Key_S: "skip",
    Qt.Key.Key_U: "undo",
    Qt.Key.Key_Left: "back",
    Qt.Key.Key_Right: "forward",
}
LAYER_KEYS = {"Enter": "accept", "s": "skip", "u": "undo", "Left": "back", "Right": "forward"}


class KeyArea(QWidget):
    """Where the keys of the review work, whichever button in it has the focus."""

    pressed = Signal(str)  # an action, or the digit of a class

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName("Tile under review")

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Tell what a key means."""
        action = action_of(event)
        if action is None:
            super().keyPressEvent(event)
        else:
            self.pressed.emit(action)
            event.accept()


class AreaButton(QPushButton):
    """A button that leaves the keys of the review to the area; Space presses it."""

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Arrows would move the focus, and Enter may press."""
        if action_of(event) is None:
            super().keyPressEvent(event)
        else:
            event.ignore()


def action_of(event: QKeyEvent) -> str | None:
    """What a key means in a review, or None."""
    if event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier:
        return None  # Ctrl+S is napari's
    key = event.key()
    if Qt.Key.Key_1 <= key <= Qt.Key.Key_9:
        return str(int(key) - int(Qt.Key.Key_0))
    return _KEYS.get(key)
