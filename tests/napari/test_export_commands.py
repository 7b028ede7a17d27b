"""Results leave napari by its menus."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from napari.layers import Labels, Points
from napari.utils.notifications import notification_manager
from npe2 import PluginManager
from PIL import Image as Picture
from qtpy.QtWidgets import QApplication, QFileDialog, QInputDialog, QMessageBox

from napari_mambamic import classify_layer, read_results
from napari_mambamic._napari.from_layer import plane_of_layer
from napari_mambamic._napari.to_layers import ResultLayers
from napari_mambamic.as_script import script_of
from napari_mambamic.colours import class_colours
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import plan_tiles, tiles_at_points, tiles_of_objects

NAMES = ("a", "b, c", "größe")


def results_on(layer, tiles, plane=()):
    shares = np.random.default_rng(0).dirichlet(np.ones(3), len(tiles)).astype(np.float32)
    provenance = {
        "image": {"name": layer.name, "plane_shape": [40, 60], "pixel_size_um": None},
        "layer": {"name": layer.name, "plane": list(plane), "objects": None},
        "weights": {"name": "mine"},
    }
    return TileResults(NAMES, tiles, shares, None, provenance)


@pytest.fixture
def classes(viewer):
    """A result layer of a grid, selected."""
    layer = viewer.add_image(np.full((40, 60), 90, np.uint8), name="cells")
    results = results_on(layer, plan_tiles((40, 60), tile_size=10))
    return ResultLayers(viewer, [plane_of_layer(viewer, layer)], results, heatmaps=["a"])


@pytest.fixture
def press(viewer, qtbot, monkeypatch):
    """Choose a menu item, give the file dialog a path; wait for what is said in the end."""

    def choose(title, path):
        asked = []

        def answer(parent, caption, suggested, file_filter):
            asked.append((suggested, file_filter))
            return str(path), file_filter

        monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
        before = len(notification_manager.records)
        action_of(viewer, title).trigger()
        qtbot.waitUntil(lambda: len(notification_manager.records) > before, timeout=30_000)
        return asked, notification_manager.records[-1].message

    return choose


def action_of(viewer, title):
    menus = [action.menu() for action in viewer.window.file_menu.actions() if action.menu()]
    (utilities,) = [menu for menu in menus if menu.title() == "IO Utilities"]
    (action,) = [a for a in utilities.actions() if a.text().startswith(title)]
    return action


def test_geojson_leaves_by_the_menu(classes, press, tmp_path):
    asked, said = press("Export classes as QuPath GeoJSON", tmp_path / "a.geojson.gz")
    ((suggested, filters),) = asked
    assert suggested == str(Path.home() / "cells classes.geojson")
    assert filters == "GeoJSON (*.geojson *.geojson.gz)"
    assert said == f"Saved {tmp_path / 'a.geojson.gz'}"
    read = read_results(tmp_path / "a.geojson.gz")
    results = classes.main.metadata["results"]
    np.testing.assert_array_equal(read.probabilities, results.probabilities)


@pytest.mark.parametrize(
    ("title", "ending"),
    [
        ("Export classes as a table (CSV)", "csv"),
        ("Export classes as a table (Parquet)", "parquet"),
    ],
)
def test_tables_leave_by_the_menu_and_get_their_ending(classes, press, title, ending, tmp_path):
    _, said = press(title, tmp_path / "table")
    assert said == f"Saved {tmp_path / f'table.{ending}'}"
    assert read_results(tmp_path / f"table.{ending}").class_names == NAMES


def test_ome_zarr_leaves_by_the_menu_even_from_a_heatmap(classes, viewer, press, tmp_path):
    viewer.layers.selection.active = classes.layers[0]
    _, said = press("Export classes as OME-Zarr", tmp_path / "a")
    assert said == f"Saved {tmp_path / 'a.ome.zarr'}"
    root = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    assert root["labels/classes/0"].shape == (4, 6)


def test_a_picture_leaves_by_the_menu(classes, press, tmp_path):
    _, said = press("Export classes as a picture", tmp_path / "a.png")
    assert said == f"Saved {tmp_path / 'a.png'}"
    with Picture.open(tmp_path / "a.png") as picture:
        assert json.loads(picture.text["mambamic"])["class_names"] == list(NAMES)


def test_the_picture_of_a_volume_is_of_the_plane_that_was_classified(viewer, press, tmp_path):
    volume = np.zeros((3, 40, 60), np.uint8)
    volume[2] = 200
    layer = viewer.add_image(volume, name="stack")
    viewer.dims.set_point(0, 2)
    results = results_on(layer, plan_tiles((40, 60), tile_size=20), plane=(2,))
    results.probabilities[:] = np.nan
    ResultLayers(viewer, [plane_of_layer(viewer, layer)], results)
    viewer.dims.set_point(0, 0)
    press("Export classes as a picture", tmp_path / "a.png")
    with Picture.open(tmp_path / "a.png") as picture:
        assert picture.getpixel((40, 40)) == (200, 200, 200)


def test_the_picture_is_of_the_image_that_was_classified_whatever_its_name(
    classes, viewer, press, tmp_path
):
    viewer.layers["cells"].name = "another name"
    viewer.add_image(np.zeros((40, 60), np.uint8), name="cells")
    classes.main.metadata["results"].probabilities[:] = np.nan
    viewer.layers.selection.active = classes.main
    press("Export classes as a picture", tmp_path / "a.png")
    with Picture.open(tmp_path / "a.png") as picture:
        assert picture.getpixel((40, 40)) == (90, 90, 90)


def test_outlines_are_those_of_the_objects(viewer, press, tmp_path):
    layer = viewer.add_image(np.zeros((2, 40, 60), np.uint8), name="cells")
    labels = np.zeros((2, 40, 60), np.int32)
    labels[1, 5:10, 5:12], labels[1, 20:30, 20:40] = 4, 9
    viewer.dims.set_point(0, 1)
    results = results_on(layer, tiles_of_objects(labels[1], tile_size=12), plane=(1,))
    ResultLayers(viewer, [plane_of_layer(viewer, layer)], results, objects=Labels(labels))
    press("Export classes as QuPath GeoJSON", tmp_path / "a.geojson")
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    rings = [np.array(f["geometry"]["coordinates"][0]) for f in features]
    assert [ring.min(axis=0).tolist() for ring in rings] == [[5, 5], [20, 20]]
    assert [ring.max(axis=0).tolist() for ring in rings] == [[12, 10], [40, 30]]


def test_points_that_fill_no_array_are_told_so(viewer, press, tmp_path):
    layer = viewer.add_image(np.zeros((40, 60), np.uint8), name="cells")
    results = results_on(layer, tiles_at_points([(5, 5)], tile_size=9))
    ResultLayers(viewer, [plane_of_layer(viewer, layer)], results, objects=Points([(5, 5)]))
    _, said = press("Export classes as OME-Zarr", tmp_path / "a.zarr")
    assert "save points as GeoJSON" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("title", ["QuPath GeoJSON", "a table (CSV)", "OME-Zarr", "a picture"])
def test_without_a_layer_of_classes_a_sentence_says_what_to_do(viewer, press, title, tmp_path):
    asked, said = press(f"Export classes as {title}", tmp_path / "a")
    assert said.startswith("No layer is selected. Click the layer of classes")
    viewer.add_labels(np.zeros((4, 4), np.uint8), name="mine")
    asked, said = press(f"Export classes as {title}", tmp_path / "a")
    assert said.startswith("Layer 'mine' has no classes. Click the layer")
    assert not asked


def test_a_script_is_copied_by_the_menu(viewer, press):
    image = viewer.add_image(np.zeros((40, 60), np.uint8), name="cells")
    QApplication.clipboard().setText("before")
    _, said = press("Copy run as a Python script", "")
    assert said.startswith("Layer 'cells' has no run. Click the layer of classes")
    assert QApplication.clipboard().text() == "before"
    (layer,) = classify_layer(viewer, image, tile_size=40)
    asked, said = press("Copy run as a Python script", "")
    assert QApplication.clipboard().text() == script_of(layer.metadata["mambamic"])
    assert said.endswith("Fill in what is marked '<-- put here': image.")
    assert not asked


def test_a_picture_without_its_image_is_refused(classes, viewer, press, tmp_path):
    viewer.layers.remove("cells")
    asked, said = press("Export classes as a picture", tmp_path / "a.png")
    assert "there is no image layer 'cells'" in said
    assert not asked


@pytest.mark.parametrize("ending", ["geojson", "csv"])
def test_a_layer_of_classes_is_saved_by_its_ending(classes, viewer, ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    assert classes.main.save(str(path)) == [str(path)]
    assert read_results(path).class_names == NAMES


def test_points_are_saved_by_our_writer_where_it_is_asked_for(viewer, tmp_path):
    layer = viewer.add_image(np.zeros((40, 60), np.uint8), name="cells")
    results = results_on(layer, tiles_at_points([(5, 5), (20, 9)], tile_size=9))
    points = Points([(5, 5), (20, 9)])
    shown = ResultLayers(viewer, [plane_of_layer(viewer, layer)], results, objects=points)
    path = tmp_path / "a.geojson"
    assert shown.main.save(str(path)) == [str(path)]
    np.testing.assert_array_equal(read_results(path).probabilities, results.probabilities)
    shown.main.save(str(tmp_path / "a.csv"))  # napari's own format of points
    assert (tmp_path / "a.csv").read_text().startswith("index,axis-0,axis-1")


def writer_of(layer_type):
    return next(
        writer
        for writer in PluginManager.instance().iter_compatible_writers([layer_type])
        if writer.command == "napari-mambamic.write_classes"
    )


@pytest.mark.parametrize("typed", ["a", "a.tif"])
def test_what_our_writer_writes_has_its_ending(classes, viewer, typed, tmp_path):
    path = str(tmp_path / typed)
    viewer.layers.selection = {classes.main}
    saved = viewer.layers.save(path, selected=True, _writer=writer_of("labels"))
    assert saved == [f"{path}.geojson"]
    assert read_results(saved[0]).class_names == NAMES
    assert [p.name for p in tmp_path.iterdir()] == [f"{typed}.geojson"]


@pytest.mark.parametrize("layer_type", ["labels", "points"])
def test_napari_s_own_writer_comes_first_for_layers_of_all_sorts(viewer, layer_type, tmp_path):
    first = next(PluginManager.instance().iter_compatible_writers([layer_type]))
    assert first.command.startswith("napari.")  # the type that the save dialog offers
    if layer_type == "labels":
        layer = viewer.add_labels(np.ones((4, 4), np.uint8), name="mine")
        assert layer.save(str(tmp_path / "mine")) == [str(tmp_path / "mine.tif")]


def test_other_labels_are_not_saved_as_classes(viewer, tmp_path):
    layer = viewer.add_labels(np.zeros((4, 4), np.uint8), name="mine")
    with pytest.raises(OSError, match="'mine' has no classes"):
        layer.save(str(tmp_path / "a.geojson"))
    assert not list(tmp_path.iterdir())


def test_labels_are_still_saved_as_pictures_by_napari(viewer, tmp_path):
    layer = viewer.add_labels(np.ones((4, 4), np.uint8))
    assert layer.save(str(tmp_path / "a.tif")) == [str(tmp_path / "a.tif")]
    assert (tmp_path / "a.tif").is_file()


def stack_of_objects(viewer):
    """Layers of two planes, their objects, and the results of each plane."""
    layer = viewer.add_image(np.zeros((3, 40, 60), np.uint8), name="cells")
    labels = np.zeros((3, 40, 60), np.int32)
    labels[1, 5:10, 5:12], labels[2, 20:30, 20:40], labels[2, 2:6, 2:6] = 4, 9, 4
    objects = viewer.add_labels(labels)
    planes = [plane_of_layer(viewer, layer, index=(z,)) for z in (1, 2)]
    several = [
        results_on(layer, tiles_of_objects(labels[z], tile_size=12), plane=(z,)) for z in (1, 2)
    ]
    shown = ResultLayers(viewer, planes, several[0], objects=objects)
    for number, results in enumerate(several):
        shown.finish(results, plane=number)
    return shown, objects, several


def test_of_several_planes_each_gets_a_file_with_its_own_objects(viewer, press, tmp_path):
    shown, objects, several = stack_of_objects(viewer)
    _, said = press("Export classes as QuPath GeoJSON", tmp_path / "a.geojson.gz")
    paths = [tmp_path / f"a plane {z}.geojson.gz" for z in (1, 2)]
    assert said == f"Saved 2 planes, {paths[0]} and those beside it"
    assert sorted(tmp_path.iterdir()) == paths
    for path, results in zip(paths, several, strict=True):
        read = read_results(path)
        np.testing.assert_array_equal(read.object_ids, results.object_ids)
        np.testing.assert_array_equal(read.probabilities, results.probabilities)
    assert shown.main.save(str(tmp_path / "b.csv")) == [
        str(tmp_path / f"b plane {z}.csv") for z in (1, 2)
    ]
    viewer.layers.remove(objects)
    viewer.layers.selection.active = shown.main
    _, said = press("Export classes as QuPath GeoJSON", tmp_path / "c.geojson")
    assert "are not in the viewer any more. Open their Labels layer" in said


def test_files_have_the_colours_of_the_window(viewer, press, tmp_path):
    layer = viewer.add_image(np.full((40, 60), 90, np.uint8), name="cells")
    a, b, c = class_colours(3)
    layer.metadata["colours"] = {"a": b, "größe": a}  # as an earlier run would have shown them
    results = results_on(layer, plan_tiles((40, 60), tile_size=10))
    shown = ResultLayers(viewer, [plane_of_layer(viewer, layer)], results)
    in_window = {n: shown.main.get_color(int(np.argmax(results.labels == n)) + 1) for n in range(3)}
    np.testing.assert_allclose(np.array([*in_window.values()]), [b, c, a], atol=1e-6)
    press("Export classes as QuPath GeoJSON", tmp_path / "a.geojson")
    assert shown.main.save(str(tmp_path / "b.geojson"))
    for name in ("a", "b"):
        features = json.loads((tmp_path / f"{name}.geojson").read_text())["features"]
        for feature, label in zip(features, results.labels.tolist(), strict=True):
            colour = np.array(feature["properties"]["classification"]["color"]) / 255
            np.testing.assert_allclose(colour, in_window[label][:3], atol=1e-6)
    press("Export classes as OME-Zarr", tmp_path / "a.zarr")
    legend = zarr.open_group(tmp_path / "a.zarr", mode="r")["labels/classes"].attrs["image-label"]
    found = [np.array(entry["rgba"]) / 255 for entry in legend["colors"][1:]]
    np.testing.assert_allclose(found, [*in_window.values()], atol=1e-6)
    press("Export classes as a picture", tmp_path / "a.png")
    with Picture.open(tmp_path / "a.png") as picture:
        shown_there = np.array(picture.getpixel((24 + 6 * 12, 24 + 6 * 12)))
    # The film over the grey image is of the colour of the first tile.
    expected = 90 * 0.6 + 255 * 0.4 * in_window[int(results.labels[0])][:3]
    np.testing.assert_allclose(shown_there, expected, atol=1)


def test_what_gets_its_ending_from_us_is_not_replaced_without_a_question(
    classes, press, answer, monkeypatch, tmp_path, viewer
):
    (tmp_path / "a.csv").write_text("precious")
    asked = answer(QMessageBox.StandardButton.No)
    typed = str(tmp_path / "a"), "Table (*.csv)"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *args: typed)
    action_of(viewer, "Export classes as a table (CSV)").trigger()
    assert asked == ["a.csv is there already. Replace it?"]
    assert (tmp_path / "a.csv").read_text() == "precious"
    answer(QMessageBox.StandardButton.Yes)
    _, said = press("Export classes as a table (CSV)", tmp_path / "a")
    assert said == f"Saved {tmp_path / 'a.csv'}"
    assert read_results(tmp_path / "a.csv").class_names == NAMES


def test_files_of_planes_are_not_replaced_without_a_question(
    viewer, press, answer, monkeypatch, tmp_path
):
    stack_of_objects(viewer)
    press("Export classes as a table (CSV)", tmp_path / "a.csv")
    for path in tmp_path.iterdir():
        path.write_text("precious")
    asked = answer(QMessageBox.StandardButton.No)
    typed = str(tmp_path / "a.csv"), "Table (*.csv)"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *args: typed)
    action_of(viewer, "Export classes as a table (CSV)").trigger()
    assert asked == ["a plane 1.csv and 1 of the others are there already. Replace them?"]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"precious"}


def test_a_folder_that_the_dialog_would_enter_is_not_suggested(classes, press, tmp_path):
    press("Export classes as OME-Zarr", tmp_path / "cells classes.ome.zarr")
    ((suggested, _),), _ = press("Export classes as OME-Zarr", tmp_path / "b.zarr")
    assert suggested == str(tmp_path / "cells classes 2.ome.zarr")


def test_the_weights_of_a_layer_leave_as_a_model_for_qupath(
    viewer, press, sheet, tmp_path, monkeypatch
):
    asked = []

    def answer(parent, title, text, value, *limits):
        asked.append((text, value))
        return 0.2, answers.pop()

    answers = [True, False]
    monkeypatch.setattr(QInputDialog, "getDouble", answer)
    title, folder = "Export model for QuPath", tmp_path / "cells"
    _, said = press(title, folder)
    assert said.startswith("No layer of classes is selected.")
    image = viewer.add_image(sheet[:96, :192], rgb=True, scale=(0.5, 0.5))
    image.units = ("um", "um")
    (classes,) = classify_layer(viewer, image, tile_size=48)
    viewer.layers.selection.active = classes
    action_of(viewer, title).trigger()  # the question is declined
    assert not folder.exists()
    ((suggested, _),), said = press(title, folder)
    assert Path(suggested).name == "blood-cells-t"
    assert "in tiles of 96 px" in asked[0][0]
    assert asked[0][1] == 0.25  # half as many px
    assert said.startswith(f"Saved the model {folder}. Put that folder into")
    assert json.loads((folder / "config.json").read_text())["spacing_um_px"] == 0.2
    model = torch.jit.load(folder / "torchscript_model.pt")
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 8)
    classes.metadata["results"].provenance["weights"]["sha256"] = "another"
    _, said = press(title, folder)
    assert "which have changed since. Classify the image again." in said
