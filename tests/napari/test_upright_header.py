"""Headings that are read upwards."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QTableWidget

from napari_mambamic._napari.upright_header import UprightHeader

SHORT, NAME = "ii", "immature granulocyte"


@pytest.fixture
def header(qtbot):
    """Of a table with columns of a short, a usual and a very long name."""
    table = QTableWidget(1, 3)
    qtbot.addWidget(table)
    table.setHorizontalHeader(UprightHeader())
    table.setHorizontalHeaderLabels([SHORT, NAME, "w" * 80])
    table.resize(200, 400)
    table.show()
    qtbot.waitExposed(table)
    header = table.horizontalHeader()
    header.table = table  # which would take it away
    return header


def height_of_ink(header, column):
    """How far from the bottom a column is drawn on, in px."""
    picture = header.grab().toImage()
    x, width = header.sectionViewportPosition(column), header.sectionSize(column)

    def grey(dx, y):
        return picture.pixelColor(x + dx, y).lightness()

    rows = [
        y
        for y in range(2, picture.height() - 2)
        if max(abs(grey(dx, y) - grey(3, y)) for dx in range(4, width - 4)) > 60
    ]
    return picture.height() - min(rows)


def test_a_name_is_drawn_whole_in_a_narrow_column(header):
    letters = header.fontMetrics()
    assert header.sectionSize(1) < letters.horizontalAdvance(NAME) / 2
    assert height_of_ink(header, 1) == pytest.approx(letters.horizontalAdvance(NAME), abs=12)
    assert height_of_ink(header, 0) < letters.horizontalAdvance(NAME) / 2


def test_a_very_long_name_does_not_take_the_panel(header):
    assert header.height() <= 30 * header.fontMetrics().averageCharWidth() + 8
