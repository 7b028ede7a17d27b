"""Tooltips that say of a disabled button, or field, what it waits for."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QWidget

NOTHING_RUNS = "nothing is running"
RUNS = "a run is at work"


class ReasonTip(QObject):
    """The tooltip of a widget: what it does and, while it is disabled, why.

    Parameters
    ----------
    widget : QWidget
    does : str
        What it does, without a full stop.
    why : str or callable
        Why it is disabled, or a function that tells.
    """

    def __init__(self, widget: QWidget, does: str, *, why: str | Callable[[], str]) -> None:
        super().__init__(widget)
        self._widget, self._does, self._why = widget, does, why
        widget.installEventFilter(self)
        self._tell()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """The widget was enabled or disabled, or its tooltip is about to be shown."""
        if event.type() in (QEvent.Type.EnabledChange, QEvent.Type.ToolTip):
            self._tell()
        return False

    def _tell(self) -> None:
        text = self._does
        if not self._widget.isEnabled():
            why = self._why if isinstance(self._why, str) else self._why()
            text = f"{text}. Not now: {why}"
        self._widget.setToolTip(text)
