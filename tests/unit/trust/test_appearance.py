"""What a tile looks like tells what the embedding overlooks, for any number of channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_mambamic import classify_image, load_classifier
from napari_mambamic.errors import WeightsError
from napari_mambamic.training.fine_tune import TrainConfig, fine_tune
from napari_mambamic.training.samples import samples_from_arrays
from napari_mambamic.trust.appearance import appearance_of, n_statistics
from napari_mambamic.trust.assessment import Seen, assess, distances_of
from napari_mambamic.trust.reference import Reference
from napari_mambamic.weights.checkpoint import load_network, save_weights
from napari_mambamic.weights.store import locate_weights


def changed(sheet):
    """The sheet as another microscope, or none at all, would show it."""
    grey = np.repeat(sheet.mean(axis=2, keepdims=True), 3, axis=2)
    return {
        "grey": grey,
        "dark": sheet * 0.5,
        "inverted": 255.0 - sheet,
        "dark and grey": 255.0 - grey,
    }


@pytest.mark.parametrize("change", ["grey", "dark", "inverted", "dark and grey"])
def test_cells_of_another_look_are_unlike_the_training_cells(sheet, classifier, change):
    foreign = changed(sheet[:384])[change].astype(np.uint8)
    assert classify_image(foreign, classifier).is_unlike_training.all()


def test_shipped_held_out_cells_are_like_the_training_cells(sheet, classifier):
    assert classify_image(sheet, classifier).is_unlike_training.sum() <= 3  # of 96


def test_the_embedding_alone_overlooks_some_of_them(sheet, classifier):
    grey = changed(sheet[:384])["grey"].astype(np.uint8)
    embeddings = torch.from_numpy(classify_image(grey, classifier).embeddings)
    alone = classifier.reference.embeddings.distances(embeddings).numpy()
    assert not (alone > classifier.manifest.trust["distance"]["threshold"]).all()


def patches(n, channels, seed=0):
    rng = np.random.default_rng(seed)
    light = rng.uniform(0.3, 0.5, (n, channels, 1, 1))
    return (light + rng.normal(0, 0.05, (n, channels, 32, 32))).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_has_finite_statistics(channels):
    usual = patches(4, channels)
    for pixels in (usual, np.zeros_like(usual), np.ones_like(usual)):
        found = appearance_of(torch.from_numpy(pixels))
        assert found.shape == (4, n_statistics(channels))
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("channels", [2, 3])
def test_colours_of_grey_pixels_and_of_coloured_ones_differ(channels):
    coloured = patches(4, channels)
    grey = np.repeat(coloured[:, :1], channels, axis=1)
    difference = appearance_of(torch.from_numpy(coloured)) - appearance_of(torch.from_numpy(grey))
    assert (difference[:, 4 * channels :].abs() > 10).all()  # units of 10 %


def test_blur_lowers_the_sharpness_and_not_the_light():
    pixels = torch.from_numpy(patches(4, 1))
    blurred = torch.nn.functional.avg_pool2d(
        pixels, 3, stride=1, padding=1, count_include_pad=False
    )
    light, _, fine, coarse = (appearance_of(blurred) - appearance_of(pixels)).T
    assert (light.abs() < 1).all()
    assert (fine < coarse).all()
    assert (coarse < -1).all()


def seen(pixels, seed=0):
    embeddings = np.random.default_rng(seed).normal(size=(len(pixels), 6)).astype(np.float32)
    look = appearance_of(torch.from_numpy(pixels)).numpy()
    return Seen(embeddings, look, np.arange(len(pixels)) % 2)


def assessed(make, n=400):
    held = seen(make(n, 1), seed=1)
    reference, trust = assess(seen(make(n, 0)), held, np.full((n, 2), 0.5))
    return reference, trust["distance"]["threshold"]


def test_by_both_together_one_in_a_hundred_is_unlike():
    def make(n, seed):
        return patches(n, 3, seed)

    reference, threshold = assessed(make, 2000)
    many = seen(make(4000, 2), seed=2)
    flagged = (distances_of(reference, many) > threshold).mean()
    assert 0.004 < flagged < 0.02
    for by_one in (
        reference.embeddings.distances(torch.from_numpy(many.embeddings)),
        reference.appearance.distances(torch.from_numpy(many.appearance)),
    ):
        assert 0.001 < (by_one.numpy() > threshold).mean() < flagged  # neither has the word alone


def test_a_channel_that_is_always_empty_is_no_reason():
    def make(n, seed):
        pixels = patches(n, 3, seed)
        pixels[:, 2] = 0
        return pixels

    reference, threshold = assessed(make)
    assert (distances_of(reference, seen(make(400, 3), seed=3)) > threshold).mean() < 0.04
    filled = distances_of(reference, seen(patches(400, 3, seed=4), seed=4))
    assert np.isfinite(filled).all()
    assert (filled > threshold).all()


def test_samples_that_are_all_alike_give_finite_distances():
    reference, _ = assessed(lambda n, _: np.full((n, 1, 32, 32), 0.5, np.float32), 6)
    assert np.isfinite(distances_of(reference, seen(patches(4, 1)))).all()


def test_statistics_are_in_the_file_and_come_back_as_they_were(sheet, classifier, tmp_path):
    network, manifest, beside = load_network(locate_weights("default"))
    test = beside["self_test.patch"].numpy(), beside["self_test.logits"].numpy()
    path = tmp_path / "copy.safetensors"
    reference = Reference.from_tensors(beside)
    assert reference.appearance is not None
    save_weights(network, path, manifest, self_test=test, reference=reference)
    copy = load_classifier(path, device="cpu")
    image = np.concatenate([sheet[:96], changed(sheet[:96])["grey"].astype(np.uint8)])
    np.testing.assert_array_equal(
        classify_image(image, copy).distances, classify_image(image, classifier).distances
    )


def test_older_weights_have_the_distance_of_the_embedding(sheet, tmp_path):
    network, manifest, beside = load_network(locate_weights("default"))
    test = beside["self_test.patch"].numpy(), beside["self_test.logits"].numpy()
    path = tmp_path / "older.safetensors"
    older = replace(Reference.from_tensors(beside), appearance=None)
    save_weights(network, path, manifest, self_test=test, reference=older)
    classifier = load_classifier(path, device="cpu")
    results = classify_image(sheet[:96], classifier)
    expected = older.embeddings.distances(torch.from_numpy(results.embeddings))
    np.testing.assert_allclose(results.distances, expected.numpy(), rtol=1e-4)


def test_statistics_of_other_channels_are_refused(tmp_path):
    network, manifest, beside = load_network(locate_weights("default"))
    test = beside["self_test.patch"].numpy(), beside["self_test.logits"].numpy()
    reference, _ = assessed(lambda n, seed: patches(n, 1, seed), 50)
    mixed = replace(Reference.from_tensors(beside), appearance=reference.appearance)
    save_weights(network, tmp_path / "a.safetensors", manifest, self_test=test, reference=mixed)
    with pytest.raises(WeightsError, match="15 columns are needed"):
        load_classifier(tmp_path / "a.safetensors", device="cpu")


def test_weights_trained_here_know_the_look_of_their_samples(cells, tmp_path):
    images = cells.reshape(96, 96, 96, 3)
    samples = samples_from_arrays(images, np.repeat(range(8), 12), class_names=[*"abcdefgh"])
    config = TrainConfig(mode="head", device="cpu", validation_share=0.4)
    checkpoint = fine_tune(samples, config=config)
    mine = load_classifier(checkpoint.save(tmp_path / "mine"), device="cpu")
    limit = mine.manifest.trust["distance"]["threshold"]
    assert (mine.predict(images).distances <= limit).mean() > 0.8
    for name, pixels in changed(images.reshape(-1, 96, 3)).items():
        strange = mine.predict(pixels.astype(np.uint8).reshape(images.shape)).distances > limit
        assert strange.mean() > 0.9, name


def test_light_that_training_varies_is_less_strange(cells):
    images = cells.reshape(96, 96, 96, 3)
    samples = samples_from_arrays(images, np.repeat(range(8), 12), class_names=[*"abcdefgh"])
    darker = (images * 0.88).astype(np.uint8)
    strangeness = {}
    for augmentation in ("none", "bright-field"):
        config = TrainConfig(
            mode="head", device="cpu", validation_share=0.4, augmentation=augmentation
        )
        checkpoint = fine_tune(samples, config=config)
        found = checkpoint.classifier(device="cpu").predict(darker).distances
        strangeness[augmentation] = (
            np.median(found) / checkpoint.manifest.trust["distance"]["threshold"]
        )
    assert strangeness["bright-field"] < 0.9 * strangeness["none"]
