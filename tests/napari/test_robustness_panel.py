"""The Robustness panel in a real window."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from qtpy.QtWidgets import QComboBox, QFileDialog, QPushButton, QSpinBox, QTableWidget
from skimage.io import imread

from napari_mambamic import as_image, robustness_of_tiles
from napari_mambamic._napari.classified import weights_of
from napari_mambamic._napari.classify_layer import classify_layer
from napari_mambamic._napari.robustness_panel import RobustnessPanel
from napari_mambamic._napari.to_layers import results_of
from napari_mambamic.explain import robustness as measuring
from napari_mambamic.explain.perturbations import PERTURBATIONS
from napari_mambamic.weights.store import bundled_folder


@pytest.fixture
def robust(docked):
    return docked(RobustnessPanel)


@pytest.fixture
def two_perturbations(monkeypatch):
    """Blur and contrast alone, for time."""
    kept = tuple(p for p in PERTURBATIONS if p.name in ("blur", "contrast"))
    monkeypatch.setattr(measuring, "PERTURBATIONS", kept)


@pytest.fixture
def classes(viewer, sheet):
    """A layer of the classes of 24 real cells."""
    image = viewer.add_image(sheet[:192], name="cells", rgb=True)
    return classify_layer(viewer, image, device="cpu")[0]


def test_without_classes_a_sentence_says_what_to_do(robust):
    robust.run_button.click()
    assert "There is no layer of classes. Press Classify" in robust.message.text()
    assert not robust.is_running


def test_it_shows_what_the_core_measures(
    robust, viewer, classes, finish, two_perturbations, sheet, classifier
):
    assert robust.layer.currentText() == classes.name
    robust.run_button.click()
    finish(robust)
    image = as_image(sheet[:192])
    expected = robustness_of_tiles(image, classes.metadata["results"].tiles, classifier)
    assert robust.message.text().startswith(expected.sentence)
    assert robust.report.rows == expected.rows
    shown = [
        [robust.table.item(y, x).text() for x in range(5)] for y in range(robust.table.rowCount())
    ]
    assert shown == [
        [f"{row.stability:.0%}" for row in rows] for rows in expected.by_perturbation.values()
    ]
    assert "standard deviation 0.5 % of the tile's side" in robust.table.item(0, 0).toolTip()
    x, y = robust.chart.lines["blur"]
    assert x == [0, 1, 2, 3, 4, 5]
    assert y == [1.0, *(row.stability for row in expected.by_perturbation["blur"])]


def test_as_many_tiles_are_drawn_as_the_form_says(
    robust, viewer, classes, finish, two_perturbations
):
    robust.most.setValue(10)
    robust.run_button.click()
    finish(robust)
    assert robust.report.n == 10


def test_cancel_stops_and_shows_nothing(robust, viewer, classes, finish, qtbot):
    robust.run_button.click()
    qtbot.waitUntil(lambda: robust.progress.value() > 0, timeout=60_000)
    robust.cancel_button.click()
    finish(robust)
    assert robust.message.text() == "Stopped: nothing was measured."
    assert robust.report is None
    assert robust.table.isHidden()


def test_another_run_takes_away_what_the_last_one_showed(
    robust, viewer, classes, finish, two_perturbations
):
    robust.most.setValue(10)
    robust.run_button.click()
    finish(robust)
    shown = (robust.chart, robust.table)
    assert not any(widget.isHidden() for widget in shown)
    robust.run_button.click()
    assert all(widget.isHidden() for widget in shown)
    assert not robust.save_button.isEnabled()
    robust.cancel_button.click()
    finish(robust)
    assert all(widget.isHidden() for widget in shown)


def test_a_closed_image_gets_a_sentence(robust, viewer, classes):
    viewer.layers.remove("cells")
    robust.run_button.click()
    assert "was made of is closed" in robust.message.text()


def test_channels_of_a_run_are_found_again(robust, viewer, sheet, finish, two_perturbations):
    planes = [viewer.add_image(sheet[:96, :, i], name=name) for i, name in enumerate("rgb")]
    layer = classify_layer(viewer, planes[0], channels=planes, device="cpu")[0]
    robust.layer.choose(layer)
    robust.run_button.click()
    finish(robust)
    by_colour = robust.report
    stack = viewer.add_image(np.moveaxis(sheet[:96], 2, 0), name="stack")
    layer = classify_layer(viewer, stack, channels=[0, 1, 2], channel_axis=0, device="cpu")[0]
    robust.layer.choose(layer)
    robust.run_button.click()
    finish(robust)
    assert robust.report.rows == by_colour.rows


def test_weights_that_were_opened_as_a_file_are_found_again(
    robust, viewer, sheet, finish, two_perturbations, tmp_path
):
    bundled = bundled_folder() / "blood-cells-t.safetensors"
    path = tmp_path / "mine.safetensors"
    shutil.copyfile(bundled, path)
    fields = json.loads(bundled.with_suffix(".json").read_text(encoding="utf-8"))
    about = json.dumps(fields | {"name": "mine"})
    path.with_suffix(".json").write_text(about, encoding="utf-8")
    image = viewer.add_image(sheet[:96, :288], name="cells", rgb=True)
    (layer,) = classify_layer(viewer, image, weights=str(path), device="cpu")
    assert weights_of(results_of(layer)[0]) == str(path)
    robust.run_button.click()
    finish(robust)
    assert robust.report is not None, robust.message.text()
    fields["sha256"] = "0" * 64
    path.with_suffix(".json").write_text(json.dumps(fields | {"name": "mine"}), encoding="utf-8")
    assert weights_of(results_of(layer)[0]) == "blood-cells-t"  # the same, by another name
    results_of(layer)[0].provenance["weights"]["sha256"] = "1" * 64
    robust.run_button.click()
    finish(robust)
    assert "'mine', which have changed since. Classify" in robust.message.text()


def test_the_report_is_saved(
    robust, viewer, classes, finish, two_perturbations, tmp_path, monkeypatch
):
    robust.most.setValue(10)
    robust.run_button.click()
    finish(robust)
    robust.chart.grab()  # lays it out, as a window that is shown does
    for name in ("r.json", "r.png", "r.html"):
        path = str(tmp_path / name)
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *args, p=path: (p, ""))
        robust.save_button.click()
        assert robust.message.text() == f"{robust.report.sentence}\n\nSaved {path}"
    assert json.loads((tmp_path / "r.json").read_text())["n"] == 10
    assert "<p>Image: cells</p>" in (tmp_path / "r.html").read_text(encoding="utf-8")
    picture = imread(tmp_path / "r.png")
    assert picture.std() > 1
    assert picture.shape[1] == 3 * robust.chart.width()  # for print
    robust.save(str(tmp_path / "none" / "r.png"))
    assert "There is no folder" in robust.message.text()


def test_it_opens_from_the_menu_and_every_control_says_what_it_is(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("napari-mambamic", "Robustness")
    for kind in (QPushButton, QComboBox, QSpinBox, QTableWidget):
        for control in widget.findChildren(kind):
            assert control.toolTip() or control.accessibleName(), control
    assert widget.layer.accessibleName() == "Results"
