"""The main job on a bundled image, in the real window."""

from __future__ import annotations

import time
from pathlib import Path

from napari.layers import Layer
from napari.qt import get_qapp

import napari
from napari_mambamic._napari.classify_panel import ClassifyPanel
from napari_mambamic._napari.open_panel import open_panel
from napari_mambamic._napari.sample_data import blood_cells
from napari_mambamic._napari.virtual_display import display_for_pictures
from napari_mambamic.errors import DeviceError
from napari_mambamic.results import TileResults

WIDTH, HEIGHT = 1400, 880  # of the window, in pixels


def run_demo(screenshot: Path | None = None) -> TileResults:
    """Open the sheet of blood cells, press Classify, and show or photograph the window.

    Parameters
    ----------
    screenshot : Path, optional
        Where to save a PNG of the window; then the window closes by itself, and no display is
        needed where Xvfb is installed.
    """
    if screenshot is None:
        viewer, panel = open_demo()
        results = classify_and_wait(panel)
        napari.run()
        return results
    with display_for_pictures():
        viewer, panel = open_demo()
        results = classify_and_wait(panel)
        photograph(viewer, screenshot)
        viewer.close()
        return results


def photograph(viewer: napari.Viewer, path: Path) -> None:
    """Save a picture of the whole window when it has settled."""
    _wait(1.0)
    viewer.window.screenshot(str(path), canvas_only=False, flash=False)


def open_demo() -> tuple[napari.Viewer, ClassifyPanel]:
    """Open the window with the sheet of blood cells and the panel."""
    viewer = napari.Viewer()
    viewer.window.resize(WIDTH, HEIGHT)
    for data, keywords, kind in blood_cells():
        viewer.add_layer(Layer.create(data, keywords, kind))
    panel = open_panel(viewer, "Classify tiles and cells")
    _wait(0.5)
    viewer.reset_view()
    return viewer, panel


def classify_and_wait(panel: ClassifyPanel) -> TileResults:
    """Press Classify and keep the window alive until the run has ended."""
    panel.run_button.click()
    while panel.is_running:
        _wait(0.05)
    if panel.results is None or not panel.results.complete:
        raise DeviceError(f"The demo did not finish: {panel.message.text()}")
    return panel.results


def _wait(seconds: float) -> None:
    """Let the window work."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        get_qapp().processEvents()
        time.sleep(0.01)
