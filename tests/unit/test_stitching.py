"""From tiles to arrays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from napari_mambamic.stitching import tile_places
from napari_mambamic.tiling import plan_tiles, tiles_at_points

side = st.integers(1, 60)


@given(plane=st.tuples(side, side), size=st.integers(1, 25), data=st.data())
def test_places_are_those_of_the_tiles_in_their_order(plane, size, data):
    grid = plan_tiles(plane, tile_size=size, overlap=data.draw(st.integers(0, size - 1)))
    assert tile_places(grid).tolist() == [[tile.y, tile.x, tile.size] for tile in grid]
    tiles = tiles_at_points(data.draw(st.lists(st.tuples(side, side), min_size=1)), tile_size=size)
    assert tile_places(tiles).tolist() == [[tile.y, tile.x, tile.size] for tile in tiles]
