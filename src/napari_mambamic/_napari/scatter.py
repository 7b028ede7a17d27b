"""Many points in a plane, drawn by vispy as napari's own canvas is: to look at, click and lasso."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QVBoxLayout, QWidget
from vispy.scene import Line, Markers, SceneCanvas

_SIZE, _MARK = 5, 9  # of a point and of the ring around a selected one, in px
_NEAR = 8  # px that a click may miss a point by
_STEP = 2  # px between the corners of a lasso
_HEIGHT = 300  # px
_PAN = {"Left": (-0.1, 0), "Right": (0.1, 0), "Up": (0, 0.1), "Down": (0, -0.1)}
_ZOOM = {"+": 0.8, "=": 0.8, "-": 1.25}


class Scatter(QWidget):
    """Points that can be panned, zoomed, coloured, marked, clicked and lassoed.

    Arrow keys move the view, + and - zoom, 0 shows everything; Enter clicks the point that is
    nearest to the middle.

    Signals
    -------
    clicked : int, bool
        The point that was clicked, and whether to add it to the selection (Shift).
    lassoed : ndarray, bool
        (k, 2) corners (x, y) of what was drawn, in the coordinates of the points; and as above.
    """

    clicked = Signal(int, bool)
    lassoed = Signal(object, bool)

    def __init__(self, what: str) -> None:
        super().__init__()
        self.is_lassoing = False
        self.points: NDArray[np.float32] = np.zeros((0, 2), np.float32)
        self._colours: NDArray[np.float32] = np.zeros((0, 4), np.float32)
        self._marked: NDArray[np.intp] = np.zeros(0, np.intp)
        self._drawn: list[NDArray[np.float64]] = []  # corners of the lasso, in px of the canvas
        self._ink = np.ones(4, np.float32)
        self.canvas = SceneCanvas(keys=None, size=(_HEIGHT, _HEIGHT), show=False)
        self._view = self.canvas.central_widget.add_view(camera="panzoom")
        self._view.camera.aspect = 1
        self._markers, self._rings, self._lasso = Markers(), Markers(), Line(width=2)
        for order, visual in enumerate((self._markers, self._rings, self._lasso)):
            visual.order, visual.visible = order, False
            visual.set_gl_state("translucent", depth_test=False)
            self._view.add(visual)
        self._markers.antialias = 0  # half the work of drawing
        events = self.canvas.events
        # Before the camera, which would drag the view with the lasso.
        events.mouse_press.connect(self._press, position="first")
        events.mouse_move.connect(self._move, position="first")
        events.mouse_release.connect(self._release, position="first")
        events.mouse_wheel.connect(self._keep_wheel)
        events.key_press.connect(self._key)
        native = self.canvas.native
        native.setAccessibleName(what)
        native.setMinimumHeight(_HEIGHT)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(native)
        self.setAccessibleName(what)
        self.setFocusProxy(native)

    def show_points(self, points: NDArray[np.float32], colours: NDArray[np.float32]) -> None:
        """Show points (n, 2) of (x, y) in colours (n, 4), all in view; none is marked."""
        self.points = np.ascontiguousarray(points, np.float32)
        self._marked = np.zeros(0, np.intp)
        self.colour(colours)
        self.fit()

    def colour(self, colours: NDArray[np.float32]) -> None:
        """Give the points other colours (n, 4)."""
        self._colours = np.ascontiguousarray(colours, np.float32)
        self._markers.visible = bool(len(self.points))
        if len(self.points):
            self._markers.set_data(
                self.points, size=_SIZE, face_color=self._colours, edge_width=0, symbol="disc"
            )
        self.mark(self._marked)

    def mark(self, which: NDArray[np.intp]) -> None:
        """Draw rings around some points, and these above the others."""
        self._marked = which
        self._rings.visible = bool(len(which))
        if len(which):
            self._rings.set_data(
                self.points[which],
                size=_MARK,
                face_color=self._colours[which],
                edge_color=self._ink,
                edge_width=1.5,
                symbol="disc",
            )

    def fit(self) -> None:
        """Show every point."""
        if len(self.points):
            low, high = self.points.min(axis=0), self.points.max(axis=0)
            margin = 0.05 * max(float((high - low).max()), 1e-3)
            self._view.camera.rect = (*(low - margin), *(high - low + 2 * margin))

    def paint_background(self, colour: QColor) -> None:
        """Take a colour of the theme; rings and lasso are drawn in the opposite of it."""
        self.canvas.bgcolor = colour.getRgbF()
        light = colour.lightnessF() > 0.5
        self._ink = np.array([0, 0, 0, 1] if light else [1, 1, 1, 1], np.float32)
        self.mark(self._marked)

    def place_on_canvas(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Places (n, 2) of (x, y) in px of the canvas."""
        transform = self._markers.get_transform("visual", "canvas")
        placed: NDArray[np.float64] = transform.map(np.asarray(points, np.float64))[:, :2]
        return placed

    def _in_map(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        transform = self._markers.get_transform("visual", "canvas")
        mapped = np.asarray(transform.imap(np.asarray(pixels, np.float64)))
        places: NDArray[np.float64] = mapped[:, :2] / mapped[:, 3:]
        return places

    def point_at(self, pixel: NDArray[Any]) -> int | None:
        """The nearest point to a place on the canvas, or None where all are far."""
        if not len(self.points):
            return None
        # The scale is the same along both axes, so the nearest is so in the map, too.
        here, beside = self._in_map(np.array([pixel, np.add(pixel, (_NEAR, 0))]))
        distance = np.square(self.points - here.astype(np.float32)).sum(axis=1)
        nearest = int(distance.argmin())
        return nearest if distance[nearest] <= np.square(beside - here).sum() else None

    # ---- mouse and keys ----------------------------------------------------------------------

    def _press(self, event: Any) -> None:
        if event.button == 1 and self.is_lassoing:
            self._drawn = [event.pos[:2]]
            event.handled = True

    def _move(self, event: Any) -> None:
        if not self._drawn:
            return
        event.handled = True
        if np.abs(np.subtract(event.pos[:2], self._drawn[-1])).max() >= _STEP:
            self._drawn.append(event.pos[:2])
            outline = self._in_map(np.array([*self._drawn, self._drawn[0]]))
            self._lasso.set_data(outline, color=self._ink)
            self._lasso.visible = True

    def _release(self, event: Any) -> None:
        if event.button != 1:
            return
        adds = any(key.name == "Shift" for key in event.modifiers)
        drawn, self._drawn = self._drawn, []
        self._lasso.visible = False
        if len(drawn) > 1:
            event.handled = True
            drawn.append(event.pos[:2])
            self.lassoed.emit(self._in_map(np.array(drawn)), adds)
            return
        pressed = event.press_event.pos if event.press_event is not None else event.pos
        if np.abs(np.subtract(event.pos, pressed)).max() < _STEP:
            point = self.point_at(event.pos[:2])
            if point is not None:
                self.clicked.emit(point, adds)

    def _keep_wheel(self, event: Any) -> None:
        event.handled = True  # or the panel would scroll as well

    def _key(self, event: Any) -> None:
        name = event.key.name if event.key is not None else ""
        camera = self._view.camera
        if name in _PAN:
            camera.pan(np.multiply(_PAN[name], camera.rect.size))
        elif event.text in _ZOOM:
            camera.zoom(_ZOOM[event.text], camera.rect.center)
        elif event.text == "0":
            self.fit()
        elif name == "Enter" and len(self.points):
            away = self.points - np.array(camera.rect.center, np.float32)
            adds = any(key.name == "Shift" for key in event.modifiers)
            self.clicked.emit(int(np.square(away).sum(axis=1).argmin()), adds)
