"""Warnings do not fill the panel."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_mambamic._napari.warnings_box import WarningsBox

SENTENCES = [
    f"Sentence {i}: " + "some words that make it long enough for lines. " * 4 for i in "abcd"
]


@pytest.fixture
def box(qtbot):
    widget = WarningsBox()
    qtbot.addWidget(widget)
    widget.resize(300, 400)
    return widget


def test_the_first_is_shown_and_the_others_are_one_key_away(box, qtbot):
    box.show_sentences(SENTENCES[:1])
    alone = box.heightForWidth(300)
    box.show_sentences(SENTENCES)
    folded = box.heightForWidth(300)
    assert folded < 1.5 * alone
    assert box.more_button.text() == "3 more warnings..."
    assert [s.strip() in box.text() for s in SENTENCES] == [True] * 4
    qtbot.keyClick(box.more_button, Qt.Key.Key_Space)
    assert box.heightForWidth(300) > 2 * folded
    assert box.more_button.text() == "Fewer warnings"
    box.show_sentences(SENTENCES[:2])  # of another run: folded again
    assert box.heightForWidth(300) == folded
    assert box.more_button.text() == "1 more warning..."


def test_without_sentences_nothing_is_shown(box):
    box.show_sentences(SENTENCES)
    box.show_sentences([])
    assert box.isHidden()
    box.show_sentences(SENTENCES[:1])
    assert not box.isHidden()
    assert box.more_button.isHidden()


def test_the_cause_is_said_first(viewer, panel, sheet, finish):
    dark = (255 - sheet[:192, :192, 1].astype(np.uint16)) * 8
    viewer.add_image(dark, name="dark")
    panel.run_button.click()
    finish(panel)
    box = panel.warnings
    assert not box.more_button.isHidden()
    first, *others = box.text().split("\n\n")
    assert "read as nearly black" in first
    assert any("unlike the training data" in other for other in others)
