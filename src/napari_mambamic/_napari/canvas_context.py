"""napari deletes what it drew in the OpenGL context that drew it."""

from __future__ import annotations

from napari.components import LayerList
from qtpy.QtCore import QObject
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QMainWindow, QWidget

from napari import current_viewer


def delete_in_canvas_context(panel: QWidget, window: QMainWindow) -> None:
    """Make the context of napari's canvas current when layers go, while its window is there.

    napari deletes the shaders of a layer when it is removed, in whichever context is current then:
    of another canvas, or the one in which Qt puts the window together.  Mesa's drawing on the CPU
    (llvmpipe, seen in 22.3.6) then unbinds the shaders of the canvas and takes them for bound, and
    ends the process at the second drawing after it.

    Parameters
    ----------
    panel : QWidget
        Docked in the window.
    window : QMainWindow
        Of a viewer.
    """
    viewer, middle = current_viewer(), window.centralWidget()
    canvas = middle.findChild(QOpenGLWidget) if middle is not None else None
    if viewer is None or canvas is None or panel not in viewer.window.dock_widgets.values():
        return
    if canvas.findChild(_CanvasContext) is None:
        _CanvasContext(canvas, viewer.layers)


class _CanvasContext(QObject):
    """Lives as long as the canvas."""

    def __init__(self, canvas: QOpenGLWidget, layers: LayerList) -> None:
        super().__init__(canvas)
        # Several at once are a batch, which ends with deleting what is left from earlier, too.
        for event in (layers.events.removing, layers.events.begin_batch):
            event.connect(self._make_current)

    def _make_current(self, event: object = None) -> None:
        canvas = self.parent()
        if isinstance(canvas, QOpenGLWidget) and canvas.isValid():  # it has drawn
            canvas.makeCurrent()
