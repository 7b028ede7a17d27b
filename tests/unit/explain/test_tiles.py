"""Explaining the tiles of an image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mambamic import (
    classify_image,
    classify_objects,
    explain_patches,
    explain_tiles,
    iter_explain,
    plan_tiles,
)
from napari_mambamic.errors import ImageError, NothingToClassify, WeightsError


@pytest.fixture(scope="module")
def image(sheet):
    """Two rows of three cells."""
    return sheet[:192, :288]


@pytest.fixture(scope="module")
def results(image, classifier):
    return classify_image(image, classifier)


def test_each_tile_shows_the_map_of_its_patch(image, results, classifier):
    heatmap = explain_tiles(image, classifier, results)
    patches = np.stack([image[t.y : t.y + 96, t.x : t.x + 96] for t in results.tiles])
    maps = explain_patches(classifier, patches, target=results.labels)
    assert heatmap.complete
    assert (heatmap.origin, heatmap.step) == ((0, 0), 1)
    for tile, expected in zip(results.tiles, maps, strict=True):
        found = heatmap.pixels[tile.y : tile.y + 96, tile.x : tile.x + 96]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_one_tile_is_explained_at_its_place(image, results, classifier):
    everything = explain_tiles(image, classifier, results)
    *_, last = iter_explain(image, classifier, results, numbers=[4])
    assert last.heatmap.first == (96, 96)
    np.testing.assert_allclose(last.heatmap.pixels, everything.pixels[96:192, 96:192], atol=1e-4)


def test_objects_are_explained_where_they_are(image, classifier):
    results = classify_objects(image, np.array([(47.5, 60.0), (150.0, 240.0)]), classifier)
    heatmap = explain_tiles(image, classifier, results, target="platelet")
    assert (results.tiles[0].y, results.tiles[0].x) == heatmap.first == (0, 13)
    assert heatmap.pixels.shape == (192, 275)  # the last tile sticks out
    assert np.isfinite(heatmap.pixels[:96, :96]).all()
    assert np.isnan(heatmap.pixels[:96, 180:]).all()
    assert heatmap.provenance["explanation"]["class"] == "platelet"
    assert heatmap.provenance["image"] == results.provenance["image"]


def test_a_stopped_run_keeps_what_is_done(sheet, classifier):
    image = sheet[:384]  # 48 tiles: two batches
    steps = iter_explain(image, classifier, plan_tiles(image.shape[:2], tile_size=96))
    assert next(steps).done == 0
    progress = next(steps)
    steps.close()
    assert (progress.done, progress.total) == (32, 48)
    assert not progress.heatmap.complete
    assert np.isfinite(progress.heatmap.pixels[:192]).all()
    assert np.isnan(progress.heatmap.pixels[288:]).all()


def test_tiles_that_were_not_classified_are_left_out(image, results, classifier):
    probabilities = results.probabilities.copy()
    probabilities[0] = np.nan
    heatmap = explain_tiles(image, classifier, replace(results, probabilities=probabilities))
    assert np.isnan(heatmap.pixels[:96, :96]).all()
    assert np.isfinite(heatmap.pixels[:, 96:]).all()
    with pytest.raises(NothingToClassify, match="none was classified"):
        explain_tiles(
            image,
            classifier,
            replace(results, probabilities=np.full_like(probabilities, np.nan)),
        )


def test_what_does_not_belong_to_the_results_is_refused(image, results, classifier):
    other = {**results.provenance, "weights": {"name": "other", "sha256": "0" * 64}}
    with pytest.raises(WeightsError, match="made with weights 'other'"):
        explain_tiles(image, classifier, replace(results, provenance=other))
    with pytest.raises(WeightsError, match="The results have the classes a, b"):
        explain_tiles(image, classifier, replace(results, class_names=("a", "b")))
    with pytest.raises(ImageError, match="results are of one of 192 x 288 px"):
        explain_tiles(image[:100], classifier, results)
