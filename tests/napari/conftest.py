"""What the tests of the window share."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest
from napari.settings import get_settings
from qtpy.QtWidgets import QApplication, QMessageBox

from napari_mambamic._napari.classify_panel import ClassifyPanel
from napari_mambamic._napari.fluid import fluid_window


@pytest.fixture(autouse=True, scope="package")
def _modules_are_not_searched_for_garbage():
    """Or napari takes a third of a second each time that layers go."""
    gc.collect()
    with fluid_window():
        yield


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    return make_napari_viewer_proxy()


@pytest.fixture
def docked(viewer, finish):
    """Dock a panel of some class in a real window; at the end its run is stopped."""
    widgets = []

    def dock(panel):
        widgets.append(panel(viewer))
        viewer.window.add_dock_widget(widgets[-1])
        return widgets[-1]

    yield dock
    for widget in widgets:
        widget.cancel()
        finish(widget, timeout=60_000)


@pytest.fixture
def panel(docked):
    """The Classify panel."""
    return docked(ClassifyPanel)


@pytest.fixture
def finish(qtbot):
    """Wait until a panel's run has ended."""

    def wait(panel, timeout=120_000):
        qtbot.waitUntil(lambda: not panel.is_running, timeout=timeout)

    return wait


@pytest.fixture
def answer(monkeypatch):
    """Answer questions of the window with a button; the list holds what was asked."""

    def with_(button):
        asked = []

        def question(parent, title, text, buttons):
            asked.append(text)
            return button

        monkeypatch.setattr(QMessageBox, "question", question)
        return asked

    return with_


@pytest.fixture
def survives():
    """Run a script in a process of its own, which says 'survived' and ends without complaint."""

    def run(script):
        command = [sys.executable, "-W", "ignore", "-c", script]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr
        assert "survived" in ended.stdout
        assert "Traceback" not in ended.stderr

    return run


@pytest.fixture
def script_by(qtbot, tmp_path, monkeypatch):
    """The script that a call copies, once it is on the clipboard; its files are in a folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def copied(copy):
        QApplication.clipboard().setText("before")
        copy()
        qtbot.waitUntil(lambda: QApplication.clipboard().text() != "before", timeout=60_000)
        return QApplication.clipboard().text()

    return copied


@pytest.fixture
def letters():
    """napari's settings of letters, which are as before at the end."""
    appearance = get_settings().appearance
    before = appearance.font_size
    yield appearance
    appearance.font_size = before
