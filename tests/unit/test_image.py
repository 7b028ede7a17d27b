"""Images of every kind become lazy pyramids."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_mambamic.errors import ImageError
from napari_mambamic.image import as_image, join_channels

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.mark.parametrize("make", [np.asarray, da.from_array, zarr.array])
def test_a_window_is_the_same_from_numpy_dask_and_zarr(make):
    image = as_image(make(PIXELS))
    assert image.plane_shape == (20, 30)
    assert image.n_channels == 3
    np.testing.assert_array_equal(image.read(3, 4, 5, 6), PIXELS[3:8, 4:10])


def test_grey_and_channels_first_are_read_with_channels_last():
    assert as_image(PIXELS[..., 0]).read(0, 0, 4, 5).shape == (4, 5, 1)
    first = as_image(PIXELS.transpose(2, 0, 1), channel_axis=0)
    np.testing.assert_array_equal(first.read(3, 4, 5, 6), PIXELS[3:8, 4:10])
    np.testing.assert_array_equal(first.overview(4), PIXELS[::4, ::4])


def test_nothing_is_read_before_it_is_asked_for():
    image = as_image(da.zeros((10**6, 10**6, 3), dtype=np.uint8, chunks=(512, 512, 3)))
    assert image.read(999_000, 5, 8, 8).shape == (8, 8, 3)


def test_a_list_is_a_pyramid():
    image = as_image([PIXELS, PIXELS[::2, ::2]])
    assert [level.downsample for level in image.levels] == [(1, 1), (2, 2)]
    assert image.plane_shape == (20, 30)


@pytest.mark.parametrize(
    ("array", "keywords", "words"),
    [
        (np.zeros((0, 5)), {}, r"is empty: its shape is \(0, 5\)"),
        (np.zeros((1, 1)), {}, "single pixel"),
        (np.zeros((1, 1, 3)), {}, "single pixel"),
        (np.zeros((9, 9, 9, 3)), {}, "4 axes"),
        (np.zeros((9, 20, 20)), {}, "not clear which axis"),
        (np.zeros((9, 9)), {"channel_axis": 0}, "does not fit"),
        (np.zeros((9, 9)), {"pixel_size_um": 0}, "pixel size"),
        ([], {}, "empty list"),
    ],
)
def test_impossible_images_are_refused(array, keywords, words):
    with pytest.raises(ImageError, match=words):
        as_image(array, **keywords)


@pytest.mark.parametrize("make", [np.asarray, da.from_array, zarr.array])
def test_channels_of_several_images_are_those_of_one(make):
    grey, last = PIXELS[..., 0], PIXELS[..., 1:]
    levels = [make(grey), make(np.ascontiguousarray(grey[::2, ::2]))]
    both = [as_image(levels, name="a", pixel_size_um=0.5)]
    both.append(as_image([make(last), make(last[::2, ::2])], channel_axis=2, name="b"))
    image = join_channels(both)
    assert (image.n_channels, image.name, image.pixel_size_um) == (3, "a + b", (0.5, 0.5))
    assert not image.has_colours
    for each in (image, image.with_chunk_cache()):
        np.testing.assert_array_equal(each.read(3, 4, 5, 6), PIXELS[3:8, 4:10])
        np.testing.assert_array_equal(each.read(0, 1, 9, 8, level=1), PIXELS[:18:2, 2:18:2])
        np.testing.assert_array_equal(each.overview(4), PIXELS[::4, ::4])
    chosen = image.with_channels([2, 0])
    np.testing.assert_array_equal(chosen.read(0, 0, 20, 30), PIXELS[..., [2, 0]])
    assert len(join_channels([image, as_image(make(grey))]).levels) == 1


@pytest.mark.parametrize(
    ("other", "words"),
    [(PIXELS[1:, :, 0], "19 x 30 px, uint8"), (PIXELS[..., 0] / 255, "20 x 30 px, float64")],
)
def test_images_that_differ_are_no_channels_of_one(other, words):
    with pytest.raises(ImageError, match=rf"'b' \({words}\) cannot be channels of one"):
        join_channels([as_image(PIXELS[..., 0]), as_image(other, name="b")])
    with pytest.raises(ImageError, match="There are no images"):
        join_channels([])
