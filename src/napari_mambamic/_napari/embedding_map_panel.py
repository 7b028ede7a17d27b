"""The Embedding map panel: tiles that look alike to the network lie side by side."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from napari.components import ViewerModel
from napari.layers import Layer, Points, Shapes
from napari.utils.theme import get_theme
from numpy.typing import NDArray
from qtpy.QtCore import QTimer
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QLabel,
    QPushButton,
    QSpinBox,
)

from napari_mambamic._napari.camera import look_at
from napari_mambamic._napari.classified import image_layer_of, plane_of, results_in_view
from napari_mambamic._napari.eliding_box import ElidingBox
from napari_mambamic._napari.folding_row import FoldingRow
from napari_mambamic._napari.from_layer import LayerPlane, points_of_layer, regions_of_shapes
from napari_mambamic._napari.latest import Newest
from napari_mambamic._napari.layer_box import WatchedLayerBox
from napari_mambamic._napari.map_colours import MapColours
from napari_mambamic._napari.map_features import features_of, tiles_of_features
from napari_mambamic._napari.mapped_tiles import (
    CLOSED,
    Mapped,
    Similar,
    iter_mapped,
    iter_similar,
)
from napari_mambamic._napari.reason_tip import NOTHING_RUNS, RUNS, ReasonTip
from napari_mambamic._napari.result_box import NO_RESULTS, followed_layer, no_results
from napari_mambamic._napari.run_panel import RunPanel, in_words
from napari_mambamic._napari.scatter import Scatter
from napari_mambamic._napari.tile_highlight import TileHighlight
from napari_mambamic._napari.tile_pictures import picture_of_tile
from napari_mambamic._napari.tile_strip import MOST, SIDE, TileStrip
from napari_mambamic._napari.to_layers import first_point_of, results_of
from napari_mambamic._napari.workers import or_sentence
from napari_mambamic.errors import ImageError, MambamicError
from napari_mambamic.explain.embedding_map import Method
from napari_mambamic.progress import Progress
from napari_mambamic.tiling import Tile, points_within

METHODS: dict[str, Method] = {"PCA": "pca", "t-SNE": "t-sne", "UMAP": "umap"}
_NO_MAP = "press Draw map first"
_NONE_SELECTED = "no tile is selected; click a point of the map or a tile of the image"
_WAIT_MS = 120  # changes of a shape that come within it are taken together


class EmbeddingMapPanel(RunPanel):
    """A map of the tiles of the selected layer of classes, and the viewer, tied to each other."""

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__("Draw map")
        self._viewer = napari_viewer
        self._layer: Layer | None = None
        self.mapped: Mapped | None = None
        self.selected: NDArray[np.intp] = np.zeros(0, np.intp)  # numbers of tiles
        self._in_threads = [Newest(self._show_error) for _ in range(4)]
        self._finding, self._selecting, self._picturing, self._writing = self._in_threads
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT_MS)
        self._timer.timeout.connect(self._take_region)
        self.highlight = TileHighlight(napari_viewer, "selected tiles")
        self._build_map()
        self._build_selection()
        self._build_features()
        form, selecting = QFormLayout(), QFormLayout()
        for each in (form, selecting):
            each.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Map", self.method)
        form.addRow("Colour", self.colouring)
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
        ReasonTip(
            self.run_button,
            "Lay the tiles out by what the network sees in them",
            why=lambda: RUNS if self.is_running else NO_RESULTS,
        )
        ReasonTip(self.cancel_button, "Stop after the step at work", why=NOTHING_RUNS)
        self.method = ElidingBox()
        self.method.addItems(list(METHODS))
        self.method.setAccessibleName("Map")
        self.method.setToolTip(
            "PCA: at once, distances mean what they say. t-SNE and UMAP: neighbours stay "
            "neighbours; seconds to minutes"
        )
        self.scatter = Scatter("Map of the tiles")
        self.scatter.canvas.native.setToolTip(
            "Click a point to go to its tile. Drag to move, wheel or + and - to zoom, 0: all. "
            "Arrow keys move the map, and Enter takes the point nearest to its middle"
        )
        self._colours = MapColours(
            self._viewer,
            show=self.scatter.colour,
            say=partial(self._say, is_error=True),
            finding=self._finding,
        )
        self.colouring, self.classes = self._colours.choice, self._colours.kinds
        self.legend, self.ramp = self._colours.legend, self._colours.ramp
        self.lasso_button = QPushButton("Lasso")
        self.lasso_button.setCheckable(True)
        ReasonTip(
            self.lasso_button, "Draw around points to select their tiles; Shift adds", why=_NO_MAP
        )
        self.fit_button = QPushButton("Whole map")
        ReasonTip(self.fit_button, "Show every point", why=_NO_MAP)
        self.clear_button = QPushButton("Clear")
        ReasonTip(self.clear_button, "Select nothing", why=_NONE_SELECTED)
        self._tools_row = FoldingRow(self.lasso_button, self.fit_button, self.clear_button)

    def _build_selection(self) -> None:
        self.class_button = QPushButton("Select class")
        ReasonTip(self.class_button, "Select the tiles of this class", why=_NO_MAP)
        self._class_row = FoldingRow(self.classes, self.class_button)
        self.regions = WatchedLayerBox(
            self._viewer, (Shapes, Points), "Region", none="click in the image"
        )
        self.regions.setToolTip(
            "Select the tiles whose middle lies in the shapes of a layer, or those that its "
            "selected points lie on. Else click a tile while the layer of classes is active"
        )
        self.view_button = QPushButton("Tile in view")
        ReasonTip(self.view_button, "Select the tile in the middle of the view", why=_NO_MAP)
        self.similar_button = QPushButton("Find similar")
        ReasonTip(
            self.similar_button,
            "Rank all tiles by how near they are to the selected ones",
            why=lambda: RUNS if self.is_running else _NONE_SELECTED,
        )
        self.how_many = QSpinBox()
        self.how_many.setRange(1, 10_000)
        self.how_many.setValue(50)
        self.how_many.setAccessibleName("How many similar tiles")
        self.how_many.setToolTip("How many similar tiles to show; the first 50 as pictures")
        self._similar_row = FoldingRow(self.view_button, self.similar_button, self.how_many)
        self.selection_text = QLabel()
        self.selection_text.setWordWrap(True)
        self.selection_text.setAccessibleName("Selected tiles")
        self.strip = TileStrip()
        self.strip.hide()

    def _build_features(self) -> None:
        self.features_button = QPushButton("Write to features")
        ReasonTip(
            self.features_button,
            "Give the layer of classes the columns map_1 and map_2, for other plugins. Where its "
            "pixels name classes and not tiles, a Points layer with a point per tile is added",
            why=_NO_MAP,
        )
        self.all_columns = QCheckBox("with embeddings")
        self.all_columns.setToolTip(
            "Also the columns embedding_0, embedding_1 ...; 100,000 tiles take 300 to 400 MB more"
        )
        self._features_row = FoldingRow(self.features_button, self.all_columns)

    def _connect(self) -> None:
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
        self.regions.edited.connect(self._timer.start)
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
        at_work = any(each.is_busy for each in self._in_threads)
        return self.is_running or at_work or self._timer.isActive()

    # ---- the map -----------------------------------------------------------------------------

    def start(self) -> None:
        """Draw the map of the layer that is followed; compute embeddings where there are none."""
        if self._layer is None:
            self._say(no_results(self._viewer))
            return
        results = results_in_view(self._viewer, self._layer)
        try:
            plane = plane_of(self._viewer, image_layer_of(self._viewer, self._layer), results)
        except ImageError:
            plane = None
        self._say("Drawing the map ...")
        method = METHODS[self.method.currentText()]
        self._run(iter_mapped, self._layer, plane, results, method)

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

    def _take_result(self, result: Mapped | Similar | str) -> None:
        if isinstance(result, str):
            self._say(result, is_error=True)
        elif isinstance(result, Mapped):
            self._show_map(result)
        else:
            self._show_similar(result)

    def _show_map(self, mapped: Mapped) -> None:
        for each in self._in_threads:
            each.forget()  # it is of another map
        self.mapped, self.selected = mapped, np.zeros(0, np.intp)
        self.highlight.clear()
        points = mapped.map.coordinates[mapped.shown]
        self.scatter.show_points(points, np.ones((len(points), 4), np.float32))
        self._colours.show_map(mapped)
        self.select(self.selected)
        self._say(mapped.map.note if mapped.plane is not None else f"{mapped.map.note} {CLOSED}")

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
        for widget in (
            self.lasso_button,
            self.class_button,
            self.view_button,
            self.features_button,
            self.fit_button,
        ):
            widget.setEnabled(mapped)
        self.clear_button.setEnabled(chosen)
        self.similar_button.setEnabled(chosen and not self.is_running)

    def _follow(self, event: object = None) -> None:
        """Take the selected layer of classes, else keep the last, else take the topmost."""
        chosen = followed_layer(self._viewer, self._layer)
        self._colours.list_choices()
        if chosen != self._layer:
            if isinstance(self._layer, Points):
                self._layer.selected_data.events.items_changed.disconnect(self._take_points)
            self._layer = chosen
            if isinstance(chosen, Points):
                chosen.selected_data.events.items_changed.connect(self._take_points)
        if chosen is None:
            self._say(no_results(self._viewer))
        elif self.mapped is None or self.mapped.layer != chosen:
            missing = any(each.embeddings is None for each in results_of(chosen))
            more = " Its embeddings are not kept and will be computed first." if missing else ""
            self._say(f"{chosen.name}: press 'Draw map'.{more}")
        self._show_buttons()

    def _paint_theme(self, event: object = None) -> None:
        canvas = get_theme(self._viewer.theme).canvas
        self.scatter.paint_background(QColor(canvas.as_hex()))

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
        self.selection_text.setText(mapped.describe_all(tiles))
        self._show_buttons()

    def select_class(self) -> None:
        """Select the tiles of the class that is chosen."""
        if self.mapped is not None:
            self.select(self._colours.chosen_tiles)

    def select_in_view(self) -> None:
        """Select the tile that is nearest to the middle of the view."""
        mapped = self.mapped
        if mapped is None or mapped.plane is None:
            self._say(CLOSED, is_error=True)
            return
        layer = mapped.plane.layer
        world = np.array(self._viewer.dims.point, float)
        world[-2:] = self._viewer.scene.camera.center[-2:]
        place = np.asarray(layer.world_to_data(world[-layer.ndim :]))[-2:]
        self.select(np.array([mapped.nearest_to(place)]))

    def go_to(self, tile: int) -> None:
        """Bring a tile to the middle of the view, and tell what it is."""
        mapped = self.mapped
        if mapped is None:
            return
        self.selection_text.setText(f"{mapped.describe(tile)}.")
        if mapped.plane is None or mapped.plane.layer not in self._viewer.layers:
            self._say(CLOSED, is_error=True)
            return
        place = (*mapped.plane.index, *mapped.middles[tile])
        side = float(mapped.places[tile, 2])
        look_at(self._viewer, mapped.plane.layer, place, side=side)

    def find_similar(self) -> None:
        """Rank tiles by their distance to the selected ones, in a thread."""
        if self.mapped is None or not len(self.selected):
            return
        self._say("Comparing ...")
        count = self.how_many.value()
        self._run(iter_similar, self.mapped.results, self.selected, count)

    def _show_similar(self, found: Similar) -> None:
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

        self._selecting.ask(points_within, take, points, [corners])

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
        mapped = self.mapped
        if mapped is not None and mapped.layer == self._layer:
            chosen = np.array(sorted(self._layer.selected_data), np.intp)
            tiles = chosen - first_point_of(mapped.layer, mapped.results)
            self.select(tiles[(tiles >= 0) & (tiles < len(mapped.results))])

    # ---- regions -----------------------------------------------------------------------------

    def _take_region(self) -> None:
        mapped, layer = self.mapped, self.regions.layer
        if mapped is None or layer is None or not len(layer.data):
            return
        if mapped.plane is None:
            self._say(CLOSED, is_error=True)
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

        self._selecting.ask(points_within, take, mapped.middles, polygons)

    # ---- pictures -----------------------------------------------------------------------------

    def _ask_pictures(self, tiles: NDArray[np.intp], captions: Sequence[str]) -> None:
        mapped = self.mapped
        first = tiles[:MOST].tolist()
        if not first:
            self._picturing.forget()
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
        self._picturing.ask(or_sentence, take, _pictures_of, mapped.plane, chosen)

    # ---- features ----------------------------------------------------------------------------

    def write_features(self) -> None:
        """Give the layer of classes, or a Points layer, the coordinates of its tiles."""
        mapped = self.mapped
        if mapped is None:
            return
        tiles = tiles_of_features(mapped.layer, mapped.results)
        if tiles is None and mapped.plane is None:
            self._say(CLOSED, is_error=True)
            return
        kept = None if tiles is None else mapped.layer.features
        with_embeddings = self.all_columns.isChecked()
        self._writing.ask(features_of, self._take_features, mapped, kept, with_embeddings)

    def _take_features(self, features: pd.DataFrame | Points) -> None:
        layer = self.mapped.layer
        if isinstance(features, Points):
            layer = self._points_with(features)
        else:
            layer.features = features
        count = sum(str(name).startswith(("map_", "embedding_")) for name in layer.features)
        rows = len(layer.features)
        self._say(f"Layer {layer.name!r} has {count} more features for {rows:,} tiles.")

    def _points_with(self, new: Points) -> Points:
        """Add points on tiles; where they were added before, those get their features.

        To remove a layer takes napari a quarter of a second and more: it collects garbage.
        """
        layers = self._viewer.layers
        for layer in layers:
            is_of_name = isinstance(layer, Points) and layer.name == new.name
            if is_of_name and np.array_equal(layer.data, new.data):
                layer.features = new.features
                layer.metadata = {**layer.metadata, **new.metadata}
                return layer
        active = layers.selection.active
        self._viewer.add_layer(new)
        layers.selection.active = active
        return new


def _pictures_of(plane: LayerPlane, tiles: Sequence[Tile]) -> list[NDArray[np.uint8]]:
    return [picture_of_tile(plane, tile, side=SIDE) for tile in tiles]
