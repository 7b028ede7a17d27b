"""The Embedding map in a real window: real cells, the bundled weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from napari.utils.interactions import mouse_press_callbacks, mouse_release_callbacks
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QApplication, QComboBox

from napari_mambamic import classify_layer
from napari_mambamic._napari.embedding_map_panel import EmbeddingMapPanel
from napari_mambamic._napari.from_layer import plane_of_layer
from napari_mambamic._napari.map_features import tiles_of_features
from napari_mambamic._napari.to_layers import ResultLayers
from napari_mambamic.classify import classify_image
from napari_mambamic.embeddings import iter_embeddings
from napari_mambamic.errors import EmbeddingError
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import ObjectTiles, plan_tiles, tiles_at_points, tiles_of_objects

NAMES = ("a", "b", "c")
BOX = [(-1, -1), (-1, 29), (19, 29), (19, -1)]  # around six tiles


@pytest.fixture
def cells_layer(viewer, sheet):
    """Three rows of cells: basophils, eosinophils, erythroblasts."""
    return viewer.add_image(sheet[:288], name="cells", rgb=True)


@pytest.fixture
def map_panel(viewer, qtbot):
    widget = EmbeddingMapPanel(viewer)
    viewer.window.add_dock_widget(widget, area="right")
    yield widget
    if widget.is_running:
        widget.cancel()
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=60_000)


@pytest.fixture
def settle(map_panel, qtbot):
    """Wait until the panel shows what was asked for."""

    def wait():
        qtbot.waitUntil(lambda: not map_panel.is_busy, timeout=120_000)

    return wait


@pytest.fixture
def draw(map_panel, settle):
    def press():
        map_panel.run_button.click()
        settle()
        assert map_panel.mapped is not None, map_panel.message.text()

    return press


@pytest.fixture
def made_up(viewer):
    """Results whose embeddings are in three heaps, by turns, shown on an image of zeros."""

    def add(tiles=None, *, shape=(60, 80), objects=None, seed=0, image=None, **place):
        tiles = plan_tiles(shape, tile_size=10) if tiles is None else tiles
        layer = image or viewer.add_image(np.zeros(shape, np.uint8), name="image", **place)
        rng = np.random.default_rng(seed)
        of = np.arange(len(tiles)) % 3
        embeddings = rng.normal(scale=0.05, size=(len(tiles), 4)).astype(np.float32)
        embeddings[np.arange(len(tiles)), of] += 1
        shares = np.full((len(tiles), 3), 0.1, np.float32)
        shares[np.arange(len(tiles)), of] = 0.8
        planes = [plane_of_layer(viewer, layer)]
        provenance = {
            "image": {"name": layer.name},
            "weights": {"name": "made up"},
            "layer": {"plane": list(planes[0].index)},
            "settings": {},
        }
        results = TileResults(NAMES, tiles, shares, embeddings, provenance)
        shown = ResultLayers(viewer, planes, results, objects=objects)
        return layer, shown.main, results

    return add


class Click:
    """What napari tells of a mouse button at a place of the world."""

    def __init__(self, position, modifiers=()):
        self.position, self.modifiers = position, modifiers
        self.button, self.type, self.handled = 1, "mouse_press", False
        self.dims_displayed, self.view_direction, self.pos = (0, 1), None, (0, 0)


def click(viewer, world, modifiers=()):
    event = Click(world, modifiers)
    mouse_press_callbacks(viewer, event)
    event.type = "mouse_release"
    mouse_release_callbacks(viewer, event)


def drag(panel, qtbot, corners, modifier=Qt.KeyboardModifier.NoModifier):
    """Draw with the real mouse through places (x, y) of the canvas."""
    native = panel.scatter.canvas.native
    points = [QPoint(*map(round, corner)) for corner in corners]
    left = Qt.MouseButton.LeftButton
    qtbot.mousePress(native, left, modifier, points[0])
    for point in points[1:]:
        # qtbot.mouseMove only moves the cursor, which a window that is not shown does not hear.
        qtbot.wait(15)  # vispy takes one move in 10 ms
        place = QPointF(point)
        kind, none = QEvent.Type.MouseMove, Qt.MouseButton.NoButton
        event = QMouseEvent(kind, place, QPointF(native.mapToGlobal(point)), none, left, modifier)
        QApplication.sendEvent(native, event)
    qtbot.mouseRelease(native, left, modifier, points[-1])


def test_the_map_of_real_cells_appears_and_lays_kinds_apart(
    viewer, cells_layer, map_panel, draw, classifier
):
    (layer,) = classify_layer(viewer, cells_layer, device="cpu")
    assert layer.metadata["results"].embeddings is None
    assert "will be computed" in map_panel.message.text()
    draw()
    assert "36 tiles" in map_panel.message.text()
    assert map_panel.legend.rowCount() == 8
    again = classify_image(cells_layer.data, classifier).embeddings
    np.testing.assert_allclose(layer.metadata["results"].embeddings, again, atol=1e-4)
    places = map_panel.scatter.points
    row_of = np.repeat(np.arange(3), 12)
    middles = np.array([places[row_of == row].mean(axis=0) for row in range(3)])
    nearest = np.linalg.norm(places[:, np.newaxis] - middles, axis=2).argmin(axis=1)
    assert (nearest == row_of).mean() > 0.8  # a third by chance


def test_embeddings_of_channels_of_several_layers_are_computed_again(
    viewer, map_panel, draw, sheet, classifier
):
    planes = [viewer.add_image(sheet[:192, :288, i], name=name) for i, name in enumerate("rgb")]
    (layer,) = classify_layer(viewer, planes[0], channels=planes, device="cpu")
    draw()
    expected = classify_image(sheet[:192, :288], classifier).embeddings
    np.testing.assert_allclose(layer.metadata["results"].embeddings, expected, atol=1e-4)


def test_kept_embeddings_are_those_of_the_run(viewer, cells_layer, panel, finish, classifier):
    panel.keep_embeddings.setChecked(True)
    panel.device.setCurrentText("CPU")
    panel.run_button.click()
    finish(panel)
    expected = classify_image(cells_layer.data, classifier).embeddings
    np.testing.assert_allclose(panel.results.embeddings, expected, atol=1e-4)
    panel.keep_embeddings.setChecked(False)
    panel.run_button.click()
    finish(panel)
    assert panel.results.embeddings is None


def test_similar_cells_are_mostly_of_their_own_class(viewer, cells_layer, map_panel, draw, settle):
    classify_layer(viewer, cells_layer, device="cpu", with_embeddings=True)
    draw()
    map_panel.how_many.setValue(11)
    own = []
    for tile in (3, 17, 30):
        map_panel.select(np.array([tile]))
        map_panel.similar_button.click()
        settle()
        assert len(map_panel.selected) == 11
        assert tile not in map_panel.selected
        own.append((map_panel.selected // 12 == tile // 12).mean())
    assert np.mean(own) > 0.6  # 11 of 35 by chance
    assert map_panel.strip.count() == 11
    assert "distance" in map_panel.message.text()


def test_other_weights_do_not_pass_as_those_of_the_results(cells_layer, classifier):
    results = classify_image(cells_layer.data, classifier)
    results.provenance["weights"]["sha256"] = "0" * 64
    with pytest.raises(EmbeddingError, match="have changed"):
        next(iter_embeddings(cells_layer.data, classifier, results))
    results = classify_image(cells_layer.data, classifier)
    with pytest.raises(EmbeddingError, match="Classify again"):
        next(iter_embeddings(cells_layer.data[:96], classifier, results))


def test_the_lasso_selects_exactly_the_tiles_inside(map_panel, made_up, draw, settle, qtbot):
    made_up()
    draw()
    map_panel.lasso_button.click()
    placed = map_panel.scatter.place_on_canvas(map_panel.scatter.points)
    third = placed[map_panel.mapped.labels == 1]
    low, high = third.min(axis=0) - 6, third.max(axis=0) + 6
    corners = [low, (high[0], low[1]), high, (low[0], high[1]), low]
    drag(map_panel, qtbot, corners)
    settle()
    inside = ((placed > low) & (placed < high)).all(axis=1)
    assert 0 < inside.sum() < len(placed)
    np.testing.assert_array_equal(map_panel.selected, np.flatnonzero(inside))
    assert set(np.flatnonzero(map_panel.mapped.labels == 1)) <= set(map_panel.selected)
    assert "selected" in map_panel.selection_text.text()


def test_a_lasso_with_shift_adds(map_panel, made_up, draw, settle, qtbot):
    made_up()
    draw()
    map_panel.lasso_button.click()
    placed = map_panel.scatter.place_on_canvas(map_panel.scatter.points)
    for label, modifier in (
        (0, Qt.KeyboardModifier.NoModifier),
        (2, Qt.KeyboardModifier.ShiftModifier),
    ):
        heap = placed[map_panel.mapped.labels == label]
        low, high = heap.min(axis=0) - 4, heap.max(axis=0) + 4
        drag(map_panel, qtbot, [low, (high[0], low[1]), high, (low[0], high[1]), low], modifier)
        settle()
    assert set(np.flatnonzero(map_panel.mapped.labels != 1)) <= set(map_panel.selected)


def test_dragging_without_the_lasso_moves_the_map_and_selects_nothing(
    map_panel, made_up, draw, settle, qtbot
):
    made_up()
    draw()
    before = map_panel.scatter.place_on_canvas(map_panel.scatter.points[:1])
    drag(map_panel, qtbot, [(100, 100), (110, 100), (130, 100)])
    settle()
    moved = map_panel.scatter.place_on_canvas(map_panel.scatter.points[:1]) - before
    np.testing.assert_allclose(moved[0], (30, 0), atol=0.01)
    assert not len(map_panel.selected)


def test_a_click_on_a_point_goes_to_its_tile_and_shows_it(
    viewer, map_panel, made_up, draw, settle, qtbot
):
    made_up(scale=(2, 2), translate=(5, 7))
    draw()
    point = 13
    place = map_panel.scatter.place_on_canvas(map_panel.scatter.points[[point]])[0]
    drag(map_panel, qtbot, [place, place])
    settle()
    tile = int(map_panel.selected[0])
    nearest = map_panel.scatter.place_on_canvas(map_panel.scatter.points[[tile]])[0]
    assert np.abs(nearest - place).max() < 2  # points may lie on each other
    y, x = tile // 8 * 10 + 4.5, tile % 8 * 10 + 4.5
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], (2 * y + 5, 2 * x + 7))
    assert (
        f"Tile {tile + 1}: {NAMES[tile % 3]}, probability 0.800" in map_panel.selection_text.text()
    )
    assert map_panel.strip.count() == 1


def corners_of(vectors):
    return {tuple(row) for row in np.round(vectors.data[:, 0, -2:], 6).tolist()}


def test_the_highlight_lies_on_the_tiles(viewer, map_panel, made_up, draw, settle):
    image, _, _ = made_up(scale=(2, 2), rotate=30)
    draw()
    map_panel.select(np.array([0, 9]))
    settle()
    outlines = map_panel.highlight.outlines
    assert corners_of(outlines) == {
        (y - 0.5, x - 0.5)
        for top, left in ((0, 0), (10, 10))
        for y in (top, top + 10)
        for x in (left, left + 10)
    }
    np.testing.assert_allclose(outlines.data_to_world((3, 4)), image.data_to_world((3, 4)))
    map_panel.clear_button.click()
    assert not outlines.visible


def test_many_tiles_of_a_grid_are_highlighted_pixel_by_pixel(viewer, map_panel, made_up, draw):
    made_up(shape=(250, 300))
    draw()
    map_panel.select(np.arange(600))
    area = map_panel.highlight.area
    assert area.visible
    assert area.data.shape == (25, 30)
    assert area.data.ravel()[:600].all()
    assert not area.data.ravel()[600:].any()
    world = area.data_to_world((1, 2))  # the pixel of the tile at (10, 20)
    np.testing.assert_allclose(world, (14.5, 24.5))


def test_many_objects_are_highlighted_where_they_lie(viewer, map_panel, made_up, draw):
    labels = np.zeros((400, 2000), np.int32)
    ids = np.arange(1, 801).reshape(20, 40)
    labels[10::20, 25::50] = ids
    tiles = tiles_of_objects(labels, tile_size=12)
    image = viewer.add_image(np.zeros(labels.shape, np.uint8))
    objects = viewer.add_labels(labels)
    made_up(tiles, image=image, objects=objects)
    draw()
    map_panel.select(np.arange(600))
    area = map_panel.highlight.area
    shown = np.array(
        [
            area.data[tuple(np.round(area.world_to_data(image.data_to_world((y, x)))).astype(int))]
            for y, x in tiles.centres
        ]
    )
    assert shown[:600].all()
    assert not shown[600:].any()


def test_a_click_on_the_classes_marks_the_point(viewer, map_panel, made_up, draw, settle):
    _, layer, _ = made_up(scale=(3, 3))
    draw()
    viewer.layers.selection.active = layer
    click(viewer, (3 * 25.0, 3 * 42.0))
    assert map_panel.selected.tolist() == [2 * 8 + 4]
    click(viewer, (3 * 5.0, 3 * 5.0), ["Shift"])
    assert map_panel.selected.tolist() == [0, 20]
    viewer.layers.selection.active = viewer.layers["image"]
    click(viewer, (3 * 45.0, 3 * 45.0))  # is for the image
    assert map_panel.selected.tolist() == [0, 20]
    settle()


def test_drawn_shapes_mark_their_points(viewer, map_panel, made_up, draw, settle, qtbot):
    made_up()
    shapes = viewer.add_shapes(name="region")
    draw()
    map_panel.regions.choose(shapes)
    shapes.data = [BOX]
    settle()
    assert map_panel.selected.tolist() == [0, 1, 2, 8, 9, 10]
    shapes.data = [BOX, np.add(BOX, (46, 66))]
    settle()
    assert map_panel.selected.tolist() == [0, 1, 2, 8, 9, 10, 47]


def test_selected_points_mark_the_tiles_they_lie_on(viewer, map_panel, made_up, draw, settle):
    made_up()
    points = viewer.add_points([(5, 5), (15, 72), (200, 200)], name="seen")
    draw()
    map_panel.regions.choose(points)
    points.selected_data = {1, 2}
    settle()
    assert map_panel.selected.tolist() == [15]


def test_points_that_were_classified_mark_themselves(viewer, map_panel, made_up, draw, settle):
    where = np.array([(10.0, 10.0), (20.0, 50.0), (40.0, 30.0), (50.0, 70.0)])
    image = viewer.add_image(np.zeros((60, 80), np.uint8))
    tiles = tiles_at_points(where, tile_size=10)
    _, layer, _ = made_up(tiles, image=image, objects=viewer.add_points(where))
    draw()
    layer.selected_data = {1, 3}
    assert map_panel.selected.tolist() == [1, 3]
    settle()


def test_a_tile_of_a_stack_is_shown_in_its_plane(viewer, map_panel, made_up, draw, settle):
    stack = viewer.add_image(np.zeros((4, 60, 80), np.uint8), scale=(3, 1, 1))
    viewer.dims.set_point(0, 6)
    _, layer, _ = made_up(image=stack)
    draw()
    viewer.dims.set_point(0, 0)
    viewer.layers.selection.active = layer
    click(viewer, (0.0, 5.0, 5.0))
    assert not len(map_panel.selected)  # this plane was not classified
    map_panel.go_to(9)
    assert viewer.dims.point[0] == 6
    click(viewer, (6.0, 5.0, 5.0))
    assert map_panel.selected.tolist() == [0]
    assert (map_panel.highlight.outlines.data[:, 0, 0] == 2).all()
    settle()


def test_the_map_is_coloured_by_class_probability_and_annotations(
    viewer, map_panel, made_up, draw, settle
):
    made_up()
    draw()
    by_class = map_panel.scatter._colours
    assert len(np.unique(by_class, axis=0)) == 3
    viewer.add_points(
        [(5, 5), (15, 15)], features=pd.DataFrame({"label": ["odd", "even"]}), name="mine"
    )
    map_panel.colouring.setCurrentText("mine: label")
    settle()
    colours = map_panel.scatter._colours
    assert len(np.unique(colours, axis=0)) == 3  # odd, even and nobody's
    assert not np.array_equal(colours[0], colours[9])
    assert np.array_equal(colours[1], colours[2])
    assert [map_panel.classes.itemText(i) for i in range(2)] == ["even", "odd"]
    map_panel.classes.setCurrentText("odd")
    map_panel.class_button.click()
    assert map_panel.selected.tolist() == [0]
    map_panel.colouring.setCurrentText("probability")
    assert len(np.unique(map_panel.scatter._colours, axis=0)) == 1
    assert map_panel.ramp.isVisibleTo(map_panel)
    viewer.layers.remove("mine")
    map_panel.colouring.setCurrentText("class")
    np.testing.assert_array_equal(map_panel.scatter._colours, by_class)
    settle()


def test_tiles_are_selected_without_a_mouse(viewer, map_panel, made_up, draw, settle, qtbot):
    made_up()
    draw()
    map_panel.classes.setCurrentText("c")
    map_panel.class_button.setFocus()
    qtbot.keyClick(map_panel.class_button, Qt.Key.Key_Space)
    assert map_panel.selected.tolist() == list(range(2, 48, 3))
    viewer.scene.camera.center = (34, 76)
    qtbot.keyClick(map_panel.view_button, Qt.Key.Key_Space)
    assert map_panel.selected.tolist() == [3 * 8 + 7]
    qtbot.keyClick(map_panel.similar_button, Qt.Key.Key_Space)
    settle()
    assert set(map_panel.selected[:15] % 3) == {31 % 3}
    before = viewer.scene.camera.center
    map_panel.strip.setCurrentRow(1)
    qtbot.keyClick(map_panel.strip, Qt.Key.Key_Return)
    assert viewer.scene.camera.center != before
    settle()


def test_keys_move_and_zoom_the_map(map_panel, made_up, draw, qtbot):
    made_up()
    draw()
    scatter = map_panel.scatter
    home = scatter.place_on_canvas(scatter.points)
    native = scatter.canvas.native
    qtbot.keyClick(native, Qt.Key.Key_Right)
    assert (scatter.place_on_canvas(scatter.points)[:, 0] < home[:, 0]).all()
    qtbot.keyClicks(native, "+")
    assert np.ptp(scatter.place_on_canvas(scatter.points)[:, 0]) > 1.1 * np.ptp(home[:, 0])
    qtbot.keyClicks(native, "0")
    np.testing.assert_allclose(scatter.place_on_canvas(scatter.points), home, atol=0.5)


def test_every_input_has_a_name_and_a_tooltip(map_panel):
    kinds = (QAbstractButton, QComboBox, QAbstractSpinBox)
    inputs = [
        w
        for kind in kinds
        for w in map_panel.findChildren(kind)
        if not w.objectName().startswith("qt_")
    ]
    assert len(inputs) > 12
    for widget in inputs:
        assert widget.toolTip(), widget
        assert widget.accessibleName() or widget.text(), widget
    assert map_panel.scatter.canvas.native.accessibleName()
    assert map_panel.strip.accessibleName()


def test_features_get_the_map_of_each_tile(map_panel, made_up, draw, settle):
    _, layer, results = made_up()
    draw()
    map_panel.features_button.click()
    settle()
    assert list(layer.features) == ["index", "class", "probability", "map_1", "map_2"]
    np.testing.assert_array_equal(layer.features[["map_1", "map_2"]], map_panel.scatter.points)
    map_panel.all_columns.setChecked(True)
    map_panel.features_button.click()
    settle()
    names = [f"embedding_{i}" for i in range(4)]
    np.testing.assert_array_equal(layer.features[names], results.embeddings)
    assert list(layer.features)[3:] == ["map_1", "map_2", *names]


def test_features_of_objects_are_of_their_own_tile(viewer, map_panel, made_up, draw, settle):
    labels = np.zeros((60, 80), np.int32)
    labels[5, 5], labels[5, 30], labels[40, 40], labels[50, 70] = 9, 2, 7, 4
    laid = tiles_of_objects(labels, tile_size=10)
    turned = [2, 0, 3, 1]  # objects need not be in the order of their numbers
    tiles = ObjectTiles(
        tuple(laid[i] for i in turned), laid.object_ids[turned], laid.centres[turned]
    )
    image = viewer.add_image(np.zeros(labels.shape, np.uint8))
    _, layer, results = made_up(tiles, image=image, objects=viewer.add_labels(labels))
    draw()
    map_panel.all_columns.setChecked(True)
    map_panel.features_button.click()
    settle()
    for number, tile in zip(
        layer.features["index"], tiles_of_features(layer, results), strict=True
    ):
        assert results.object_ids[tile] == number
        row = layer.features[layer.features["index"] == number]
        assert row["embedding_0"].item() == results.embeddings[tile, 0]


def test_where_pixels_name_classes_a_points_layer_gets_the_features(
    viewer, map_panel, made_up, draw, settle
):
    made_up(shape=(600, 500), scale=(2, 2))  # 3,000 tiles
    draw()
    map_panel.features_button.click()
    settle()
    (points,) = [layer for layer in viewer.layers if "tiles" in layer.name]
    points.features = {}
    map_panel.features_button.click()
    settle()
    # The same again: napari holds the window to remove a layer.
    assert [layer for layer in viewer.layers if "tiles" in layer.name] == [points]
    assert len(points.data) == 3000
    assert list(points.features) == ["tile", "class", "probability", "map_1", "map_2"]
    np.testing.assert_array_equal(points.features[["map_1", "map_2"]], map_panel.scatter.points)
    np.testing.assert_allclose(points.data_to_world(points.data[51]), (2 * 14.5, 2 * 14.5))
    settle()


def test_features_leave_another_layer_of_that_name_alone(viewer, map_panel, made_up, draw, settle):
    _, layer, _ = made_up(shape=(600, 500))
    draw()
    mine = viewer.add_points([(1, 1)], name=f"{layer.name} tiles")
    map_panel.features_button.click()
    settle()
    assert mine in viewer.layers
    assert [len(each.data) for each in viewer.layers if "tiles" in each.name] == [1, 3000]


def test_a_layer_without_embeddings_whose_image_is_closed_says_so(
    viewer, map_panel, made_up, settle
):
    image, layer, results = made_up()
    results.embeddings = None
    viewer.layers.remove(image)
    map_panel.run_button.click()
    settle()
    assert map_panel.mapped is None
    assert "closed" in map_panel.message.text()
    assert layer in viewer.layers


def test_without_results_the_panel_says_what_to_do(map_panel):
    assert "press Classify" in map_panel.message.text()
    assert not map_panel.run_button.isEnabled()


def test_the_panel_opens_from_the_menu_and_hears_clicks(viewer, made_up, qtbot):
    _, layer, _ = made_up()
    _, widget = viewer.window.add_plugin_dock_widget("napari-mambamic", "Embedding map")
    widget.run_button.click()
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=60_000)
    viewer.layers.selection.active = layer
    click(viewer, (5.0, 15.0))
    assert widget.selected.tolist() == [1]
    widget.find_similar()
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=60_000)
    assert len(widget.selected) == 47
