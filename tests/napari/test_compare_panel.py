"""The Compare runs panel in a real window."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from napari.layers import Labels, Points
from qtpy.QtWidgets import QComboBox, QFileDialog, QPushButton, QTableWidget

from napari_mambamic._napari.compare_panel import ComparePanel
from napari_mambamic._napari.from_layer import plane_of_layer
from napari_mambamic._napari.to_layers import ResultLayers
from napari_mambamic.colours import class_colours
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import plan_tiles, tiles_at_points, tiles_of_objects

NAMES = ("round", "long", "odd")


def results_on(layer, tiles, labels, *, names=NAMES, sure=None, plane=()):
    labels = np.resize(labels, len(tiles))
    sure = np.linspace(0.5, 0.9, len(tiles)) if sure is None else np.asarray(sure)
    rest = (1 - sure) / (len(names) - 1)
    shares = np.repeat(rest[:, np.newaxis], len(names), axis=1).astype(np.float32)
    shares[np.arange(len(tiles)), labels] = sure
    provenance = {
        "image": {"name": layer.name, "plane_shape": [40, 60]},
        "layer": {"name": layer.name, "plane": list(plane)},
        "settings": {"cut": "tiles"},
    }
    return TileResults(names, tiles, shares, None, provenance)


@pytest.fixture
def compare(docked):
    return docked(ComparePanel)


@pytest.fixture
def image(viewer):
    return viewer.add_image(
        np.full((40, 60), 90, np.uint8), name="cells", scale=(2, 2), translate=(10, 30)
    )


@pytest.fixture
def two_runs(viewer, image):
    """Layers of six tiles: they disagree on the tiles 1 and 5."""
    tiles = plan_tiles((40, 60), tile_size=20)
    plane = [plane_of_layer(viewer, image)]
    first = results_on(image, tiles, [0, 0, 1, 1, 2, 2])
    second = results_on(image, tiles, [0, 1, 1, 1, 2, 0])
    a = ResultLayers(viewer, plane, first, name="before").main
    b = ResultLayers(viewer, plane, second, name="after").main
    return a, b


def run(panel, a, b, finish):
    panel.first.choose(a)
    panel.second.choose(b)
    panel.run_button.click()
    finish(panel)


def texts(table):
    return [
        [table.item(y, x).text() for x in range(table.columnCount())]
        for y in range(table.rowCount())
    ]


def colour_of(layer, value):
    return layer.colormap.map(np.array([value], layer.data.dtype))[0]


def swatch_of(heading):
    return heading.icon().pixmap(12, 12).toImage().pixelColor(6, 6).getRgbF()


def test_without_two_runs_a_sentence_says_what_to_do(compare, viewer, image):
    compare.run_button.click()
    assert "There are not two layers of classes. Press Classify" in compare.message.text()
    tiles = plan_tiles((40, 60), tile_size=20)
    ResultLayers(viewer, [plane_of_layer(viewer, image)], results_on(image, tiles, [0]))
    compare.run_button.click()
    assert "Both runs are the same layer" in compare.message.text()


def test_the_table_counts_pairs_in_the_colours_of_the_classes(compare, two_runs, finish):
    run(compare, *two_runs, finish)
    assert "4 of 6 tiles agree (66.7%), Cohen's kappa 0.500." in compare.message.text()
    assert texts(compare.table) == [["1", "1", ""], ["", "2", ""], ["1", "", "1"]]
    for i, colour in enumerate(class_colours(3)):
        for heading in (
            compare.table.horizontalHeaderItem(i),
            compare.table.verticalHeaderItem(i),
        ):
            assert heading.text() == NAMES[i]
            np.testing.assert_allclose(swatch_of(heading), colour, atol=0.01)


def test_an_image_that_was_renamed_is_the_same_image(compare, viewer, image, finish):
    tiles = plan_tiles((40, 60), tile_size=20)
    layers = []
    for name in ("cells", "patient 7"):
        image.name = name
        results = results_on(image, tiles, [0, 1])
        layers.append(
            ResultLayers(viewer, [plane_of_layer(viewer, image)], results, name=f"of {name}").main
        )
    run(compare, *layers, finish)
    assert "6 of 6 tiles agree" in compare.message.text()


def test_a_class_has_one_colour_whatever_its_place_in_the_weights(compare, viewer, image, finish):
    tiles = plan_tiles((40, 60), tile_size=20)
    plane = [plane_of_layer(viewer, image)]
    others = ("odd", "flat", "round")
    first = results_on(image, tiles, [0, 1, 2, 0, 1, 2])
    second = results_on(image, tiles, [2, 1, 0, 2, 1, 0], names=others)
    a = ResultLayers(viewer, plane, first, name="a").main
    b = ResultLayers(viewer, plane, second, name="b").main
    # round and odd: the same in both layers; long and flat: two colours.
    for value in (1, 3):
        np.testing.assert_array_equal(colour_of(a, value), colour_of(b, value))
    assert len({tuple(colour_of(layer, value)) for layer in (a, b) for value in (1, 2, 3)}) == 4
    run(compare, a, b, finish)
    table = compare.table
    rows, columns = (
        {head(i).text(): swatch_of(head(i)) for i in range(n)}
        for head, n in (
            (table.verticalHeaderItem, table.rowCount()),
            (table.horizontalHeaderItem, table.columnCount()),
        )
    )
    # What both have is at the same place, so that the diagonal is what agrees.
    assert (list(rows), list(columns)) == (["round", "long", "odd"], ["round", "odd", "flat"])
    assert texts(table) == [["2", "", ""], ["", "", "2"], ["", "2", ""]]
    for name, value in (("round", 1), ("long", 2), ("odd", 3)):
        np.testing.assert_allclose(rows[name], colour_of(a, value), atol=0.01)
    for name, value in (("round", 1), ("flat", 2), ("odd", 3)):
        np.testing.assert_allclose(columns[name], colour_of(b, value), atol=0.01)
    table.cellClicked.emit(1, 2)
    assert "1 of 2: long" in compare.where.text()
    assert "flat" in compare.where.text()


def test_names_of_classes_are_whole_at_the_width_of_a_dock(compare, viewer, image, finish):
    names = ("immature granulocyte", "erythroblast", "eosinophil", "lymphocyte", "x" * 60)
    tiles = plan_tiles((40, 60), tile_size=20)
    plane = [plane_of_layer(viewer, image)]
    a, b = (
        ResultLayers(viewer, plane, results_on(image, tiles, labels, names=names)).main
        for labels in ([0, 1, 2], [0, 1, 3])
    )
    compare.resize(400, 600)
    run(compare, a, b, finish)
    header = compare.table.horizontalHeader()
    for i, name in enumerate(names):
        swatch_and_name = header.fontMetrics().horizontalAdvance(name) + 30
        assert len(name) > 25 or header.height() >= swatch_and_name, name
        assert compare.table.horizontalHeaderItem(i).toolTip() == name


def test_the_layer_shows_disagreements_where_the_tiles_are(compare, viewer, two_runs, finish):
    run(compare, *two_runs, finish)
    layer = viewer.layers["before vs after"]
    assert isinstance(layer, Labels)
    np.testing.assert_allclose(layer.extent.world, two_runs[0].extent.world)
    strong = [colour_of(layer, value)[3] > 0.5 for value in range(1, 7)]
    assert strong == [False, True, False, False, False, True]
    assert 0 < colour_of(layer, 1)[3] < 0.3
    row = layer.features.set_index("index").loc[2]
    assert (row["class a"], row["class b"], bool(row["agree"])) == ("round", "long", False)
    assert not two_runs[0].visible


def test_a_new_run_hides_what_was_compared_on_its_image(compare, viewer, image, two_runs, finish):
    run(compare, *two_runs, finish)
    other = viewer.add_image(np.zeros((40, 60), np.uint8), name="other")
    for layer, visible in ((other, True), (image, False)):
        results = results_on(layer, two_runs[0].metadata["results"].tiles, [0])
        ResultLayers(viewer, [plane_of_layer(viewer, layer)], results).hide_earlier()
        assert viewer.layers["before vs after"].visible == visible


def test_a_click_on_a_cell_highlights_its_tiles_and_goes_there(
    compare, viewer, two_runs, image, finish
):
    run(compare, *two_runs, finish)
    compare.table.cellClicked.emit(2, 0)
    layer = viewer.layers["before vs after"]
    chosen, other = colour_of(layer, 6), colour_of(layer, 2)
    assert chosen[3] > 0.9
    assert 0.2 < other[3] < 0.4
    assert "1 of 1: odd (0.90) in the first run, round (0.90)" in compare.where.text()
    # The middle of the tile at (20, 40) of 20 px, in the world of the image.
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], image.data_to_world((29.5, 49.5)))
    compare.table.cellClicked.emit(0, 2)
    assert compare.where.text() == "There is no such tile."
    assert not compare.next_button.isEnabled()


def test_next_and_previous_go_from_the_surest_to_the_least_sure(
    compare, viewer, two_runs, image, finish
):
    run(compare, *two_runs, finish)
    compare.all_button.click()
    assert "1 of 2: odd" in compare.where.text()
    compare.next_button.click()
    assert "2 of 2: round" in compare.where.text()
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], image.data_to_world((9.5, 29.5)))
    compare.next_button.click()
    assert "1 of 2: odd" in compare.where.text()
    compare.previous_button.click()
    assert "2 of 2: round" in compare.where.text()


def test_objects_are_coloured_as_they_are(compare, viewer, image, finish):
    data = np.zeros((40, 60), np.int32)
    data[5:10, 5:12], data[20:30, 20:40] = 4, 9
    objects = viewer.add_labels(data, scale=(2, 2), translate=(10, 30))
    tiles = tiles_of_objects(data, tile_size=12)
    a, b = (
        ResultLayers(
            viewer,
            [plane_of_layer(viewer, image)],
            results_on(image, tiles, labels),
            objects=objects,
            name=name,
        ).main
        for name, labels in (("a", [0, 1]), ("b", [0, 2]))
    )
    run(compare, a, b, finish)
    layer = viewer.layers["a vs b"]
    np.testing.assert_array_equal(layer.data, data)
    assert colour_of(layer, 4)[3] < 0.3
    assert colour_of(layer, 9)[3] > 0.5
    assert layer.features["index"].tolist() == [4, 9]
    compare.table.cellClicked.emit(1, 2)
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], image.data_to_world((24.5, 29.5)))


def test_points_are_coloured(compare, viewer, image, finish):
    points = viewer.add_points([(9, 9), (20, 40)], scale=(2, 2), translate=(10, 30))
    tiles = tiles_at_points(points.data, tile_size=12)
    a, b = (
        ResultLayers(
            viewer,
            [plane_of_layer(viewer, image)],
            results_on(image, tiles, labels),
            objects=points,
            name=name,
        ).main
        for name, labels in (("a", [0, 1]), ("b", [0, 2]))
    )
    run(compare, a, b, finish)
    layer = viewer.layers["a vs b"]
    assert isinstance(layer, Points)
    assert layer.face_color[0, 3] < 0.3 < 0.5 < layer.face_color[1, 3]
    assert layer.features["class b"].tolist() == ["round", "odd"]
    compare.all_button.click()
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], image.data_to_world((20, 40)))


def test_many_tiles_are_coloured_by_whether_they_agree(compare, viewer, finish):
    image = viewer.add_image(np.zeros((200, 200), np.uint8), name="many")
    tiles = plan_tiles((200, 200), tile_size=2)
    plane = [plane_of_layer(viewer, image)]
    a = ResultLayers(viewer, plane, results_on(image, tiles, [0, 1]), name="a").main
    b = ResultLayers(viewer, plane, results_on(image, tiles, [0, 1, 0, 0]), name="b").main
    run(compare, a, b, finish)
    layer = viewer.layers["a vs b"]
    assert np.asarray(layer.data)[0, :4].tolist() == [1, 1, 1, 2]
    assert layer.features["tiles"].tolist() == [7500, 2500, 0]
    compare.table.cellClicked.emit(1, 0)
    assert np.asarray(layer.data)[0, :4].tolist() == [1, 1, 1, 3]
    assert layer.features["tiles"].tolist() == [7500, 0, 2500]


def test_runs_of_other_tiles_get_the_sentence_of_the_core(compare, viewer, image, finish):
    plane = [plane_of_layer(viewer, image)]
    a, b = (
        ResultLayers(
            viewer, plane, results_on(image, plan_tiles((40, 60), tile_size=size), [0])
        ).main
        for size in (20, 10)
    )
    run(compare, a, b, finish)
    assert "The runs have different tiles: 6 of 20 px and 24 of 10 px" in compare.message.text()
    assert compare.table.isHidden()


def test_a_stack_gets_a_sentence(compare, viewer, finish):
    image = viewer.add_image(np.zeros((3, 40, 60), np.uint8))
    planes = [plane_of_layer(viewer, image, index=(i,)) for i in (0, 1)]
    tiles = plan_tiles((40, 60), tile_size=20)
    shown = ResultLayers(viewer, planes, results_on(image, tiles, [0], plane=(0,)))
    shown.finish(results_on(image, tiles, [0], plane=(1,)), plane=1)
    compare.run_button.click()
    assert "shows 2 planes" in compare.message.text()


def test_a_second_comparison_replaces_the_layer_and_a_deleted_one_is_left_alone(
    compare, viewer, two_runs, finish
):
    run(compare, *two_runs, finish)
    run(compare, *two_runs, finish)
    assert [layer.name for layer in viewer.layers].count("before vs after") == 1
    viewer.layers.remove("before vs after")
    compare.table.cellClicked.emit(2, 0)
    assert "1 of 1: odd" in compare.where.text()


def test_the_comparison_is_no_input_of_other_panels(compare, viewer, two_runs, panel, finish):
    run(compare, *two_runs, finish)
    assert panel.labels.findText("before vs after") == -1


def test_the_table_is_saved(compare, two_runs, finish, tmp_path, monkeypatch):
    run(compare, *two_runs, finish)
    path = tmp_path / "c.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *args: (str(path), ""))
    compare.save_button.click()
    assert compare.message.text() == f"Saved {path}"
    with open(path, newline="", encoding="utf-8") as file:
        assert [row["tile"] for row in csv.DictReader(file)][:2] == ["5", "1"]
    compare.save_table(str(tmp_path / "none" / "c.csv"))
    assert "There is no folder" in compare.message.text()


def test_it_opens_from_the_menu_and_every_control_says_what_it_is(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("napari-mambamic", "Compare runs")
    for kind in (QPushButton, QComboBox, QTableWidget):
        for control in widget.findChildren(kind):
            assert control.toolTip() or control.accessibleName(), control
    assert widget.first.accessibleName() == "First run"
