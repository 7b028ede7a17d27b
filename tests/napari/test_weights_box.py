"""Weights that are removed while panels are open."""

from __future__ import annotations

import shutil

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

from napari_mambamic._napari.robustness_panel import RobustnessPanel
from napari_mambamic._napari.to_layers import results_of
from napari_mambamic._napari.train_panel import TrainPanel
from napari_mambamic.training import annotations
from napari_mambamic.weights.store import add_weights, fetch_weights, list_weights, remove_weights


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """Weights of the user's own, registered as 'mine'."""
    monkeypatch.setenv("MAMBAMIC_WEIGHTS_DIR", str(tmp_path / "own"))
    monkeypatch.setattr(annotations, "user_data_path", lambda name: tmp_path / name)
    for ending in (".safetensors", ".json"):
        shutil.copy(fetch_weights("default").with_suffix(ending), tmp_path / f"mine{ending}")
    add_weights(tmp_path / "mine.safetensors")
    return tmp_path / "own"


def test_the_list_removes_own_weights_after_a_question(panel, answer, mine):
    box = panel.weights
    assert box.names.contextMenuPolicy() == Qt.ContextMenuPolicy.ActionsContextMenu
    assert box.remove_action in box.names.actions()
    assert not box.remove_action.isEnabled()  # those of the package
    box.choose("mine")
    assert box.remove_action.isEnabled()
    asked = answer(QMessageBox.StandardButton.No)
    box.remove_action.trigger()
    assert asked[0].startswith("Remove the weights 'mine' from this computer?")
    assert "mine" in list_weights()
    answer(QMessageBox.StandardButton.Yes)
    box.remove_action.trigger()
    assert "mine" not in list_weights()
    assert not list(mine.iterdir())
    assert box.weights == "blood-cells-t"
    assert box.names.findData("mine") < 0
    assert box.about.text().startswith("Removed 'mine': ")
    assert "8 classes" in box.about.text()
    assert panel.run_button.isEnabled()


def test_what_cannot_be_removed_is_told(panel, mine):
    panel.weights.choose("mine")
    remove_weights("mine")  # in a terminal, meanwhile
    panel.weights.remove()
    assert "There are no weights 'mine' on this computer" in panel.weights.about.text()


def test_panels_that_are_open_live_without_weights_that_are_removed(
    viewer, panel, docked, sheet, finish
):
    viewer.add_image(sheet[:192], name="cells", rgb=True)
    panel.weights.choose("mine")
    panel.run_button.click()
    finish(panel)
    (results,) = results_of(viewer.layers["cells classes"])
    results.provenance["weights"] |= {"name": "mine", "sha256": "1" * 64}  # no other has it
    robust, train = docked(RobustnessPanel), docked(TrainPanel)
    train.start_from.setCurrentIndex(train.start_from.findData("mine"))
    train.sources.class_names.setText("basophil, eosinophil")
    train.sources.label_button.click()
    for index in range(24):
        train.sources.annotator.label(index, "basophil" if index < 12 else "eosinophil")
    train.sources.add_button.click()
    remove_weights("mine")
    for open_panel in (panel, robust, train):
        open_panel.run_button.click()
        finish(open_panel)
        assert open_panel.message.text().startswith("⚠ ")
        assert "weights 'mine'" in open_panel.message.text()
    panel.weights.names.setCurrentIndex(0)
    train.start_from.setCurrentIndex(0)
    panel.run_button.click()
    finish(panel)
    assert panel.message.text().startswith("24 tiles classified")
    train.run_button.click()
    finish(train)
    assert train.message.text().startswith("Trained for")
