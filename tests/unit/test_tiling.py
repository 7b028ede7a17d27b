"""Where tiles lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mambamic.errors import ImageError, NothingToClassify
from napari_mambamic.tiling import Tile, plan_tiles, tiles_at_points, tiles_of_objects

side = st.integers(1, 60)


@given(plane=st.tuples(side, side), size=st.integers(1, 40), data=st.data())
def test_every_pixel_is_in_a_tile(plane, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    covered = np.zeros(plane, int)
    for tile in plan_tiles(plane, tile_size=size, overlap=overlap):
        covered[tile.y : tile.y + tile.size, tile.x : tile.x + tile.size] += 1
    assert covered.min() >= 1


@given(plane=st.tuples(side, side), size=st.integers(1, 40), data=st.data())
def test_tiles_stay_inside_a_plane_that_is_large_enough(plane, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    grid = plan_tiles(plane, tile_size=size, overlap=overlap)
    for starts, length in ((grid.rows, plane[0]), (grid.columns, plane[1])):
        assert starts[0] == 0
        assert starts[-1] == max(length - size, 0)
        steps = np.diff(starts)
        assert (steps[:-1] == grid.stride).all()
        assert ((steps > 0) & (steps <= grid.stride)).all()


def test_the_last_tile_is_moved_back_inside():
    grid = plan_tiles((8, 20), tile_size=8, overlap=2)
    assert grid.columns == (0, 6, 12)
    assert grid.rows == (0,)
    assert grid.shape == (1, 3)
    assert list(grid) == [grid[i] for i in range(len(grid))]
    assert grid[-1] == Tile(0, 12, 8)
    assert grid[1:] == (Tile(0, 6, 8), Tile(0, 12, 8))
    with pytest.raises(IndexError):
        grid[3]


def test_an_image_smaller_than_a_tile_gets_one_tile():
    assert list(plan_tiles((5, 7), tile_size=10)) == [Tile(0, 0, 10)]


def test_a_size_that_was_computed_is_whole_all_the_same():
    """As 2.0 * 48 is, or a cell of a table."""
    for size in (48.0, np.float32(48), np.int16(48)):
        grid = plan_tiles((96, 96), tile_size=size)
        assert list(grid) == list(plan_tiles((96, 96), tile_size=48))
        (around,) = tiles_at_points([(48, 48)], tile_size=size)
        (of_object,) = tiles_of_objects(np.ones((96, 96), int), tile_size=size)
        for tile in (*grid, around, of_object):
            assert {type(n) for n in (tile.y, tile.x, tile.size)} == {int}


@pytest.mark.parametrize("size", [96.5, 0, np.nan, np.inf, "large", (96, 48)])
def test_what_is_no_size_is_refused(size):
    plane = np.ones((96, 96), int)
    for cut in (
        lambda: plan_tiles(plane.shape, tile_size=size),
        lambda: tiles_at_points([(5, 5)], tile_size=size),
        lambda: tiles_of_objects(plane, tile_size=size),
    ):
        with pytest.raises(ImageError, match="Choose a whole number of at least 1"):
            cut()


def test_a_tile_is_not_far_larger_than_the_plane():
    plane = np.ones((100, 400), int)
    for cut in (
        lambda size: plan_tiles(plane.shape, tile_size=size),
        lambda size: tiles_at_points([(5, 5)], tile_size=size, plane_shape=plane.shape),
        lambda size: tiles_of_objects(plane, tile_size=size),
    ):
        assert cut(1600)[0].size == 1600
        with pytest.raises(ImageError, match=r"is 1601 px, and the plane is 100 x 400 px. .* 1600"):
            cut(1601)


def test_a_region_is_covered_and_nothing_else():
    grid = plan_tiles((100, 100), tile_size=10, region=(20, 30, 25, 40))
    assert grid.rows == (20, 30, 35)
    assert grid.columns == (30, 40, 50, 60)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"tile_size": 0}, "tile size is 0"),
        ({"tile_size": 8, "overlap": 8}, "from 0 to 7 px"),
        ({"tile_size": 8, "overlap": -1}, "overlap is -1"),
        ({"tile_size": 8, "region": (0, 0, 30, 5)}, "does not lie inside"),
    ],
)
def test_impossible_grids_are_refused(keywords, words):
    with pytest.raises(ImageError, match=words):
        plan_tiles((20, 20), **keywords)


@given(point=st.tuples(st.floats(-0.5, 99.5), st.floats(-0.5, 99.5)), size=st.integers(1, 50))
def test_a_point_is_in_the_middle_of_its_tile(point, size):
    tile = tiles_at_points([point], tile_size=size)[0]
    middle = np.array([tile.y, tile.x]) + (size - 1) / 2
    assert np.abs(middle - point).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("points", "error", "words"),
    [
        ([], NothingToClassify, "no points"),
        ([(1, 2, 3)], ImageError, r"\(1, 3\)"),
        ([(1, float("nan"))], ImageError, "Point 0"),
        ([(1, 1), (30, 5), (-4, 5)], ImageError, "2 of 3 points lie outside.*point 1"),
    ],
)
def test_impossible_points_are_refused(points, error, words):
    with pytest.raises(error, match=words):
        tiles_at_points(points, tile_size=5, plane_shape=(20, 20))


def test_objects_get_tiles_around_their_bounding_boxes():
    labels = np.zeros((40, 40), np.uint16)
    labels[10:15, 20:27] = 7
    labels[30, 2] = 3
    found = tiles_of_objects(labels, tile_size=9)
    assert found.object_ids.tolist() == [3, 7]
    assert found.centres.tolist() == [[30, 2], [12, 23]]
    assert found.tiles == (Tile(26, -2, 9), Tile(8, 19, 9))
    scaled = tiles_of_objects(labels, scale=2)
    assert [tile.size for tile in scaled] == [2, 14]


def test_bool_labels_are_separated_into_objects():
    mask = np.zeros((20, 20), bool)
    mask[2:5, 2:5] = mask[10:14, 10:14] = True
    assert len(tiles_of_objects(mask, tile_size=4)) == 2


@pytest.mark.parametrize(
    ("labels", "keywords", "error", "words"),
    [
        (np.zeros((9, 9), int), {"tile_size": 4}, NothingToClassify, "no objects"),
        (np.ones((9, 9)), {"tile_size": 4}, ImageError, "float64"),
        (np.ones((2, 9, 9), int), {"tile_size": 4}, ImageError, r"\(2, 9, 9\)"),
        (np.ones((9, 9), int), {}, ImageError, "either a tile size or a scale"),
        (np.ones((9, 9), int), {"scale": 0}, ImageError, "scale of the objects is 0"),
    ],
)
def test_impossible_objects_are_refused(labels, keywords, error, words):
    with pytest.raises(error, match=words):
        tiles_of_objects(labels, **keywords)
