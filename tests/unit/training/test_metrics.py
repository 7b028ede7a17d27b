"""Figures of merit and calibration."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from napari_mambamic.training.calibration import (
    FEWEST_TO_MEASURE,
    fit_temperature,
    measured,
    reliability,
)
from napari_mambamic.training.metrics import evaluate

NAMES = ("a", "b", "c")


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def drawn(n=600, temperature=1.0, seed=0):
    """Logits, and labels that follow the probabilities of the logits over the temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, 3))
    labels = np.array([rng.choice(3, p=p) for p in softmax(logits / temperature)])
    return logits, labels


def test_the_figures_are_those_of_their_definitions():
    logits, labels = drawn()
    probabilities = softmax(logits)
    predicted = probabilities.argmax(axis=1)
    figures = evaluate(probabilities, labels, NAMES, resamples=200)
    assert figures["overall_accuracy"] == pytest.approx((predicted == labels).mean())
    for name, score in (
        ("precision", precision_score),
        ("sensitivity", recall_score),
        ("f1", f1_score),
    ):
        assert figures[name] == pytest.approx(score(labels, predicted, average="macro"))
    assert figures["balanced_accuracy"] == pytest.approx(figures["sensitivity"])
    assert figures["auc"] == pytest.approx(
        roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    )
    specificity = [np.mean(predicted[labels != k] != k) for k in range(3)]
    assert figures["specificity"] == pytest.approx(np.mean(specificity))
    low, high = figures["intervals"]["overall_accuracy"]
    assert low < figures["overall_accuracy"] < high
    assert high - low == pytest.approx(4 * np.sqrt(0.25 / 600), rel=0.5)
    assert np.sum(figures["confusion_matrix"]) == 600
    assert figures["confusion_matrix"][0][1] == np.sum((labels == 0) & (predicted == 1))


def test_a_class_that_does_not_occur_is_left_out_of_the_means():
    probabilities = softmax(np.array([[5.0, 0, 0], [0, 5, 0], [0, 0, 5], [5, 0, 0]]))
    figures = evaluate(probabilities, np.array([0, 1, 1, 0]), NAMES, resamples=10)
    assert figures["sensitivity"] == pytest.approx(0.75)
    assert figures["precision"] == pytest.approx((1 + 1) / 2)
    assert figures["f1"] == pytest.approx((1 + 2 / 3) / 2)
    row = json.loads(json.dumps(figures))["per_class"]["c"]
    assert row["n"] == 0
    assert [row[name] for name in ("precision", "sensitivity", "f1", "auc")] == [None] * 4
    # One of four samples of other classes is told to be of it: that can be measured.
    assert row["specificity"] == pytest.approx(0.75)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found(temperature):
    logits, labels = drawn(4000, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.1)


def test_few_samples_that_are_all_right_do_not_make_it_sure():
    logits = np.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]] * 4.0
    labels = logits.argmax(axis=1)
    confidence = softmax(logits / fit_temperature(logits, labels)).max()
    assert confidence == pytest.approx(1 - 2 / 3 / 10, abs=0.01)


def test_scaling_makes_overconfident_probabilities_reliable():
    logits, labels = drawn(4000, 3.0)
    before = reliability(softmax(logits), labels)
    after = reliability(softmax(logits / fit_temperature(logits, labels)), labels)
    assert before["expected_calibration_error"] > 0.1
    assert after["expected_calibration_error"] < 0.03
    assert sum(before["count"]) == 4000


def test_of_few_samples_no_calibration_error_is_told():
    logits, labels = drawn(FEWEST_TO_MEASURE)
    assert measured(softmax(logits[1:]), labels[1:]) is None
    assert measured(softmax(logits), labels) == reliability(softmax(logits), labels)


def test_expected_calibration_error_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [0.55, 0.45]])
    result = reliability(probabilities, np.array([0, 1, 0, 0]), n_bins=10)
    assert result["expected_calibration_error"] == pytest.approx((0.45 + 0.45) / 2)
    assert result["count"] == [2, 2]


def test_few_samples_that_are_all_right_do_not_make_a_narrow_interval():
    figures = evaluate(
        np.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]], np.array([0, 1, 2, 0, 1, 2, 0, 1]), NAMES
    )
    low, high = figures["intervals"]["overall_accuracy"]
    assert low == pytest.approx(0.025 ** (1 / 8), abs=1e-6)  # Clopper and Pearson
    assert high == 1
