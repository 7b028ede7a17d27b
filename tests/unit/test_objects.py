"""Objects of images that nobody has segmented, on discs whose places and sizes are known."""

from __future__ import annotations

import json
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data
from skimage.draw import disk
from skimage.io import imread

import napari_mambamic
from napari_mambamic import objects
from napari_mambamic.errors import ImageError, MambamicError
from napari_mambamic.objects import ObjectSettings, find_objects, iter_find_objects, signal_of

SAMPLES = Path(napari_mambamic.__file__).parent / "_napari/samples"


def discs(*circles, shape=(120, 160), background=200, value=90, dtype=np.uint8, noise=3):
    """A plane with discs of (y, x, radius), with a little noise."""
    image = np.full(shape, background, float)
    for y, x, radius in circles:
        image[disk((y, x), radius, shape=shape)] = value
    image += np.random.default_rng(0).normal(0, noise, shape)
    if np.issubdtype(dtype, np.integer):
        image = np.clip(image, 0, np.iinfo(dtype).max)
    return image.astype(dtype)


APART = ((30, 30, 12), (30, 90, 15), (80, 60, 18))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("background", "value"), [(200, 90), (20, 150)])
def test_dark_and_bright_discs_are_found_where_they_are(background, value, dtype):
    image = discs(*APART, background=background, value=value, dtype=dtype)
    labels = find_objects(image)
    assert labels.dtype == np.int32
    assert labels.shape == image.shape
    assert labels.max() == 3
    for y, x, radius in APART:
        true = np.zeros(image.shape, bool)
        true[disk((y, x), radius)] = True
        found = labels == labels[y, x]
        # The outline lies up to a pixel outside: the threshold is meant for pale cells too.
        assert (found & true).sum() / (found | true).sum() > 0.85


def test_the_direction_can_be_told():
    image = discs((30, 30, 12), background=100, value=190)
    image[disk((80, 100), 12)] = 10
    for bright, inside, outside in ((True, (30, 30), (80, 100)), (False, (80, 100), (30, 30))):
        labels = find_objects(image, ObjectSettings(bright=bright))
        assert labels.max() == 1
        assert labels[inside] == 1
        assert labels[outside] == 0


def test_touching_discs_are_split_and_round_ones_are_not():
    image = discs((40, 40, 20), (40, 74, 20), (90, 110, 22))
    assert find_objects(image, ObjectSettings(split=False)).max() == 2
    labels = find_objects(image)
    assert labels.max() == 3
    sizes = np.bincount(labels.ravel())[1:]
    assert sizes.max() / sizes.min() < 1.35
    # The cut is at the neck, midway between the centres.
    row = labels[40, 40:75]
    assert abs(int(np.flatnonzero(row != row[0])[0]) - 17) <= 1


def test_the_neck_says_what_is_cut():
    # The neck of these two is 0.6 times as wide as the discs: sqrt(1 - (16 / 20)**2).
    image = discs((60, 50, 20), (60, 82, 20), noise=0)
    assert find_objects(image, ObjectSettings(neck=0.75)).max() == 2
    assert find_objects(image, ObjectSettings(neck=0.45)).max() == 1


@pytest.mark.parametrize("radius", [6, 15, 40, 90])
def test_round_cells_of_any_size_are_one_object(radius):
    side = 2 * radius + 40
    image = discs((side / 2, side / 2 + 0.3, radius), shape=(side, side), noise=6)
    assert find_objects(image, ObjectSettings(min_size_px=50)).max() == 1


def test_a_chain_is_cut_into_its_discs():
    image = discs(*((40, 30 + 30 * i, 18) for i in range(4)), shape=(80, 150))
    assert find_objects(image).max() == 4


def test_holes_are_filled_when_wanted():
    image = discs((60, 60, 30))
    image[disk((60, 60), 12)] = 200
    assert find_objects(image)[60, 60] == 1
    settings = ObjectSettings(fill_holes=False, split=False)
    assert find_objects(image, settings)[60, 60] == 0


def test_small_objects_are_left_out():
    image = discs((30, 30, 15), (80, 100, 4))
    assert find_objects(image, ObjectSettings(min_size_px=100)).max() == 1
    assert find_objects(image, ObjectSettings(min_size_px=20)).max() == 2


def test_no_part_of_a_cut_is_smaller_than_the_least_size():
    # A bud of about 150 px sits on a disc: too small to be an object, so it stays.
    image = discs((60, 60, 25), (60, 91, 7), noise=0)
    assert find_objects(image, ObjectSettings(min_size_px=30)).max() == 2
    labels = find_objects(image, ObjectSettings(min_size_px=200))
    assert labels.max() == 1
    assert labels[60, 94] == 1


def test_objects_at_the_border_can_be_left_out():
    image = discs((5, 30, 15), (60, 80, 15), (119, 159, 20))
    assert find_objects(image).max() == 3
    labels = find_objects(image, ObjectSettings(clear_border=True))
    assert labels.max() == 1
    assert labels[60, 80] == 1


def test_colours_that_one_channel_does_not_show_are_found():
    image = np.stack([discs((30, 30, 12)), discs((80, 100, 12)), discs()], axis=-1)
    assert find_objects(image).max() == 2
    labels = find_objects(image, ObjectSettings(channel=1))
    assert labels.max() == 1
    assert labels[80, 100] == 1


def test_a_colour_cast_and_transparency_are_no_objects():
    image = np.stack([discs((30, 30, 12), background=b, value=b / 2) for b in (90, 220, 180)], -1)
    alpha = np.full(image.shape[:2], 255, np.uint8)
    alpha[:, 80:] = 0
    assert find_objects(np.dstack([image, alpha])).max() == 1


@pytest.mark.parametrize("value", [0, 7, 255])
def test_an_image_of_one_value_has_no_objects(value):
    image = np.full((50, 60), value, np.uint8)
    assert not find_objects(image).any()
    assert not find_objects(image, ObjectSettings(bright=True)).any()
    assert not find_objects(np.dstack([image] * 3), ObjectSettings(channel="nuclei")).any()


def test_pixels_that_are_no_numbers_are_background():
    image = discs(*APART, dtype=np.float32)
    image[:, 130:] = np.nan
    image[110:] = np.inf
    labels = find_objects(image)
    assert labels.max() == 3
    assert not labels[:, 130:].any()


@pytest.mark.parametrize(
    ("image", "settings", "region", "words"),
    [
        (np.zeros((0, 5), np.uint8), {}, None, "is empty"),
        (np.full((9, 9), np.nan), {}, None, "no pixel that is a number"),
        (np.zeros((9, 9), np.uint8), {"channel": 1}, None, "has 1 channel"),
        (np.zeros((9, 9), np.uint8), {"channel": "nuclei"}, None, "by their colour"),
        (np.zeros((9, 9), np.uint8), {}, (0, 0, 10, 5), "9 x 9 px"),
        (da.zeros((10**5, 10**5), np.uint8), {}, None, "give a smaller region"),
    ],
)
def test_what_cannot_be_looked_at_gets_a_sentence(image, settings, region, words):
    with pytest.raises(ImageError, match=words):
        find_objects(image, ObjectSettings(**settings), region=region)


@pytest.mark.parametrize(
    "settings", [{"threshold": "triangle"}, {"threshold": -1}, {"smoothing_px": -1}, {"neck": 2}]
)
def test_settings_that_mean_nothing_get_a_sentence(settings):
    with pytest.raises(MambamicError, match=r"Give"):
        ObjectSettings(**settings)


def test_of_a_huge_plane_a_sample_and_the_region_are_read():
    tile = discs(*APART, shape=(200, 200))
    read = []

    def chunk(block_info=None):
        place = block_info[None]["chunk-location"]
        read.append(place)
        return np.tile(tile, (5, 5))

    # 100 chunks of a million pixels along each axis, of which few may be computed.
    huge = da.map_blocks(chunk, chunks=((1000,) * 100,) * 2, dtype=np.uint8)
    labels = find_objects(huge, region=(50_000, 40_000, 200, 200))
    assert labels.shape == (200, 200)
    assert labels.max() == 3
    assert len(read) < 100 + 64 * 4


def test_a_region_has_the_objects_of_the_whole():
    image = discs(*APART, (90, 130, 14))
    whole = find_objects(image)
    part = find_objects(image, region=(10, 5, 105, 150))
    np.testing.assert_array_equal(part > 0, whole[10:115, 5:155] > 0)


def test_strips_do_not_show(monkeypatch):
    image = imread(SAMPLES / "blood-smear.jpg")
    whole = find_objects(image)
    monkeypatch.setattr(objects, "_STRIP", 640 * 7)
    np.testing.assert_array_equal(find_objects(image), whole)


def test_it_can_be_stopped_between_strips_and_objects(monkeypatch):
    monkeypatch.setattr(objects, "_STRIP", 160 * 10)
    monkeypatch.setattr(objects, "_OBJECTS_BETWEEN_REPORTS", 1)
    said = [progress.message for progress in iter_find_objects(discs(*APART))]
    assert said.count("Reading the image") == 12
    assert said.count("Splitting") == 3


def test_what_was_learned_of_the_signal_can_be_used_again():
    image = discs(*APART)
    steps = iter_find_objects(image, signal=signal_of(image))
    assert not any("threshold" in step.message for step in steps)


@given(
    st.lists(
        st.tuples(st.integers(0, 59), st.integers(0, 79), st.integers(1, 15)),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
    st.booleans(),
    st.integers(0, 300),
)
def test_numbers_have_no_gaps_and_sizes_are_kept(circles, split, clear_border, least):
    image = discs(*circles, shape=(60, 80))
    settings = ObjectSettings(
        split=split, clear_border=clear_border, min_size_px=least, threshold=0.3
    )
    labels = find_objects(image, settings)
    sizes = np.bincount(labels.ravel())[1:]
    assert (sizes >= max(least, 1)).all()
    if clear_border:
        assert not np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]).any()


@given(
    st.lists(
        st.tuples(st.integers(0, 59), st.integers(0, 79), st.integers(3, 15)),
        min_size=1,
        max_size=8,
    )
)
def test_splitting_cuts_and_neither_adds_nor_takes(circles):
    image = discs(*circles, shape=(60, 80))
    settings = {"threshold": 0.3, "min_size_px": 20}
    whole = find_objects(image, ObjectSettings(**settings, split=False))
    parts = find_objects(image, ObjectSettings(**settings))
    np.testing.assert_array_equal(parts > 0, whole > 0)
    for number in range(1, parts.max() + 1):
        assert len(np.unique(whole[parts == number])) == 1


@given(st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_every_disc_of_every_chain_has_a_number_of_its_own(lengths):
    places = [
        [(25 + 50 * (i // 3), 20 + 80 * (i % 3) + 20 * k, 12) for k in range(length)]
        for i, length in enumerate(lengths)
    ]
    chains = [place for chain in places for place in chain]
    labels = find_objects(discs(*chains, shape=(100, 250)), ObjectSettings(threshold=0.3))
    assert sorted(labels[y, x] for y, x, _ in chains) == list(range(1, len(chains) + 1))
    assert labels.max() == len(chains)


def test_the_coins_of_scikit_image_are_counted():
    coins = data.coins()  # 24 coins, lit unevenly
    labels = find_objects(coins, ObjectSettings(min_size_px=500))
    assert 20 <= labels.max() <= 26


def test_the_red_cells_of_the_bundled_smear_are_found():
    image = imread(SAMPLES / "blood-smear.jpg")
    known = json.loads((SAMPLES / "blood-smear.json").read_text())["objects"]
    labels = find_objects(image)
    hit = {labels[_middle(k["box"])] for k in known} - {0}
    assert len(hit) >= 0.8 * len(known)  # an object of its own for each


def test_nuclei_are_the_white_cells_and_platelets_of_the_bundled_smear():
    image = imread(SAMPLES / "blood-smear.jpg")
    known = json.loads((SAMPLES / "blood-smear.json").read_text())["objects"]
    settings = ObjectSettings(channel="nuclei", split=False, smoothing_px=3, min_size_px=1500)
    labels = find_objects(image, settings)
    white = [labels[_middle(k["box"])] for k in known if k["kind"] == "WBC"]
    assert white
    assert all(white)
    red = [labels[_middle(k["box"])] for k in known if k["kind"] == "RBC"]
    assert not any(red)


def _middle(box):
    top, left, bottom, right = box
    return min((top + bottom) // 2, 479), min((left + right) // 2, 639)
