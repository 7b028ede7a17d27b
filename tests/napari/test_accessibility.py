"""Every panel of the manifest by keyboard alone, with large letters, and in both themes."""

from __future__ import annotations

import re
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from npe2 import PluginManifest
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QCheckBox,
    QComboBox,
    QDockWidget,
    QFileDialog,
    QFormLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollBar,
    QTableView,
    QWidget,
)
from superqt import QCollapsible

import napari_mambamic
from napari_mambamic import classify_image
from napari_mambamic._napari.chart import Chart
from napari_mambamic._napari.from_layer import plane_of_layer
from napari_mambamic._napari.message import Message
from napari_mambamic._napari.to_layers import ResultLayers
from napari_mambamic._napari.training_result import TrainingResult

SOURCE = Path(napari_mambamic.__file__).parent
MANIFEST = PluginManifest.from_file(SOURCE / "napari.yaml")
PYTHON_NAMES = {c.id: str(c.python_name) for c in MANIFEST.contributions.commands}
WIDGETS = {w.display_name: PYTHON_NAMES[w.command] for w in MANIFEST.contributions.widgets}

INPUTS = (QComboBox, QAbstractSpinBox, QAbstractSlider, QLineEdit, QCheckBox)
CONTROLS = (*INPUTS, QAbstractButton, QAbstractItemView)
READABLE = 4.5  # WCAG 2.2, 1.4.3


@pytest.fixture(scope="module")
def results(classifier, sheet):
    return classify_image(sheet, classifier)


@pytest.fixture(params=WIDGETS)
def panel(request, make_napari_viewer_proxy, qtbot, sheet, results):
    """A panel in a window that is shown, with an image, objects, points and two runs."""
    viewer = make_napari_viewer_proxy(show=True)
    viewer.window.resize(1300, 900)
    image = viewer.add_image(sheet, name="cells", rgb=True)
    viewer.add_labels(np.pad([[1]], ((40, 727), (40, 1111))), name="objects")
    viewer.add_points([[48, 48], [48, 144]], features={"class": ["a", "b"]}, name="points")
    for name in ("before", "after"):
        ResultLayers(viewer, [plane_of_layer(viewer, image)], results, name=name)
    module, name = WIDGETS[request.param].split(":")
    widget = getattr(import_module(module), name)(viewer)
    viewer.window.add_dock_widget(widget, area="right")
    widget.viewer = viewer
    qtbot.waitExposed(widget.window())
    widget.window().activateWindow()
    qtbot.waitUntil(widget.window().isActiveWindow)
    qtbot.waitUntil(lambda: not getattr(widget, "is_busy", False))
    yield widget
    if getattr(widget, "is_running", False):
        widget.cancel()
    busy = ("is_running", "is_busy")
    qtbot.waitUntil(lambda: not any(getattr(widget, b, False) for b in busy), timeout=120_000)
    if hasattr(widget, "preview") and hasattr(widget.preview, "close"):
        widget.preview.close()
        qtbot.waitUntil(lambda: not getattr(widget.preview, "is_busy", False), timeout=60_000)


def ancestors(widget, panel):
    while widget is not panel and widget is not None:
        widget = widget.parentWidget()
        yield widget


def children_of(panel, kinds):
    """Of any of some kinds: PySide6 finds those of one."""
    return [child for child in panel.findChildren(QWidget) if isinstance(child, kinds)]


def controls_of(panel):
    """What a user can work with; not what such controls consist of."""
    found = []
    for child in panel.findChildren(QWidget):
        inside = any(isinstance(a, CONTROLS) for a in ancestors(child, panel))
        takes_keys = bool(child.focusPolicy() & Qt.FocusPolicy.TabFocus)
        plain = type(child) is not QWidget or child.accessibleName()
        if isinstance(child, QScrollBar) or inside or not plain:
            continue
        if isinstance(child, CONTROLS) or takes_keys:
            found.append(child)
    return found


def reveal(panel):
    """Show what a panel hides until it is needed."""
    for section in panel.findChildren(QCollapsible):
        section.expand(animate=False)
    for form in panel.findChildren(QFormLayout):
        for row in range(form.rowCount()):
            form.setRowVisible(row, True)
    labels = [label for label in panel.findChildren(QLabel) if label.text()]
    for widget in (*controls_of(panel), *panel.findChildren(Chart), *labels):
        for each in (widget, *ancestors(widget, panel)):
            if each.isHidden():
                each.show()
    QApplication.processEvents()


def text_of(control):
    return control.text() if isinstance(control, QAbstractButton) else ""


def in_words(control):
    return f"{type(control).__name__} {control.accessibleName() or text_of(control)!r}"


def press_tab(back=False):
    """As Qt takes it from the keyboard; returns where the focus went."""
    widget = QApplication.focusWidget()
    key = Qt.Key.Key_Backtab if back else Qt.Key.Key_Tab
    shift = Qt.KeyboardModifier.ShiftModifier if back else Qt.KeyboardModifier.NoModifier
    QTest.keyClick(widget, key, shift)
    return QApplication.focusWidget()


def walk(panel, first, *, back=False):
    """Where Tab leads within a panel, from a control on, until it leaves it."""
    first.setFocus()
    stops = [QApplication.focusWidget()]
    for _ in range(200):
        stop = press_tab(back)
        if stop is None or not panel.isAncestorOf(stop):
            return stops
        assert stop not in stops, f"Tab comes back to {in_words(stop)} and never leaves the panel"
        stops.append(stop)
    raise AssertionError("Tab never leaves the panel")


def test_everyone_can_use_a_panel(panel, letters, qtbot, monkeypatch, tmp_path):
    # In one window: to open one takes longer than each of these.
    tab_reaches_every_enabled_control_in_the_order_of_reading(panel)
    every_control_has_a_name_and_every_input_a_tooltip(panel)
    no_text_is_cut_off_where_the_panel_is_narrowest(panel, letters)
    letters_follow_the_size_that_is_set_in_napari(panel, letters)
    text_stands_out_from_what_is_behind_it(panel)
    the_main_action_starts_by_keyboard(panel, qtbot, monkeypatch, tmp_path)


def every_control_has_a_name_and_every_input_a_tooltip(panel):
    reveal(panel)
    controls = controls_of(panel)
    assert controls
    for control in controls:
        assert control.accessibleName() or text_of(control), control
        assert control.toolTip() or not isinstance(control, (*INPUTS, QPushButton)), in_words(
            control
        )
    for drawn in panel.findChildren(Chart):
        assert drawn.accessibleName(), drawn


def tab_reaches_every_enabled_control_in_the_order_of_reading(panel):
    walk_forth_and_back(panel)
    reveal(panel)
    walk_forth_and_back(panel)


def walk_forth_and_back(panel):
    controls = [c for c in controls_of(panel) if c.isVisible() and c.isEnabled()]
    closed = [s.content() for s in panel.findChildren(QCollapsible) if not s.isExpanded()]
    hidden = [c for c in controls if any(content.isAncestorOf(c) for content in closed)]
    assert not hidden, "A section that is closed hides its controls from the keyboard, too"

    def place(control):
        corner = control.mapTo(panel, control.rect().center())
        return corner.y(), corner.x()

    ordered = sorted(controls, key=place)
    stops = walk(panel, ordered[0])
    missed = [in_words(c) for c in controls if c not in stops]
    assert not missed
    # Forth and back are the same way.
    assert walk(panel, stops[-1], back=True)[: len(stops)] == stops[::-1]
    rows = [place(stop)[0] for stop in stops if stop in controls]
    above = [b for a, b in pairwise(rows) if b < a - 15]
    assert not above, [in_words(stop) for stop in stops]


def the_main_action_starts_by_keyboard(panel, qtbot, monkeypatch, tmp_path):
    path = str(tmp_path / "table.csv")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, **k: (path, ""))
    buttons = [b for b in panel.findChildren(QPushButton) if b.isEnabled() and b.isVisible()]
    button = getattr(panel, "run_button", None) or buttons[0]
    before = panel.message.text()
    button.setFocus()
    assert QApplication.focusWidget() is button
    with qtbot.waitSignal(button.clicked):
        qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Space)
    running = getattr(panel, "is_running", False)
    assert running or panel.message.text() != before


def no_text_is_cut_off_where_the_panel_is_narrowest(panel, letters):
    for size in (9, 16):
        letters.font_size = size
        reveal(panel)
        nothing_is_cut(panel)


def nothing_is_cut(panel):
    dock = next(a for a in ancestors(panel, None) if isinstance(a, QDockWidget))
    panel.window().resizeDocks([dock], [1], Qt.Orientation.Horizontal)
    for _ in range(5):
        QApplication.processEvents()
    assert panel.width() <= 600, "too wide for a small screen"
    cut = []
    for widget in children_of(panel, (QLabel, QPushButton, QCheckBox)):
        wraps = isinstance(widget, QLabel) and widget.wordWrap()
        picture = isinstance(widget, QLabel) and not widget.text()
        inside = any(isinstance(a, CONTROLS) for a in ancestors(widget, panel))
        if not widget.isVisible() or wraps or picture or inside:
            continue
        wanted = widget.sizeHint()
        right = widget.mapTo(panel, widget.rect().topRight()).x()
        # A hint has some px around the letters.
        if widget.width() < wanted.width() - 2 or widget.height() < widget.fontMetrics().height():
            cut.append((in_words(widget), widget.text(), widget.width(), wanted.width()))
        elif right > panel.width():
            cut.append((widget.text(), "out of the panel", right, panel.width()))
    assert not cut
    for table in panel.findChildren(QTableView):
        row = table.verticalHeader().defaultSectionSize()
        assert row >= table.fontMetrics().height(), in_words(table)


def letters_follow_the_size_that_is_set_in_napari(panel, letters):
    reveal(panel)
    kinds = (
        QLabel,
        QPushButton,
        QCheckBox,
        QComboBox,
        QAbstractSpinBox,
        QAbstractItemView,
        Chart,
        Message,
    )
    heights = []
    for size in (9, 18):
        letters.font_size = size
        QApplication.processEvents()
        heights.append([w.fontMetrics().height() for w in children_of(panel, kinds)])
    for widget, small, large in zip(children_of(panel, kinds), *heights, strict=True):
        assert large > 1.5 * small, in_words(widget)


def luminance(rgb):
    share = np.asarray(rgb, float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def contrast_drawn(widget, rect=None):
    """Between the colour that most pixels have and the one that differs most from it."""
    picture = (widget.grab(rect) if rect is not None else widget.grab()).toImage()
    picture = picture.convertToFormat(QImage.Format.Format_RGB32)
    height, width = picture.height(), picture.width()
    bits = picture.constBits()
    if hasattr(bits, "setsize"):
        bits.setsize(picture.sizeInBytes())
    pixels = np.frombuffer(bits, np.uint8).reshape(height, picture.bytesPerLine() // 4, 4)
    flat = pixels[:, :width, 2::-1].reshape(-1, 3)
    colours, counts = np.unique(flat, axis=0, return_counts=True)
    light = luminance(colours)
    ground = light[counts.argmax()]
    pairs = (np.maximum(light, ground) + 0.05) / (np.minimum(light, ground) + 0.05)
    return float(pairs.max())


def text_stands_out_from_what_is_behind_it(panel):
    reveal(panel)
    panel.window().resize(1300, 2400)
    for theme in ("light", "dark"):
        panel.viewer.theme = theme
        QApplication.processEvents()
        letters_stand_out(panel)


def letters_stand_out(panel):
    for widget in children_of(panel, (QLabel, Message, QCheckBox, QPushButton)):
        inside = any(isinstance(a, CONTROLS) for a in ancestors(widget, panel))
        if widget.isEnabled() and widget.isVisible() and widget.text() and not inside:
            assert contrast_drawn(widget) >= READABLE, in_words(widget)


def test_no_style_sheet_has_colours_or_sizes_of_its_own():
    for path in (SOURCE / "_napari").glob("*.py"):
        text = path.read_text()
        assert not re.search(r"setStyleSheet|setPointSize|setPixelSize|QFont\(", text), path.name


def test_shades_of_the_confusion_matrix_leave_its_numbers_readable(make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy(show=True)
    result = TrainingResult()
    viewer.window.add_dock_widget(result, area="right")
    figures = {"n": 20, **dict.fromkeys(("precision", "sensitivity", "specificity"), 0.9)}
    bins = {"confidence": [0.5], "accuracy": [0.5], "expected_calibration_error": 0.1}
    result.show_report(
        {
            "class_names": ["a", "b"],
            "validation": {
                "overall_accuracy": 0.9,
                "balanced_accuracy": 0.9,
                "n": 20,
                "intervals": {"overall_accuracy": (0.8, 1.0)},
                "confusion_matrix": [[88, 0], [88, 0]],
                "per_class": {"a": figures | {"f1": 0.9, "auc": None}},
            },
            "calibration": {"before": bins, "after": bins},
        }
    )
    table = result.confusion
    for theme in ("light", "dark"):
        viewer.theme = theme
        QApplication.processEvents()
        for row in (0, 1):  # green and red, as strong as they get
            cell = table.visualItemRect(table.item(row, 0))
            cell.translate(table.viewport().pos())
            assert contrast_drawn(table, cell.adjusted(2, 2, -2, -2)) >= READABLE
    with qtbot.waitSignal(result.cell_chosen) as told:
        table.setCurrentCell(1, 0)
        qtbot.keyClick(table, Qt.Key.Key_Return)
    assert told.args == [1, 0]
