"""Results of every kind, with names that are hard to write down."""

from __future__ import annotations

import numpy as np

from napari_mambamic.results import TileResults
from napari_mambamic.tiling import plan_tiles, tiles_at_points, tiles_of_objects

NAMES = ("two words", 'größe "2", ☃', "line\nbreak", "Tumor: Positive", "100 %s", "'p_, <&>\\")


def results_of(tiles, *, plane_shape=None, done=slice(None), names=NAMES):
    """Random probabilities; tiles that are not `done` have none."""
    random = np.random.default_rng(len(tiles))
    probabilities = np.full((len(tiles), len(names)), np.nan, np.float32)
    probabilities[done] = random.dirichlet(np.ones(len(names)), len(tiles))[done]
    provenance = {"weights": {"name": "größe ☃"}, "settings": {"overlap": 2}}
    if plane_shape:
        provenance["image"] = {"plane_shape": list(plane_shape), "pixel_size_um": [0.5, 0.25]}
    complete = not np.isnan(probabilities).any()
    return TileResults(names, tiles, probabilities, None, provenance, complete)


def blobs():
    """Objects 4, 9 and 300 on a plane of 40 x 60 px: a square, a ring, one in two parts."""
    labels = np.zeros((40, 60), np.int32)
    labels[5:10, 5:12] = 4
    labels[15:30, 20:40] = 9
    labels[20:25, 25:30] = 0
    labels[0:2, 50:60] = labels[2:4, 48:50] = 300
    return labels


CASES = {
    "grid": lambda: results_of(plan_tiles((40, 60), tile_size=16, overlap=2), plane_shape=(40, 60)),
    "partial grid": lambda: results_of(
        plan_tiles((40, 60), tile_size=16), plane_shape=(40, 60), done=slice(3, 8)
    ),
    "region": lambda: results_of(
        plan_tiles((40, 60), tile_size=8, region=(10, 12, 20, 30)), plane_shape=(40, 60)
    ),
    "small plane": lambda: results_of(plan_tiles((5, 7), tile_size=16), plane_shape=(5, 7)),
    "nothing done": lambda: results_of(plan_tiles((40, 60), tile_size=16), done=slice(0)),
    "objects": lambda: results_of(tiles_of_objects(blobs(), scale=1.5), plane_shape=(40, 60)),
    "points": lambda: results_of(
        tiles_at_points([(1, 2), (20.4, 30.6), (39, 59)], tile_size=9),
        plane_shape=(40, 60),
        done=slice(1, 3),
    ),
    "no tiles": lambda: results_of(()),
}


def assert_same(read, results, *, exactly=True):
    """The same tiles, probabilities and names; and provenance."""
    assert read.class_names == results.class_names
    assert tuple(read.tiles) == tuple(results.tiles)
    if results.object_ids is None:
        assert read.object_ids is None
    else:
        np.testing.assert_array_equal(read.object_ids, results.object_ids)
    assert read.probabilities.dtype == np.float32
    if exactly:
        np.testing.assert_array_equal(read.probabilities, results.probabilities)
    else:
        np.testing.assert_allclose(read.probabilities, results.probabilities, rtol=5e-6)
    assert read.provenance == results.provenance
    assert read.complete == results.complete
