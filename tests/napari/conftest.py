"""What the tests of the window share."""

from __future__ import annotations

import pytest

from napari_mambamic._napari.classify_panel import ClassifyPanel


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    return make_napari_viewer_proxy()


@pytest.fixture
def panel(viewer, qtbot):
    """The Classify panel, docked in a real window."""
    widget = ClassifyPanel(viewer)
    viewer.window.add_dock_widget(widget)
    yield widget
    if widget.is_running:
        widget.cancel()
        qtbot.waitUntil(lambda: not widget.is_running, timeout=60_000)


@pytest.fixture
def finish(qtbot):
    """Wait until a panel's run has ended."""

    def wait(panel, timeout=120_000):
        qtbot.waitUntil(lambda: not panel.is_running, timeout=timeout)

    return wait
