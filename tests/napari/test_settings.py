"""The preference for the place of weights, and a download in the window."""

from __future__ import annotations

import hashlib
import json

import pytest
from napari.settings import get_plugin_settings
from qtpy.QtWidgets import QApplication

from napari_mambamic._napari.classify_panel import ClassifyPanel
from napari_mambamic._napari.settings import weights_source
from napari_mambamic.weights import store
from napari_mambamic.weights.store import bundled_folder, is_here


@pytest.fixture
def lab_folder(monkeypatch, tmp_path):
    """A folder with weights that the registry knows and this machine does not have."""
    content = (bundled_folder() / "blood-cells-t.safetensors").read_bytes()
    manifest = json.loads((bundled_folder() / "blood-cells-t.json").read_text(encoding="utf-8"))
    entry = {
        "file": "afar.safetensors",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "manifest": manifest | {"name": "afar", "title": "From afar"},
    }
    registry = {"base_url": "http://127.0.0.1:9/", "weights": {"afar": entry}}
    monkeypatch.setattr(store, "_registry", lambda: registry)
    monkeypatch.setenv("MAMBAMIC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MAMBAMIC_WEIGHTS_DIR", str(tmp_path / "own"))
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "afar.safetensors").write_bytes(content)
    return tmp_path / "lab"


@pytest.fixture
def preference():
    """The preference, put back afterwards."""
    settings = get_plugin_settings("napari-mambamic").weights
    before = settings.address
    yield settings
    settings.address = before


def test_without_a_preference_the_usual_place_is_taken(preference):
    preference.address = "  "
    assert weights_source() is None


def test_weights_come_from_the_preferred_place(viewer, sheet, lab_folder, preference, finish):
    preference.address = str(lab_folder)
    viewer.add_image(sheet[:96], name="cells", rgb=True)
    panel = ClassifyPanel(viewer)
    viewer.window.add_dock_widget(panel)
    assert panel.weights.names.itemText(1) == "From afar (mambamic-t) - to download"
    panel.weights.choose("afar")
    panel.device.setCurrentText("CPU")
    panel.run_button.click()
    finish(panel)
    assert panel.results is not None, panel.message.text()
    assert panel.results.provenance["weights"]["name"] == "afar"
    assert is_here("afar")
    QApplication.processEvents()


def test_a_place_that_is_not_there_is_a_sentence(viewer, sheet, lab_folder, preference, finish):
    preference.address = str(lab_folder / "nowhere")
    viewer.add_image(sheet[:96], name="cells", rgb=True)
    panel = ClassifyPanel(viewer)
    viewer.window.add_dock_widget(panel)
    panel.weights.choose("afar")
    panel.run_button.click()
    finish(panel)
    assert "is no folder and no http address" in panel.message.text()
