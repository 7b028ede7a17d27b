"""Widgets side by side, and below each other where the panel is narrow or the letters are large."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QEvent, QSize
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

_BETWEEN = 6  # px
_KEEP_THEIR_WIDTH = (
    QSizePolicy.Policy.Fixed,
    QSizePolicy.Policy.Minimum,
    QSizePolicy.Policy.MinimumExpanding,
)


class FoldingRow(QWidget):
    """Fills rows with as many widgets as have room, from the left to the right.

    Parameters
    ----------
    *widgets : QWidget
    columns : int, optional
        At most so many, of equal width; by default each widget is as wide as it needs to be.
    """

    def __init__(self, *widgets: QWidget, columns: int | None = None) -> None:
        super().__init__()
        self._columns = columns
        self._widgets: list[QWidget] = []
        policy = self.sizePolicy()
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.hold(widgets)

    def hold(self, widgets: Sequence[QWidget]) -> None:
        """Hold other widgets."""
        for widget in widgets:
            widget.setParent(self)
            widget.show()
        self._widgets = list(widgets)
        self._arrange()
        self.updateGeometry()

    def sizeHint(self) -> QSize:
        """All beside each other."""
        needs = self._needs()
        width = sum(needs[: self._columns]) + _BETWEEN * max(len(needs[: self._columns]) - 1, 0)
        return QSize(width, self.heightForWidth(width))

    def minimumSizeHint(self) -> QSize:
        """As wide as the widest widget."""
        return QSize(max(self._needs(), default=0), self.sizeHint().height())

    def heightForWidth(self, width: int) -> int:
        """Of all rows, in px."""
        rows = self._rows(width)
        heights = [max(widget.sizeHint().height() for widget in row) for row in rows]
        return sum(heights) + _BETWEEN * max(len(rows) - 1, 0)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """There is room for more or fewer in a row."""
        super().resizeEvent(event)
        self._arrange()

    def event(self, event: QEvent) -> bool:
        """A widget came, went or wants another size: other letters."""
        if event.type() == QEvent.Type.LayoutRequest:
            self._arrange()
            self.updateGeometry()
        return bool(super().event(event))

    def _shown(self) -> list[QWidget]:
        return [widget for widget in self._widgets if not widget.isHidden()]

    def _needs(self) -> list[int]:
        """Widths in px."""
        needs = []
        for widget in self._shown():
            keeps = widget.sizePolicy().horizontalPolicy() in _KEEP_THEIR_WIDTH
            # Of spin boxes, napari's style allows less than their text needs.
            hint = widget.sizeHint() if keeps else widget.minimumSizeHint()
            needs.append(max(hint.width(), widget.minimumWidth()))
        return needs if self._columns is None else [max(needs, default=0)] * len(needs)

    def _rows(self, width: int) -> list[list[QWidget]]:
        rows: list[list[QWidget]] = []
        left = 0
        for widget, need in zip(self._shown(), self._needs(), strict=True):
            is_full = not rows or len(rows[-1]) == self._columns
            if is_full or need > left:
                rows.append([])
                left = width
            rows[-1].append(widget)
            left -= need + _BETWEEN
        return rows

    def _arrange(self) -> None:
        """Place the widgets; what is left of a row is shared out."""
        needs = dict(zip(self._shown(), self._needs(), strict=True))
        y = 0
        for row in self._rows(self.width()):
            height = max(widget.sizeHint().height() for widget in row)
            spare = self.width() - sum(needs[w] for w in row) - _BETWEEN * (len(row) - 1)
            x = 0
            for number, widget in enumerate(row):
                width = (
                    needs[widget] + spare * (number + 1) // len(row) - spare * number // len(row)
                )
                widget.setGeometry(x, y, max(width, 0), height)
                x += width + _BETWEEN
            y += height + _BETWEEN
