"""Every panel in a narrow dock and before there is anything to show, and its parts."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from npe2 import PluginManifest
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import (
    QApplication,
    QFormLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QTabBar,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

import napari_mambamic
from napari_mambamic._napari.chart import Chart
from napari_mambamic._napari.eliding_box import ElidingBox
from napari_mambamic._napari.focus_ring import FocusRing
from napari_mambamic._napari.folding_row import FoldingRow
from napari_mambamic._napari.next_step import NextStep
from napari_mambamic._napari.open_panel import on_tab, open_panel
from napari_mambamic._napari.reason_tip import ReasonTip

MANIFEST = PluginManifest.from_file(Path(napari_mambamic.__file__).parent / "napari.yaml")
PYTHON_NAMES = {c.id: str(c.python_name) for c in MANIFEST.contributions.commands}
PANELS = {w.display_name: PYTHON_NAMES[w.command] for w in MANIFEST.contributions.widgets}
NARROW = 300  # px


@pytest.fixture(params=PANELS)
def panel(request, make_napari_viewer_proxy):
    """A panel in the window of an empty viewer."""
    viewer = make_napari_viewer_proxy(show=True)
    module, name = PANELS[request.param].split(":")
    widget = getattr(import_module(module), name)(viewer)
    viewer.window.add_dock_widget(widget, area="right")
    widget.viewer = viewer
    QApplication.processEvents()
    return widget


def unfold(panel):
    for section in panel.findChildren(QCollapsible):
        section.expand(animate=False)
    for form in panel.findChildren(QFormLayout):
        for row in range(form.rowCount()):
            form.setRowVisible(row, True)
    for _ in range(5):
        QApplication.processEvents()


def test_an_empty_panel_is_narrow_and_says_what_to_do_next(panel, letters, qtbot):
    first_steps = ("Open an image", "Classify an image")
    qtbot.waitUntil(lambda: any(step in panel.message.text() for step in first_steps))
    unfold(panel)
    buttons = panel.findChildren(QPushButton)
    assert not all(button.isEnabled() for button in buttons)
    for button in buttons:
        assert button.isEnabled() != ("Not now: " in button.toolTip()), button.text()
    panel.viewer.add_image(np.zeros((64, 64), np.uint8), name="cells")
    qtbot.waitUntil(lambda: "Open an image" not in panel.message.text())
    assert panel.message.text()
    panel.message.setText(f"Saved /data/{'kidney_section_' * 10}corrected.csv")
    for size in (9, 14):
        letters.font_size = size
        unfold(panel)
        assert panel.minimumSizeHint().width() <= NARROW, size


def test_a_tooltip_follows_what_is_enabled(qtbot):
    button = QPushButton("Save")
    qtbot.addWidget(button)
    reasons = ["first"]
    ReasonTip(button, "Writes a file", why=lambda: reasons[0])
    assert button.toolTip() == "Writes a file"
    button.setEnabled(False)
    assert button.toolTip() == "Writes a file. Not now: first"
    button.setEnabled(True)
    assert button.toolTip() == "Writes a file"


def test_the_next_step_does_not_overwrite_what_is_said(make_napari_viewer_proxy, qtbot):
    viewer, label = make_napari_viewer_proxy(), QLabel()
    qtbot.addWidget(label)
    step = NextStep(viewer, label, lambda: f"{len(viewer.layers)} layers")
    assert label.text() == "0 layers"
    viewer.add_image(np.zeros((8, 8)))
    assert label.text() == "1 layers"
    label.setText("Stopped.")
    viewer.layers.clear()
    step.show()
    assert label.text() == "Stopped."
    step.instead("Open an image first.")
    assert label.text() == "Open an image first."
    viewer.add_image(np.zeros((8, 8)))
    assert label.text() == "1 layers"


def row_of_height(row, width):
    """A row as a column of widgets lays it out."""
    outer = QWidget()
    layout = QVBoxLayout(outer)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(row)
    layout.addStretch(1)
    outer.resize(width, 400)
    outer.show()
    QApplication.processEvents()
    return outer


def overlap(widgets):
    places = [w.geometry() for w in widgets]
    return any(a.intersects(b) for i, a in enumerate(places) for b in places[:i])


def test_a_row_folds_when_it_is_narrow_and_unfolds_when_it_is_wide(qtbot):
    buttons = [QPushButton(text) for text in ("Tile in view", "Find similar", "Select")]
    row = FoldingRow(*buttons)
    needed = row.sizeHint().width()
    outer = row_of_height(row, needed + 5)
    qtbot.addWidget(outer)
    assert len({b.y() for b in buttons}) == 1
    outer.resize(max(b.sizeHint().width() for b in buttons), 400)
    QApplication.processEvents()
    assert len({b.y() for b in buttons}) == 3
    assert not overlap(buttons)
    assert all(row.rect().contains(b.geometry()) for b in buttons)
    outer.resize(needed + 5, 400)
    QApplication.processEvents()
    assert len({b.y() for b in buttons}) == 1


def test_a_row_leaves_no_gap_for_what_is_hidden(qtbot):
    box, first, last = QPushButton("planes"), QSpinBox(), QSpinBox()
    row = FoldingRow(box, first, last)
    first.hide()
    last.hide()
    outer = row_of_height(row, 400)
    qtbot.addWidget(outer)
    assert box.width() == 400
    first.show()
    last.show()
    qtbot.waitUntil(lambda: box.width() < 300)


def test_columns_of_a_row_are_of_equal_width(qtbot):
    buttons = [QPushButton(text) for text in ("1  a", "2  immature granulocyte", "3  c", "4  d")]
    row = FoldingRow(*buttons, columns=2)
    outer = row_of_height(row, 600)
    qtbot.addWidget(outer)
    assert buttons[0].x() == buttons[2].x()
    assert buttons[1].x() == buttons[3].x()
    assert abs(buttons[0].width() - buttons[1].width()) <= 1


def test_a_long_name_is_cut_in_its_middle_and_told_whole(qtbot):
    box = ElidingBox()
    qtbot.addWidget(box)
    long = "kidney section 2023-10-04 stained, plate 7, well B3 classes"
    box.addItems([long])
    assert box.minimumSizeHint().width() < NARROW
    box.resize(150, 30)
    assert box.shown_text() != long
    assert box.shown_text()[-1] == long[-1]
    assert "…" in box.shown_text()
    box.resize(2000, 30)
    assert box.shown_text() == long
    box.clear()
    box.setPlaceholderText("no layer")
    assert box.shown_text() == "no layer"


def test_a_line_is_drawn_around_what_has_the_focus(make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy(show=True)
    panel = open_panel(viewer, "Robustness")
    panel.window().activateWindow()
    qtbot.waitUntil(panel.window().isActiveWindow)
    ring = panel.findChild(FocusRing)
    assert not ring.isVisible()
    before = panel.grab().toImage()
    panel.run_button.setFocus(Qt.FocusReason.TabFocusReason)
    qtbot.waitUntil(ring.isVisible)
    assert ring.widget() is panel.run_button
    assert panel.grab().toImage() != before
    panel.run_button.clearFocus()
    qtbot.waitUntil(lambda: not ring.isVisible())


def test_tabs_say_one_word_each(make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy(show=True)
    panels = [open_panel(viewer, name) for name in ("Compare runs", "Robustness", "Results table")]
    window = panels[0].window()

    def titles():
        bars = [b for b in window.findChildren(QTabBar) if b.count() == 3]
        return {bar.tabText(i) for bar in bars for i in range(3)}

    qtbot.waitUntil(lambda: titles() == {"Compare", "Robustness", "Results"})
    assert on_tab("my own title") == "my own title"
    bars = [b for b in window.findChildren(QTabBar) if b.count() == 3]
    assert {bar.elideMode() for bar in bars} == {Qt.TextElideMode.ElideNone}  # of many, too
    assert len({on_tab(f"{name} (Mambamic)") for name in PANELS}) == len(PANELS)


def test_the_label_of_a_chart_stands_below_the_numbers_where_it_is_long(qtbot):
    chart = Chart("share of labels that stay, by strength", "test")
    qtbot.addWidget(chart)
    chart.resize(900, 300)
    assert chart.below(800)[1] == 0
    chart.resize(250, 300)
    assert chart.below(180)[1] >= chart.fontMetrics().height()


def test_a_text_that_was_given_too_little_height_is_laid_out_again(make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy(show=True)
    panel = open_panel(viewer, "Classify tiles and cells")
    about = panel.weights.about
    qtbot.waitUntil(lambda: about.height() >= about.heightForWidth(about.width()) > 10)
    about.resize(about.width(), 10)  # as Qt does when a scroll bar comes
    QApplication.postEvent(panel.widget(), QEvent(QEvent.Type.LayoutRequest))
    qtbot.waitUntil(lambda: about.height() >= about.heightForWidth(about.width()))
