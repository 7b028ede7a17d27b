"""The Results table in a real window."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QFileDialog, QPushButton, QTableView

from napari_mambamic import summarise
from napari_mambamic._napari.from_layer import plane_of_layer
from napari_mambamic._napari.results_table import ResultsTable
from napari_mambamic._napari.to_layers import ResultLayers
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import plan_tiles, tiles_of_objects

NAMES = ("Basophil", "lymphocyte", "monocyte")
LEFT = [(-1, -1), (-1, 19.6), (40, 19.6), (40, -1)]  # the two columns of tiles on the left
RIGHT = [(-1, 19.6), (-1, 60), (40, 60), (40, 19.6)]


def results_on(layer, tiles, *, plane=(), labels=None, pixel_size_um=None):
    """Results with the classes of a list, by turns, more and more certain."""
    labels = np.resize([2, 0, 0, 1, 2, 2] if labels is None else labels, len(tiles))
    shares = np.full((len(tiles), 3), 0.1, np.float32)
    shares[np.arange(len(tiles)), labels] = np.linspace(0.4, 0.8, len(tiles))
    provenance = {
        "image": {"name": layer.name, "plane_shape": [40, 60], "pixel_size_um": pixel_size_um},
        "layer": {"name": layer.name, "plane": list(plane), "objects": None},
        "settings": {"cut": "tiles"},
    }
    return TileResults(NAMES, tiles, shares, None, provenance)


@pytest.fixture
def table(viewer, qtbot):
    widget = ResultsTable(viewer)
    viewer.window.add_dock_widget(widget)
    yield widget
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=30_000)


@pytest.fixture
def settled(table, qtbot):
    """Wait until the table is what the layers are; its texts, as they are shown."""

    def texts():
        qtbot.waitUntil(lambda: not table.is_busy, timeout=30_000)
        model = table.sorted
        return [
            [model.index(row, column).data() for column in range(model.columnCount())]
            for row in range(model.rowCount())
        ]

    return texts


@pytest.fixture
def image(viewer):
    return viewer.add_image(np.full((40, 60), 90, np.uint8), name="cells")


@pytest.fixture
def classes(viewer, image):
    """A layer of 24 tiles of 10 px, selected."""
    results = results_on(image, plan_tiles((40, 60), tile_size=10), pixel_size_um=[0.5, 0.5])
    return ResultLayers(viewer, [plane_of_layer(viewer, image)], results)


def headings(table):
    model = table.sorted
    return [model.headerData(i, Qt.Orientation.Horizontal) for i in range(model.columnCount())]


def test_without_results_a_sentence_says_what_to_do(table, settled, viewer, image):
    assert settled() == []
    assert table.message.text().startswith("No results yet. Press Classify")
    assert table.table.isHidden()
    assert not table.save_button.isEnabled()


def test_the_table_is_the_summary_in_words(table, settled, classes):
    rows = settled()
    expected = summarise(classes.main.metadata["results"]).rows
    assert headings(table)[1:] == ["class", "tiles", "share", "area (µm²)", "probability", "unsure"]
    assert [row[1:5] for row in rows] == [
        ["Basophil", "8", "33.3%", "200"],
        ["lymphocyte", "4", "16.7%", "100"],
        ["monocyte", "12", "50.0%", "300"],
    ]
    assert [row[5] for row in rows] == [f"{row.mean_probability:.3f}" for row in expected]
    assert table.table.isColumnHidden(0)
    assert table.message.text() == "cells classes: 24 of 24 tiles are classified."


def test_only_the_column_of_the_order_has_room_for_its_arrow(table, settled, classes):
    settled()
    header = table.table.horizontalHeader()
    before = header.sectionSizeHint(2)
    table.table.sortByColumn(2, Qt.SortOrder.AscendingOrder)
    assert before < header.sectionSizeHint(2) <= header.sectionSize(2)
    table.table.sortByColumn(3, Qt.SortOrder.AscendingOrder)
    assert header.sectionSizeHint(2) == before


def test_a_click_on_a_heading_sorts_by_value(table, settled, classes):
    settled()
    for column, order in ((1, "Blm"), (2, "lBm"), (3, "lBm"), (4, "lBm"), (5, None)):
        table.table.sortByColumn(column, Qt.SortOrder.AscendingOrder)
        rows = settled()
        if order is not None:
            assert "".join(row[1][0] for row in rows) == order, column
        else:
            assert sorted(row[5] for row in rows) == [row[5] for row in rows]
        table.table.sortByColumn(column, Qt.SortOrder.DescendingOrder)
        assert settled() == rows[::-1], column


def test_numbers_are_sorted_as_numbers_and_stay_sorted_while_a_run_goes_on(
    table, settled, viewer, image
):
    tiles = plan_tiles((40, 60), tile_size=2)  # 600
    results = results_on(image, tiles, labels=[0] * 3 + [1] * 13 + [2] * 4)
    everything = results.probabilities.copy()
    results.probabilities[3:] = np.nan
    results.complete = False
    shown = ResultLayers(viewer, [plane_of_layer(viewer, image)], results)
    settled()
    table.table.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    assert [row[2] for row in settled()] == ["3", "0", "0"]
    assert [row[5] for row in settled()][1:] == ["n/a", "n/a"]
    assert "3 of 600" in table.message.text()
    results.probabilities[:] = everything
    shown.update(results)
    assert [row[1:3] for row in settled()] == [
        ["lymphocyte", "390"],
        ["monocyte", "120"],
        ["Basophil", "90"],
    ]


def test_shapes_are_regions_and_follow_their_edits(table, settled, viewer, classes):
    shapes = viewer.add_shapes([LEFT, RIGHT], shape_type="polygon", name="here")
    table.regions.choose(shapes)
    rows = settled()
    assert not table.table.isColumnHidden(0)
    assert [row[0] for row in rows] == ["shape 1"] * 3 + ["shape 2"] * 3
    assert [row[2] for row in rows] == ["4", "0", "4", "4", "4", "8"]
    assert [row[4] for row in rows] == ["100", "0", "100", "100", "100", "200"]
    shapes.features = pd.DataFrame({"nr": [7, 8], "name": ["tumour", None]})
    assert {row[0] for row in settled()} == {"tumour", "shape 2"}
    shapes.selected_data = {1}
    shapes.remove_selected()
    assert {row[0] for row in settled()} == {"tumour"}
    shapes.data = [np.add(LEFT, (0, 10))]
    assert [row[2] for row in settled()] != [row[2] for row in rows[:3]]
    viewer.layers.remove(shapes)
    assert len(settled()) == 3
    assert table.table.isColumnHidden(0)


def test_shapes_of_one_name_are_one_region(table, settled, viewer, classes):
    features = pd.DataFrame({"name": ["tumour", "tumour"]})
    shapes = viewer.add_shapes([LEFT, RIGHT], shape_type="polygon", features=features)
    table.regions.choose(shapes)
    assert [row[:3] for row in settled()] == [
        ["tumour", "Basophil", "8"],
        ["tumour", "lymphocyte", "4"],
        ["tumour", "monocyte", "12"],
    ]


def test_regions_are_where_they_are_seen(table, settled, viewer):
    image = viewer.add_image(np.zeros((40, 60), np.uint8), scale=(3, 2), translate=(70, -9))
    results = results_on(image, plan_tiles((40, 60), tile_size=10))
    ResultLayers(viewer, [plane_of_layer(viewer, image)], results)
    world = [image.data_to_world(corner) for corner in LEFT]
    table.regions.choose(viewer.add_shapes([world], shape_type="polygon"))
    assert [row[2] for row in settled()] == ["4", "0", "4"]


def test_labels_are_regions(table, settled, viewer, classes):
    data = np.zeros((40, 60), int)
    data[:, :20], data[:, 20:40] = 5, 9
    labels = viewer.add_labels(data, name="tissue")
    table.regions.choose(labels)
    assert [row[:3] for row in settled()] == [
        ["label 5", "Basophil", "4"],
        ["label 5", "lymphocyte", "0"],
        ["label 5", "monocyte", "4"],
        ["label 9", "Basophil", "4"],
        ["label 9", "lymphocyte", "4"],
        ["label 9", "monocyte", "0"],
    ]
    labels.data = np.where(data == 5, 1, 0)
    assert {row[0] for row in settled()} == {"label 1"}


def test_areas_of_objects_are_those_of_their_labels(table, settled, viewer, image):
    data = np.zeros((40, 60), np.int32)
    data[5:10, 5:12], data[20:30, 20:40] = 4, 9
    objects = viewer.add_labels(data)
    results = results_on(image, tiles_of_objects(data, tile_size=12))
    results.provenance["settings"]["cut"] = "objects"
    ResultLayers(viewer, [plane_of_layer(viewer, image)], results, objects=objects)
    rows = settled()
    assert headings(table)[2:5] == ["objects", "share", "area (px)"]
    assert [row[4] for row in rows] == ["200", "0", "35"]


def test_areas_of_objects_are_known_in_every_plane_of_a_stack(table, settled, viewer):
    data = np.zeros((3, 40, 60), np.int32)
    data[0, 5:10, 5:12], data[2, 20:30, 20:40] = 4, 9
    image, objects = viewer.add_image(np.zeros((3, 40, 60), np.uint8)), viewer.add_labels(data)
    indices = (0, 2)
    planes = [plane_of_layer(viewer, image, index=(i,)) for i in indices]
    both = [results_on(image, tiles_of_objects(data[i], tile_size=9), plane=(i,)) for i in indices]
    shown = ResultLayers(viewer, planes, both[0], objects=objects)
    for plane, results in enumerate(both):
        shown.finish(results, plane=plane)
    assert [row[4] for row in settled() if row[2] != "0"] == ["35", "200"]


def test_planes_of_a_stack_are_listed_with_their_regions(table, settled, viewer):
    image = viewer.add_image(np.zeros((3, 40, 60), np.uint8), axis_labels=("t", "y", "x"))
    planes = [plane_of_layer(viewer, image, index=(i,)) for i in (1, 2)]
    tiles = plan_tiles((40, 60), tile_size=20)
    both = [results_on(image, tiles, plane=(i,), labels=[i]) for i in (1, 2)]
    shown = ResultLayers(viewer, planes, both[0])
    shown.finish(both[0])
    shown.finish(both[1], plane=1)
    assert [row[:3] for row in settled() if row[2] != "0"] == [
        ["t = 1", "lymphocyte", "6"],
        ["t = 2", "monocyte", "6"],
    ]
    shape = [(2, *corner) for corner in LEFT]
    table.regions.choose(viewer.add_shapes([shape], shape_type="polygon"))
    rows = settled()
    assert {row[0] for row in rows} == {"t = 2, shape 1"}
    assert [row[2] for row in rows] == ["0", "0", "2"]


def test_the_table_is_saved(table, settled, viewer, classes, tmp_path, monkeypatch):
    table.regions.choose(viewer.add_shapes([LEFT], shape_type="polygon"))
    settled()
    path = tmp_path / "table.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *args: (str(path), ""))
    table.save_button.click()
    assert table.message.text() == f"Saved {path}"
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["region", "class", "tiles", "share", "area_um2", "mean_probability"]
    assert [row[:5] for row in rows[1:]] == [
        ["shape 1", "Basophil", "4", "0.5", "100"],
        ["shape 1", "lymphocyte", "0", "0", "0"],
        ["shape 1", "monocyte", "4", "0.5", "100"],
    ]
    table.save_table(str(tmp_path / "none" / "table.csv"))
    assert "There is no folder" in table.message.text()


def test_it_follows_the_selected_layer_and_keeps_it_while_shapes_are_drawn(
    table, settled, viewer, image, classes
):
    results = results_on(image, plan_tiles((40, 60), tile_size=20))
    ResultLayers(viewer, [plane_of_layer(viewer, image)], results, name="coarse")
    settled()
    assert "coarse: 6 of 6" in table.message.text()
    viewer.layers.selection.active = classes.main
    settled()
    assert "cells classes: 24 of 24" in table.message.text()
    viewer.add_shapes([LEFT], shape_type="polygon")
    settled()
    assert "cells classes: 24 of 24" in table.message.text()
    viewer.layers.remove(classes.main)
    settled()
    assert "coarse: 6 of 6" in table.message.text()
    viewer.layers.remove("coarse")
    assert settled() == []
    assert table.message.text().startswith("No results yet")


def test_regions_without_the_image_or_without_an_area_get_a_sentence(
    table, settled, viewer, image, classes
):
    line = viewer.add_shapes([[(0, 0), (30, 30)]], shape_type="line", name="scale")
    table.regions.choose(line)
    assert settled() == []
    assert "Shapes layer 'scale' has no area on this plane" in table.message.text()
    line.add_polygons([LEFT])
    assert [row[2] for row in settled()] == ["4", "0", "4"]
    viewer.layers.remove(image)
    assert settled() == []
    assert "The image that was classified is closed" in table.message.text()
    table.regions.setCurrentIndex(0)
    assert [row[2] for row in settled()] == ["8", "4", "12"]


def test_a_run_fills_the_table(table, settled, panel, viewer, sheet, finish):
    viewer.add_image(sheet[:192], name="cells", rgb=True)
    panel.run_button.click()
    finish(panel)
    counts = panel.results.counts
    assert [(row[1], int(row[2])) for row in settled()] == list(counts.items())


def test_it_opens_from_the_menu_and_every_control_says_what_it_is(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("napari-mambamic", "Results table")
    for kind in (QPushButton, QComboBox, QTableView):
        for control in widget.findChildren(kind):
            assert control.toolTip() or control.accessibleName(), control
    headers = widget.findChildren(QTableView)[0].accessibleName()
    assert headers == "Results"
