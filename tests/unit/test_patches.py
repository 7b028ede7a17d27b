"""From tiles to what the network is fed."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mambamic.errors import ChannelMismatch, ImageError
from napari_mambamic.image import as_image
from napari_mambamic.patches import PatchSpec, prepare_patches, read_patches, read_tiles
from napari_mambamic.tiling import Tile, plan_tiles

RGB = PatchSpec(12, 8, ("red", "green", "blue"), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
GREY = PatchSpec(12, 8, ("grey",), (0.0,), (1.0,))
PIXELS = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)


@given(
    plane=st.tuples(st.integers(1, 12), st.integers(2, 12)),
    tile=st.builds(Tile, st.integers(-40, 40), st.integers(-40, 40), st.integers(1, 30)),
)
def test_padding_is_numpys_reflection(plane, tile):
    pixels = np.arange(plane[0] * plane[1]).reshape(plane)
    got = read_tiles(as_image(pixels), [tile])[0, :, :, 0]
    wide = np.pad(pixels, 100, mode="reflect")
    y, x = tile.y + 100, tile.x + 100
    np.testing.assert_array_equal(got, wide[y : y + tile.size, x : x + tile.size])


@settings(deadline=None)
@given(length=st.integers(1, 100), size=st.integers(1, 64))
def test_resampling_is_torchs_antialiased_bilinear(length, size):
    rng = np.random.default_rng(length * 100 + size)
    pixels = rng.random((2, length, length + 3, 1), np.float32)
    spec = PatchSpec(length, size, ("grey",), (0.0,), (1.0,))
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(0, 3, 1, 2), size, mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(prepare_patches(pixels, spec), wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "convert",
    [
        lambda p: p,
        lambda p: p.astype(np.uint16) * 257,
        lambda p: (p.astype(np.uint16) * 257).astype(">u2"),
        lambda p: p.astype(np.uint32) * 16843009,
        lambda p: (p / 255).astype(np.float32),
        lambda p: p / 255,
        lambda p: (p / 255).astype(np.float64).astype(">f8"),
        lambda p: np.dstack([p, np.full(p.shape[:2], 255, np.uint8)]),
    ],
)
def test_every_pixel_type_gives_the_same_patches(convert):
    tiles = [Tile(0, 0, 12), Tile(5, 15, 12)]
    wanted = read_patches(as_image(PIXELS), tiles, RGB)
    assert wanted.dtype == np.float32
    assert wanted.shape == (2, 3, 8, 8)
    got = read_patches(as_image(convert(PIXELS)), tiles, RGB)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_bool_is_black_and_white():
    mask = np.zeros((1, 8, 8), bool)
    mask[0, 2] = True
    np.testing.assert_array_equal(prepare_patches(mask, GREY)[0, 0], mask[0])


def test_grey_stands_in_for_colours_and_colours_become_grey():
    grey = np.full((1, 8, 8), 51, np.uint8)
    np.testing.assert_allclose(prepare_patches(grey, RGB), (0.2 - 0.5) / 0.5, rtol=1e-5)
    colours = np.zeros((1, 8, 8, 3), np.uint8)
    colours[..., 1] = 255
    np.testing.assert_allclose(prepare_patches(colours, GREY), 0.7154, rtol=1e-5)


def test_what_is_transparent_is_white():
    transparent = np.zeros((1, 8, 8, 4), np.uint8)
    np.testing.assert_allclose(prepare_patches(transparent, RGB), 1)


@pytest.mark.parametrize("make", [np.asarray, da.from_array, zarr.array])
def test_numpy_dask_and_zarr_give_the_same_patches(make):
    grid = plan_tiles((20, 30), tile_size=12, overlap=3)
    np.testing.assert_array_equal(
        read_patches(as_image(make(PIXELS)), grid, RGB), read_patches(as_image(PIXELS), grid, RGB)
    )


def test_tiles_of_different_sizes_keep_their_order():
    tiles = [Tile(0, 0, 12), Tile(0, 0, 6), Tile(5, 5, 12)]
    together = read_patches(as_image(PIXELS), tiles, RGB)
    for i, tile in enumerate(tiles):
        np.testing.assert_array_equal(together[i], read_patches(as_image(PIXELS), [tile], RGB)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_are_named_and_not_passed_on(bad):
    pixels = np.zeros((20, 20), np.float32)
    pixels[15, 3] = bad
    name = "NaN" if np.isnan(bad) else "infinite"
    with pytest.raises(ImageError, match=rf"'sick' has pixels that are {name}.*\(10, 0\)"):
        read_patches(as_image(pixels, name="sick"), plan_tiles((20, 20), tile_size=10), GREY)
    with pytest.raises(ImageError, match=f"pixels that are {name}, the first in patch 0"):
        prepare_patches(pixels[np.newaxis], GREY)


@pytest.mark.parametrize(
    ("pixels", "spec", "error", "words"),
    [
        (np.full((1, 8, 8), 200.0), GREY, ImageError, "floats from 200 to 200"),
        (np.full((1, 8, 8), -1), GREY, ImageError, "go down to -1"),
        (np.zeros((1, 8, 8), complex), GREY, ImageError, "complex128"),
        (np.zeros((8, 8), np.uint8), GREY, ImageError, r"\(8, 8\)"),
        (np.zeros((1, 8, 8, 5), np.uint8), RGB, ChannelMismatch, "5 channels.*expect 3"),
        (np.zeros((1, 8, 8, 2), np.uint8), RGB, ChannelMismatch, "2 channels.*expect 3"),
        (np.zeros((1, 8, 8, 2), np.uint8), GREY, ChannelMismatch, "2 channels.*expect 1"),
    ],
)
def test_pixels_that_cannot_be_used_are_refused(pixels, spec, error, words):
    with pytest.raises(error, match=words):
        prepare_patches(pixels, spec)
