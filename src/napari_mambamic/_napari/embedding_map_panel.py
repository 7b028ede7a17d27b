"""The Embedding map panel: tiles that look alike to the network lie side by side."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points, Shapes
from napari.qt.threading import create_worker
from napari.utils.colormaps import ensure_colormap
from napari.utils.theme import get_theme
from numpy.typing import NDArray
from qtpy.QtCore import QTimer
from qtpy.QtGui import QColor, QImage, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QWidget,
)
from scipy.spatial import cKDTree

from napari_mambamic._napari.classify_layer import classifier_for
from napari_mambamic._napari.from_layer import (
    LayerPlane,
    plane_at,
    points_of_layer,
    regions_of_shapes,
)
from napari_mambamic._napari.layer_box import LayerBox
from napari_mambamic._napari.legend import Legend
from napari_mambamic._napari.run_panel import RunPanel, in_words
from napari_mambamic._napari.scatter import Scatter
from napari_mambamic._napari.tile_highlight import TileHighlight
from napari_mambamic._napari.tile_strip import MOST, TileStrip, pictures_of
from napari_mambamic._napari.to_layers import place_of, results_of
from napari_mambamic.colours import class_colours
from napari_mambamic.errors import EmbeddingError, MambamicError
from napari_mambamic.explain.embedding_map import (
    EmbeddingMap,
    Method,
    iter_embedding_map,
    iter_find_similar,
)
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import middles_of, places_of, points_within
from napari_mambamic.weights.store import list_weights

METHODS: dict[str, Method] = {"PCA": "pca", "t-SNE": "t-sne", "UMAP": "umap"}
_NOTHING = (
    "No results yet. Press Classify in the panel 'Classify tiles and cells', or click a layer of "
    "classes in the layer list."
)
_CLOSED = (
    "The image that was classified is closed, so its tiles cannot be shown. Open and classify it "
    "again."
)
_MOST_QUERIES = 200  # selected tiles that others are compared with
_MOST_NAMES = 50  # kinds of annotations that are coloured
_WAIT_MS = 120  # changes of a shape that come within it are taken together
_UNKNOWN = (0.5, 0.5, 0.5, 0.4)  # colour of tiles that nobody annotated
_SHOWN_TILE = 96  # px on the screen, of a tile that would be too small to see
_RAMP = "viridis"


@dataclass(frozen=True)
class Mapped:
    """A map, and what is asked of its tiles again and again.

    Parameters
    ----------
    layer : Layer
        Of classes.
    plane : LayerPlane or None
        That was classified; None when the image is closed.
    results : TileResults
    map : EmbeddingMap
    shown : ndarray
        (k,) numbers of the tiles on the map, in the order of its points.
    rows : ndarray
        (n,) the point of each tile, -1 for none.
    labels, certainty : ndarray
        (k,) class of each point, and its probability.
    places, middles : ndarray
        (n, 3) and (n, 2) of the tiles.
    tree : cKDTree
        Of the middles.
    """

    layer: Layer
    plane: LayerPlane | None
    results: TileResults
    map: EmbeddingMap
    shown: NDArray[np.intp]
    rows: NDArray[np.intp]
    labels: NDArray[np.int64]
    certainty: NDArray[np.float32]
    places: NDArray[np.int64]
    middles: NDArray[np.float64]
    tree: cKDTree

    def tiles_at(self, points: NDArray[np.float64]) -> NDArray[np.intp]:
        """(n,) number of the tile with the nearest middle that holds each point; -1 for none."""
        distance, nearest = self.tree.query(points, p=np.inf)
        inside = distance <= self.places[nearest, 2] / 2
        return np.where(inside, nearest, -1)

    def describe(self, tile: int) -> str:
        """Number, class and probability of a tile."""
        results = self.results
        text = f"Tile {tile + 1}"
        if results.object_ids is not None:
            text = f"Object {results.object_ids[tile]}"
        row = results.probabilities[tile]
        if not np.isfinite(row[0]):
            return f"{text}: not classified"
        best = int(row.argmax())
        return f"{text}: {results.class_names[best]}, probability {row[best]:.3f}"


@dataclass(frozen=True)
class _Similar:
    tiles: NDArray[np.intp]
    distances: NDArray[np.float64]
    n_queries: int


class EmbeddingMapPanel(RunPanel):
    """A map of the tiles of the selected layer of classes, and the viewer, tied to each other."""

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__("Draw map", width=360)
        self._viewer = napari_viewer
        self._layer: Layer | None = None
        self.mapped: Mapped | None = None
        self.selected: NDArray[np.intp] = np.zeros(0, np.intp)  # numbers of tiles
        self._names: tuple[str, ...] = ()  # of the kinds that points are coloured by
        self._kinds: NDArray[np.intp] = np.zeros(0, np.intp)  # of each point, -1 for none
        self._columns: list[tuple[Points, str]] = []  # annotations that can colour the map
        self._region: Layer | None = None
        self._turns: dict[str, int] = {}
        self._waiting = 0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT_MS)
        self._timer.timeout.connect(self._take_region)
        self.highlight = TileHighlight(napari_viewer, "selected tiles")
        self._build_map()
        self._build_selection()
        self._build_features()
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Map", self.method)
        form.addRow("Colour", self.colouring)
        selecting = QFormLayout()
        selecting.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        selecting.addRow("Class", self._class_row)
        selecting.addRow("Region", self.regions)
        self._lay_out(
            form,
            self._actions,
            self.progress,
            self.message,
            self.scatter,
            self._tools_row,
            self.ramp,
            selecting,
            self._similar_row,
            self.selection_text,
            self.strip,
            self.legend,
            self._features_row,
        )
        self._connect()
        self._paint_theme()
        self._follow()

    # ---- making ------------------------------------------------------------------------------

    def _build_map(self) -> None:
        self.run_button.setToolTip("Lay the tiles out by what the network sees in them")
        self.cancel_button.setToolTip("Stop after the step at work")
        self.method = QComboBox()
        self.method.addItems(list(METHODS))
        self.method.setAccessibleName("Map")
        self.method.setToolTip(
            "PCA: at once, distances mean what they say. t-SNE and UMAP: neighbours stay "
            "neighbours; seconds to minutes"
        )
        self.colouring = QComboBox()
        self.colouring.setAccessibleName("Colour")
        self.colouring.setToolTip("Class, its probability, or the labels of a Points layer")
        self.scatter = Scatter("Map of the tiles")
        self.scatter.canvas.native.setToolTip(
            "Click a point to go to its tile. Drag to move, wheel or + and - to zoom, 0: all. "
            "Arrow keys move the map, and Enter takes the point nearest to its middle"
        )
        self.legend = Legend()
        self.legend.hide()
        self.ramp = QLabel()
        self.ramp.setAccessibleName("Probability from 0 to 1")
        self.ramp.setToolTip("Probability of the class, from 0 on the left to 1 on the right")
        self.ramp.setScaledContents(True)
        self.ramp.setPixmap(_ramp_pixmap())
        self.ramp.setFixedHeight(12)
        self.ramp.hide()
        self.lasso_button = QPushButton("Lasso")
        self.lasso_button.setCheckable(True)
        self.lasso_button.setToolTip("Draw around points to select their tiles; Shift adds")
        self.fit_button = QPushButton("Whole map")
        self.fit_button.setToolTip("Show every point")
        self.clear_button = QPushButton("Clear")
        self.clear_button.setToolTip("Select nothing")
        self._tools_row = _row(self.lasso_button, self.fit_button, self.clear_button)

    def _build_selection(self) -> None:
        self.classes = QComboBox()
        self.classes.setAccessibleName("Class")
        self.classes.setToolTip("A class of the legend")
        self.class_button = QPushButton("Select class")
        self.class_button.setToolTip("Select the tiles of this class")
        self._class_row = _row(self.classes, self.class_button)
        self.regions = LayerBox(self._viewer, (Shapes, Points), "Region", none="click in the image")
        self.regions.setToolTip(
            "Select the tiles whose middle lies in the shapes of a layer, or those that its "
            "selected points lie on. Else click a tile while the layer of classes is active"
        )
        self.view_button = QPushButton("Tile in view")
        self.view_button.setToolTip("Select the tile in the middle of the view")
        self.similar_button = QPushButton("Find similar")
        self.similar_button.setToolTip("Rank all tiles by how near they are to the selected ones")
        self.how_many = QSpinBox()
        self.how_many.setRange(1, 10_000)
        self.how_many.setValue(50)
        self.how_many.setAccessibleName("How many similar tiles")
        self.how_many.setToolTip("How many similar tiles to show; the first 50 as pictures")
        self._similar_row = _row(self.view_button, self.similar_button, self.how_many)
        self.selection_text = QLabel()
        self.selection_text.setWordWrap(True)
        self.selection_text.setAccessibleName("Selected tiles")
        self.strip = TileStrip()
        self.strip.hide()

    def _build_features(self) -> None:
        self.features_button = QPushButton("Write to features")
        self.features_button.setToolTip(
            "Give the layer of classes the columns map_1 and map_2, for other plugins. Where its "
            "pixels name classes and not tiles, a Points layer with a point per tile is added"
        )
        self.all_columns = QCheckBox("with embeddings")
        self.all_columns.setToolTip(
            "Also the columns embedding_0, embedding_1 ...; 100,000 tiles take 300 to 400 MB more"
        )
        self._features_row = _row(self.features_button, self.all_columns)

    def _connect(self) -> None:
        self.colouring.currentIndexChanged.connect(self._recolour)
        self.scatter.clicked.connect(self._take_click)
        self.scatter.lassoed.connect(self._take_lasso)
        self.lasso_button.toggled.connect(partial(setattr, self.scatter, "is_lassoing"))
        self.fit_button.clicked.connect(self.scatter.fit)
        self.clear_button.clicked.connect(lambda: self.select(np.zeros(0, np.intp)))
        self.class_button.clicked.connect(self.select_class)
        self.view_button.clicked.connect(self.select_in_view)
        self.similar_button.clicked.connect(self.find_similar)
        self.strip.chosen.connect(self.go_to)
        self.features_button.clicked.connect(self.write_features)
        self.regions.chosen.connect(self._follow_region)
        viewer = self._viewer
        viewer.layers.selection.events.active.connect(self._follow)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._follow)
        viewer.events.theme.connect(self._paint_theme)
        clicks, callback = viewer.mouse_drag_callbacks, self._click_in_viewer
        clicks.append(callback)
        self.destroyed.connect(lambda: clicks.remove(callback))

    @property
    def is_busy(self) -> bool:
        """Whether something was asked for that is not shown yet."""
        return self.is_running or self._waiting > 0 or self._timer.isActive()

    # ---- the map -----------------------------------------------------------------------------

    def start(self) -> None:
        """Draw the map of the layer that is followed; compute embeddings where there are none."""
        if self._layer is None:
            self._say(_NOTHING)
            return
        results = self._results_in_view()
        plane = self._plane_of(results)
        self._say("Drawing the map ...")
        method = METHODS[self.method.currentText()]
        self._run(_mapped_or_sentence, self._layer, plane, results, method)

    def _results_in_view(self) -> TileResults:
        """Of a stack, those of the plane in view, else the first."""
        several = results_of(self._layer)
        at = self._layer.world_to_data(np.asarray(self._viewer.dims.point)[-self._layer.ndim :])
        first = min((_plane_index(each) for each in several), default=())
        here = tuple(round(float(a)) + f for a, f in zip(at[:-2], first, strict=False))
        return next((each for each in several if _plane_index(each) == here), several[0])

    def _plane_of(self, results: TileResults) -> LayerPlane | None:
        wanted = self._layer.metadata.get("image")
        image = next((each for each in self._viewer.layers if each.unique_id == wanted), None)
        return plane_at(image, _plane_index(results)) if isinstance(image, Image) else None

    def _show_progress(self, progress: Progress) -> None:
        self.progress.setRange(0, progress.total)
        self.progress.setValue(progress.done)
        if self._stopped:
            return
        text = f"{progress.message} ..."
        if progress.done:
            left = in_words(progress.seconds_left or 0)
            text = f"{progress.message}: {progress.done:,} of {progress.total:,} · {left} left"
        self._say(text)

    def _take_result(self, result: Mapped | _Similar | str) -> None:
        if isinstance(result, str):
            self._say(result, is_error=True)
        elif isinstance(result, Mapped):
            self._show_map(result)
        else:
            self._show_similar(result)

    def _show_map(self, mapped: Mapped) -> None:
        self.mapped, self.selected = mapped, np.zeros(0, np.intp)
        self.highlight.clear()
        self._name_kinds(mapped.results.class_names, mapped.labels)
        points = mapped.map.coordinates[mapped.shown]
        self.scatter.show_points(points, self._colours_of_kinds())
        self._list_colourings()
        self._recolour()
        self.select(self.selected)
        self._say(mapped.map.note if mapped.plane is not None else f"{mapped.map.note} {_CLOSED}")

    def _show_end(self) -> None:
        if self._stopped:
            self._say("Stopped.")
        self._show_buttons()

    def _set_running(self, running: bool) -> None:
        super()._set_running(running)
        self._show_buttons()

    def _show_buttons(self) -> None:
        mapped, chosen = self.mapped is not None, len(self.selected) > 0
        self.run_button.setEnabled(self._layer is not None and not self.is_running)
        for widget in (self.class_button, self.view_button, self.features_button, self.fit_button):
            widget.setEnabled(mapped)
        self.clear_button.setEnabled(chosen)
        self.similar_button.setEnabled(chosen and not self.is_running)

    def _follow(self, event: object = None) -> None:
        """Take the selected layer of classes, else keep the last, else take the topmost."""
        layers = self._viewer.layers
        candidates = [layers.selection.active, self._layer, *reversed(layers)]
        chosen = next(
            (c for c in candidates if c is not None and c in layers and results_of(c)), None
        )
        self._list_colourings()
        if chosen != self._layer:
            if isinstance(self._layer, Points):
                self._layer.selected_data.events.items_changed.disconnect(self._take_points)
            self._layer = chosen
            if isinstance(chosen, Points):
                chosen.selected_data.events.items_changed.connect(self._take_points)
        if chosen is None:
            self._say(_NOTHING)
        elif self.mapped is None or self.mapped.layer != chosen:
            missing = any(each.embeddings is None for each in results_of(chosen))
            more = " Its embeddings are not kept and will be computed first." if missing else ""
            self._say(f"{chosen.name}: press 'Draw map'.{more}")
        self._show_buttons()

    def _paint_theme(self, event: object = None) -> None:
        canvas = get_theme(self._viewer.theme).canvas
        self.scatter.paint_background(QColor(canvas.as_hex()))

    # ---- colours -----------------------------------------------------------------------------

    def _list_colourings(self) -> None:
        columns = [
            (layer, str(name))
            for layer in self._viewer.layers
            if isinstance(layer, Points) and not results_of(layer)
            for name, column in layer.features.items()
            if len(column) and not pd.api.types.is_numeric_dtype(column)
        ]
        if columns == self._columns and self.colouring.count():
            return
        before = self.colouring.currentText()
        texts = ["class", "probability", *(f"{each.name}: {name}" for each, name in columns)]
        self._columns = columns
        self.colouring.blockSignals(True)
        self.colouring.clear()
        self.colouring.addItems(texts)
        self.colouring.setCurrentIndex(texts.index(before) if before in texts else 0)
        self.colouring.blockSignals(False)
        if before and before not in texts:
            self._recolour()

    def _recolour(self) -> None:
        mapped, chosen = self.mapped, self.colouring.currentIndex()
        if mapped is None:
            return
        self._turns["colour"] = self._turns.get("colour", 0) + 1  # what is under way is stale
        self.legend.setVisible(chosen != 1)
        self.ramp.setVisible(chosen == 1)
        if chosen >= 2:
            self._ask_annotations(mapped, *self._columns[chosen - 2])
            return
        self._name_kinds(mapped.results.class_names, mapped.labels)
        if chosen == 1:
            ramp = ensure_colormap(_RAMP).map(np.linspace(0, 1, 256)).astype(np.float32)
            self.scatter.colour(ramp[(mapped.certainty * 255).astype(int)])
        else:
            self.scatter.colour(self._colours_of_kinds())
        self.scatter.mark(mapped.rows[self.selected])

    def _ask_annotations(self, mapped: Mapped, layer: Points, column: str) -> None:
        """Look up in a thread which points of a layer lie on which tiles."""
        if mapped.plane is None:
            self._say(_CLOSED, is_error=True)
            return
        try:
            points, numbers = points_of_layer(mapped.plane, layer)
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        texts = layer.features[column].iloc[numbers]
        self._later("colour", _annotated, self._show_annotations, mapped, points, texts)

    def _show_annotations(self, found: tuple[tuple[str, ...], NDArray[np.intp]]) -> None:
        self._name_kinds(*found)
        self.scatter.colour(self._colours_of_kinds())
        self.scatter.mark(self.mapped.rows[self.selected])

    def _name_kinds(self, names: tuple[str, ...], kinds: NDArray[Any]) -> None:
        """Legend and list of classes for what points are coloured by."""
        self._kinds = kinds
        if names != self._names or not self.classes.count():
            self._names = names
            self.classes.clear()
            self.classes.addItems(list(names))
            self.legend.show_classes(names)
        counts = np.bincount(kinds[kinds >= 0], minlength=len(names)).tolist()
        self.legend.show_counts(dict(zip(names, counts, strict=True)))

    def _colours_of_kinds(self) -> NDArray[np.float32]:
        palette = np.vstack([class_colours(len(self._names)).reshape(-1, 4), [_UNKNOWN]])
        colours: NDArray[np.float32] = palette.astype(np.float32)[self._kinds]  # -1 is the last
        return colours

    # ---- selecting ---------------------------------------------------------------------------

    def select(
        self, tiles: NDArray[np.intp], *, adds: bool = False, captions: Sequence[str] = ()
    ) -> None:
        """Select tiles by their numbers: on the map, in the viewer, and as pictures."""
        mapped = self.mapped
        if mapped is None:
            return
        tiles = np.asarray(tiles, np.intp)
        if adds:
            tiles = np.union1d(self.selected, tiles)
        self.selected = tiles = tiles[mapped.rows[tiles] >= 0]
        self.scatter.mark(mapped.rows[tiles])
        if mapped.plane is not None and mapped.plane.layer in self._viewer.layers:
            self.highlight.show(mapped.plane, mapped.results.tiles, mapped.places, tiles)
            self._ask_pictures(tiles, captions)
        self._tell_selection()
        self._show_buttons()

    def select_class(self) -> None:
        """Select the tiles of the class that is chosen."""
        if self.mapped is not None:
            self.select(self.mapped.shown[self._kinds == self.classes.currentIndex()])

    def select_in_view(self) -> None:
        """Select the tile that is nearest to the middle of the view."""
        mapped = self.mapped
        if mapped is None or mapped.plane is None:
            self._say(_CLOSED, is_error=True)
            return
        layer = mapped.plane.layer
        world = np.array(self._viewer.dims.point, float)
        world[-2:] = self._viewer.scene.camera.center[-2:]
        place = np.asarray(layer.world_to_data(world[-layer.ndim :]))[-2:]
        middles = mapped.middles[mapped.shown]
        nearest = int(np.square(middles - place).sum(axis=1).argmin())
        self.select(mapped.shown[[nearest]])

    def go_to(self, tile: int) -> None:
        """Bring a tile to the middle of the view, and tell what it is."""
        mapped = self.mapped
        if mapped is None:
            return
        self.selection_text.setText(f"{mapped.describe(tile)}.")
        if mapped.plane is None or mapped.plane.layer not in self._viewer.layers:
            self._say(_CLOSED, is_error=True)
            return
        layer, index = mapped.plane.layer, mapped.plane.index
        here, beside = (
            np.asarray(layer.data_to_world((*index, *(mapped.middles[tile] + (0, shift)))))
            for shift in (0, mapped.places[tile, 2])
        )
        ndim = self._viewer.dims.ndim
        for axis, place in enumerate(here[:-2], start=ndim - len(here)):
            self._viewer.dims.set_point(axis, place)
        camera = self._viewer.scene.camera
        camera.center = tuple(here[-2:])
        side = float(np.linalg.norm(beside - here))
        if side * camera.zoom < _SHOWN_TILE / 3:
            camera.zoom = _SHOWN_TILE / side

    def find_similar(self) -> None:
        """Rank tiles by their distance to the selected ones, in a thread."""
        if self.mapped is None or not len(self.selected):
            return
        self._say("Comparing ...")
        count = self.how_many.value()
        self._run(_similar_or_sentence, self.mapped.results, self.selected, count)

    def _show_similar(self, found: _Similar) -> None:
        self.select(found.tiles, captions=[f"{d:.3f}" for d in found.distances])
        of = "the selected tile" if found.n_queries == 1 else f"{found.n_queries} selected tiles"
        self._say(f"The {len(found.tiles)} tiles nearest to {of}, with their cosine distances.")

    def _take_click(self, point: int, adds: bool) -> None:
        tile = int(self.mapped.shown[point])
        self.select(np.array([tile]), adds=adds)
        self.go_to(tile)

    def _take_lasso(self, corners: NDArray[np.float64], adds: bool) -> None:
        points = self.scatter.points.astype(np.float64)
        mapped = self.mapped

        def take(inside: NDArray[np.bool_]) -> None:
            self.select(mapped.shown[inside], adds=adds)

        self._later("select", points_within, take, points, [corners])

    def _click_in_viewer(self, viewer: ViewerModel, event: Any) -> Generator[None]:
        """A click on the layer of classes selects the tile under it; Shift adds."""
        mapped = self.mapped
        if mapped is None or mapped.plane is None or event.button != 1:
            return
        if not self.isVisibleTo(self.window()):
            return  # behind another panel
        if self._viewer.layers.selection.active != mapped.layer:
            return
        if isinstance(mapped.layer, Points) and mapped.layer.mode == "select":
            return  # the selected points are taken
        yield
        if event.type == "mouse_move":
            return  # a drag moves the view
        layer = mapped.plane.layer
        place = np.asarray(layer.world_to_data(event.position[-layer.ndim :]))
        if tuple(np.round(place[:-2]).astype(int)) != mapped.plane.index:
            return
        tile = int(mapped.tiles_at(place[np.newaxis, -2:])[0])
        if tile >= 0:
            self.select(np.array([tile]), adds="Shift" in event.modifiers)

    def _take_points(self, event: object = None) -> None:
        """Select what is selected in a layer of classes that has points."""
        if self.mapped is not None and self.mapped.layer == self._layer:
            self.select(np.array(sorted(self._layer.selected_data), np.intp))

    # ---- regions -----------------------------------------------------------------------------

    def _follow_region(self) -> None:
        for event in _edits_of(self._region):
            event.disconnect(self._ask_region)
        self._region = self.regions.layer
        for event in _edits_of(self._region):
            event.connect(self._ask_region)
        self._ask_region()

    def _ask_region(self, event: object = None) -> None:
        self._timer.start()

    def _take_region(self) -> None:
        mapped, layer = self.mapped, self._region
        if mapped is None or layer is None or not len(layer.data):
            return
        if mapped.plane is None:
            self._say(_CLOSED, is_error=True)
            return
        try:
            if isinstance(layer, Points):
                points, numbers = points_of_layer(mapped.plane, layer)
                chosen = points[np.isin(numbers, list(layer.selected_data))]
                tiles = mapped.tiles_at(chosen)
                self.select(np.unique(tiles[tiles >= 0]))
                return
            named = regions_of_shapes(mapped.plane, layer)
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        polygons = [polygon for several in named.values() for polygon in several]

        def take(inside: NDArray[np.bool_]) -> None:
            self.select(np.flatnonzero(inside))

        self._later("select", points_within, take, mapped.middles, polygons)

    # ---- telling -----------------------------------------------------------------------------

    def _tell_selection(self) -> None:
        mapped, tiles = self.mapped, self.selected
        if not len(tiles):
            self.selection_text.setText("No tile is selected.")
        elif len(tiles) == 1:
            self.selection_text.setText(f"{mapped.describe(int(tiles[0]))}.")
        else:
            labels = mapped.labels[mapped.rows[tiles]]
            names = mapped.results.class_names
            counts = np.bincount(labels, minlength=len(names))
            most = [f"{counts[i]:,} {names[i]}" for i in np.argsort(-counts) if counts[i]]
            rest = ", ..." if len(most) > 4 else ""
            self.selection_text.setText(
                f"{len(tiles):,} of {len(mapped.shown):,} tiles selected: "
                f"{', '.join(most[:4])}{rest}."
            )

    def _ask_pictures(self, tiles: NDArray[np.intp], captions: Sequence[str]) -> None:
        mapped = self.mapped
        first = tiles[:MOST].tolist()
        if not first:
            self._turns["pictures"] = self._turns.get("pictures", 0) + 1
            self.strip.clear()
            return
        texts = [mapped.describe(tile) for tile in first]
        shown = list(captions[:MOST]) or [
            f"{mapped.certainty[mapped.rows[tile]]:.2f}" for tile in first
        ]

        def take(pictures: list[NDArray[np.uint8]] | str) -> None:
            if isinstance(pictures, str):
                self._say(pictures, is_error=True)
                return
            self.strip.show_tiles(first, shown, texts, pictures)
            self.strip.show()

        chosen = [mapped.results.tiles[tile] for tile in first]
        self._later("pictures", _pictures_or_sentence, take, mapped.plane, chosen)

    def _later(
        self, what: str, compute: Callable[..., Any], take: Callable[[Any], None], *inputs: Any
    ) -> None:
        """Compute in a thread; of several of one kind, only the last is taken."""
        self._turns[what] = turn = self._turns.get(what, 0) + 1
        mapped = self.mapped
        self._waiting += 1
        worker = create_worker(compute, *inputs)

        def returned(result: Any) -> None:
            if self._turns[what] == turn and self.mapped is mapped:
                take(result)

        def finished() -> None:
            self._waiting -= 1

        worker.returned.connect(returned)
        worker.errored.connect(self._show_error)
        worker.finished.connect(finished)
        worker.start()

    # ---- features ----------------------------------------------------------------------------

    def write_features(self) -> None:
        """Give the layer of classes, or a Points layer, the coordinates of its tiles."""
        mapped = self.mapped
        if mapped is None:
            return
        tiles = tiles_of_features(mapped.layer, mapped.results)
        if tiles is None and mapped.plane is None:
            self._say(_CLOSED, is_error=True)
            return
        kept = None if tiles is None else mapped.layer.features
        with_embeddings = self.all_columns.isChecked()
        self._later("features", _features_of, self._take_features, mapped, kept, with_embeddings)

    def _take_features(self, features: pd.DataFrame | Points) -> None:
        layer = self.mapped.layer
        if isinstance(features, Points):
            layer, active = features, self._viewer.layers.selection.active
            if layer.name in self._viewer.layers:
                self._viewer.layers.remove(layer.name)
            self._viewer.add_layer(layer)
            self._viewer.layers.selection.active = active
        else:
            layer.features = features
        count = sum(str(name).startswith(("map_", "embedding_")) for name in layer.features)
        rows = len(layer.features)
        self._say(f"Layer {layer.name!r} has {count} more features for {rows:,} tiles.")


def _features_of(
    mapped: Mapped, kept: pd.DataFrame | None, with_embeddings: bool
) -> pd.DataFrame | Points:
    """The features of a layer of classes and more; or, in place of them, a point on each tile."""
    results = mapped.results
    if kept is None:
        tiles = mapped.shown
        kept = pd.DataFrame(
            {
                "tile": tiles + 1,
                "class": pd.Categorical.from_codes(mapped.labels, list(results.class_names)),
                "probability": mapped.certainty,
            }
        )
        as_points = True
    else:
        tiles, as_points = tiles_of_features(mapped.layer, results), False
    kept = kept.drop(columns=[c for c in kept if str(c).startswith(("map_", "embedding_"))])
    parts = [kept, _columns("map", mapped.map.coordinates[tiles], kept.index, first=1)]
    if with_embeddings:
        parts.append(_columns("embedding", results.embeddings[tiles], kept.index))
    features = pd.concat(parts, axis=1)
    return _points_on_tiles(mapped, features) if as_points else features


def _columns(name: str, values: NDArray[Any], index: pd.Index, *, first: int = 0) -> pd.DataFrame:
    names = [f"{name}_{i}" for i in range(first, first + values.shape[1])]
    return pd.DataFrame(values, columns=names, index=index)


def _points_on_tiles(mapped: Mapped, features: pd.DataFrame) -> Points:
    """A layer that can have features of tiles where the pixels of the classes cannot."""
    image, index = mapped.plane.layer, mapped.plane.index
    places = np.zeros((len(mapped.shown), len(index) + 2))
    places[:, : len(index)] = index
    places[:, -2:] = mapped.middles[mapped.shown]
    return Points(
        places,
        name=f"{mapped.layer.name} tiles",
        features=features,
        size=float(np.median(mapped.places[:, 2])) / 3,
        visible=False,  # 100,000 points take napari a second to draw
        metadata={"mambamic": mapped.results.provenance},
        **place_of(image),
    )


def tiles_of_features(layer: Layer, results: TileResults) -> NDArray[np.intp] | None:
    """Number of the tile of each row of the features of a layer of classes.

    None where the rows are classes, or the layer is a heatmap.
    """
    if isinstance(layer, Points):
        return np.arange(len(results))
    if not isinstance(layer, Labels) or "probability" not in layer.features:
        return None
    values = layer.features["index"].to_numpy()
    ids = results.object_ids
    if ids is None:
        return values - 1
    order = np.argsort(ids)
    tiles: NDArray[np.intp] = order[np.searchsorted(ids, values, sorter=order)]
    return tiles


def _plane_index(results: TileResults) -> tuple[int, ...]:
    return tuple((results.provenance.get("layer") or {}).get("plane") or ())


def _edits_of(layer: Layer | None) -> list[Any]:
    """Events after which a region is another."""
    if isinstance(layer, Points):
        return [layer.events.data, layer.selected_data.events.items_changed]
    return [layer.events.data] if isinstance(layer, Shapes) else []


def _mapped_or_sentence(
    layer: Layer, plane: LayerPlane | None, results: TileResults, method: Method
) -> Generator[Progress, None, Mapped | str]:
    """Draw a map in the worker's thread; raised errors would be shown as defects of the program."""
    try:
        done = results.is_done
        kept = results.embeddings
        if kept is None or not np.isfinite(kept[done, :1]).all():
            results.embeddings = yield from _embeddings_of(plane, results)
        drawn = yield from iter_embedding_map(results.embeddings, method=method)
    except MambamicError as error:
        return str(error)
    shown = np.flatnonzero(np.isfinite(drawn.coordinates[:, 0]) & done)
    rows = np.full(len(results), -1)
    rows[shown] = np.arange(len(shown))
    labels = results.labels_of(shown)
    middles = middles_of(results.tiles)
    return Mapped(
        layer,
        plane,
        results,
        drawn,
        shown,
        rows,
        labels,
        results.probabilities[shown, labels],
        places_of(results.tiles),
        middles,
        cKDTree(middles),
    )


def _embeddings_of(
    plane: LayerPlane | None, results: TileResults
) -> Generator[Progress, None, NDArray[np.float32]]:
    """Compute them again, from the same tiles with the same weights."""
    again = "Tick 'Keep embeddings' under Advanced in the Classify panel, and classify again."
    if plane is None:
        raise EmbeddingError(f"The image that was classified is closed. Open it. {again}")
    if (results.provenance.get("layer") or {}).get("channels"):
        raise EmbeddingError(
            f"The channels were put together from several places, and the embeddings were not "
            f"kept. {again}"
        )
    name = results.provenance.get("weights", {}).get("name")
    if name not in list_weights():
        raise EmbeddingError(f"The embeddings were not kept, and {name!r} is not listed. {again}")
    yield Progress(0, 0, message="Loading the weights")
    from napari_mambamic.classify import iter_embeddings

    return (yield from iter_embeddings(plane.image, classifier_for(name, "auto"), results))


def _similar_or_sentence(
    results: TileResults, queries: NDArray[np.intp], count: int
) -> Generator[Progress, None, _Similar | str]:
    """Find tiles like some others, without these, in the worker's thread."""
    if len(queries) > _MOST_QUERIES:
        queries = queries[np.linspace(0, len(queries) - 1, _MOST_QUERIES).astype(int)]
    try:
        more = count + len(queries)
        found, distances = yield from iter_find_similar(
            results.embeddings, results.embeddings[queries], more
        )
    except MambamicError as error:
        return str(error)
    others = ~np.isin(found, queries)
    return _Similar(found[others][:count], distances[others][:count], len(queries))


def _annotated(
    mapped: Mapped, points: NDArray[np.float64], texts: Any
) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """What tiles are called by points on them: the names, and of each point of the map which."""
    tiles = mapped.tiles_at(points)
    known = np.array([isinstance(t, str) and bool(t) for t in texts]) & (tiles >= 0)
    words = np.asarray(texts, object)[known].astype(str)
    class_names = mapped.results.class_names
    found = sorted(set(words))[:_MOST_NAMES]
    names = class_names if set(found) <= set(class_names) else tuple(found)
    numbers = {name: i for i, name in enumerate(names)}
    kinds = np.full(len(mapped.results), -1)
    kinds[tiles[known]] = [numbers.get(word, -1) for word in words]
    return tuple(names), kinds[mapped.shown]


def _pictures_or_sentence(plane: LayerPlane, tiles: Sequence[Any]) -> list[Any] | str:
    try:
        return pictures_of(plane, tiles)
    except MambamicError as error:
        return str(error)


def _ramp_pixmap() -> QPixmap:
    ramp = (ensure_colormap(_RAMP).map(np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)
    pixels = np.ascontiguousarray(ramp)
    return QPixmap.fromImage(
        QImage(pixels.tobytes(), 256, 1, 3 * 256, QImage.Format.Format_RGB888).copy()
    )


def _row(*widgets: QWidget) -> QWidget:
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget, 1)
    return row
