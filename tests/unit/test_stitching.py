"""From tiles to arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mambamic.errors import ExportError
from napari_mambamic.stitching import BLENDS, blended, label_geometry
from napari_mambamic.tiling import places_of, plan_tiles, tiles_at_points

side = st.integers(1, 60)


@given(plane=st.tuples(side, side), size=st.integers(1, 25), data=st.data())
def test_places_are_those_of_the_tiles_in_their_order(plane, size, data):
    grid = plan_tiles(plane, tile_size=size, overlap=data.draw(st.integers(0, size - 1)))
    assert places_of(grid).tolist() == [[tile.y, tile.x, tile.size] for tile in grid]
    tiles = tiles_at_points(data.draw(st.lists(st.tuples(side, side), min_size=1)), tile_size=size)
    assert places_of(tiles).tolist() == [[tile.y, tile.x, tile.size] for tile in tiles]


def some_probabilities(grid):
    rng = np.random.default_rng(len(grid))
    return rng.dirichlet(np.ones(3), len(grid)).astype(np.float32)


@given(plane=st.tuples(side, side), size=st.integers(1, 25), how=st.sampled_from(BLENDS))
def test_without_overlap_blending_gives_the_direct_result_bit_for_bit(plane, size, how):
    grid = plan_tiles(plane, tile_size=size)
    probabilities = some_probabilities(grid)
    assert blended(grid, probabilities, how).tobytes() == probabilities.tobytes()


@settings(max_examples=40)  # each looks at every pair of tiles
@given(plane=st.tuples(side, side), size=st.integers(2, 25), data=st.data())
def test_the_mean_is_over_all_tiles_that_cover_the_centre_of_the_label_pixel(plane, size, data):
    grid = plan_tiles(plane, tile_size=size, overlap=data.draw(st.integers(1, size - 1)))
    probabilities = some_probabilities(grid)
    gone = data.draw(st.sets(st.integers(0, len(grid) - 1), max_size=3))
    probabilities[sorted(gone)] = np.nan
    got = blended(grid, probabilities, "mean").reshape(*grid.shape, 3)
    (y, x), stride = label_geometry(grid)
    tiles = places_of(grid)
    kept = np.setdiff1d(np.arange(len(grid)), sorted(gone))
    for (row, column), value in np.ndenumerate(got[..., 0]):
        own = row * grid.shape[1] + column
        if own in gone:
            assert np.isnan(value)
            continue
        centre = y + row * stride, x + column * stride
        over = kept[(abs(centre - tiles[kept, :2] - (size - 1) / 2) <= size / 2).all(axis=1)]
        if not len(over):  # the pixel's middle is out of the plane
            over = [own]
        expected = probabilities[over].mean(axis=0)
        np.testing.assert_allclose(got[row, column], expected, rtol=1e-4)


def test_gaussian_blending_trusts_the_nearest_tile_most_and_keeps_the_sum():
    grid = plan_tiles((40, 40), tile_size=16, overlap=8)
    probabilities = np.zeros((len(grid), 2), np.float32)
    probabilities[:, 0] = 1
    probabilities[0] = 0, 1
    mean, gaussian = (blended(grid, probabilities, how) for how in ("mean", "gaussian"))
    np.testing.assert_allclose(gaussian.sum(axis=1), 1, rtol=1e-6)
    assert gaussian[0, 1] > mean[0, 1] > 0
    assert gaussian[-1, 1] == 0
    with pytest.raises(ExportError, match="no blending 'median'"):
        blended(grid, probabilities, "median")
