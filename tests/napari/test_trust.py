"""Doubt in the window: grey tiles, maps, warnings below the message."""

from __future__ import annotations

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Qt
from skimage import data

from napari_mambamic._napari.from_layer import plane_of_layer
from napari_mambamic._napari.to_layers import ResultLayers, maps_of
from napari_mambamic.colours import UNSURE
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import plan_tiles


def check_heatmap(panel, name):
    item = next(
        panel.heatmaps.item(i)
        for i in range(panel.heatmaps.count())
        if panel.heatmaps.item(i).text() == name
    )
    item.setCheckState(Qt.CheckState.Checked)


def test_unsure_tiles_are_grey_and_have_a_line_in_the_legend(viewer, panel, sheet, finish):
    viewer.add_image(sheet[288:480], name="cells", rgb=True)
    panel.unsure_below.setValue(0.97)
    panel.count_unsure.setChecked(False)
    panel.run_button.click()
    finish(panel)
    unsure = panel.results.is_unsure
    assert 0 < unsure.sum() < 24
    layer = viewer.layers["cells classes"]
    grey = [np.allclose(layer.get_color(i + 1), UNSURE, atol=0.01) for i in range(24)]
    np.testing.assert_array_equal(grey, unsure)
    np.testing.assert_array_equal(layer.features["unsure"], unsure)
    last = panel.legend.rowCount() - 1
    assert panel.legend.item(last, 0).text() == "unsure"
    assert panel.legend.item(last, 1).text() == str(unsure.sum())
    counted = sum(int(panel.legend.item(row, 1).text()) for row in range(last))
    assert counted == 24 - unsure.sum()


def test_the_threshold_can_be_moved_after_the_run(viewer, panel, sheet, finish):
    viewer.add_image(sheet[288:480], name="cells", rgb=True)
    panel.run_button.click()
    finish(panel)
    assert panel.legend.rowCount() == 8
    panel.unsure_below.setValue(1.0)
    layer = viewer.layers["cells classes"]
    assert np.allclose(layer.get_color(1), UNSURE, atol=0.01)
    assert panel.legend.item(8, 1).text() == str(panel.results.is_unsure.sum())
    assert layer.metadata["results"].unsure_below == 1.0
    panel.unsure_below.setValue(0.0)
    assert not np.allclose(layer.get_color(1), UNSURE, atol=0.01)
    assert panel.legend.rowCount() == 8


def test_many_tiles_have_a_value_for_the_unsure():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((60, 60), np.uint8))
    grid = plan_tiles((60, 60), tile_size=1)
    shares = np.random.default_rng(0).dirichlet(np.ones(3), len(grid)).astype(np.float32)
    results = TileResults(("a", "b", "c"), grid, shares, None, {}).with_unsure(0.5)
    shown = ResultLayers(viewer, [plane_of_layer(viewer, layer)], results)
    shown.finish(results)
    expected = np.where(results.is_unsure, 4, results.labels + 1)
    np.testing.assert_array_equal(shown.main.data.ravel(), expected)
    assert shown.main.features["class"].tolist() == ["a", "b", "c", "unsure"]
    assert shown.main.features["tiles"].iloc[-1] == results.is_unsure.sum()
    np.testing.assert_allclose(shown.main.get_color(4), UNSURE, atol=0.01)


def test_maps_of_doubt_are_layers(viewer, panel, sheet, finish):
    viewer.add_image(sheet[:192], name="cells", rgb=True)
    for name in ("entropy", "margin", "distance", "set size"):
        check_heatmap(panel, name)
    panel.coverage.setValue(0.99)
    panel.run_button.click()
    finish(panel)
    results = panel.results
    expected = {
        "entropy": results.entropy,
        "margin": results.margin,
        "distance": results.distances,
        "set size": results.prediction_sets(0.99).sum(1),
    }
    for name, values in expected.items():
        layer = viewer.layers[f"cells {name}"]
        assert isinstance(layer, Image)
        np.testing.assert_allclose(layer.data.ravel(), values, rtol=1e-6)
    top = viewer.layers["cells distance"].contrast_limits[1]
    assert top == 2 * results.distance_threshold


def test_weights_without_statistics_offer_no_map_of_distances():
    assert maps_of({}) == ("entropy", "margin")
    assert maps_of({"distance": {}}) == ("entropy", "margin", "distance")
    assert maps_of({"conformal": {}}) == ("entropy", "margin", "set size")


def test_a_foreign_image_gets_a_warning_and_a_fitting_one_none(viewer, panel, sheet, finish):
    viewer.add_image(data.immunohistochemistry(), name="tissue", rgb=True)
    panel.run_button.click()
    finish(panel)
    assert not panel.warnings.isHidden()
    assert "100% of the tiles are unlike the training data" in panel.warnings.text()
    assert panel.warnings.accessibleName() == "Warnings"
    viewer.layers.clear()
    viewer.add_image(sheet, name="cells", rgb=True)
    panel.run_button.click()
    assert panel.warnings.isHidden()  # what was said of another image
    finish(panel)
    assert panel.warnings.isHidden()
