"""Sets of classes hold the right one as often as was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mambamic import classify_image
from napari_mambamic.errors import ImageError, WeightsError
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import plan_tiles
from napari_mambamic.trust.conformal import calibration_of, coverage_of, sets_of, threshold_for


def guesses(n, seed, *, sureness=1.5):
    """Probabilities of a network that is too sure of itself, and the true classes."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (n, 6))
    odds = np.exp(logits)
    labels = np.array([rng.choice(6, p=p / p.sum()) for p in odds])
    said = np.exp(sureness * logits)
    return said / said.sum(1, keepdims=True), labels


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_coverage_is_what_was_asked_for_whatever_the_network(coverage):
    calibration = calibration_of(*guesses(2000, 0))
    covered = []
    for seed in range(1, 6):
        probabilities, labels = guesses(2000, seed)
        covered.append(coverage_of(sets_of(probabilities, calibration, coverage), labels))
    # The threshold is from 2,000 samples: its own spread is the larger part.
    spread = np.sqrt(coverage * (1 - coverage) * (1 / 2000 + 1 / 10_000))
    assert np.mean(covered) > coverage - 3 * spread
    assert np.mean(covered) < coverage + 3 * spread + 0.012  # some scores are kept of all


def test_over_many_calibrations_the_mean_coverage_is_not_below():
    covered = []
    for seed in range(200):
        probabilities, labels = guesses(60, seed)
        calibration = calibration_of(probabilities[:30], labels[:30])
        covered.append(coverage_of(sets_of(probabilities[30:], calibration, 0.9), labels[30:]))
    assert np.mean(covered) > 0.9 - 3 * np.std(covered) / np.sqrt(200)


def test_few_samples_promise_nothing_and_give_all_classes():
    probabilities, labels = guesses(10, 0)
    assert threshold_for(calibration_of(probabilities, labels), 0.99) == np.inf
    assert sets_of(probabilities, calibration_of(probabilities, labels), 0.99).all()


def test_scores_that_are_kept_are_few_and_high_coverages_exact():
    probabilities, labels = guesses(5000, 0)
    calibration = calibration_of(probabilities, labels)
    assert len(calibration["scores"]) <= 200
    scores = np.sort(1 - probabilities[np.arange(5000), labels])
    exact = scores[int(np.ceil(5001 * 0.995)) - 1]
    assert threshold_for(calibration, 0.995) == pytest.approx(exact, abs=2e-6)
    for coverage in (0.7, 0.9):
        rank = int(np.ceil(5001 * coverage))
        assert threshold_for(calibration, coverage) >= scores[rank - 1]


def test_the_first_class_is_always_in_and_nothing_of_tiles_that_are_not_done(sheet, classifier):
    results = classify_image(sheet[:96], classifier)
    sets = results.prediction_sets(0.5)
    assert sets[np.arange(12), results.labels].all()
    results.probabilities[3] = np.nan
    assert not results.prediction_sets(0.5)[3].any()
    assert (results.prediction_sets(0.99) >= results.prediction_sets(0.5)).all()


def test_the_sets_of_the_sheet_hold_the_known_classes(sheet, classifier):
    sets = classify_image(sheet, classifier, coverage=0.95).prediction_sets(0.95)
    assert coverage_of(sets, np.repeat(np.arange(8), 12)) >= 0.9  # of 96, 0.95 - 2 deviations


def test_sets_without_scores_and_coverages_beyond_1_are_refused(sheet, classifier):
    bare = TileResults(("a", "b"), plan_tiles((4, 4), tile_size=4), np.ones((1, 2), "f4"), None, {})
    with pytest.raises(WeightsError, match="no scores of held-back samples"):
        bare.prediction_sets()
    with pytest.raises(ImageError, match=r"coverage is 1\.5"):
        classify_image(sheet[:96], classifier, coverage=1.5)


def test_the_size_of_a_set_is_a_column(sheet, classifier, tmp_path):
    results = classify_image(sheet[:96], classifier, coverage=0.99)
    sizes = results.prediction_sets(0.99).sum(1)
    np.testing.assert_array_equal(results.trust_columns()["set_size"], sizes)
    assert "set_size" in results.to_csv(tmp_path / "a.csv").read_text().splitlines()[0]
