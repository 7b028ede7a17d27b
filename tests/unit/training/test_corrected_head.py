"""Corrections turn a head, and the weights with it can be used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mambamic import classify_image, load_classifier
from napari_mambamic.classifier import TileClassifier
from napari_mambamic.devices import choose_device
from napari_mambamic.errors import MambamicError, TrainingError
from napari_mambamic.training.corrected_head import fit_corrected_head
from napari_mambamic.training.head import fit_linear
from napari_mambamic.weights.checkpoint import (
    SELF_TEST_PATCH,
    load_network,
    save_weights,
)
from napari_mambamic.weights.store import locate_weights


def cells(n=300, d=8, seed=3):
    """Two kinds that the weights do not tell apart well, and a third that they do.

    Squared distances within a kind are a quarter of those between two, as embeddings of blood
    cells have them.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    embeddings = (3 * np.eye(d)[labels] + 0.6 * rng.normal(size=(n, d))).astype(np.float32)
    shares = np.full((n, 3), 0.02, np.float32)
    shares[labels == 2, 2] = 0.96
    shares[labels != 2, 0] = 0.96  # kind 1 is told kind 0
    return shares, embeddings, labels


def test_a_few_labels_mend_a_class_and_leave_the_others():
    shares, embeddings, labels = cells()
    numbers = np.concatenate([np.flatnonzero(labels == k)[:5] for k in (0, 1)])
    names = ["abc"[k] for k in labels[numbers]]
    head = fit_corrected_head(
        shares, embeddings, labelled=numbers, labels=names, class_names=("a", "b", "c")
    )
    before = (shares.argmax(axis=1) == labels).mean()
    after = head.probabilities(shares, embeddings).argmax(axis=1)
    assert before < 0.75
    assert (after == labels).mean() > 0.9
    assert (after[labels == 2] == 2).mean() > 0.95


def test_labels_of_doubtful_tiles_leave_those_that_are_told_right():
    """A review begins with tiles between two kinds, most of them told wrong."""
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1, 1], [200, 200, 40])
    embeddings = rng.normal(scale=0.05, size=(440, 8)).astype(np.float32)
    embeddings[:, 0] += np.repeat([-1.0, 1.0, -0.25], [200, 200, 40])
    of_b = np.repeat([0.01, 0.99, 0.4], [200, 200, 40])
    shares = np.stack([1 - of_b, of_b], axis=1).astype(np.float32)
    head = fit_corrected_head(
        shares, embeddings, labelled=range(400, 420), labels=["b"] * 20, class_names=("a", "b")
    )
    after = head.probabilities(shares, embeddings).argmax(axis=1)
    assert (after[:400] == labels[:400]).mean() > 0.99
    assert (after[420:] == 1).mean() > 0.9


def test_labels_that_agree_change_no_class():
    shares, embeddings, _ = cells()
    told = ["abc"[k] for k in shares.argmax(axis=1)]
    head = fit_corrected_head(
        shares, embeddings, labelled=range(20), labels=told[:20], class_names=("a", "b", "c")
    )
    changed = head.probabilities(shares, embeddings).argmax(axis=1) != shares.argmax(axis=1)
    assert changed.mean() < 0.02


def test_from_weights_that_know_nothing_it_says_what_the_linear_head_says():
    _, embeddings, labels = cells(d=768)
    even = np.full((300, 3), 1 / 3, np.float32)
    names = ["abc"[k] for k in labels]
    head = fit_corrected_head(
        even, embeddings, labelled=range(300), labels=names, class_names=("a", "b", "c")
    )
    weight, bias = fit_linear(embeddings, labels)
    logits = embeddings @ weight.T + bias
    got = np.log(head.probabilities(even, embeddings))
    got -= got.mean(axis=1, keepdims=True)
    assert np.corrcoef(got.ravel(), logits.ravel())[0, 1] > 0.99


def test_a_new_class_is_learned():
    shares, embeddings, labels = cells()
    numbers = np.flatnonzero(labels == 1)[:8]
    head = fit_corrected_head(
        shares, embeddings, labelled=numbers, labels=["new"] * 8, class_names=("a", "b", "c")
    )
    assert head.class_names == ("a", "b", "c", "new")
    got = head.probabilities(shares, embeddings).argmax(axis=1)
    assert (got[labels == 1] == 3).mean() > 0.9
    assert (got[labels == 2] == 2).mean() > 0.9


def test_tiles_that_were_not_classified_stay_so():
    shares, embeddings, _ = cells()
    shares[7], embeddings[7] = np.nan, np.nan
    head = fit_corrected_head(
        shares, embeddings, labelled=[1], labels=["b"], class_names=("a", "b", "c")
    )
    got = head.probabilities(shares, embeddings)
    assert np.isnan(got[7]).all()
    assert np.isfinite(np.delete(got, 7, axis=0)).all()


def test_without_labels_there_is_nothing_to_learn():
    shares, embeddings, _ = cells()
    with pytest.raises(TrainingError, match="Label one"):
        fit_corrected_head(shares, embeddings, labelled=[], labels=[], class_names=("a", "b", "c"))


def test_saved_weights_say_what_the_head_says(sheet, classifier, tmp_path):
    results = classify_image(sheet, classifier)
    cell_classes = np.repeat(np.arange(8), 12)  # a row of the sheet is a class
    numbers = [*range(0, 96, 6), 25, 26, 27]
    names = [results.class_names[cell_classes[i]] for i in numbers[:-3]] + ["found here"] * 3
    head = fit_corrected_head(
        results.probabilities,
        results.embeddings,
        labelled=numbers,
        labels=names,
        class_names=results.class_names,
    )
    path = head.save("default", tmp_path / "mine")
    again = classify_image(sheet, load_classifier(path))
    assert again.class_names == (*results.class_names, "found here")
    wanted = head.probabilities(results.probabilities, results.embeddings)
    assert (again.labels == wanted.argmax(axis=1)).mean() > 0.97
    assert set(again.labels[[25, 26, 27]]) == {8}
    # What is known of the training set still holds; the sets of classes do not.
    np.testing.assert_allclose(again.distances, results.distances, rtol=1e-3)
    with pytest.raises(MambamicError):
        again.prediction_sets(0.9)


def test_a_corrected_head_on_published_weights_computes_as_they_do(sheet, classifier, tmp_path):
    network, manifest, beside = load_network(locate_weights("default"))
    network.published_filter = True
    manifest = replace(manifest, published_filter=True)
    patch = beside[SELF_TEST_PATCH].numpy()
    judge = TileClassifier(network, manifest, choose_device("cpu"))
    published = tmp_path / "published.safetensors"
    save_weights(
        network, published, manifest, self_test=(patch, judge.predict(patch[None]).logits[0])
    )
    results = classify_image(sheet[:192], load_classifier(published))
    head = fit_corrected_head(
        results.probabilities,
        results.embeddings,
        labelled=[0, 12],
        labels=results.class_names[:2],
        class_names=results.class_names,
    )
    mine = load_classifier(head.save(published, tmp_path / "mine"))
    wanted = head.probabilities(results.probabilities, results.embeddings)
    got = classify_image(sheet[:192], mine).probabilities
    np.testing.assert_allclose(got, wanted, atol=0.02)
