"""The picture: colours where the tiles are, and a legend."""

from __future__ import annotations

import json

import dask.array as da
import numpy as np
import pytest
from PIL import Image
from result_cases import CASES, blobs, results_of

from napari_mambamic import as_image
from napari_mambamic.colours import UNSURE, class_colours
from napari_mambamic.errors import ExportError
from napari_mambamic.tiling import plan_tiles, tiles_at_points

MARGIN = 24  # px around the image in the picture


def picture_of(path, shape):
    """Pixels of the image in the picture."""
    with Image.open(path) as page:
        pixels = np.asarray(page)
    return pixels[MARGIN : MARGIN + shape[0], MARGIN : MARGIN + shape[1]].astype(int)


def tint(grey, label, opacity=0.4, colours=None):
    colours = class_colours(6) if colours is None else colours
    return grey * (1 - opacity) + 255 * colours[label, :3] * opacity


def test_every_tile_is_under_the_colour_of_its_class(tmp_path):
    results = results_of(plan_tiles((400, 600), tile_size=100), plane_shape=(400, 600))
    results.probabilities[7] = np.nan
    grey = np.full((400, 600), 90, np.uint8)
    path = results.to_thumbnail(tmp_path / "a.png", grey, longest_side=600)
    pixels = picture_of(path, (400, 600))
    for tile, label in zip(results.tiles, results.labels, strict=True):
        inside = pixels[tile.y + 2 : tile.y + 98, tile.x + 2 : tile.x + 98]
        expected = tint(90, label) if label >= 0 else np.full(3, 90)
        np.testing.assert_allclose(inside - expected, 0, atol=1)


def test_tiles_and_legend_have_the_colours_that_are_given_and_the_unsure_are_grey(tmp_path):
    results = results_of(plan_tiles((400, 600), tile_size=100), plane_shape=(400, 600))
    threshold = float(np.median(results.probabilities.max(axis=1)))
    results = results.with_unsure(threshold)
    colours = class_colours(6)[::-1]
    path = results.to_thumbnail(
        tmp_path / "a.png",
        np.full((400, 600), 90, np.uint8),
        colours=dict(zip(results.class_names, colours, strict=True)),
        longest_side=600,
    )
    pixels = picture_of(path, (400, 600))
    with_unsure = np.vstack([colours, UNSURE])
    assert 0 < results.is_unsure.sum() < len(results)
    rows = np.where(results.is_unsure, 6, results.labels)
    for tile, row in zip(results.tiles, rows, strict=True):
        middle = pixels[tile.y + 50, tile.x + 50]
        np.testing.assert_allclose(middle, tint(90, row, colours=with_unsure), atol=1)
    with Image.open(path) as page:
        swatches = np.asarray(page)[:, 600 + 2 * MARGIN :][:, :18]
    tops = []
    for colour in (with_unsure[:, :3] * 255).round():
        rows_of_swatch = np.flatnonzero((swatches == colour).all(axis=(1, 2)))
        assert len(rows_of_swatch) >= 18
        tops.append(rows_of_swatch.min())
    assert tops == sorted(tops)


def test_overlapping_tiles_and_a_region_are_where_the_layers_show_them(tmp_path):
    grid = plan_tiles((400, 600), tile_size=100, overlap=40, region=(100, 200, 220, 300))
    results = results_of(grid, plane_shape=(400, 600))
    path = results.to_thumbnail(
        tmp_path / "a.png", np.zeros((400, 600), np.uint8), longest_side=600
    )
    pixels = picture_of(path, (400, 600))
    for tile, label in zip(grid, results.labels, strict=True):
        middle = pixels[tile.y + 50, tile.x + 50]
        np.testing.assert_allclose(middle, tint(0, label), atol=1)
    outside = np.ones((400, 600), bool)
    outside[100:320, 200:500] = False
    assert not pixels[outside].any()
    assert pixels[~outside].any(axis=1).all()


def test_objects_are_coloured_by_their_pixels_and_points_by_squares(tmp_path):
    labels, results = blobs(), CASES["objects"]()
    black = np.zeros((40, 60), np.uint8)
    path = results.to_thumbnail(tmp_path / "a.png", black, labels=labels, longest_side=240)
    pixels = picture_of(path, (80, 120))[::2, ::2]
    np.testing.assert_array_equal(pixels.any(axis=2), labels > 0)
    points = results_of(tiles_at_points([(100, 200)], tile_size=51), plane_shape=(400, 600))
    path = points.to_thumbnail(tmp_path / "b.png", np.zeros((400, 600)), longest_side=600)
    rows, columns = np.nonzero(picture_of(path, (400, 600)).any(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (75, 125, 175, 225)


def test_of_a_pyramid_a_coarse_level_is_read(tmp_path):
    def never(block):
        raise AssertionError("the finest level was read")

    finest = da.zeros((100_000, 80_000, 3), np.uint8, chunks=4096).map_blocks(never, dtype=np.uint8)
    coarse = np.full((2000, 1600, 3), 77, np.uint8)
    results = results_of(plan_tiles((100_000, 80_000), tile_size=1000))
    results.probabilities[:] = np.nan
    path = results.to_thumbnail(tmp_path / "a.png", [finest, coarse])
    pixels = picture_of(path, (1500, 1200))
    assert (pixels == 77).all()


def test_of_one_large_array_only_some_pixels_are_read(tmp_path):
    huge = np.broadcast_to(np.uint8(77), (100_000, 80_000))  # 1 byte of memory
    results = results_of(plan_tiles((100_000, 80_000), tile_size=1000))
    results.probabilities[:] = np.nan
    path = results.to_thumbnail(tmp_path / "a.png", huge)
    assert (picture_of(path, (1500, 1200)) == 77).all()


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.linspace(0, 1, 2400).reshape(40, 60), 255),
        (np.linspace(100, 5000, 2400).reshape(40, 60).astype(np.uint16), 255),
        (np.arange(2400).reshape(40, 60) > 1200, 255),
        (np.full((40, 60, 4), (9, 9, 9, 0), np.uint8), 255),
        (np.full((40, 60), np.nan), 0),
    ],
)
def test_pixels_of_any_type_are_shown(pixels, expected, tmp_path):
    path = CASES["nothing done"]().to_thumbnail(tmp_path / "a.png", pixels, longest_side=60)
    shown = picture_of(path, (40, 60))
    assert shown[-1, -1].tolist() == [expected] * 3


def test_the_picture_has_its_provenance_and_a_legend(results, tmp_path):
    shape = results.provenance.get("image", {}).get("plane_shape", (40, 60))
    image = as_image(np.zeros(shape, np.uint8), pixel_size_um=0.5, name="größe\n☃")
    path = results.to_thumbnail(tmp_path / "a.png", image)
    with Image.open(path) as page:
        described = json.loads(page.text["mambamic"])
        pixels = np.asarray(page)
    assert described["provenance"] == results.provenance
    assert tuple(described["class_names"]) == results.class_names
    for colour in class_colours(6)[:, :3] * 255:  # a swatch per class
        assert (pixels == colour.round()).all(axis=2).sum() >= 300


def test_a_picture_is_named_as_what_it_is(tmp_path):
    with pytest.raises(ExportError, match=r"a\.jpg is not named so"):
        CASES["grid"]().to_thumbnail(tmp_path / "a.jpg", np.zeros((400, 600)))
    assert not list(tmp_path.iterdir())


def test_another_image_is_refused(tmp_path):
    with pytest.raises(ExportError, match="Give the image that was classified"):
        CASES["grid"]().to_thumbnail(tmp_path / "a.png", np.zeros((60, 40)))
    assert not list(tmp_path.iterdir())
