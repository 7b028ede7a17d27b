"""Counts, shares, areas and mean probabilities, by region."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mambamic import classify_objects, summarise
from napari_mambamic.errors import ExportError, ImageError
from napari_mambamic.results import TileResults
from napari_mambamic.stitching import label_geometry
from napari_mambamic.summary import areas_of_tiles, joined
from napari_mambamic.tiling import plan_tiles, tiles_at_points, tiles_of_objects

NAMES = ("a", "b, c", "größe")


def results_on(tiles, *, plane=None, pixel_size_um=None, missing=()):
    shares = np.random.default_rng(len(tiles)).dirichlet(np.ones(3), len(tiles))
    shares = shares.astype(np.float32)
    shares[list(missing)] = np.nan
    image = {"plane_shape": plane and list(plane), "pixel_size_um": pixel_size_um}
    return TileResults(NAMES, tiles, shares, None, {"image": image})


@st.composite
def grids(draw):
    plane = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    size = draw(st.integers(1, 25))
    overlap = draw(st.integers(0, size - 1))
    y, x = draw(st.integers(0, plane[0] - 1)), draw(st.integers(0, plane[1] - 1))
    height = draw(st.integers(1, plane[0] - y))
    width = draw(st.integers(1, plane[1] - x))
    region = draw(st.sampled_from([None, (y, x, height, width)]))
    return plane, plan_tiles(plane, tile_size=size, overlap=overlap, region=region)


@given(grids())
def test_areas_of_tiles_add_up_to_the_region_of_the_grid_whatever_the_overlap(drawn):
    _, grid = drawn
    areas = areas_of_tiles(results_on(grid))
    assert areas.min() > 0
    assert areas.sum() == pytest.approx(grid.region[2] * grid.region[3])
    assert summarise(results_on(grid)).area.sum() == pytest.approx(areas.sum())


@given(grids())
def test_the_share_of_a_tile_that_is_not_at_the_border_is_its_label_pixel(drawn):
    _, grid = drawn
    areas = areas_of_tiles(results_on(grid)).reshape(grid.shape)
    inner = areas[1:-1, 1:-1]
    np.testing.assert_allclose(inner, grid.stride**2)
    (y, _), _ = label_geometry(grid)
    if len(grid.rows) > 2:  # the first ends where the label pixel of the second begins
        widths = areas.sum(axis=0)
        assert areas[0, 0] / widths[0] * grid.region[2] == pytest.approx(
            y + grid.stride / 2 + 0.5 - grid.region[0]
        )


@given(grids(), st.integers(0, 60), st.integers(0, 60), st.randoms())
def test_regions_that_cover_the_plane_add_up_to_the_totals(drawn, y, x, random):
    plane, grid = drawn
    missing = [i for i in range(len(grid)) if random.random() < 0.2]
    results = results_on(grid, plane=plane, missing=missing)
    whole = summarise(results)
    labels = np.ones(plane, int)
    labels[y:] += 1
    labels[:, x:] += 2
    low, high = -1, 99
    cut_y, cut_x = y + 0.3, x + 0.3  # no middle of a tile lies there
    quarters = {
        f"{i} {j}": [(top, left), (top, right), (bottom, right), (bottom, left)]
        for i, (top, bottom) in enumerate([(low, cut_y), (cut_y, high)])
        for j, (left, right) in enumerate([(low, cut_x), (cut_x, high)])
    }
    for regions in (labels, quarters):
        parts = summarise(results, regions=regions)
        np.testing.assert_array_equal(parts.tiles.sum(axis=0), whole.tiles[0])
        np.testing.assert_allclose(parts.area.sum(axis=0), whole.area[0])
        sums = np.nansum(parts.mean_probability * parts.tiles, axis=0)
        np.testing.assert_allclose(sums, np.nan_to_num(whole.mean_probability[0]) * whole.tiles[0])
    assert dict(zip(NAMES, whole.tiles[0].tolist(), strict=True)) == results.counts


def test_every_number_is_what_it_says():
    shares = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [np.nan, np.nan]], np.float32)
    image = {"plane_shape": [10, 40], "pixel_size_um": [0.5, 0.2]}
    grid = plan_tiles((10, 40), tile_size=10)
    results = TileResults(("a", "b"), grid, shares, None, {"image": image})
    table = summarise(results, regions={"left": [(-1, -1), (-1, 21), (11, 21), (11, -1)]})
    assert table.area_unit == "um2"
    rows = [(r.region, r.class_name, r.tiles, r.share) for r in table.rows]
    assert rows == [("left", "a", 1, 0.5), ("left", "b", 1, 0.5)]
    assert [row.area for row in table.rows] == pytest.approx([10, 10])
    assert [row.mean_probability for row in table.rows] == pytest.approx([0.9, 0.8])
    (a, b) = summarise(results, pixel_size_um=2).rows
    assert (a.region, a.tiles, a.area, b.tiles, b.area) == ("everywhere", 2, 800, 1, 400)
    assert (a.share, b.share) == pytest.approx((2 / 3, 1 / 3))
    assert a.mean_probability == pytest.approx(0.8)


def test_a_region_may_be_several_polygons_and_counts_a_tile_once():
    results = results_on(plan_tiles((10, 40), tile_size=10))
    left = [(-1, -1), (-1, 11), (11, 11), (11, -1)]
    more = [(-1, -1), (-1, 21), (11, 21), (11, -1)]
    table = summarise(results, regions={"two": [left, more], "one": left, "none": []})
    assert table.tiles.sum(axis=1).tolist() == [2, 1, 0]
    empty = table.rows[-1]
    assert (empty.tiles, empty.share, empty.area, empty.mean_probability) == (0, None, 0, None)


def test_areas_of_objects_are_their_pixels(classifier, sheet):
    labels = np.zeros((192, 288), np.uint16)
    labels[20:70, 30:70], labels[100:160, 200:280] = 9, 4
    results = classify_objects(sheet[:192, :288], labels, classifier)
    assert areas_of_tiles(results, labels).tolist() == [60 * 80, 50 * 40]
    table = summarise(results, labels=labels, pixel_size_um=0.1)
    assert table.area.sum() == pytest.approx((60 * 80 + 50 * 40) / 100)
    unknown = summarise(results)
    assert np.isnan(unknown.area[unknown.tiles > 0]).all()
    with pytest.raises(ImageError, match="Give the labels that the objects were cut by"):
        summarise(results, labels=labels[:100])


@given(st.integers(1, 40), st.data())
def test_large_label_images_are_counted_in_parts(rows_at_once, data):
    shape = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 9))
    values = data.draw(st.lists(st.sampled_from([0, 2, 3, 900]), min_size=1, max_size=99))
    labels = np.resize(values, shape)
    labels.flat[0] = 3
    results = results_on(tiles_of_objects(labels, tile_size=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_mambamic.summary._PIXELS_AT_ONCE", rows_at_once)
        areas = areas_of_tiles(results, labels)
    expected = [(labels == i).sum() for i in results.object_ids]
    assert areas.tolist() == expected


def test_areas_of_points_are_not_known():
    table = summarise(results_on(tiles_at_points([(5, 5), (9, 9)], tile_size=3)))
    assert np.isnan(table.area[table.tiles > 0]).all()
    assert table.tiles.sum() == 2


def test_a_region_of_another_shape_is_refused():
    results = results_on(plan_tiles((40, 60), tile_size=10), plane=(40, 60))
    with pytest.raises(ImageError, match=r"shape \(40, 40\), and the image .* is 40 x 60 px"):
        summarise(results, regions=np.ones((40, 40), int))
    with pytest.raises(ImageError, match="'line' has a polygon of shape"):
        summarise(results, regions={"line": [(0, 0), (5, 5)]})


def test_planes_are_joined_to_one_table():
    results = results_on(plan_tiles((40, 60), tile_size=10), plane=(40, 60))
    left = {"left": [(-1, -1), (-1, 21), (99, 21), (99, -1)]}
    one, other = summarise(results), summarise(results, regions=left)
    table = joined([("t = 0", one), ("t = 1", other)])
    assert table.regions == ("t = 0", "t = 1, left")
    assert table.rows == [
        *(row._replace(region="t = 0") for row in one.rows),
        *(row._replace(region="t = 1, left") for row in other.rows),
    ]


def test_the_table_is_saved_with_its_provenance(tmp_path):
    grid = plan_tiles((40, 60), tile_size=10)
    results = results_on(grid, plane=(40, 60), pixel_size_um=[0.5, 0.5])
    results.complete = False
    table = summarise(
        results, regions={"a, b": [], "all": [(-1, -1), (-1, 99), (99, 99), (99, -1)]}
    )
    path = table.to_csv(tmp_path / "summary.csv")
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["region", "class", "tiles", "share", "area_um2", "mean_probability"]
    assert rows[:3] == [["a, b", name, "0", "", "0", ""] for name in NAMES]
    for row, expected in zip(rows[3:], table.rows[3:], strict=True):
        assert row[:3] == ["all", expected.class_name, str(expected.tiles)]
        assert [float(number) for number in row[3:]] == pytest.approx(list(expected[3:6]), rel=1e-5)
    beside = json.loads(Path(tmp_path, "summary.provenance.json").read_text())
    assert beside["image"]["plane_shape"] == [40, 60]
    assert beside["complete"] is False
    with pytest.raises(ExportError, match="There is no folder"):
        table.to_csv(tmp_path / "none" / "summary.csv")
