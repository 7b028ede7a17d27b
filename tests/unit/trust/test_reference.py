"""Distances from a training set: they tell what is foreign, and survive every way of running."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data

from napari_mambamic import classify_image, load_classifier, read_results
from napari_mambamic.errors import WeightsError
from napari_mambamic.training.config import TrainConfig
from napari_mambamic.training.fine_tune import fine_tune
from napari_mambamic.training.samples import samples_from_arrays
from napari_mambamic.trust.assessment import appearance_of_samples, halves
from napari_mambamic.trust.reference import Reference, fit_clusters, threshold_of
from napari_mambamic.weights.checkpoint import load_network, save_weights
from napari_mambamic.weights.store import bundled_folder, locate_weights

NAME = "blood-cells-t"


def bundled_manifest():
    return json.loads((bundled_folder() / f"{NAME}.json").read_text())


def cloud(n, *, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    centres = np.eye(3, 20) * 8
    return centres[labels] + rng.normal(0, 1, (n, 20)) + shift, labels


def distances(clusters, vectors):
    return clusters.distances(torch.from_numpy(vectors)).numpy()


def test_one_in_a_hundred_tiles_like_the_training_samples_is_unlike_them():
    clusters = fit_clusters(*cloud(3000))
    threshold = threshold_of(distances(clusters, cloud(2000, seed=1)[0]))
    flagged = (distances(clusters, cloud(20_000, seed=2)[0]) > threshold).mean()
    assert 0.004 < flagged < 0.02
    assert (distances(clusters, cloud(200, shift=3.0, seed=3)[0]) > threshold).mean() > 0.95


def test_the_distance_is_that_of_mahalanobis():
    values, labels = cloud(5000)
    means = np.stack([values[labels == c].mean(0) for c in range(3)])
    rest = values - means[labels]
    inverse = np.linalg.inv(rest.T @ rest / len(rest))
    one = values[:50]
    offsets = one[:, None] - means
    expected = np.sqrt(np.einsum("ncd,de,nce->nc", offsets, inverse, offsets).min(1))
    np.testing.assert_allclose(distances(fit_clusters(values, labels), one), expected, rtol=0.05)


def test_fewer_samples_than_dimensions_are_enough():
    rng = np.random.default_rng(0)
    clusters = fit_clusters(rng.normal(size=(6, 50)), np.array([0, 0, 0, 1, 1, 1]))
    assert np.isfinite(distances(clusters, rng.normal(size=(4, 50)))).all()


def test_whole_groups_go_into_one_half():
    groups = np.repeat(np.arange(20), 5)
    first, second = halves(100, groups=groups)
    assert not set(groups[first]) & set(groups[second])
    assert len(first) + len(second) == 100
    assert 40 <= len(first) <= 60
    alone, others = halves(10, groups=np.zeros(10))
    assert len(alone) == len(others) == 5


def test_held_out_cells_are_like_the_training_data_and_other_images_are_not(sheet, classifier):
    cells = classify_image(sheet, classifier)
    assert cells.is_unlike_training.mean() <= 0.05
    tissue = classify_image(data.immunohistochemistry(), classifier)
    assert tissue.is_unlike_training.all()
    noise = np.random.default_rng(0).integers(0, 256, (192, 192, 3)).astype(np.uint8)
    assert classify_image(noise, classifier).is_unlike_training.all()


def test_distances_are_the_larger_of_those_by_embedding_and_by_appearance(sheet, classifier):
    results = classify_image(sheet, classifier, batch_size=5)
    by_embedding = distances(classifier.reference.embeddings, results.embeddings)
    tiles = sheet.reshape(8, 96, 12, 96, 3).swapaxes(1, 2).reshape(96, 96, 96, 3)
    look = appearance_of_samples(tiles, classifier.manifest.patch)
    by_appearance = distances(classifier.reference.appearance, look)
    assert 0 < (by_embedding > by_appearance).sum() < 96
    larger = np.maximum(by_embedding, by_appearance)
    np.testing.assert_allclose(results.distances, larger, rtol=1e-3)


def test_the_manifest_tells_its_rates():
    distance = bundled_manifest()["trust"]["distance"]
    assert distance["passed"] == 0.99
    assert 0 < distance["held_out"]["unlike_training"] < 0.03
    assert distance["held_out"]["n"] + distance["n_calibration"] == 2050


@pytest.mark.parametrize("format", ["csv", "parquet", "geojson"])
def test_distances_read_back_from_tables(sheet, classifier, tmp_path, format):
    results = classify_image(sheet[:96, :288], classifier, unsure_below=0.9, coverage=0.9)
    path = getattr(results, f"to_{format}")(tmp_path / f"a.{format}")
    back = read_results(path)
    np.testing.assert_allclose(back.distances, results.distances, rtol=1e-6)
    np.testing.assert_array_equal(back.is_unlike_training, results.is_unlike_training)
    np.testing.assert_array_equal(back.is_unsure, results.is_unsure)


def test_a_run_that_goes_on_keeps_its_distances(sheet, classifier, tmp_path):
    whole = classify_image(sheet[:192], classifier, batch_size=8)

    class Stopped(Exception):
        pass

    def stop(progress):
        if progress.done >= 8:
            raise Stopped

    with pytest.raises(Stopped):
        classify_image(sheet[:192], classifier, batch_size=8, keep_in=tmp_path, on_progress=stop)
    steps = []
    resumed = classify_image(
        sheet[:192], classifier, batch_size=8, keep_in=tmp_path, on_progress=steps.append
    )
    assert steps[0].done > 0
    np.testing.assert_array_equal(resumed.distances, whole.distances)


def test_weights_without_statistics_still_load_and_have_no_distances(sheet, tmp_path):
    network, manifest, beside = load_network(locate_weights("default"))
    test = beside["self_test.patch"].numpy(), beside["self_test.logits"].numpy()
    path = tmp_path / "old.safetensors"
    save_weights(network, path, replace(manifest, trust={}), self_test=test)
    fields = json.loads(path.with_suffix(".json").read_text())
    del fields["trust"]
    path.with_suffix(".json").write_text(json.dumps(fields))
    results = classify_image(sheet[:96], load_classifier(path, device="cpu"))
    assert results.distances is None
    assert results.is_unlike_training is None
    assert "distance" not in results.trust_columns()


def test_every_trained_checkpoint_knows_its_training_samples(cells, tmp_path):
    images = np.concatenate([cells[1, :12], cells[4, :12]])
    samples = samples_from_arrays(images, np.repeat([0, 1], 12), class_names=["e", "l"])
    config = TrainConfig(mode="head", device="cpu", validation_share=0.25)
    checkpoint = fine_tune(samples, config=config)
    path = checkpoint.save(tmp_path / "mine")
    loaded = load_classifier(path, device="cpu")
    predicted = loaded.predict(images[:2])
    again = checkpoint.classifier(device="cpu").predict(images[:2])
    np.testing.assert_allclose(predicted.distances, again.distances, rtol=0.02)
    trust = loaded.manifest.trust
    assert trust["distance"]["n_training"] == 18
    assert trust["conformal"]["n"] == trust["distance"]["n_calibration"] == 3
    low, _, high = trust["pixels"]["mean"]
    assert 0 < low <= high < 1


def test_statistics_of_another_network_are_refused(tmp_path):
    network, manifest, beside = load_network(locate_weights("default"))
    test = beside["self_test.patch"].numpy(), beside["self_test.logits"].numpy()
    path = tmp_path / "mixed.safetensors"
    other = Reference(fit_clusters(*cloud(50)))
    save_weights(network, path, manifest, self_test=test, reference=other)
    with pytest.raises(WeightsError, match="768 columns are needed"):
        load_classifier(path, device="cpu")
