"""The Classify panel in a real window, on real cells."""

from __future__ import annotations

import csv
import gc
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from napari.layers import Image, Labels, Points
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QComboBox, QPushButton, QSpinBox
from skimage.io import imsave

from napari_mambamic import (
    Manifest,
    PatchSpec,
    as_image,
    build_network,
    classify_image,
    classify_layer,
    classify_objects,
    load_classifier,
)
from napari_mambamic._napari import fluid, shown_run
from napari_mambamic._napari.classified import results_in_view
from napari_mambamic._napari.classify_layer import iter_request, request_of
from napari_mambamic._napari.export_commands import put_script_on_clipboard
from napari_mambamic._napari.to_layers import ResultLayers, first_point_of, results_of
from napari_mambamic.as_script import gaps_of, script_of
from napari_mambamic.colours import class_colours
from napari_mambamic.patches import prepare_patches
from napari_mambamic.progress import drained
from napari_mambamic.shared_setting import SharedSetting
from napari_mambamic.weights.checkpoint import save_weights
from napari_mambamic.weights.store import fetch_weights


@pytest.fixture
def image(viewer, sheet):
    """Two rows of cells: 12 basophils and 12 eosinophils."""
    return viewer.add_image(sheet[:192], name="cells", rgb=True)


@pytest.fixture
def with_pixel_size(tmp_path):
    """The bundled weights, as if they had been trained at 0.2 um per px."""
    source = fetch_weights("default")
    path = tmp_path / "with-pixel-size.safetensors"
    path.write_bytes(source.read_bytes())
    manifest = Manifest.read(source.with_suffix(".json"))
    patch = replace(manifest.patch, pixel_size_um=0.2)
    replace(manifest, patch=patch).write(path.with_suffix(".json"))
    return path


@pytest.fixture
def cell_cycle(tmp_path):
    """Weights for three fluorescence channels, untrained, and an image (40, 120, 3) for them."""
    torch.manual_seed(0)
    network = build_network("mambamic-t", n_classes=2, in_channels=3).eval()
    patch = PatchSpec(40, 40, ("Ch3", "Ch4", "Ch6"), (0.1, 0.2, 0.3), (0.1, 0.2, 0.3))
    manifest = Manifest("phases", "two phases", "mambamic-t", ("G1", "S"), patch, "")
    pixels = np.random.default_rng(0).integers(0, 65535, (40, 120, 3)).astype(np.uint16)
    with torch.inference_mode():
        ready = torch.from_numpy(prepare_patches(pixels[np.newaxis, :, :40], patch))
        logits = network(ready)[0].numpy()
    path = tmp_path / "phases.safetensors"
    test = pixels[:, :40], logits
    save_weights(network, path, manifest, self_test=test, dtype="float32")
    return path, pixels


def test_classify_adds_a_layer_a_legend_and_a_status(viewer, panel, image, finish, classifier):
    panel.run_button.click()
    assert panel.is_running
    assert panel.cancel_button.isEnabled()
    assert not panel.run_button.isEnabled()
    finish(panel)
    layer = viewer.layers["cells classes"]
    assert isinstance(layer, Labels)
    assert layer.data.shape == (2, 12)
    np.testing.assert_array_equal(
        panel.results.labels, classify_image(image.data, classifier).labels
    )
    counts = panel.results.counts
    for row, name in enumerate(classifier.class_names):
        assert panel.legend.item(row, 0).text() == name
        assert panel.legend.item(row, 1).text() == str(counts[name])
        assert panel.legend.item(row, 2).text() == f"{counts[name] / 24:.1%}"
    assert "24 tiles classified on CPU" in panel.message.text()
    assert panel.run_button.isEnabled()
    assert not panel.cancel_button.isEnabled()
    status = layer.get_status((100, 100), world=True)["coordinates"]
    assert "class: eosinophil, probability: " in status


def test_the_form_is_what_the_core_gets(viewer, panel, image, finish):
    panel.tile_size.setValue(64)
    panel.overlap.setValue(16)
    panel.batch_size.setValue(5)
    panel.device.setCurrentText("CPU")
    for row in (0, 6):
        panel.heatmaps.item(row).setCheckState(Qt.CheckState.Checked)
    panel.run_button.click()
    finish(panel)
    settings = panel.results.provenance["settings"]
    assert (settings["tile_size"], settings["overlap"], settings["batch_size"]) == (64, 16, 5)
    for name, column in (("basophil", 0), ("neutrophil", 6)):
        heatmap = viewer.layers[f"cells {name}"]
        assert isinstance(heatmap, Image)
        np.testing.assert_array_equal(heatmap.data.ravel(), panel.results.probabilities[:, column])


def test_objects_of_a_labels_layer(viewer, panel, image, finish):
    data = np.zeros((192, 1152), np.int32)
    data[40:56, 40:56], data[140:150, 1090:1110] = 5, 3
    viewer.add_labels(data, name="cells of interest")
    panel.cut.setCurrentIndex(1)
    assert panel.labels.layer.name == "cells of interest"
    panel.run_button.click()
    finish(panel)
    result = viewer.layers["cells classes"]
    assert isinstance(result, Labels)
    assert not viewer.layers["cells of interest"].visible
    assert result.features["index"].tolist() == [3, 5]
    assert result.features["class"].tolist() == ["eosinophil", "basophil"]
    panel.scale_objects.setChecked(True)
    panel.object_scale.setValue(4)
    panel.run_button.click()
    finish(panel)
    assert [tile.size for tile in panel.results.tiles] == [80, 64]


def test_points(viewer, panel, image, finish):
    viewer.add_points([[47.5, 47.5], [143.5, 1103.5]], name="clicked", size=20)
    panel.cut.setCurrentIndex(2)
    panel.run_button.click()
    finish(panel)
    result = viewer.layers["cells classes"]
    assert isinstance(result, Points)
    assert result.features["class"].tolist() == ["basophil", "eosinophil"]


def test_the_layer_fills_while_the_run_goes_on(viewer, panel, sheet, qtbot, finish):
    viewer.add_image(np.tile(sheet, (2, 1, 1)), name="many", rgb=True)
    panel.batch_size.setValue(2)
    panel.run_button.click()
    qtbot.waitUntil(lambda: "many classes" in viewer.layers, timeout=60_000)
    assert panel.is_running
    assert not panel.results.complete
    qtbot.waitUntil(lambda: "per second" in panel.message.text(), timeout=60_000)
    seen = set()
    qtbot.waitUntil(
        lambda: len(seen.add(len(viewer.layers["many classes"].features)) or seen) > 3,
        timeout=60_000,
    )
    finish(panel)
    assert len(viewer.layers["many classes"].features) == 192


def test_cancel_keeps_what_is_done_and_marks_it(viewer, panel, sheet, qtbot, finish):
    viewer.add_image(np.tile(sheet, (4, 1, 1)), name="many", rgb=True)
    panel.batch_size.setValue(4)
    panel.run_button.click()
    qtbot.waitUntil(
        lambda: panel.results is not None and panel.results.is_done.sum() >= 8, timeout=60_000
    )
    at_cancel = int(panel.results.is_done.sum())
    panel.cancel_button.click()
    finish(panel)
    done = int(panel.results.is_done.sum())
    # At most the batch at work, and one that was waiting to be told about, came after.
    assert at_cancel <= done <= at_cancel + 8
    assert not panel.results.complete
    layer = viewer.layers["many classes (partial)"]
    assert len(layer.features) == done
    assert f"{done:,} of 384 tiles are classified and kept" in panel.message.text()
    assert panel.save_button.isEnabled()


def test_deleting_the_layers_during_a_run_is_survived(viewer, panel, sheet, qtbot, finish):
    viewer.add_image(sheet, name="many", rgb=True)
    panel.batch_size.setValue(4)
    panel.run_button.click()
    qtbot.waitUntil(lambda: "many classes" in viewer.layers, timeout=60_000)
    viewer.layers.clear()
    finish(panel)
    assert panel.results.complete
    assert len(viewer.layers) == 0


def test_closing_the_window_during_a_run_is_survived(survives):
    # In a process of its own: whatever goes wrong at exit shows in its exit code and its words.
    script = """
import numpy as np, napari
from napari_mambamic._napari.classify_panel import ClassifyPanel
from napari.qt import get_qapp
viewer = napari.Viewer()
viewer.add_image(np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), np.uint8), rgb=True)
panel = ClassifyPanel(viewer)
viewer.window.add_dock_widget(panel)
panel.batch_size.setValue(2)
panel.run_button.click()
while panel.results is None or panel.results.is_done.sum() < 4:
    get_qapp().processEvents()
viewer.close()
for _ in range(20):
    get_qapp().processEvents()
print("survived")
"""
    survives(script)


def test_a_table_can_be_saved(viewer, panel, image, finish, tmp_path):
    panel.run_button.click()
    finish(panel)
    panel.save_table(str(tmp_path / "cells.csv"))
    with open(tmp_path / "cells.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 24
    panel.save_table(str(tmp_path / "none" / "cells.csv"))
    assert "There is no folder" in panel.message.text()


def test_a_run_is_copied_as_a_script_that_repeats_it(
    viewer, panel, sheet, finish, tmp_path, script_by
):
    imsave(tmp_path / "cells.png", sheet[:192])
    viewer.open(tmp_path / "cells.png", plugin="napari")
    shapes = viewer.add_shapes([[(0, 0), (0, 500), (192, 500), (192, 0)]], name="here")
    panel.where.choose(shapes)
    assert not panel.script_button.isEnabled()
    panel.run_button.click()
    finish(panel)
    script = script_by(panel.script_button.click)
    assert panel.message.text() == "A Python script that repeats the run is on the clipboard."
    (tmp_path / "again.py").write_text(
        f"{script}\nimport numpy\nnumpy.save('labels.npy', results.labels)\n", encoding="utf-8"
    )
    command = [sys.executable, "again.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    labels = np.load(tmp_path / "labels.npy")
    assert 0 < (labels >= 0).sum() < len(labels)
    np.testing.assert_array_equal(labels, panel.results.labels)


@pytest.mark.parametrize("kind", ["labels", "points"])
def test_a_script_repeats_a_run_on_objects_that_were_never_a_file(
    viewer, panel, sheet, finish, tmp_path, script_by, qtbot, kind
):
    imsave(tmp_path / "cells.png", sheet[:192])
    viewer.open(tmp_path / "cells.png", plugin="napari")
    if kind == "labels":
        drawn = np.zeros((192, 1152), np.int32)
        for number, x in ((3, 48), (9, 432), (4, 1008)):
            drawn[20:80, x - 30 : x + 30] = number
        viewer.add_labels(drawn, name="drawn")
    else:
        viewer.add_points([(48.25, 47.5), (140, 47.5), (48, 1003.3)], name="clicked")
    panel.cut.setCurrentIndex(1 if kind == "labels" else 2)
    panel.run_button.click()
    finish(panel)
    script = script_by(panel.script_button.click)
    assert "put here" not in script
    (written,) = (tmp_path / "data").rglob("*-*.tif" if kind == "labels" else "*-*.csv")
    qtbot.waitUntil(lambda: f"It reads the objects from {written}." in panel.message.text())
    again = {}
    exec(script, again)
    assert again["results"].class_names == panel.results.class_names
    np.testing.assert_array_equal(again["results"].labels, panel.results.labels)
    np.testing.assert_array_equal(again["results"].object_ids, panel.results.object_ids)
    assert len(panel.results) == 3


def test_what_is_missing_in_a_script_is_named(viewer, panel, image, finish):
    viewer.add_points([[47.5, 47.5]], name="clicked")
    panel.cut.setCurrentIndex(2)
    panel.run_button.click()
    finish(panel)
    viewer.layers.remove("clicked")
    panel.script_button.click()
    assert panel.message.text().endswith("marked '<-- put here': image, objects.")


def test_the_function_does_what_the_button_does(viewer, panel, image, finish):
    panel.run_button.click()
    finish(panel)
    made = classify_layer(viewer, image, heatmaps=["basophil"])
    assert [layer.name for layer in made] == ["cells basophil", "cells classes [1]"]
    np.testing.assert_array_equal(made[-1].metadata["results"].labels, panel.results.labels)


BAD_INPUT = [  # what is added to the viewer, the cut, words of the sentence
    (lambda v: None, 0, "There is no image to classify"),
    (lambda v: v.add_image(np.zeros((1, 1)), name="dot"), 0, "'dot' is a single pixel"),
    (lambda v: v.add_image(np.zeros((99, 99))), 1, "the viewer has no Labels layer"),
    (lambda v: v.add_image(np.zeros((99, 99))), 2, "the viewer has no Points layer"),
    (
        lambda v: (v.add_image(np.zeros((99, 99))), v.add_labels(np.zeros((99, 99), int))),
        1,
        "no objects: no pixel is above 0",
    ),
    (
        lambda v: (v.add_image(np.zeros((99, 99))), v.add_points([[5, 5], [500, 5]])),
        2,
        "1 of 2 points lie outside",
    ),
    (
        lambda v: v.add_image(np.full((99, 99), np.nan), contrast_limits=(0, 1)),
        0,
        "pixels that are NaN",
    ),
    (lambda v: v.add_image(np.full((99, 99), 7.0)), 0, "floats from 7 to 7"),
]


def test_bad_input_gets_a_sentence_and_nothing_is_lost(viewer, panel, finish):
    for add, cut, words in BAD_INPUT:
        viewer.layers.clear()
        add(viewer)
        before = list(viewer.layers)
        panel.cut.setCurrentIndex(cut)
        panel.run_button.click()
        finish(panel)
        assert words in panel.message.text()
        assert "Traceback" not in panel.message.text()
        assert [layer.name for layer in before if layer not in viewer.layers] == []
        assert panel.run_button.isEnabled()


def test_a_volume_is_classified_in_the_plane_in_view_and_says_so(viewer, panel, sheet, finish):
    grey = sheet[:96, :192, 1]
    viewer.add_image(np.stack([grey * 0, grey, grey * 0]), name="stack")
    viewer.dims.set_point(0, 1)
    panel.run_button.click()
    finish(panel)
    assert "'stack' has 3 axes: the plane at axis 0 = 1 is classified." in panel.message.text()
    assert viewer.layers["stack classes"].data.shape == (1, 1, 2)


def test_weights_that_cannot_be_used_are_explained(panel, image, tmp_path, finish):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(fetch_weights("default").read_bytes()[:-10])
    panel.weights.add_file(damaged)
    assert "no manifest" in panel.weights.about.text()
    assert not panel.run_button.isEnabled()
    damaged.with_suffix(".json").write_text(
        fetch_weights("default").with_suffix(".json").read_text()
    )
    panel.weights.add_file(damaged)
    panel.run_button.click()
    finish(panel)
    assert "truncated or not a weights file" in panel.message.text()


def test_lists_follow_the_viewer(viewer, panel, image):
    assert panel.image.layer is not None
    other = viewer.add_image(np.zeros((99, 99)), name="other")
    assert panel.image.layer.name == "other"  # opened last, so it is the one that is meant
    panel.image.choose(image)
    panel.image.choose(other)
    other.name = "renamed"
    assert panel.image.currentText() == "renamed"
    viewer.layers.remove("renamed")
    assert panel.image.layer.name == "cells"


def test_the_device_is_explained(panel, qtbot):
    panel.doctor_button.click()
    qtbot.waitUntil(lambda: "used: " in panel.message.text(), timeout=120_000)
    assert "numba scan: works on cpu" in panel.message.text()
    qtbot.waitUntil(panel.doctor_button.isEnabled)


def test_fields_that_do_not_matter_are_hidden(panel, viewer):
    for cut, visible in ((0, (False, False)), (1, (True, False)), (2, (False, True))):
        panel.cut.setCurrentIndex(cut)
        shown = tuple(panel.form.isRowVisible(box) for box in (panel.labels, panel.points))
        assert shown == visible


def test_every_control_has_a_tooltip_or_a_name(panel):
    for kind in (QPushButton, QComboBox, QSpinBox):
        for control in panel.findChildren(kind):
            if control.parent().metaObject().className() == "QCollapsible":
                continue
            assert control.toolTip() or control.accessibleName(), control


def test_opening_the_panel_does_not_import_torch():
    script = """
import sys, napari
viewer = napari.Viewer(show=False)
before = set(sys.modules)
viewer.window.add_plugin_dock_widget("napari-mambamic", "Classify tiles and cells")
assert "napari_mambamic._napari.classify_panel" in sys.modules
print("torch" in sys.modules, "numba" in set(sys.modules) - before)
viewer.close()
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert said.stdout.split() == ["False", "False"]


def test_the_window_stays_responsive(viewer, panel, sheet, qtbot, finish):
    """While tiles are classified the window handles events all the time."""
    viewer.add_image(np.tile(sheet, (2, 1, 1)), name="many", rgb=True)
    panel.batch_size.setValue(8)
    handled = 0
    panel.run_button.click()
    while panel.is_running:
        QApplication.processEvents()
        handled += 1
    assert handled > 100


@pytest.mark.parametrize("step", ["__init__", "fill"])
def test_a_run_ends_though_its_layers_cannot_be_shown(
    viewer, panel, image, finish, qtbot, monkeypatch, step
):
    """What fails is told, as any defect is, and not tried again for ever."""

    def fail(*arguments, **options):
        raise RuntimeError("cannot be shown")

    monkeypatch.setattr(shown_run, "_SECONDS_BETWEEN_UPDATES", 3600.0)
    monkeypatch.setattr(ResultLayers, step, fail)
    if step == "fill":  # which its constructor calls, through update
        monkeypatch.setattr(ResultLayers, "update", lambda *given, **options: None)
    with qtbot.capture_exceptions() as told:
        panel.run_button.click()
        finish(panel)
    assert {str(error) for _, error, _ in told} == {"cannot be shown"}
    assert len(told) < 5
    assert panel.run_button.isEnabled()
    assert panel.results.complete


@pytest.fixture
def nothing_is_frozen(monkeypatch):
    """As for a user; other tests keep modules out of garbage collections all the time."""
    gc.unfreeze()
    monkeypatch.setattr(fluid, "_setting", SharedSetting(gc.freeze, gc.unfreeze))
    yield
    gc.collect()
    gc.freeze()


def test_a_run_keeps_what_is_there_out_of_garbage_collections(
    nothing_is_frozen, viewer, panel, sheet, qtbot, finish
):
    """A full one stops the window for half a second."""
    viewer.add_image(np.tile(sheet, (2, 1, 1)), name="many", rgb=True)
    panel.batch_size.setValue(2)
    panel.run_button.click()
    qtbot.waitUntil(lambda: "many classes" in viewer.layers, timeout=60_000)
    assert gc.get_freeze_count() > 100_000
    panel.cancel_button.click()
    finish(panel)
    assert gc.get_freeze_count() == 0


def test_all_planes_of_a_stack_or_a_range_are_classified(viewer, panel, sheet, finish, classifier):
    grey = sheet[:192, :384].mean(axis=-1).astype(np.uint8)
    stack = np.stack([grey, grey[:, ::-1], grey[::-1]])
    viewer.add_image(stack, name="stack")
    assert not panel.planes_row.isHidden()
    panel.planes.setCurrentText("All")
    panel.run_button.click()
    finish(panel)
    layer = viewer.layers["stack classes"]
    assert layer.data.shape == (3, 2, 4)
    for z in range(3):
        expected = classify_image(stack[z], classifier).labels + 1
        np.testing.assert_array_equal(layer.data[z].ravel(), expected)
    assert "24 tiles classified" in panel.message.text()
    assert "3 planes" in panel.message.text()
    assert sum(int(panel.legend.item(row, 1).text()) for row in range(8)) == 24
    panel.planes.setCurrentText("From ... to")
    panel.first_plane.setValue(1)
    panel.last_plane.setValue(2)
    panel.run_button.click()
    finish(panel)
    part = viewer.layers["stack classes [1]"]
    np.testing.assert_array_equal(part.data, layer.data[1:])
    np.testing.assert_allclose(part.data_to_world((0, 0, 0)), layer.data_to_world((1, 0, 0)))


def test_a_channel_axis_and_single_layers_give_the_same(viewer, panel, finish, cell_cycle):
    path, pixels = cell_cycle
    axis_labels = ("c", "y", "x")
    viewer.add_image(pixels.transpose(2, 0, 1), name="one layer", axis_labels=axis_labels)
    panel.weights.add_file(path)
    assert [row.currentText() for row in panel.channels.rows] == [
        f"one layer, channel {i}" for i in range(3)
    ]
    panel.run_button.click()
    finish(panel)
    expected = panel.results.probabilities
    assert panel.results.complete, panel.message.text()
    viewer.layers.clear()
    for i in range(3):
        viewer.add_image(pixels[..., i], name=f"layer {i}")
    panel.image.choose(viewer.layers["layer 0"])
    panel.weights.changed.emit()
    for i, row in enumerate(panel.channels.rows):
        row.setCurrentText(f"layer {i}")
    panel.run_button.click()
    finish(panel)
    np.testing.assert_allclose(panel.results.probabilities, expected, atol=1e-5)


def test_only_where_shapes_are_is_classified(viewer, panel, image, finish):
    shapes = viewer.add_shapes([[(0, 0), (0, 300), (96, 300), (96, 0)]], name="here")
    panel.where.choose(shapes)
    panel.run_button.click()
    finish(panel)
    assert np.flatnonzero(panel.results.is_done).tolist() == [0, 1, 2]
    assert "3 tiles classified" in panel.message.text()


def test_the_preview_shows_patches_from_the_middle_of_the_view(viewer, panel, image, qtbot):
    viewer.scene.camera.center = (144, 960)
    viewer.scene.camera.zoom = 4
    assert panel.preview.isHidden()
    panel.preview_button.click()
    qtbot.waitUntil(lambda: not panel.preview.isHidden(), timeout=60_000)
    pixmap = panel.preview.pixmap()
    assert pixmap.width() == 4 * pixmap.height()
    first = pixmap.copy(0, 0, pixmap.height(), pixmap.height()).toImage()
    middle = first.pixelColor(first.width() // 2, first.height() // 2)
    nearest = image.data[96 + 48, 9 * 96 + 48], image.data[96 + 48, 10 * 96 + 48]
    assert min(np.abs(np.subtract(middle.getRgb()[:3], n)).max() for n in nearest) < 60


def test_a_missing_pixel_size_is_asked_for_and_can_be_waived(
    viewer, panel, image, finish, with_pixel_size
):
    panel.weights.add_file(with_pixel_size)
    panel.run_button.click()
    finish(panel)
    assert "has no pixel size in micrometres" in panel.message.text()
    assert "Use pixels as they are" in panel.message.text()
    panel.use_pixels.setChecked(True)
    panel.run_button.click()
    finish(panel)
    assert "24 tiles classified" in panel.message.text()


def test_a_run_hides_what_an_earlier_one_said_of_the_same_places(viewer, panel, image, finish):
    panel.run_button.click()
    finish(panel)
    other = viewer.add_image(image.data[:96, :96], name="another", rgb=True)
    for _ in range(2):
        panel.image.choose(viewer.layers["another"])
        panel.run_button.click()
        finish(panel)
    shown = {layer.name: layer.visible for layer in viewer.layers if "classes" in layer.name}
    assert shown == {
        "cells classes": True,
        "another classes": False,
        "another classes [1]": True,
    }
    viewer.add_shapes([[0, 0], [95, 95]], shape_type="rectangle", name="corner")
    panel.where.choose(viewer.layers["corner"])
    panel.run_button.click()
    finish(panel)  # says nothing of the other tiles
    assert viewer.layers["another classes [1]"].visible
    assert other.visible


def test_overlapping_tiles_are_blended_when_the_run_is_complete(
    viewer, panel, image, finish, classifier
):
    panel.overlap.setValue(48)
    panel.blend.setCurrentText("gaussian")
    panel.heatmaps.item(0).setCheckState(Qt.CheckState.Checked)
    panel.run_button.click()
    finish(panel)
    direct = classify_image(image.data, classifier, overlap=48)
    blended = direct.blended("gaussian").probabilities
    assert np.abs(blended - direct.probabilities).max() > 0.1
    np.testing.assert_allclose(panel.results.probabilities, blended, atol=1e-5)
    heatmap = viewer.layers["cells basophil"].data
    np.testing.assert_allclose(heatmap.ravel(), blended[:, 0], atol=1e-5)
    assert viewer.layers["cells classes"].metadata["mambamic"]["settings"]["blend"] == "gaussian"


@pytest.fixture
def stack(viewer, sheet):
    """Five planes of cells in a layer with a scale; each plane has cells of another class."""
    planes = [sheet[96 * z : 96 * z + 96, :384] for z in range(5)]
    return viewer.add_image(np.stack(planes), name="stack", rgb=True, scale=(3, 0.5, 0.5))


def points_of_stack():
    """Points (n, 3) in three of five planes, in no order, one between two planes."""
    return np.array([[3, 48, 48], [0, 48, 144], [3, 40, 240], [1.2, 50, 336], [0, 48, 50]])


def expected_classes(stack, points, classifier, planes=range(5)):
    """Class of each point, in its own plane, from the core alone; None in other planes."""
    names = [None] * len(points)
    for z in planes:
        there = np.flatnonzero(np.round(points[:, 0]) == z)
        if len(there):
            found = classify_objects(stack.data[z], points[there, 1:], classifier)
            for number, label in zip(there, found.labels, strict=True):
                names[number] = classifier.class_names[label]
    return names


def test_points_of_a_stack_are_classified_each_in_its_own_plane(
    viewer, panel, stack, finish, classifier, script_by
):
    points = points_of_stack()
    viewer.add_points(points * [3, 0.5, 0.5], name="marks", size=20)
    panel.cut.setCurrentText("Points")
    panel.planes.setCurrentText("All")
    panel.run_button.click()
    finish(panel)
    layer = viewer.layers["stack classes"]
    assert isinstance(layer, Points)
    expected = expected_classes(stack, points, classifier)
    assert len(set(expected)) > 1
    by_place = {tuple(p): name for p, name in zip(points, expected, strict=True)}
    shown = np.array([stack.world_to_data(layer.data_to_world(p)) for p in layer.data])
    found = {
        tuple(np.round(p, 6)): name for p, name in zip(shown, layer.features["class"], strict=True)
    }
    assert found == by_place
    by_name = dict(zip(panel.results.class_names, class_colours(8), strict=True))
    for name, colour in zip(layer.features["class"], layer.face_color, strict=True):
        np.testing.assert_allclose(colour, by_name[name], atol=1e-6)
    assert "5 points classified" in panel.message.text()
    assert "3 planes" in panel.message.text()
    assert sum(int(panel.legend.item(row, 1).text()) for row in range(8)) == 5
    everything = results_of(layer)
    assert [list(each.object_ids) for each in everything] == [[1, 4], [3], [0, 2]]
    # What is in view is what other panels take.
    viewer.dims.set_point(0, 9)
    assert results_in_view(viewer, layer) is everything[2]
    viewer.dims.set_point(0, 0)
    assert results_in_view(viewer, layer) is everything[0]
    assert [first_point_of(layer, each) for each in everything] == [0, 2, 3]

    again = script_results(script_by(panel.copy_script), [stack.data])
    assert list(again) == [(0,), (1,), (3,)]
    assert_same_labels(again, layer)
    # The provenance does not have the points.
    bare = script_of(everything[0].provenance)
    assert gaps_of(bare) == ["stack", "points"]
    assert_same_labels(script_results(bare, [stack.data, points]), layer)


def test_points_of_a_range_of_planes_leave_the_others_out_and_say_so(
    viewer, panel, stack, finish, classifier
):
    points = points_of_stack()
    viewer.add_points(points, name="marks", scale=stack.scale)
    panel.cut.setCurrentText("Points")
    panel.planes.setCurrentText("From ... to")
    panel.first_plane.setValue(0)
    panel.last_plane.setValue(2)
    panel.run_button.click()
    finish(panel)
    assert "3 of the 5 points of 'marks' lie there." in panel.message.text()
    layer = viewer.layers["stack classes"]
    expected = expected_classes(stack, points, classifier, planes=range(3))
    np.testing.assert_array_equal(layer.data, points[[1, 4, 3]])
    assert layer.features["class"].tolist() == [expected[i] for i in (1, 4, 3)]
    by_script = classify_layer(
        viewer, stack, objects=viewer.layers["marks"], planes={0: (0, 3)}, device="cpu"
    )[-1]
    np.testing.assert_array_equal(by_script.data, layer.data)
    assert by_script.features["class"].tolist() == layer.features["class"].tolist()
    panel.first_plane.setValue(4)
    panel.last_plane.setValue(2)
    viewer.layers["marks"].data = points[:2] * [1, 1, 1] - [[1, 0, 0], [0, 0, 0]]
    panel.last_plane.setValue(4)
    panel.run_button.click()
    finish(panel)
    assert "no points on" in panel.message.text()


def test_points_without_a_plane_are_classified_in_each(viewer, panel, stack, classifier):
    points = np.array([[48, 48], [48, 240]])
    marks = viewer.add_points(points, scale=stack.scale[-2:], size=20)
    layer = classify_layer(viewer, stack, objects=marks, planes={0: (1, 4)}, device="cpu")[-1]
    assert layer.data.tolist() == [[z, *p] for z in (1, 2, 3) for p in points.tolist()]
    np.testing.assert_allclose(layer.scale, stack.scale)
    assert set(layer.size) == {20}
    for row, (z, place) in enumerate((z, p) for z in (1, 2, 3) for p in points):
        alone = classify_objects(stack.data[z], place[np.newaxis], classifier)
        assert layer.features["class"][row] == classifier.class_names[alone.labels[0]]


def test_planes_without_objects_do_not_stop_a_stack(
    viewer, panel, stack, finish, classifier, script_by
):
    labels = np.zeros((5, 96, 384), int)
    labels[1, 20:70, 120:170], labels[3, 20:70, 20:70], labels[3, 20:70, 220:270] = 4, 7, 9
    viewer.add_labels(labels, name="cells", scale=stack.scale)
    panel.cut.setCurrentText("Objects of a Labels layer")
    panel.planes.setCurrentText("All")
    panel.run_button.click()
    finish(panel)
    assert "3 objects classified" in panel.message.text()
    assert "2 of 5 planes; on the others there is nothing to classify." in panel.message.text()
    layer = viewer.layers["stack classes"]
    assert layer.data.shape == labels.shape
    for z, place in ((1, (40, 140)), (3, (40, 40)), (3, (40, 240))):
        expected = classify_objects(stack.data[z], labels[z], classifier)
        row = list(expected.object_ids).index(labels[(z, *place)])
        assert layer.data[(z, *place)] == expected.labels[row] + 1
    assert not layer.data[[0, 2, 4]].any()
    again = script_results(script_by(panel.copy_script), [stack.data])
    assert {plane: len(each) for plane, each in again.items()} == {(1,): 1, (3,): 2}
    # The provenance does not have the labels.
    bare = script_of(results_of(layer)[0].provenance)
    assert_same_labels(script_results(bare, [stack.data, labels]), layer)


def test_points_marked_at_one_channel_are_those_of_all(viewer, panel, cell_cycle, finish):
    path, pixels = cell_cycle
    channels = np.stack([pixels, pixels[::-1]]).transpose(0, 3, 1, 2)  # z, channel, y, x
    layer = viewer.add_image(channels, name="phases")
    marks = viewer.add_points([[0, 0, 20, 20], [1, 2, 20, 60]])
    shown = classify_layer(
        viewer,
        layer,
        weights=str(path),
        objects=marks,
        channels=[0, 1, 2],
        channel_axis=1,
        planes="all",
        device="cpu",
    )[-1]
    assert len(results_of(shown)) == 2
    assert shown.features["probability"].notna().all()


def script_results(script, givens):
    """What a script computes, with what is given for its gaps, in order."""
    assert len(gaps_of(script)) == len(givens)
    names = {"GIVEN": list(givens)}
    exec(script.replace("= ...", "= GIVEN.pop(0)"), names)
    return names["results"]


def assert_same_labels(again, layer):
    """A script's results are those of all planes of a layer of classes, tile by tile."""
    everything = results_of(layer)
    assert list(again) == [tuple(each.provenance["layer"]["plane"]) for each in everything]
    for each, repeated in zip(everything, again.values(), strict=True):
        assert each.is_done.any()
        np.testing.assert_array_equal(repeated.labels, each.labels)


def test_shapes_limit_the_plane_that_they_were_drawn_on(
    viewer, panel, stack, finish, classifier, script_by
):
    """A box and an ellipse in plane 1, another box in plane 3, in a layer with its own scale."""
    box = [(0, 0), (0, 190), (95, 190), (95, 0)]
    ellipse = [(0, 192), (0, 287), (95, 287), (95, 192)]
    right = [(0, 288), (0, 383), (95, 383), (95, 288)]
    drawn = [(1, box), (1, ellipse), (3, right)]
    shapes = [[(3 * z, y / 2, x / 2) for y, x in corners] for z, corners in drawn]
    kinds = ["polygon", "ellipse", "rectangle"]
    viewer.add_shapes(shapes, shape_type=kinds, name="regions")
    panel.where.choose(viewer.layers["regions"])
    panel.planes.setCurrentText("All")
    panel.run_button.click()
    finish(panel)
    said = panel.message.text()
    assert "4 tiles classified" in said
    assert "'regions' has shapes on 2 of the 5 planes." in said
    layer = viewer.layers["stack classes"]
    shown = np.zeros((5, 4), int)
    first = int(layer.data_to_world((0, 0, 0))[0] / 3)
    shown[first : first + len(layer.data)] = layer.data[:, 0]
    expected = np.zeros((5, 4), int)
    for z, tiles in ((1, [0, 1, 2]), (3, [3])):
        expected[z, tiles] = classify_image(stack.data[z], classifier).labels[tiles] + 1
    np.testing.assert_array_equal(shown, expected)
    one, other = results_of(layer)
    assert [len(each.provenance["settings"]["within"]) for each in (one, other)] == [2, 1]
    np.testing.assert_allclose(other.provenance["settings"]["within"], [right])
    copied = script_by(panel.copy_script)
    assert_same_labels(script_results(copied, [stack.data]), layer)
    # The provenance that is saved with any of the planes will do.
    saved = script_of(json.loads(json.dumps(one.provenance)))
    assert saved.splitlines()[1:] == copied.splitlines()[1:]


def test_shapes_on_none_of_the_planes_are_told(viewer, panel, stack, finish):
    viewer.add_shapes([[(4, 0, 0), (4, 0, 50), (4, 50, 50)]], shape_type="polygon", scale=(3, 1, 1))
    panel.where.choose(viewer.layers["Shapes"])
    panel.planes.setCurrentText("From ... to")
    panel.first_plane.setValue(0)
    panel.last_plane.setValue(2)
    panel.run_button.click()
    finish(panel)
    assert "'Shapes' has no area on any of the 3 planes" in panel.message.text()


def test_shapes_without_a_plane_limit_all(viewer, panel, stack, finish, script_by):
    viewer.add_shapes([[(0, 0), (0, 70), (47, 70), (47, 0)]], name="all", scale=(1, 1))
    assert viewer.layers["all"].ndim == 2
    panel.where.choose(viewer.layers["all"])
    panel.planes.setCurrentText("All")
    panel.run_button.click()
    finish(panel)
    layer = viewer.layers["stack classes"]
    assert [np.flatnonzero(each.is_done).tolist() for each in results_of(layer)] == [[0]] * 5
    assert "planes." in panel.message.text()
    assert "has shapes" not in panel.message.text()
    assert_same_labels(script_results(script_by(panel.copy_script), [stack.data]), layer)


@pytest.mark.parametrize("deep", [True, False])
def test_a_mask_limits_slice_by_slice_or_all_planes(deep, viewer, panel, stack, finish, script_by):
    mask = np.zeros((5, 96, 384), np.uint8)
    mask[1, :, :192], mask[4, :, 288:] = 1, 7
    tiles = [[0, 1], [3]]
    if not deep:
        mask, tiles = mask[1], [[0, 1]] * 5
    viewer.add_labels(mask, name="tissue", scale=stack.scale[-mask.ndim :])
    panel.where.choose(viewer.layers["tissue"])
    panel.planes.setCurrentText("All")
    panel.run_button.click()
    finish(panel)
    layer = viewer.layers["stack classes"]
    assert [np.flatnonzero(each.is_done).tolist() for each in results_of(layer)] == tiles
    assert_same_labels(script_results(script_by(panel.copy_script), [stack.data]), layer)
    # The provenance does not have the mask.
    bare = script_of(results_of(layer)[0].provenance)
    assert_same_labels(script_results(bare, [stack.data, mask]), layer)


def test_points_count_where_shapes_are_on_their_plane(viewer, stack, classifier):
    marks = viewer.add_points(points_of_stack(), scale=stack.scale)
    around = [[(3, 0, 0), (3, 0, 96), (3, 96, 96), (3, 96, 0)], [(4, 0, 0), (4, 0, 9), (4, 9, 9)]]
    shapes = viewer.add_shapes(around, shape_type="polygon", scale=stack.scale)
    layer = classify_layer(viewer, stack, objects=marks, within=shapes, planes="all", device="cpu")[
        -1
    ]
    (results,) = results_of(layer)
    assert results.provenance["layer"]["plane"] == [3]
    assert results.object_ids[results.is_done].tolist() == [0]


@pytest.fixture
def phases(viewer, cell_cycle):
    """Weights for three channels, and four planes (z, channel, y, x), each with other pixels."""
    path, pixels = cell_cycle
    planes = [pixels, pixels[::-1], pixels[:, ::-1], 255 - pixels]
    data = np.stack(planes).transpose(0, 3, 1, 2).copy()
    return str(path), data, viewer.add_image(data, name="phases", axis_labels="zcyx")


def test_the_script_of_an_axis_of_channels_goes_through_all_planes(
    viewer, panel, phases, finish, script_by
):
    path, data, _ = phases
    viewer.add_shapes(
        [[(z, 1, 0, 0), (z, 1, 0, 60), (z, 1, 39, 60), (z, 1, 39, 0)] for z in (0, 3)],
        shape_type="polygon",
        name="here",
    )
    viewer.dims.set_point(1, 2)  # another channel than that which was drawn at
    panel.weights.add_file(path)
    assert panel.channels.channel_axis == 1
    panel.channels.rows[0].setCurrentText("phases, channel 2")
    panel.channels.rows[2].setCurrentText("phases, channel 0")
    panel.planes.setCurrentText("All")
    panel.run_button.click()
    finish(panel)
    layer = viewer.layers["phases classes"]
    assert len(results_of(layer)) == 4, panel.message.text()
    probabilities = [each.probabilities for each in results_of(layer)]
    again = script_results(script_by(panel.copy_script), [data, path])
    assert_same_labels(again, layer)
    for repeated, each in zip(again.values(), probabilities, strict=True):
        np.testing.assert_allclose(repeated.probabilities, each, atol=1e-5)

    panel.where.choose(viewer.layers["here"])
    panel.run_button.click()
    finish(panel)
    limited = viewer.layers["phases classes [1]"]
    assert [each.provenance["layer"]["plane"][0] for each in results_of(limited)] == [0, 3]
    assert_same_labels(script_results(script_by(panel.copy_script), [data, path]), limited)


def test_the_script_of_several_layers_of_channels_goes_through_all_planes(
    viewer, phases, script_by
):
    path, data, image = phases
    viewer.layers.remove(image)
    layers = [viewer.add_image(data[:, i], name=f"layer {i}") for i in range(2)]
    flat = viewer.add_image(data[0, 2], name="flat")  # of all planes
    marks = viewer.add_points([[0, 20, 20], [2, 20, 60], [2, 10, 100]], name="marks")
    shown = classify_layer(
        viewer,
        layers[0],
        weights=path,
        objects=marks,
        channels=[layers[1], layers[0], flat],
        planes="all",
        device="cpu",
    )[-1]
    provenance = shown.metadata["mambamic"]
    script = script_by(
        lambda: put_script_on_clipboard(viewer, shown, provenance, lambda said: None)
    )
    assert gaps_of(script) == ["stack_1", "stack_2", "stack_3", "weights"]
    again = script_results(script, [data[:, 1], data[:, 0], data[0, 2], path])
    assert_same_labels(again, shown)
    expected = classify_objects(
        as_image(np.stack([data[2, 1], data[2, 0], data[0, 2]]), channel_axis=0),
        np.array([[20, 60], [10, 100]]),
        load_classifier(path, device="cpu"),
        tile_size=provenance["settings"]["tile_size"],
    )
    np.testing.assert_allclose(again[2,].probabilities, expected.probabilities, atol=1e-5)


def test_the_script_takes_points_marked_at_any_channel(viewer, phases, script_by):
    path, data, image = phases
    marks = viewer.add_points([[0, 0, 20, 20], [3, 2, 20, 60], [3, 1, 9, 30]], name="marks")
    shown = classify_layer(
        viewer,
        image,
        weights=path,
        objects=marks,
        channels=[0, 1, 2],
        channel_axis=1,
        planes="all",
        device="cpu",
    )[-1]
    assert [len(each) for each in results_of(shown)] == [1, 2]
    run = shown.metadata["mambamic"]
    script = script_by(lambda: put_script_on_clipboard(viewer, shown, run, lambda said: None))
    assert_same_labels(script_results(script, [data, path]), shown)


KILLED = """
import os, signal, sys
import napari
from qtpy.QtCore import QTimer
import napari_mambamic.run_store as run_store
from napari_mambamic import kept_runs
from napari_mambamic._napari.classify_panel import ClassifyPanel

run_store._BLOCK, kept_runs.LEAST_TILES = 24, 50
viewer = napari.Viewer(show=False)
viewer.open(sys.argv[1], plugin="napari")
panel = ClassifyPanel(viewer)
viewer.window.add_dock_widget(panel)
panel.batch_size.setValue(8)
show = panel._show_progress

def kill(progress):
    show(progress)
    if progress.done >= 58:
        os.kill(os.getpid(), signal.SIGKILL)

panel._show_progress = kill
panel.start()
QTimer.singleShot(200_000, lambda: sys.exit(panel.message.text()))
napari.run()
"""


@pytest.fixture
def short_runs(monkeypatch, tmp_path):
    """Runs are kept in a folder of the test, and short ones are long."""
    monkeypatch.setenv("MAMBAMIC_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setattr("napari_mambamic.run_store._BLOCK", 24)
    monkeypatch.setattr("napari_mambamic.kept_runs.LEAST_TILES", 50)
    return tmp_path / "runs"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_long_run_goes_on_after_napari_was_killed(
    viewer, panel, sheet, finish, short_runs, tmp_path, classifier
):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, sheet, photometric="rgb")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], env=os.environ, capture_output=True, timeout=300
    )
    assert killed.returncode == -9, killed.stderr
    assert len(list(short_runs.glob("*.zarr"))) == 1
    viewer.open(str(path), plugin="napari")
    panel.batch_size.setValue(8)
    panel.run_button.click()
    finish(panel)
    said = panel.message.text()
    assert "96 tiles classified" in said
    # At most a block of 24 and the batches of 8 on their way are done again.
    there = int(re.search(r"(\d+) of 96 tiles were there already", said)[1])
    assert there in (48, 72)
    expected = classify_image(sheet, classifier).labels
    np.testing.assert_array_equal(panel.results.labels, expected)
    assert panel.results.complete
    layer = viewer.layers["slide classes"]
    assert layer.features["class"].tolist() == [classifier.class_names[i] for i in expected]
    assert sum(int(panel.legend.item(row, 1).text()) for row in range(8)) == 96
    assert list(short_runs.iterdir()) == []


def test_a_run_is_kept_only_of_files_and_where_it_is_wanted(
    viewer, panel, sheet, qtbot, finish, short_runs, tmp_path
):
    def stopped_run():
        panel.run_button.click()
        bar = panel.progress
        qtbot.waitUntil(lambda: bar.maximum() == 96 and bar.value() >= 40, timeout=60_000)
        panel.cancel()
        finish(panel)
        return len(list(short_runs.glob("*.zarr"))) if short_runs.exists() else 0

    panel.batch_size.setValue(8)
    viewer.add_image(sheet, name="in memory", rgb=True)
    assert stopped_run() == 0
    tifffile.imwrite(tmp_path / "slide.tif", sheet, photometric="rgb")
    viewer.open(str(tmp_path / "slide.tif"), plugin="napari")
    panel.image.choose(viewer.layers["slide"])
    panel.keep_long_runs.setChecked(False)
    assert stopped_run() == 0
    panel.keep_long_runs.setChecked(True)
    panel.keep_embeddings.setChecked(True)
    assert stopped_run() == 0
    panel.keep_embeddings.setChecked(False)
    assert stopped_run() == 1
    panel.run_button.click()
    finish(panel)
    assert "of 96 tiles were there already" in panel.message.text()
    assert list(short_runs.iterdir()) == []


def test_a_kept_run_goes_on_where_each_plane_has_its_own_shapes(
    viewer, sheet, short_runs, tmp_path, classifier
):
    stack = np.stack([sheet[:192, :384], sheet[192:384, :384]])
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, photometric="rgb")
    (image,) = viewer.open(str(path), plugin="napari")
    whole, left = [(0, 0), (0, 384), (192, 384), (192, 0)], [(0, 0), (0, 190), (190, 190), (190, 0)]
    corners = [[(z, *place) for place in places] for z, places in ((0, whole), (1, left))]
    shapes = viewer.add_shapes(corners, shape_type="polygon")

    def request():
        return request_of(
            viewer,
            image,
            within=shapes,
            planes="all",
            tile_size=24,
            batch_size=8,
            device="cpu",
            keeps_long_runs=True,
        )

    steps = iter_request(request())
    for progress in steps:
        if progress.done >= 128 + 40:  # in the midst of the second plane
            break
    steps.close()
    assert len(list(short_runs.glob("*.zarr"))) == 1
    steps = list(iter_request(request()))
    assert steps[-1].before == 40
    shapes.data = [corners[0], [(z, y, x + 190) for z, y, x in corners[1]]]
    again = drained(iter_request(request()))
    assert [int(each.is_done.sum()) for each in again] == [128, 64]
    for z, each in enumerate(again):
        expected = classify_image(stack[z], classifier, tile_size=24).labels
        np.testing.assert_array_equal(each.labels[each.is_done], expected[each.is_done])
    assert again[1].is_done.reshape(8, 16)[:, 8:].all()
