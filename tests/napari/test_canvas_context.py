"""What napari drew is deleted in the context that drew it, so that drawing goes on."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtGui import QOpenGLContext
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QMainWindow

from napari_mambamic._napari.embedding_map_panel import EmbeddingMapPanel
from napari_mambamic._napari.open_panel import open_panel


@pytest.fixture
def window(make_napari_viewer):
    """A window that is shown, for others have no context."""
    return make_napari_viewer(show=True)


def canvas_of(window, panel, qtbot):
    """napari's canvas, once it has drawn beside a panel that has found its place."""
    dock = panel.parent()
    while not isinstance(dock, QMainWindow):
        dock = dock.parent()
    canvas = dock.centralWidget().findChild(QOpenGLWidget)
    qtbot.wait(200)
    assert canvas.isValid()
    return canvas


def deleted_in(window):
    """Contexts that are current when napari deletes what it drew of layers."""
    contexts = []
    for event in (window.layers.events.removed, window.layers.events.end_batch):
        event.connect(lambda event: contexts.append(QOpenGLContext.currentContext()))
    return contexts


def test_layers_go_in_the_context_of_the_canvas(window, qtbot):
    canvas = canvas_of(window, open_panel(window, "Results table"), qtbot)
    contexts = deleted_in(window)
    for _ in range(3):
        window.add_image(np.zeros((20, 20), np.uint8))
    canvas.doneCurrent()  # as Qt does when it has put the window together
    window.layers.pop(0)
    canvas.doneCurrent()
    window.layers.clear()  # two layers, and the batch of both
    canvas.doneCurrent()
    window.layers.clear()  # what is left from earlier
    assert contexts == [canvas.context()] * 5


def test_layers_go_in_the_context_of_the_canvas_beside_the_one_of_the_map(window, qtbot):
    panel = open_panel(window, "Embedding map")
    assert isinstance(panel, EmbeddingMapPanel)
    canvas, other = canvas_of(window, panel, qtbot), panel.scatter.canvas.native
    contexts = deleted_in(window)
    window.add_image(np.zeros((20, 20), np.uint8))
    other.makeCurrent()
    window.layers.clear()
    assert contexts == [canvas.context()] * 2


def test_a_window_that_lost_a_layer_can_be_drawn_again(survives):
    """Mesa 22.3.6 on the CPU ends the process otherwise, so it is one of its own."""
    script = """
import napari
import numpy as np
from qtpy.QtTest import QTest
from napari_mambamic._napari.open_panel import open_panel

viewer = napari.Viewer()
open_panel(viewer, "Results table")
QTest.qWait(500)
lower, upper = (viewer.add_image(np.zeros((20, 20), np.uint8)) for _ in range(2))
QTest.qWait(300)
viewer.layers.remove(lower)
for _ in range(2):  # it was the second time
    viewer.scene.camera.zoom *= 0.9
    QTest.qWait(300)
viewer.close()
print("survived")
"""
    survives(script)
