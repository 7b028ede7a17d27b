"""Where maps of tiles lie on the plane."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mambamic.explain import heatmap as module
from napari_mambamic.explain.heatmap import heatmap_over
from napari_mambamic.tiling import Tile, plan_tiles

side, place = st.integers(1, 40), st.integers(-9, 39)


@given(
    shape=st.tuples(side, side),
    tiles=st.lists(st.builds(Tile, place, place, side), min_size=1, max_size=5),
)
def test_a_heatmap_covers_its_tiles_and_nothing_else(shape, tiles):
    tiles = [t for t in tiles if -t.size < t.y < shape[0] and -t.size < t.x < shape[1]]
    if not tiles:
        return
    heatmap = heatmap_over(tiles, shape, {})
    expected = np.zeros(shape, bool)
    for tile in tiles:
        heatmap.add(tile, np.ones((4, 4), np.float32))
        expected[max(tile.y, 0) : tile.y + tile.size, max(tile.x, 0) : tile.x + tile.size] = True
    found = np.zeros(shape, bool)
    y, x = heatmap.first
    height, width = heatmap.pixels.shape
    found[y : y + height, x : x + width] = np.isfinite(heatmap.pixels)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(heatmap.pixels[np.isfinite(heatmap.pixels)], 1, rtol=1e-6)


def test_where_maps_overlap_their_mean_counts():
    tiles = [Tile(0, 0, 8), Tile(0, 4, 8), Tile(0, 4, 8)]
    heatmap = heatmap_over(tiles, (8, 12), {})
    for tile, value in zip(tiles, (0.2, 0.6, 1.0), strict=True):
        heatmap.add(tile, np.full((2, 2), value, np.float32))
    expected = [0.2] * 4 + [0.6] * 4 + [0.8] * 4
    np.testing.assert_allclose(heatmap.pixels, [expected] * 8, rtol=1e-5)


@pytest.mark.parametrize("most_pixels", [10**6, 500, 60])
def test_each_pixel_shows_its_own_place_at_any_step(monkeypatch, most_pixels):
    monkeypatch.setattr(module, "MOST_PIXELS", most_pixels)
    tiles = [Tile(10, 20, 64)]
    heatmap = heatmap_over(tiles, (100, 100), {})
    assert heatmap.pixels.size <= most_pixels
    # A map that tells where it is: at the centre of each of its pixels, y + x / 1000 px.
    centres = (np.arange(16) + 0.5) * 4 - 0.5
    heatmap.add(tiles[0], (centres[:, None] + centres / 1000).astype(np.float32))
    rows, columns = (
        origin + heatmap.step * np.arange(n)
        for origin, n in zip(heatmap.origin, heatmap.pixels.shape, strict=True)
    )
    inside = (slice(2, -2) if heatmap.step < 3 else slice(1, -1),) * 2
    expected = (rows[:, None] - 10) + (columns - 20) / 1000
    np.testing.assert_allclose(heatmap.pixels[inside], expected[inside], atol=0.01)


def test_a_tile_that_is_smaller_than_a_pixel_is_still_shown(monkeypatch):
    monkeypatch.setattr(module, "MOST_PIXELS", 16)
    tiles = [Tile(0, 0, 4), Tile(61, 33, 2)]
    heatmap = heatmap_over(tiles, (64, 64), {})
    assert heatmap.step > 4
    for tile in tiles:
        heatmap.add(tile, np.ones((4, 4), np.float32))
    assert np.isfinite(heatmap.pixels).sum() == 2


def test_a_huge_plane_gets_coarser_pixels():
    heatmap = heatmap_over(plan_tiles((90_000, 120_000), tile_size=4000), (90_000, 120_000), {})
    assert heatmap.pixels.size <= module.MOST_PIXELS
    assert heatmap.step == 36
