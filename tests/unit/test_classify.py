"""The whole flow, on real cells with the bundled weights."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_mambamic import (
    classify_image,
    classify_objects,
    iter_classify,
    load_classifier,
)
from napari_mambamic.errors import ChannelMismatch, ImageError, NothingToClassify
from napari_mambamic.image import as_image

KNOWN = np.repeat(np.arange(8), 12)


@pytest.fixture(scope="module")
def by_tiles(sheet, classifier):
    return classify_image(sheet, classifier)


def test_known_cells_are_recognised(by_tiles, classifier):
    assert by_tiles.class_names == classifier.class_names
    assert by_tiles.probabilities.shape == (96, 8)
    np.testing.assert_allclose(by_tiles.probabilities.sum(1), 1, rtol=1e-5)
    assert (by_tiles.labels == KNOWN).mean() > 0.9
    assert by_tiles.embeddings.shape == (96, 768)
    assert by_tiles.complete


def test_objects_and_points_give_what_tiles_give(sheet, classifier, by_tiles):
    rows, columns = np.mgrid[:8, :12].reshape(2, -1)
    # One pixel at the middle of each cell, as a label image and as points.
    labels = np.zeros(sheet.shape[:2], np.int32)
    labels[rows * 96 + 47, columns * 96 + 47] = np.arange(96) + 1
    labels[rows * 96 + 48, columns * 96 + 48] = np.arange(96) + 1
    by_objects = classify_objects(sheet, labels, classifier)
    np.testing.assert_array_equal(by_objects.object_ids, np.arange(96) + 1)
    points = np.stack([rows, columns], axis=1) * 96 + 47.5
    by_points = classify_objects(sheet, points, classifier)
    for other in (by_objects, by_points):
        np.testing.assert_allclose(other.probabilities, by_tiles.probabilities, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 96])
def test_the_batch_size_does_not_change_the_labels(sheet, classifier, by_tiles, batch_size):
    got = classify_image(sheet[:192], classifier, batch_size=batch_size)
    np.testing.assert_array_equal(got.labels, by_tiles.labels[:24])
    np.testing.assert_allclose(got.probabilities, by_tiles.probabilities[:24], atol=1e-4)


@pytest.mark.parametrize("make", [da.from_array, zarr.array])
def test_dask_and_zarr_give_what_numpy_gives(sheet, classifier, by_tiles, make):
    got = classify_image(make(sheet[:96]), classifier)
    np.testing.assert_allclose(got.probabilities, by_tiles.probabilities[:12], atol=1e-5)


def test_predict_takes_patches_in_the_images_own_type(cells, classifier, by_tiles):
    predicted = classifier.predict(cells[:, 0])
    wanted = by_tiles.probabilities.reshape(8, 12, 8)[:, 0]
    np.testing.assert_allclose(predicted.probabilities, wanted, atol=1e-4)
    assert classifier.predict(cells[:2, 0, :, :, 0]).logits.shape == (2, 8)
    with pytest.raises(ImageError, match="no patches"):
        classifier.predict(cells[:0, 0])


def test_the_generator_fills_its_results_and_can_be_closed(sheet, classifier):
    steps = iter_classify(sheet, classifier, batch_size=10)
    started = next(steps)
    assert (started.done, started.total) == (0, 96)
    first = next(steps)
    assert first.done == 10
    assert first.tiles.tolist() == list(range(10))
    assert first.tiles_per_second > 0
    assert first.seconds_left > 0
    steps.close()
    assert first.results.is_done.sum() == 10
    assert not first.results.complete


def test_progress_is_told_after_each_batch(sheet, classifier):
    told = []
    classify_image(sheet[:96], classifier, batch_size=5, on_progress=told.append)
    assert [p.done for p in told] == [0, 5, 10, 12]
    assert told[-1].fraction == 1


def test_where_the_results_came_from_is_noted(by_tiles, classifier):
    noted = by_tiles.provenance
    assert noted["weights"]["sha256"] == classifier.manifest.sha256
    assert noted["versions"]["torch"]
    assert noted["device"].startswith("CPU")
    assert noted["settings"]["tile_size"] == 96
    assert noted["image"]["plane_shape"] == [768, 1152]


def test_the_tile_size_follows_the_pixel_size_where_both_are_known(sheet, classifier):
    from dataclasses import replace

    manifest = classifier.manifest
    known = load_classifier(device="cpu")
    known.manifest = replace(manifest, patch=replace(manifest.patch, pixel_size_um=0.2))
    assert classify_image(sheet[:96, :96], known).tiles[0].size == 96
    half = classify_image(sheet[:96, :96], known, pixel_size_um=0.4)
    assert half.tiles[0].size == 48


def test_background_is_skipped_when_asked(sheet, classifier):
    image = np.full((192, 480, 3), 240, np.uint8)
    image[:96, :96] = sheet[:96, :96]
    image[96:, 192:288] = sheet[400:496, 192:288]
    got = classify_image(image, classifier, skip_background=True)
    assert np.flatnonzero(got.is_done).tolist() == [0, 7]
    assert got.complete


def test_dark_background_is_skipped_too(classifier):
    image = np.zeros((96, 288), np.uint16)
    image[30:60, 120:150] = 30_000
    got = classify_image(image, classifier, skip_background=True)
    assert np.flatnonzero(got.is_done).tolist() == [1]


def test_a_region_is_classified_alone(sheet, classifier, by_tiles):
    got = classify_image(sheet, classifier, region=(96, 192, 96, 192))
    np.testing.assert_allclose(got.probabilities, by_tiles.probabilities[14:16], atol=1e-5)


def test_an_image_smaller_than_a_tile_is_one_tile(sheet, classifier):
    assert len(classify_image(sheet[:50, :40], classifier)) == 1


@pytest.mark.parametrize(
    ("image", "keywords", "error", "words"),
    [
        (np.zeros((0, 0)), {}, ImageError, "is empty"),
        (np.zeros((1, 1)), {}, ImageError, "single pixel"),
        (np.zeros((99, 99), complex), {}, ImageError, "complex"),
        (np.full((99, 99), np.nan), {}, ImageError, "36864 NaN pixels"),
        (np.zeros((99, 99), np.uint8), {"batch_size": 0}, ImageError, "batch size is 0"),
        (
            as_image(np.zeros((99, 99, 5), np.uint8), channel_axis=2),
            {},
            ChannelMismatch,
            "5 channels and the weights expect 3",
        ),
    ],
)
def test_bad_images_get_a_sentence(image, keywords, error, words, classifier):
    with pytest.raises(error, match=words):
        classify_image(image, classifier, **keywords)


@pytest.mark.parametrize(
    ("objects", "keywords", "error", "words"),
    [
        (np.zeros((99, 99), int), {}, NothingToClassify, "no objects"),
        (np.zeros((0, 2)), {}, NothingToClassify, "no points"),
        ([], {}, NothingToClassify, "no points"),
        ([(5, 5), (200, 5)], {}, ImageError, "1 of 2 points lie outside"),
        (np.ones((50, 99), int), {}, ImageError, "label image has shape"),
        ([(5, 5)], {"object_scale": 2}, ImageError, "no size to scale"),
    ],
)
def test_bad_objects_get_a_sentence(objects, keywords, error, words, classifier):
    with pytest.raises(error, match=words):
        classify_objects(np.zeros((99, 99), np.uint8), objects, classifier, **keywords)
