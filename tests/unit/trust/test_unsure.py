"""Unsure tiles are told, counted or not; labels stay."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from napari_mambamic import classify_image, summarise
from napari_mambamic.as_script import script_of
from napari_mambamic.errors import ImageError
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import plan_tiles

SHARES = np.array([[0.9, 0.1], [0.55, 0.45], [0.3, 0.7], [0.5, 0.5], [np.nan] * 2], np.float32)


@pytest.fixture
def results():
    return TileResults(("a", "b"), plan_tiles((4, 20), tile_size=4), SHARES, None, {})


def test_tiles_below_the_threshold_are_unsure_and_keep_their_labels(results):
    assert results.unsure(0.6).tolist() == [False, True, False, True, False]
    assert not results.is_unsure.any()
    other = results.with_unsure(0.6)
    assert other.is_unsure.tolist() == results.unsure(0.6).tolist()
    np.testing.assert_array_equal(other.labels, results.labels)
    assert results.provenance == {}


def test_unsure_tiles_count_or_not_as_was_chosen(results):
    assert results.with_unsure(0.6).counts == results.counts == {"a": 3, "b": 1}
    assert results.with_unsure(0.6, counted=False).counts == {"a": 1, "b": 1}


def test_entropy_and_margin(results):
    np.testing.assert_allclose(results.margin[:4], [0.8, 0.1, 0.4, 0], atol=1e-6)
    p = SHARES[2].astype(float)
    assert results.entropy[2] == pytest.approx(-(p * np.log2(p)).sum())
    assert results.entropy[3] == pytest.approx(1)
    assert np.isnan(results.entropy[4])
    assert np.isnan(results.margin[4])


@pytest.mark.parametrize("threshold", [-0.1, 1.01, float("nan")])
def test_what_is_no_probability_is_refused(results, threshold):
    with pytest.raises(ImageError, match="Choose 0 to 1"):
        results.unsure(threshold)


def test_a_run_is_told_what_is_unsure_and_its_script_too(sheet, classifier):
    image = sheet[288:384]
    results = classify_image(image, classifier, unsure_below=0.97, count_unsure=False)
    assert 0 < results.is_unsure.sum() < 12
    assert sum(results.counts.values()) == 12 - results.is_unsure.sum()
    plain = classify_image(image, classifier)
    np.testing.assert_array_equal(results.probabilities, plain.probabilities)
    script = script_of(results.provenance)
    assert "unsure_below=0.97, count_unsure=False" in script
    assert "unsure" not in script_of(plain.provenance)


def test_summaries_tell_the_unsure(results, tmp_path):
    counted = summarise(results.with_unsure(0.6))
    assert (counted.tiles.tolist(), counted.unsure.tolist()) == ([[3, 1]], [[2, 0]])
    left_out = summarise(results.with_unsure(0.6, counted=False))
    assert (left_out.tiles.tolist(), left_out.unsure.tolist()) == ([[1, 1]], [[2, 0]])
    with open(left_out.to_csv(tmp_path / "a.csv"), newline="") as file:
        assert [row["unsure"] for row in csv.DictReader(file)] == ["2", "0"]
    assert "unsure" not in summarise(results).to_csv(tmp_path / "b.csv").read_text()


def test_tables_have_a_column(results, tmp_path):
    unsure = results.with_unsure(0.6)
    with open(unsure.to_csv(tmp_path / "a.csv"), newline="") as file:
        assert [row["unsure"] for row in csv.DictReader(file)] == ["0", "1", "0", "1", ""]
    features = json.loads(unsure.to_geojson(tmp_path / "a.geojson").read_text())["features"]
    assert [f["properties"]["measurements"]["unsure"] for f in features] == [0, 1, 0, 1]
