"""A table that is as tall as its rows, at any size of letters, and that Tab leaves."""

from __future__ import annotations

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget

_LEAST_OF_NAMES = 0.25  # of the width, where there are more columns than fit
_AROUND = 8  # px above and below the letters of a row, together


class FittedTable(QTableWidget):
    """Rows to read, not to edit; the arrow keys move in it.

    Parameters
    ----------
    name : str
        Its accessible name.
    n_columns : int
    most_rows : int
        More scroll.
    widest : str
        Text for which each column has room; where they have not, the table scrolls.
    """

    def __init__(
        self, name: str, n_columns: int = 0, *, most_rows: int = 14, widest: str = ""
    ) -> None:
        super().__init__(0, n_columns)
        self._most_rows, self._widest = most_rows, widest
        self.setAccessibleName(name)
        self.setTabKeyNavigation(False)
        self.setWordWrap(False)
        self.verticalHeader().setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        # Whether there is a bar below is known when the table has its width.
        self.horizontalScrollBar().rangeChanged.connect(self._make_room)
        self.fit()

    def _make_room(self) -> None:
        self.fit()

    def fit(self) -> None:
        """Take the height of the rows."""
        row = row_height(self)
        widest = self.fontMetrics().horizontalAdvance(self._widest) + 2 * _AROUND
        self.horizontalHeader().setMinimumSectionSize(widest if self._widest else -1)
        self.verticalHeader().setMinimumSectionSize(row)
        self.verticalHeader().setDefaultSectionSize(row)
        # Hints of headers are known late, and that of a bar that is not needed is kept free.
        header = max(self.horizontalHeader().sizeHint().height(), row)
        bar = self.horizontalScrollBar()
        below = bar.sizeHint().height() if bar.maximum() else 0
        self.setFixedHeight(min(self.rowCount(), self._most_rows) * row + header + below + 6)
        self._fit_names()

    def _fit_names(self) -> None:
        """Long names of rows are cut before the last column would be."""
        columns = sum(self._least_width(column) for column in range(self.columnCount()))
        left = self.width() - 2 * self.frameWidth() - columns
        most = max(left, int(_LEAST_OF_NAMES * self.width()), 1)
        if most != self.verticalHeader().maximumWidth():
            self.verticalHeader().setMaximumWidth(most)
            self.updateGeometries()

    def _least_width(self, column: int) -> int:
        """Of a column that can be read, in px."""
        header = self.horizontalHeader()
        width = max(header.minimumSectionSize(), self.sizeHintForColumn(column))
        stretches = header.sectionResizeMode(column) == QHeaderView.ResizeMode.Stretch
        return width if stretches else max(width, header.sectionSizeHint(column))

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Names of rows have another room."""
        super().resizeEvent(event)
        self._fit_names()

    def changeEvent(self, event: QEvent) -> None:
        """Larger letters take higher rows."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self.fit()


def row_height(table: QAbstractItemView) -> int:
    """Of one line of letters, in px."""
    return int(table.fontMetrics().height()) + _AROUND
