"""What napari finds in the manifest."""

from __future__ import annotations

import numpy as np
import pytest
from npe2 import PluginManager, PluginManifest

from napari_mambamic.classify import classify_objects


@pytest.fixture(scope="module")
def manifest():
    return PluginManifest.from_distribution("napari-mambamic")


def test_every_command_can_be_imported(manifest):
    assert len(manifest.contributions.commands) == 19
    manifest.validate_imports()


def test_the_panel_opens_from_the_menu(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("napari-mambamic", "Classify tiles and cells")
    assert widget.run_button.text() == "Classify"


@pytest.mark.parametrize("sample", ["blood-cells", "blood-smear"])
def test_samples_open(viewer, sample):
    PluginManager.instance()
    layers = viewer.open_sample("napari-mambamic", sample)
    assert len(layers) == 2
    assert layers[0].rgb


def test_the_known_classes_of_the_sheet_are_mostly_recognised(viewer, classifier):
    image, known = viewer.open_sample("napari-mambamic", "blood-cells")
    results = classify_objects(image.data, known.data, classifier)
    got = np.array(results.class_names)[results.labels]
    assert (got == known.features["known class"]).mean() > 0.9


def test_the_objects_of_the_smear_are_numbered(viewer, classifier):
    image, objects = viewer.open_sample("napari-mambamic", "blood-smear")
    results = classify_objects(image.data, objects.data, classifier, object_scale=1.5)
    assert results.object_ids.tolist() == [1, 2, 3]
