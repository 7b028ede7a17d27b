"""The whole flow, on real cells with the bundled weights."""

from __future__ import annotations

import gc
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
import torch
import zarr
from skimage.transform import downscale_local_mean, resize

from napari_mambamic import (
    Manifest,
    PatchSpec,
    build_network,
    classify_image,
    classify_objects,
    iter_classify,
    load_classifier,
    open_image,
)
from napari_mambamic.errors import (
    ChannelMismatch,
    ImageError,
    NothingToClassify,
    PixelSizeMissing,
)
from napari_mambamic.image import as_image
from napari_mambamic.patches import prepare_patches
from napari_mambamic.weights.checkpoint import save_weights


class Counted:
    """An array that counts the values that are read."""

    def __init__(self, pixels):
        self._pixels, self.read = pixels, 0
        self.shape, self.dtype, self.ndim = pixels.shape, pixels.dtype, pixels.ndim

    def __getitem__(self, key):
        window = self._pixels[key]
        self.read += window.size
        return window


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


@pytest.fixture(scope="module")
def with_pixel_size(classifier):
    """A classifier whose weights were trained at 0.2 um per px."""
    known = load_classifier(device="cpu")
    known.manifest = replace(
        classifier.manifest, patch=replace(classifier.manifest.patch, pixel_size_um=0.2)
    )
    return known


def test_the_tile_size_follows_the_pixel_size_where_both_are_known(sheet, with_pixel_size):
    half = classify_image(sheet[:96, :96], with_pixel_size, pixel_size_um=0.4)
    assert half.tiles[0].size == 48


@pytest.mark.parametrize(
    ("pixel_size_um", "sentence"),
    [
        (None, "has no pixel size in micrometres, and the weights were trained at 0.2 um per px"),
        (100, "has 100 um per px, which is implausible: a tile of the weights, 19.2 um"),
        (1e-4, "which is implausible"),
    ],
)
def test_a_missing_or_implausible_pixel_size_is_a_question(
    sheet, with_pixel_size, pixel_size_um, sentence
):
    image = sheet[:96, :96]
    with pytest.raises(PixelSizeMissing, match=re.escape(sentence)):
        classify_image(image, with_pixel_size, pixel_size_um=pixel_size_um)
    for answer in ({"use_pixels": True}, {"tile_size": 96}):
        got = classify_image(image, with_pixel_size, pixel_size_um=pixel_size_um, **answer)
        assert got.tiles[0].size == 96


def test_the_same_cells_at_several_pixel_sizes_get_the_same_labels(sheet, classifier):
    known = load_classifier(device="cpu")
    patch = replace(classifier.manifest.patch, pixel_size_um=1.0)
    known.manifest = replace(classifier.manifest, patch=patch)
    fine = resize(sheet, (4 * 768, 4 * 1152), order=3, preserve_range=True).clip(0, 255)
    found = []
    for factor in (1, 2, 4):
        image = downscale_local_mean(fine, (factor, factor, 1)).round().astype(np.uint8)
        results = classify_image(image, known, pixel_size_um=0.25 * factor)
        assert results.tiles[0].size == 96 * 4 / factor
        found.append(results.labels)
    assert all((labels != found[1]).sum() <= 1 for labels in found)  # of 96


def test_tiles_are_read_from_the_coarsest_level_that_is_fine_enough(sheet, classifier, by_tiles):
    fine = np.repeat(np.repeat(sheet[:192], 4, axis=0), 4, axis=1)
    levels = [
        Counted(fine),
        Counted(fine[::2, ::2]),
        Counted(sheet[:192]),
        Counted(sheet[:192:2, ::2]),
    ]
    got = classify_image(levels, classifier, tile_size=384)
    finest, fine, right, coarse = [level.read for level in levels]
    assert finest == fine == coarse == 0
    assert sheet[:192].size <= right < 1.5 * sheet[:192].size  # some are looked at for warnings
    np.testing.assert_allclose(got.probabilities, by_tiles.probabilities[:24], atol=1e-5)


def test_a_huge_image_is_read_only_where_it_is_classified(classifier):
    blocks = []

    def block(block_info):
        where = block_info[None]["array-location"]
        blocks.append(where)
        return np.full([stop - start for start, stop in where], 128, np.uint8)

    huge = da.map_blocks(
        block, chunks=((1000,) * 100, (1000,) * 100, (3,)), dtype=np.uint8, meta=np.empty((0, 0, 0))
    )
    assert huge.shape == (100_000, 100_000, 3)
    got = classify_image(huge, classifier, region=(50_000, 50_000, 960, 960))
    assert got.complete
    assert len(got) == 100
    corners = {(rows[0], columns[0]) for rows, columns, _ in blocks}
    assert (50_000, 50_000) in corners
    # Tiles at the edge that look strange are tried at twice their size.
    around = (49_000, 50_000, 51_000)
    assert corners <= {(y, x) for y in around for x in around}


def test_background_of_an_image_too_large_to_oversee_is_told_tile_by_tile(
    sheet, classifier, by_tiles, monkeypatch
):
    monkeypatch.setattr("napari_mambamic.foreground._MOST_PIXELS", 1000)
    image = np.full((192, 480, 3), 240, np.uint8)
    image[:96, :96] = sheet[:96, :96]
    got = classify_image(image, classifier, skip_background=True)
    assert np.flatnonzero(got.is_done).tolist() == [0]
    np.testing.assert_allclose(got.probabilities[0], by_tiles.probabilities[0], atol=1e-5)
    assert got.complete


@pytest.mark.parametrize("first", ["cells", "background"])
def test_batches_of_background_alone_have_no_embeddings(sheet, classifier, monkeypatch, first):
    monkeypatch.setattr("napari_mambamic.foreground._MOST_PIXELS", 1000)
    image = np.full((192, 384, 3), 240, np.uint8)
    image[:96] = sheet[:96, :384]
    got = classify_image(
        image[:: 1 if first == "cells" else -1].copy(),
        classifier,
        skip_background=True,
        batch_size=4,
    )
    cells = slice(0, 4) if first == "cells" else slice(4, 8)
    assert got.is_done.sum() == 4
    assert got.is_done[cells].all()
    assert np.isfinite(got.embeddings[cells]).all()
    assert np.isnan(got.embeddings[~got.is_done]).all()


def test_only_tiles_within_polygons_or_a_mask_are_classified(sheet, classifier, by_tiles):
    triangle = [(-1, -1), (-1, 96 * 3), (96 * 3, -1)]
    square = [(400, 400), (400, 500), (500, 500), (500, 400)]
    got = classify_image(sheet, classifier, within=[triangle, square])
    chosen = np.flatnonzero(got.is_done)
    assert chosen.tolist() == [0, 1, 2, 12, 13, 24, 4 * 12 + 4]
    np.testing.assert_allclose(got.probabilities[chosen], by_tiles.probabilities[chosen], atol=1e-4)
    assert got.complete
    mask = np.zeros(sheet.shape[:2], np.int32)
    mask[100:192, 100:192] = 7
    got = classify_image(sheet, classifier, within=mask)
    assert np.flatnonzero(got.is_done).tolist() == [13]
    with pytest.raises(NothingToClassify, match="None of the 96 tiles"):
        classify_image(sheet, classifier, within=mask * 0)


def test_channels_are_chosen_and_ordered(sheet, classifier, by_tiles):
    image = np.zeros((5, 96, 96 * 2), np.uint8)
    image[[3, 0, 4]] = sheet[:96, :192].transpose(2, 0, 1)
    for source in (
        as_image(image, channel_axis=0),
        as_image(image.transpose(1, 2, 0), channel_axis=2),
    ):
        got = classify_image(source, classifier, channels=[3, 0, 4])
        np.testing.assert_allclose(got.probabilities, by_tiles.probabilities[:2], atol=1e-5)
        with pytest.raises(ImageError, match=r"has 5 channels, counted from 0, and \[5, 0, 1\]"):
            classify_image(source, classifier, channels=[5, 0, 1])


def test_tiles_in_view_come_first_from_its_centre_and_follow_the_view(sheet, classifier):
    views = [None, (0, 96 * 6, 96 * 3, 96 * 3), (0, 96 * 6, 96 * 3, 96 * 3), (480, 0, 96, 96)]
    steps = iter_classify(
        sheet, classifier, batch_size=5, view=lambda: views.pop(0) if len(views) > 1 else views[0]
    )
    order = [progress.tiles.tolist() for progress in steps if progress.tiles is not None]
    assert order[0] == [0, 1, 2, 3, 4]
    assert order[1][0] == 12 + 7
    assert sorted(order[1] + order[2][:4]) == [6, 7, 8, 18, 19, 20, 30, 31, 32]
    assert order[3][0] == 60
    assert sorted(np.concatenate(order).tolist()) == list(range(96))


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
        (np.full((99, 99), np.nan), {}, ImageError, "pixels that are NaN"),
        (np.zeros((99, 99), np.uint8), {"batch_size": 0}, ImageError, "batch size is 0"),
        (
            as_image(np.zeros((99, 99, 5), np.uint8), channel_axis=2),
            {},
            ChannelMismatch,
            "5 channels and the weights expect 3",
        ),
        (  # four stains, not red, green, blue and opacity
            as_image(np.zeros((4, 99, 99), np.uint8), channel_axis=0),
            {},
            ChannelMismatch,
            "4 channels and the weights expect 3",
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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_cancelling_a_hundred_times_leaves_no_memory_and_no_threads(sheet, classifier):
    stored = zarr.array(sheet[:192], chunks=(96, 96, 3))
    rng = np.random.default_rng(0)

    def cancelled():
        steps = iter_classify(stored, classifier, batch_size=4)
        for _ in range(int(rng.integers(1, 6))):
            next(steps)
        steps.close()

    def memory_mb():
        gc.collect()
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024

    for _ in range(10):
        cancelled()
    base, threads = memory_mb(), threading.active_count()
    for _ in range(100):
        cancelled()
    assert memory_mb() - base < 30
    assert threading.active_count() == threads


def test_a_planar_rgb_file_is_colours_to_weights_for_grey_images(sheet, tmp_path):
    torch.manual_seed(0)
    patch = PatchSpec(96, 96, ("grey",), (0.5,), (0.5,))
    manifest = Manifest("grey", "grey cells", "mambamic-t", ("a", "b"), patch, "")
    network = build_network("mambamic-t", n_classes=2, in_channels=1).eval()
    with torch.inference_mode():
        ready = torch.from_numpy(prepare_patches(sheet[np.newaxis, :96, :96], patch))
        test = sheet[:96, :96], network(ready)[0].numpy()
    save_weights(network, tmp_path / "g.safetensors", manifest, self_test=test, dtype="float32")
    grey = load_classifier(tmp_path / "g.safetensors", device="cpu")
    pixels = sheet[:192, :192]
    for n, alpha in ((3, pixels[..., :0]), (4, pixels[..., :1])):
        colours = np.concatenate([pixels, alpha], axis=2)
        for name, stored, how in (
            ("chunky", colours, "contig"),
            ("planar", np.ascontiguousarray(colours.transpose(2, 0, 1)), "separate"),
        ):
            tifffile.imwrite(
                tmp_path / f"{name}-{n}.tif", stored, photometric="rgb", planarconfig=how
            )
        chunky, planar = (
            classify_image(open_image(tmp_path / f"{name}-{n}.tif"), grey)
            for name in ("chunky", "planar")
        )
        np.testing.assert_array_equal(planar.probabilities, chunky.probabilities)
    stains = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    for name, how in (("planes", {}), ("samples", {"planarconfig": "separate"})):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, stains, photometric="minisblack", **how)
        with pytest.raises(ChannelMismatch, match="3 channels and the weights expect 1"):
            classify_image(open_image(path, channel_axis=0), grey)
