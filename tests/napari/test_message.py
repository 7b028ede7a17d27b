"""Text that breaks anywhere."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QKeySequence, QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QLabel, QVBoxLayout, QWidget

from napari_mambamic._napari.message import Message

PATH = "/data/" + "kidney_section_stained_plate_7_well_B3_" * 5 + "corrected.csv"


@pytest.fixture
def column(qtbot):
    """A message between two labels, 200 px wide."""
    outer = QWidget()
    qtbot.addWidget(outer)
    layout = QVBoxLayout(outer)
    message = Message("Message")
    for widget in (QLabel("above"), message, QLabel("below")):
        layout.addWidget(widget)
    layout.addStretch(1)
    outer.resize(200, 600)
    outer.show()
    QTest.qWaitForWindowActive(outer)
    outer.message = message
    return outer


def test_a_long_path_is_shown_whole_and_does_not_widen_what_it_is_in(column):
    message = column.message
    before = column.minimumSizeHint().width()
    heights = []
    for text in ("Saved.", f"Saved {PATH}"):
        message.setText(text)
        QApplication.processEvents()
        assert message.text() == text
        assert column.minimumSizeHint().width() == before
        for bar in (message.verticalScrollBar(), message.horizontalScrollBar()):
            assert bar.maximum() == 0  # all of it is seen
        heights.append(message.height())
    assert heights[0] < 2 * message.fontMetrics().height() < heights[1]
    font = message.font()
    font.setPointSizeF(2 * font.pointSizeF())
    message.setFont(font)
    QApplication.processEvents()
    assert message.height() > 1.5 * heights[1]
    assert message.verticalScrollBar().maximum() == 0


def test_a_path_is_copied_as_it_is(column):
    message = column.message
    message.setText(f"Saved {PATH}")
    QApplication.processEvents()
    QTest.mouseDClick(message.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(5, 5))
    assert message.textCursor().selectedText() == "Saved"
    message.selectAll()
    QTest.keySequence(message, QKeySequence(QKeySequence.StandardKey.Copy))
    assert QApplication.clipboard().text() == f"Saved {PATH}"
    QTest.keyClicks(message, "x")
    assert message.toPlainText() == f"Saved {PATH}"


def test_the_wheel_over_a_message_scrolls_the_panel(column):
    column.message.setText(f"Saved {PATH}")
    middle = QPointF(column.message.viewport().rect().center())
    turn = QWheelEvent(
        middle,
        column.message.viewport().mapToGlobal(middle),
        QPoint(),
        QPoint(0, -120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(column.message.viewport(), turn)
    assert not turn.isAccepted()
