"""Every kind of layer gives the same patches, and no more is read than is needed."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray
import zarr
from napari.components import ViewerModel

from napari_mambamic._napari.from_layer import ChannelSource, plane_of_layer
from napari_mambamic.classify import plan
from napari_mambamic.patches import PatchSpec, read_patches

RGB = PatchSpec(32, 32, ("red", "green", "blue"), (0.5,) * 3, (0.5,) * 3)
GREY = PatchSpec(32, 32, ("grey",), (0.5,), (0.5,))
TWO = PatchSpec(32, 32, ("dna", "actin"), (0.5,) * 2, (0.5,) * 2)
PIXELS = np.random.default_rng(0).integers(0, 256, (96, 160, 3)).astype(np.uint8)
PLANE = PIXELS[..., 0]


def tiny_blocks(pixels):
    return da.from_array(pixels, chunks=(40, 50, *pixels.shape[2:]))


def opaque(pixels):
    return np.concatenate([pixels, np.full((96, 160, 1), 255, np.uint8)], axis=2)


def in_a_turned_frame(**more):
    return {"scale": (0.5, 0.5), "rotate": 30, "shear": [0.2], "translate": (9, -4)} | more


@pytest.mark.parametrize(
    ("data", "options", "spec"),
    [
        (PLANE, {}, GREY),
        (PLANE, {}, RGB),
        (PLANE.astype(np.uint16) * 257, {}, GREY),
        (PLANE.astype(">u2") * 257, {}, GREY),
        (PLANE.astype(">f4") / 255, {}, GREY),
        (PLANE / 255, {}, GREY),
        (PIXELS, {"rgb": True}, RGB),
        (opaque(PIXELS), {"rgb": True}, RGB),
        (PIXELS.astype(np.uint16) * 257, {"rgb": True}, RGB),
        (tiny_blocks(PIXELS), {"rgb": True}, RGB),
        (zarr.array(PIXELS, chunks=(40, 50, 3)), {"rgb": True}, RGB),
        (xarray.DataArray(PIXELS, dims=("y", "x", "c")), {"rgb": True}, RGB),
        (xarray.DataArray(tiny_blocks(PLANE), dims=("y", "x")), {}, GREY),
        ([PIXELS, PIXELS[::2, ::2]], {"rgb": True, "multiscale": True}, RGB),
        ([tiny_blocks(PLANE), tiny_blocks(PLANE[::2, ::2])], {"multiscale": True}, GREY),
        (PIXELS, {"rgb": True} | in_a_turned_frame(), RGB),
        (PLANE, in_a_turned_frame(affine=[[1, 0.1, 3], [0, 1.2, 4], [0, 0, 1]]), GREY),
        (np.stack([PLANE * 0, PLANE, PLANE * 0]), {"scale": (3, 1, 1)}, GREY),
        (tiny_blocks(PLANE)[np.newaxis].repeat(3, axis=0), {}, GREY),
    ],
)
def test_every_kind_of_layer_gives_the_same_patches(data, options, spec):
    viewer = ViewerModel()
    layer = viewer.add_image(data, **options)
    if layer.ndim > 2:
        viewer.dims.set_point(0, layer.scale[0])
    plane = plane_of_layer(viewer, layer)
    tiles = plan(plane.image, spec, overlap=8)
    assert tiles.shape == (4, 7)
    shown = PLANE if spec is GREY or PIXELS.ndim == layer.data[0].ndim else PIXELS
    if spec is RGB and not layer.rgb:
        shown = np.repeat(PLANE[..., np.newaxis], 3, axis=2)
    elif spec is RGB:
        shown = PIXELS
    patches = read_patches(plane.image.with_chunk_cache(), tiles, spec)
    for tile, patch in zip(tiles, patches, strict=True):
        window = shown[tile.y : tile.y + 32, tile.x : tile.x + 32].reshape(32, 32, -1)
        expected = (window.transpose(2, 0, 1) / 255 - 0.5) / 0.5
        np.testing.assert_allclose(patch, expected, atol=1e-5)


def test_bool_pixels_are_black_and_white():
    viewer = ViewerModel()
    plane = plane_of_layer(viewer, viewer.add_image(PLANE > 100))
    patches = read_patches(plane.image, plan(plane.image, GREY), GREY)
    assert set(np.unique(patches).tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("axis", [0, 1])
def test_channels_are_mapped_along_any_leading_axis(axis):
    viewer = ViewerModel()
    channels = PIXELS.transpose(2, 0, 1)
    stack = np.stack([channels * 0, channels])
    layer = viewer.add_image(stack if axis == 1 else stack.swapaxes(0, 1))
    viewer.dims.set_point(1 - axis, 1)
    sources = [ChannelSource(layer, axis, number) for number in (2, 0)]
    plane = plane_of_layer(viewer, layer, channels=sources)
    patches = read_patches(plane.image, plan(plane.image, TWO)[:1], TWO)
    expected = PIXELS[:32, :32, [2, 0]].transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(patches[0], expected, atol=1e-5)


def test_only_the_blocks_of_the_tiles_are_read_and_each_once():
    read = []

    def block(block_info):
        where = block_info[None]["array-location"]
        read.append(tuple(where[-2:]))
        return np.zeros([stop - start for start, stop in where], np.uint8)

    chunks = ((1,) * 3, (512,) * 200, (512,) * 200)
    huge = da.map_blocks(block, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    viewer = ViewerModel()
    small = np.zeros((3, 200, 200), np.uint8)  # what napari draws
    layer = viewer.add_image([huge, small], multiscale=True, contrast_limits=(0, 255))
    viewer.dims.set_point(0, 2)
    del read[:]  # what napari read to draw
    image = plane_of_layer(viewer, layer).image.with_chunk_cache()
    assert image.plane_shape == (102_400, 102_400)
    tiles = plan(image, GREY, region=(5120, 5120, 1024, 1024))
    assert len(tiles) == 32 * 32
    read_patches(image, tiles, GREY)
    assert sorted(read) == [
        ((y, y + 512), (x, x + 512)) for y in (5120, 5632) for x in (5120, 5632)
    ]
