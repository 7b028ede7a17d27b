"""Layers become images, labels and points of the core, and bad ones a sentence."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Points, Shapes

from napari_mambamic._napari.from_layer import (
    ChannelSource,
    areas_of_planes,
    labels_of_layer,
    plane_of_layer,
    points_of_layer,
)
from napari_mambamic.errors import ImageError, NothingToClassify


def plane_of(layer):
    viewer = ViewerModel()
    viewer.add_layer(layer)
    return plane_of_layer(viewer, layer)


def test_pixel_size_follows_scale_and_units():
    layer = Image(np.zeros((9, 9)), scale=(500, 250), units=("nm", "nm"), rotate=30)
    assert plane_of(layer).image.pixel_size_um == pytest.approx((0.5, 0.25))
    assert plane_of(Image(np.zeros((9, 9)), scale=(2, 2))).image.pixel_size_um is None


def test_rgb_multiscale_and_volumes_are_read_lazily():
    rgb = plane_of(Image(np.zeros((9, 8, 3), np.uint8), rgb=True))
    assert rgb.image.n_channels == 3
    volume = da.random.random((4, 5, 30, 20), chunks=(1, 1, 10, 10))
    plane = plane_of(Image(volume))
    assert plane.image.plane_shape == (30, 20)
    np.testing.assert_array_equal(
        plane.image.read(3, 4, 5, 6)[..., 0], volume[(*plane.index, slice(3, 8), slice(4, 10))]
    )
    pyramid = plane_of(Image([np.zeros((64, 64)), np.zeros((32, 32))], multiscale=True))
    assert [level.downsample for level in pyramid.image.levels] == [(1, 1), (2, 2)]


def test_a_huge_pyramid_is_not_read():
    levels = [
        da.zeros((n, n, 3), dtype=np.uint8, chunks=(1000, 1000, 3)) for n in (100_000, 10_000, 1000)
    ]
    plane = plane_of(Image(levels, rgb=True, multiscale=True))
    assert plane.image.plane_shape == (100_000, 100_000)
    assert plane.image.read(99_990, 0, 10, 10).shape == (10, 10, 3)


def test_points_go_through_the_world():
    plane = plane_of(Image(np.zeros((50, 60)), scale=(2, 2), translate=(10, 0)))
    points = Points([[14.0, 8], [30, 40]])
    places, numbers = points_of_layer(plane, points)
    np.testing.assert_allclose(places, [[2, 4], [10, 20]])
    assert numbers.tolist() == [0, 1]


def test_only_points_on_the_plane_in_view_count():
    viewer = ViewerModel()
    layer = Image(np.zeros((4, 50, 60)))
    viewer.add_layer(layer)
    viewer.dims.set_point(0, 2)
    plane = plane_of_layer(viewer, layer)
    places, numbers = points_of_layer(plane, Points([[0.0, 5, 5], [2, 7, 8], [2.4, 1, 1]]))
    assert numbers.tolist() == [1, 2]
    np.testing.assert_allclose(places, [[7, 8], [1, 1]])
    with pytest.raises(NothingToClassify, match="no points on this plane"):
        points_of_layer(plane, Points([[0.0, 5, 5]]))


def test_labels_of_a_volume_are_those_of_the_plane():
    viewer = ViewerModel()
    layer = Image(np.zeros((4, 50, 60)))
    viewer.add_layer(layer)
    viewer.dims.set_point(0, 3)
    data = np.zeros((4, 50, 60), int)
    data[3, 5, 5] = 8
    assert np.asarray(labels_of_layer(plane_of_layer(viewer, layer), Labels(data))).max() == 8


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (None, "no layer is chosen"),
        (Labels(np.zeros((9, 9), int), name="mine"), "'mine' is no image layer"),
        (Image(np.zeros((1, 1)), name="dot"), "'dot' is a single pixel"),
    ],
)
def test_what_is_no_image_gets_a_sentence(layer, words):
    with pytest.raises(ImageError, match=words):
        plane_of_layer(ViewerModel(), layer)


def test_an_empty_layer_gets_a_sentence():
    empty = Image(np.zeros((0, 9, 9)), name="nothing", contrast_limits=(0, 1))
    with pytest.raises(ImageError, match="'nothing' is empty"):
        plane_of_layer(ViewerModel(), empty)


def test_an_image_seen_from_the_side_gets_a_sentence():
    viewer = ViewerModel()
    layer = Image(np.zeros((4, 50, 60)))
    viewer.add_layer(layer)
    viewer.dims.order = (1, 0, 2)
    with pytest.raises(ImageError, match="seen from the side"):
        plane_of_layer(viewer, layer)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (None, "no Labels layer is chosen"),
        (Labels(np.zeros((9, 9), int)), r"has shape \(9, 9\)"),
        (Labels(np.zeros((50, 60), int), scale=(2, 2)), "does not lie on"),
    ],
)
def test_labels_that_do_not_belong_to_the_image_get_a_sentence(labels, words):
    with pytest.raises(ImageError, match=words):
        labels_of_layer(plane_of(Image(np.zeros((50, 60)))), labels)


def test_points_that_do_not_belong_to_the_image_get_a_sentence():
    plane = plane_of(Image(np.zeros((50, 60))))
    with pytest.raises(ImageError, match="no Points layer is chosen"):
        points_of_layer(plane, None)
    with pytest.raises(ImageError, match="has 3 axes"):
        points_of_layer(plane, Points(np.zeros((1, 3))))
    with pytest.raises(NothingToClassify, match="no points"):
        points_of_layer(plane, Points(ndim=2))


def test_channels_come_from_an_axis_or_from_several_layers():
    viewer = ViewerModel()
    pixels = np.random.default_rng(0).integers(0, 255, (4, 5, 30, 40)).astype(np.uint8)  # zcyx
    stack = viewer.add_image(pixels, scale=(1, 1, 2, 2))
    viewer.dims.set_point(0, 2)
    chosen = [ChannelSource(stack, 1, 3), ChannelSource(stack, 1, 0)]
    plane = plane_of_layer(viewer, stack, channels=chosen)
    assert plane.image.n_channels == 2
    np.testing.assert_array_equal(
        plane.image.read(3, 4, 10, 20), pixels[2, [3, 0], 3:13, 4:24].transpose(1, 2, 0)
    )
    red = viewer.add_image(pixels[0, 0], scale=(2, 2))
    green = viewer.add_image(pixels[0, 1], scale=(2, 2))
    plane = plane_of_layer(viewer, red, channels=[ChannelSource(green), ChannelSource(red)])
    np.testing.assert_array_equal(
        plane.image.read(0, 0, 30, 40), pixels[0, [1, 0]].transpose(1, 2, 0)
    )
    elsewhere = viewer.add_image(pixels[0, 1], scale=(2, 2), translate=(5, 0))
    with pytest.raises(ImageError, match="cannot be a channel of"):
        plane_of_layer(viewer, red, channels=[ChannelSource(red), ChannelSource(elsewhere)])
    deep = viewer.add_image(pixels[0, 1].astype(np.uint16), scale=(2, 2))
    with pytest.raises(ImageError, match="different pixel types"):
        plane_of_layer(viewer, red, channels=[ChannelSource(red), ChannelSource(deep)])


def test_shapes_and_labels_tell_where_to_classify():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((100, 100), np.uint8), scale=(2, 2))
    plane = plane_of_layer(viewer, layer)
    shapes = Shapes(
        [np.array([(20, 20), (20, 60), (60, 60), (60, 20)]), np.array([(100, 100), (40, 20)])],
        shape_type=["polygon", "ellipse"],
    )
    square, ellipse = areas_of_planes([plane], shapes)[()]
    np.testing.assert_allclose(square, [(10, 10), (10, 30), (30, 30), (30, 10)])
    np.testing.assert_allclose(np.ptp(ellipse, axis=0), (40, 20))
    np.testing.assert_allclose(ellipse.mean(axis=0), (50, 50))
    mask = np.eye(100, dtype=int)
    np.testing.assert_array_equal(areas_of_planes([plane], Labels(mask, scale=(2, 2)))[()], mask)
    with pytest.raises(NothingToClassify, match="no area"):
        areas_of_planes([plane], Shapes([np.array([(0, 0), (5, 5)])], shape_type="line"))
    with pytest.raises(ImageError, match="does not tell where"):
        areas_of_planes([plane], layer)


def test_labels_of_a_plane_belong_to_all_channels_of_an_image():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((3, 20, 30), np.uint8), scale=(1, 2, 2))
    viewer.dims.set_point(0, 1)
    plane = plane_of_layer(viewer, layer)
    data = np.arange(600).reshape(20, 30)
    np.testing.assert_array_equal(labels_of_layer(plane, Labels(data, scale=(2, 2))), data)
    with pytest.raises(ImageError, match="does not lie on image"):
        labels_of_layer(plane, Labels(data))


def test_labels_of_each_plane_are_not_taken_for_labels_of_each_channel():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((5, 3, 20, 30), np.uint8))  # z, channel, y, x
    plane = plane_of_layer(viewer, layer)
    with pytest.raises(ImageError, match=r"with 3 planes\. .* along an axis of channels"):
        labels_of_layer(plane, Labels(np.zeros((5, 20, 30), int)))
    repeated = np.zeros((5, 3, 20, 30), int)
    repeated[plane.index] = 7
    assert np.asarray(labels_of_layer(plane, Labels(repeated)))[0, 0] == 7
