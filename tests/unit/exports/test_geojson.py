"""GeoJSON: what QuPath reads, and what is read back."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from result_cases import CASES, NAMES, assert_same, blobs, results_of
from skimage.draw import polygon2mask

from napari_mambamic import read_results
from napari_mambamic.colours import class_colours
from napari_mambamic.errors import ExportError
from napari_mambamic.tiling import plan_tiles, tiles_at_points, tiles_of_objects


def features_of(path):
    return json.loads(path.read_text())["features"]


def area_of(ring):
    x, y = np.array(ring).T
    return abs(x[:-1] @ y[1:] - y[:-1] @ x[1:]) / 2


def rasterised(geometry, shape):
    """Pixels whose centre lies in the polygons."""
    polygons = geometry["coordinates"]
    if geometry["type"] == "Polygon":
        polygons = [polygons]
    mask = np.zeros(shape, bool)
    for outer, *holes in polygons:
        inside = polygon2mask(shape, np.array(outer)[:, ::-1] - 0.5)
        for hole in holes:
            inside &= ~polygon2mask(shape, np.array(hole)[:, ::-1] - 0.5)
        mask |= inside
    return mask


@pytest.mark.parametrize("ending", ["geojson", "geojson.gz"])
def test_geojson_reads_back_exactly(results, ending, tmp_path):
    path = results.to_geojson(tmp_path / f"a.{ending}")
    read = read_results(path)
    if results.object_ids is not None and not results.is_done.all():
        # Without a grid to know them from, tiles that were not classified are gone.
        assert tuple(read.tiles) == tuple(np.array(results.tiles, object)[results.is_done])
        np.testing.assert_array_equal(read.probabilities, results.probabilities[results.is_done])
    else:
        assert_same(read, results)
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == ending.endswith("gz")


def test_a_feature_is_what_qupath_reads(tmp_path):
    results = CASES["grid"]()
    features = features_of(results.to_geojson(tmp_path / "a.geojson"))
    assert len(features) == len(results)
    for feature, tile, label, shares in zip(
        features, results.tiles, results.labels, results.probabilities, strict=True
    ):
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        x, y = np.array(ring).T
        assert (x.min(), y.min()) == (tile.x, tile.y)
        assert (x.max(), y.max()) == (tile.x + tile.size, tile.y + tile.size)
        properties = feature["properties"]
        assert properties["objectType"] == "tile"
        colour = properties["classification"]["color"]
        np.testing.assert_allclose(np.array(colour) / 255, class_colours(6)[label, :3], atol=1e-6)
        measured = properties["measurements"]
        assert list(measured) == [f"p_{name}" for name in NAMES]
        np.testing.assert_array_equal(np.array([*measured.values()], np.float32), shares)


def test_classes_have_the_colours_that_are_given(tmp_path):
    colours = dict(zip(NAMES, class_colours(6)[::-1], strict=True))
    features = features_of(CASES["grid"]().to_geojson(tmp_path / "a.geojson", colours=colours))
    for feature, label in zip(features, CASES["grid"]().labels, strict=True):
        colour = feature["properties"]["classification"]["color"]
        np.testing.assert_allclose(np.array(colour) / 255, colours[NAMES[label]][:3], atol=1e-6)


def test_names_become_what_qupath_takes_as_classes(tmp_path):
    tiles = plan_tiles((10, 60), tile_size=10)
    results = results_of(tiles)
    results.probabilities[:] = np.eye(6, dtype=np.float32)
    features = features_of(results.to_geojson(tmp_path / "a.geojson"))
    classes = [feature["properties"]["classification"] for feature in features]
    # QuPath refuses names with line breaks, and takes a colon for a subclass.
    assert [c.get("name", c.get("names")) for c in classes] == [
        *("two words", 'größe "2", ☃', "line break", ["Tumor", "Positive"]),
        *("100 %s", "'p_, <&>\\"),
    ]


def test_tiles_are_clipped_to_the_plane(tmp_path):
    results = CASES["small plane"]()
    (feature,) = features_of(results.to_geojson(tmp_path / "a.geojson"))
    assert sorted(map(tuple, feature["geometry"]["coordinates"][0][:4])) == [
        *((0, 0), (0, 5), (7, 0), (7, 5))
    ]
    points = tiles_at_points([(0, 0), (4, 6)], tile_size=5)
    (first, last) = features_of(
        results_of(points, plane_shape=(5, 7)).to_geojson(tmp_path / "b.geojson")
    )
    for feature in (first, last):
        x, y = np.array(feature["geometry"]["coordinates"][0]).T
        assert 0 <= x.min() < x.max() <= 7
        assert 0 <= y.min() < y.max() <= 5


def test_tiles_that_were_not_classified_are_left_out(tmp_path):
    results = CASES["partial grid"]()
    features = features_of(results.to_geojson(tmp_path / "a.geojson"))
    assert [f["properties"]["tile"][0] for f in features] == [3, 4, 5, 6, 7]
    assert features_of(CASES["nothing done"]().to_geojson(tmp_path / "b.geojson")) == []


def test_objects_get_their_outlines_with_holes_and_parts(tmp_path):
    labels, results = blobs(), CASES["objects"]()
    path = results.to_geojson(tmp_path / "a.geojson", labels=labels)
    square, ring, parts = features_of(path)
    assert [f["properties"]["objectType"] for f in (square, ring, parts)] == ["detection"] * 3
    assert [f["properties"]["name"] for f in (square, ring, parts)] == ["4", "9", "300"]
    assert len(ring["geometry"]["coordinates"]) == 2
    assert parts["geometry"]["type"] == "MultiPolygon"
    # A square has four sides, and a corner that is cut at each.
    assert len(square["geometry"]["coordinates"][0]) == 9
    assert area_of(square["geometry"]["coordinates"][0]) == 35 - 0.5
    assert_same(read_results(path), results)


@settings(deadline=None, max_examples=60)
@given(
    labels=arrays(
        np.int32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements={"min_value": 0, "max_value": 3},
    )
)
def test_outlines_hold_exactly_the_pixels_of_their_object(labels, tmp_path_factory):
    if not labels.any():
        return
    results = results_of(tiles_of_objects(labels, tile_size=4), plane_shape=labels.shape)
    path = tmp_path_factory.mktemp("outlines") / "a.geojson"
    features = features_of(results.to_geojson(path, labels=labels))
    for object_id, feature in zip(results.object_ids, features, strict=True):
        mask = rasterised(feature["geometry"], labels.shape)
        np.testing.assert_array_equal(mask, labels == object_id)


def test_a_mask_is_numbered_as_it_was_when_it_was_cut(tmp_path):
    mask = blobs() > 0
    results = results_of(tiles_of_objects(mask, tile_size=9))
    features = features_of(results.to_geojson(tmp_path / "a.geojson", labels=mask))
    assert len(features) == len(results) == 4


def test_labels_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path):
    labels = blobs()
    labels[labels == 9] = 0
    with pytest.raises(ExportError, match="no object 9"):
        CASES["objects"]().to_geojson(tmp_path / "a.geojson", labels=labels)
    with pytest.raises(ExportError, match="only for objects"):
        CASES["grid"]().to_geojson(tmp_path / "a.geojson", labels=labels)
    with pytest.raises(ExportError, match="give one plane"):
        CASES["objects"]().to_geojson(tmp_path / "a.geojson", labels=labels[0])
    assert not list(tmp_path.iterdir())


def test_the_provenance_is_at_the_top(tmp_path):
    results = CASES["partial grid"]()
    with gzip.open(results.to_geojson(tmp_path / "a.geojson.gz"), "rt") as file:
        described = json.load(file)["mambamic"]
    assert described["provenance"] == results.provenance
    assert described["class_names"] == list(NAMES)
    assert described["complete"] is False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_million_tiles_take_less_than_500_MB(tmp_path):
    script = """
import sys
import numpy as np
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import plan_tiles
grid = plan_tiles((1000, 1000), tile_size=1)
shares = np.random.default_rng(0).random((len(grid), 4), np.float32)
TileResults(("a", "b", "c", "d"), grid, shares, None, {}).to_geojson(sys.argv[1])
# Not ru_maxrss, which a process takes over from the one that started it.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
"""
    path = tmp_path / "a.geojson"
    command = [sys.executable, "-c", script, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(said) < 500e6
    with open(path) as file:
        assert sum(line.startswith('{"type":"Feature",') for line in file) == 1_000_000
