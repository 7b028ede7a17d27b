"""Two runs are compared tile by tile."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from napari_mambamic import MambamicError, compare_runs, plan_tiles, tiles_at_points
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import ObjectTiles

NAMES = ("round", "long", "odd")


def run(labels, *, names=NAMES, tiles=None, sure=None, image="cells", plane=(), shape=(40, 60)):
    """Results with given classes; -1 was not classified."""
    tiles = plan_tiles((40, 60), tile_size=20) if tiles is None else tiles
    labels = np.asarray(labels)
    sure = np.full(len(labels), 0.8) if sure is None else np.asarray(sure)
    shares = np.repeat(((1 - sure) / (len(names) - 1))[:, np.newaxis], len(names), axis=1)
    shares[np.arange(len(labels)), labels] = sure
    shares[labels < 0] = np.nan
    provenance = {
        "image": {"name": image, "plane_shape": list(shape)},
        "layer": {"name": image, "plane": list(plane)},
    }
    return TileResults(names, tiles, shares.astype(np.float32), None, provenance)


def test_agreement_and_confusion_are_counted():
    comparison = compare_runs(run([0, 0, 1, 1, 2, 2]), run([0, 1, 1, 1, 2, 0]))
    assert comparison.confusion.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
    assert comparison.agreement == pytest.approx(4 / 6)
    # By hand: chance agreement (2*2 + 2*3 + 2*1) / 36 = 1/3; (2/3 - 1/3) / (1 - 1/3).
    assert comparison.kappa == pytest.approx(0.5)
    assert "4 of 6 tiles agree (66.7%), Cohen's kappa 0.500." in comparison.sentence


def test_classes_are_matched_by_their_names():
    a = run([0, 1, 2, 0, 1, 2])
    b = run([1, 2, 0, 1, 2, 3], names=("odd", "round", "long", "new"))
    comparison = compare_runs(a, b)
    assert comparison.agrees.tolist() == [True, True, True, True, True, False]
    assert comparison.confusion.shape == (3, 4)
    assert comparison.confusion[2, 3] == 1
    assert "Classes that only one of them has: new." in comparison.sentence


def test_the_surest_disagreements_come_first():
    sure_a, sure_b = [0.9, 0.9, 0.6, 0.99, 0.7, 0.9], [0.5, 0.95, 0.9, 0.99, 0.7, 0.6]
    comparison = compare_runs(
        run([0, 0, 0, 1, 1, 2], sure=sure_a), run([1, 1, 1, 1, 2, 0], sure=sure_b)
    )
    assert comparison.tiles_a[comparison.disagreements].tolist() == [1, 4, 2, 5, 0]
    assert comparison.pairs_of(0, 1).tolist() == [1, 2, 0]
    assert comparison.pairs_of(2, 2).tolist() == []


def test_tiles_are_matched_by_place_whatever_their_order():
    places = [(10, 10), (10, 40), (30, 20)]
    a = run([0, 1, 2], tiles=tiles_at_points(places, tile_size=9))
    turned = tiles_at_points(places[::-1], tile_size=9)
    b = run([2, 1, 0], tiles=turned)
    comparison = compare_runs(a, b)
    assert comparison.agreement == 1
    assert comparison.tiles_b.tolist() == [2, 1, 0]
    assert "3 of 3 objects agree" in comparison.sentence


def test_two_objects_at_one_place_are_told_apart_by_their_numbers():
    tiles = tiles_at_points([(10, 10), (10, 10)], tile_size=9)
    other = ObjectTiles(tiles.tiles, tiles.object_ids[::-1], tiles.centres)
    comparison = compare_runs(run([0, 1], tiles=tiles), run([1, 0], tiles=other))
    assert comparison.agreement == 1


def test_tiles_that_one_run_did_not_classify_are_left_out():
    comparison = compare_runs(run([0, 0, -1, 1, 1, 1]), run([0, 0, 1, 1, 1, -1]))
    assert comparison.tiles_a.tolist() == [0, 1, 3, 4]
    assert comparison.n_left_out == 2
    assert "2 that one run did not classify are left out" in comparison.sentence


def test_kappa_is_not_known_where_all_is_one_class():
    comparison = compare_runs(run([1] * 6), run([1] * 6))
    assert comparison.kappa is None
    assert "kappa n/a" in comparison.sentence


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (run([0] * 6, image="others"), "different images: 'cells' .* and 'others'"),
        (run([0] * 6, shape=(40, 61)), "different images.*40 x 61"),
        (run([0] * 6, plane=(3,)), "different planes"),
        (
            run([0] * 24, tiles=plan_tiles((40, 60), tile_size=10)),
            "different tiles: 6 of 20 px and 24 of 10 px",
        ),
        (run([0] * 6, tiles=tiles_at_points([(9, 9)] * 6, tile_size=20)), "a grid of tiles and"),
        (run([-1] * 6), "no tile that both"),
    ],
)
def test_runs_that_cannot_be_compared_get_a_sentence(other, words):
    with pytest.raises(MambamicError, match=words):
        compare_runs(run([0] * 6), other)


def test_the_table_and_where_it_comes_from_are_saved(tmp_path):
    sure = [0.9, 0.9, 0.9, 0.6, 0.9, 0.9]
    comparison = compare_runs(run([0, 0, 1, 1, 2, 2], sure=sure), run([0, 0, 2, 0, 2, 2]))
    with open(comparison.to_csv(tmp_path / "c.csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["tile"] for row in rows] == ["2", "3", "0", "1", "4", "5"]
    assert rows[0] == {
        "tile": "2",
        "y": "0",
        "x": "40",
        "size": "20",
        "class_a": "long",
        "probability_a": "0.9",
        "class_b": "odd",
        "probability_b": "0.8",
        "agree": "0",
    }
    beside = json.loads((tmp_path / "c.provenance.json").read_text(encoding="utf-8"))
    assert beside["a"]["image"]["name"] == "cells"
    with pytest.raises(MambamicError, match="no folder"):
        comparison.to_csv(tmp_path / "none" / "c.csv")


def test_the_table_as_text_names_both_runs_classes():
    comparison = compare_runs(run([0, 0, 1, 1, 2, 2]), run([0, 1, 1, 1, 2, 0]))
    assert comparison.table.splitlines() == [
        "       round  long  odd",
        "round      1     1    0",
        "long       0     2    0",
        "odd        1     0    1",
    ]
