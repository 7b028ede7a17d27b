"""Samples from annotated layers lie where the annotations lie."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels, Points, Shapes

from napari_mambamic import samples_from_layers
from napari_mambamic.errors import MambamicError, SamplesError


@pytest.fixture
def field():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture
def image(viewer, field):
    """In world coordinates, at an angle and with large pixels."""
    return viewer.add_image(
        field, rgb=True, name="field", scale=(0.5, 0.5), translate=(7, -3), rotate=20
    )


def in_world(image, places):
    return np.array([image.data_to_world(place) for place in places])


def test_points_with_a_feature(viewer, image, field):
    places = [(20, 30), (40, 50), (10, 10)]
    points = Points(in_world(image, places), features={"kind": ["b", "a", "b"]})
    samples = samples_from_layers(viewer, image, points, tile_size=9)
    assert samples.class_names == ("a", "b")
    assert samples.labels.tolist() == [1, 0, 1]
    for pixels, (y, x) in zip(samples.pixels, places, strict=True):
        assert np.array_equal(pixels, field[y - 4 : y + 5, x - 4 : x + 5])


def test_points_without_words_are_told_by_colour(viewer, image):
    points = Points(
        in_world(image, [(20, 30), (40, 50)]), face_color=["red", "blue"], features={"n": [1, 2]}
    )
    samples = samples_from_layers(viewer, image, points, tile_size=9)
    assert samples.class_names == ("#0000ff", "#ff0000")


def test_a_point_without_a_class_is_refused(viewer, image):
    points = Points(in_world(image, [(20, 30), (40, 50)]), features={"kind": ["a", ""]})
    with pytest.raises(SamplesError, match=r"1 of 2 annotations .* no value in the column 'kind'"):
        samples_from_layers(viewer, image, points, tile_size=9)


def test_small_shapes_are_one_tile_and_large_ones_the_grid_inside(viewer, image, field):
    small = in_world(image, [(20, 30), (20, 37), (27, 37), (27, 30)])
    large = in_world(image, [(-0.5, -0.5), (-0.5, 39.5), (29.5, 39.5), (29.5, -0.5)])
    shapes = Shapes([small, large], shape_type="polygon", features={"class": ["one", "many"]})
    samples = samples_from_layers(viewer, image, shapes, tile_size=10)
    assert samples.counts == {"many": 3 * 4, "one": 1}
    one = samples.pixels[samples.labels == 1][0]
    assert np.array_equal(one, field[19:29, 29:39])
    many = samples.pixels[samples.labels == 0]
    assert np.array_equal(many[0], field[:10, :10])
    assert np.array_equal(many[-1], field[20:30, 30:40])


def test_of_an_ellipse_the_tiles_inside_of_it(viewer, image):
    box = in_world(image, [(-0.5, -0.5), (-0.5, 79.5), (59.5, 79.5), (59.5, -0.5)])
    shapes = Shapes([box], shape_type="ellipse", features={"class": ["round"]})
    samples = samples_from_layers(viewer, image, shapes, tile_size=5)
    assert samples.counts["round"] / (12 * 16) == pytest.approx(np.pi / 4, abs=0.03)


def test_a_tile_has_the_class_of_which_paint_covers_half(viewer, image, field):
    painted = np.zeros((60, 80), np.int32)
    painted[:20, :13] = 4  # of the tile at x = 10 it covers 3 of 10 columns
    painted[20:30, :5] = 9  # exactly half
    labels = viewer.add_labels(
        painted, scale=image.scale, translate=image.translate, rotate=image.rotate
    )
    samples = samples_from_layers(viewer, image, labels, tile_size=10)
    assert samples.class_names == ("label 4", "label 9")
    assert samples.counts == {"label 4": 2, "label 9": 1}
    assert np.array_equal(samples.pixels[0], field[:10, :10])
    assert np.array_equal(samples.pixels[2], field[20:30, :10])
    labels.data = np.zeros_like(painted)
    with pytest.raises(SamplesError, match="annotates no tile of 10 px"):
        samples_from_layers(viewer, image, labels, tile_size=10)


def test_the_plane_in_view_of_a_stack(viewer, field):
    stack = np.stack([field[..., 0], field[..., 1], field[..., 2]])
    image = viewer.add_image(stack, name="stack")
    viewer.dims.set_point(0, 1)
    points = Points([(1, 20, 30), (2, 20, 30), (1, 40, 40)], features={"c": ["a", "b", "c"]})
    samples = samples_from_layers(viewer, image, points, tile_size=9)
    assert samples.class_names == ("a", "c")
    assert np.array_equal(samples.pixels[0][..., 0], field[16:25, 26:35, 1])


def test_other_layers_get_a_sentence(viewer, image):
    with pytest.raises(MambamicError, match="Annotate with one of them"):
        samples_from_layers(viewer, image, Image(np.zeros((4, 4)), name="x"), tile_size=9)
    with pytest.raises(MambamicError, match="no image layer"):
        samples_from_layers(viewer, Labels(np.zeros((4, 4), int)), image, tile_size=9)
