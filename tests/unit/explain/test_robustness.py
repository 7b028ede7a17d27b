"""Perturbations do what they say, and the report counts what they do."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mambamic import MambamicError, as_image, plan_tiles, robustness, robustness_of_tiles
from napari_mambamic.explain import robustness as measuring
from napari_mambamic.explain.perturbations import (
    PERTURBATIONS,
    Draw,
    daylight,
    inside,
    margin_for,
    reflected,
)
from napari_mambamic.explain.robustness import iter_robustness, sampled, wilson
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import tiles_at_points

BY_NAME = {p.name: p for p in PERTURBATIONS}
SIZE = 40


def draw(**changed):
    chosen = {"margin": margin_for(SIZE), "sign": 1.0, "direction": 0.0, "seed": (0, 1)}
    return Draw(**chosen | {"spread": np.ones(3, np.float32)} | changed)


def picture(seed=0):
    """A patch with surroundings (60, 60, 3) of blobs."""
    side = SIZE + 2 * margin_for(SIZE)
    coarse = np.random.default_rng(seed).random((side // 4, side // 4, 3), np.float32)
    return coarse.repeat(4, axis=0).repeat(4, axis=1) * np.float32(0.6) + np.float32(0.2)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_strength_of_zero_changes_nothing(name, sign):
    changed = BY_NAME[name](picture(), 0.0, draw(sign=sign, direction=2.0))
    np.testing.assert_allclose(changed, inside(picture(), margin_for(SIZE)), atol=1e-6)


@given(
    name=st.sampled_from(sorted(BY_NAME)),
    step=st.integers(0, 4),
    sign=st.sampled_from([-1.0, 1.0]),
    direction=st.floats(0, 7),
    size=st.integers(1, 30),
    channels=st.sampled_from([1, 3, 5]),
)
def test_every_perturbation_gives_back_the_size_and_stays_in_range(
    name, step, sign, direction, size, channels
):
    perturbation = BY_NAME[name]
    if perturbation.needs_colour:
        channels = 3
    patch = np.random.default_rng(size).random((1, size, size, channels), np.float32)
    spread = np.ones(channels, np.float32)
    drawn = draw(margin=margin_for(size), sign=sign, direction=direction, spread=spread)
    changed = perturbation(reflected(patch)[0], perturbation.strengths[step], drawn)
    assert changed.shape == (size, size, channels)
    assert changed.dtype == np.float32
    assert 0 <= changed.min() <= changed.max() <= 1


def test_strengths_rise_and_are_five():
    for perturbation in PERTURBATIONS:
        assert len(perturbation.strengths) == 5
        assert list(perturbation.strengths) == sorted(set(perturbation.strengths))
        assert min(perturbation.strengths) > 0


def test_a_rotation_by_90_degrees_is_a_quarter_turn():
    patch = inside(picture(), margin_for(SIZE))
    to_the_left = BY_NAME["rotation"](picture(), 90, draw(sign=1.0))
    to_the_right = BY_NAME["rotation"](picture(), 90, draw(sign=-1.0))
    np.testing.assert_allclose(to_the_left, np.rot90(patch), atol=1e-4)
    np.testing.assert_allclose(to_the_right, np.rot90(patch, -1), atol=1e-4)


def test_a_translation_shows_the_real_neighbours():
    surrounded, margin = picture(), margin_for(SIZE)
    moved = BY_NAME["translation"](surrounded, 25, draw(direction=0.0))
    np.testing.assert_array_equal(moved, surrounded[margin:-margin, 2 * margin :])
    moved = BY_NAME["translation"](surrounded, 25, draw(direction=np.pi / 2))
    np.testing.assert_array_equal(moved, surrounded[2 * margin :, margin:-margin])


def test_a_blurred_dot_has_the_standard_deviation_that_was_asked_for():
    dot = np.zeros_like(picture())
    dot[30, 30] = 1
    blurred = BY_NAME["blur"](dot, 4, draw())[..., 0].astype(float)
    rows = np.arange(SIZE) - (30 - margin_for(SIZE))
    assert blurred.sum() == pytest.approx(1, abs=0.01)
    assert np.sqrt((blurred.sum(axis=1) * rows**2).sum()) == pytest.approx(0.04 * SIZE, rel=0.03)


def test_noise_has_the_standard_deviation_that_was_asked_for_in_each_channel():
    grey = np.full_like(picture(), 0.5)
    spread = np.array([1, 0.5, 0.1], np.float32)
    noisy = BY_NAME["noise"](grey, 10, draw(spread=spread))
    np.testing.assert_allclose(noisy.std(axis=(0, 1)), 0.1 * spread, rtol=0.08)


def test_brightness_and_contrast_go_up_and_down_by_one_factor():
    patch = inside(picture(), margin_for(SIZE))
    darker = BY_NAME["brightness"](picture(), 50, draw(sign=-1.0))
    np.testing.assert_allclose(darker * 1.5, patch, rtol=1e-5)
    brighter = BY_NAME["brightness"](picture(), 10, draw(sign=1.0))
    np.testing.assert_allclose(brighter, patch * 1.1, rtol=1e-5)
    paler = BY_NAME["contrast"](picture(), 50, draw(sign=-1.0))
    np.testing.assert_allclose(paler.mean(axis=(0, 1)), patch.mean(axis=(0, 1)), rtol=1e-4)
    np.testing.assert_allclose(paler.std(axis=(0, 1)) * 1.5, patch.std(axis=(0, 1)), rtol=1e-4)


def test_warmer_is_redder_and_cooler_is_bluer():
    grey = np.full_like(picture(), 0.5)
    for sign, more, less in ((1.0, 0, 2), (-1.0, 2, 0)):
        tinted = BY_NAME["colour temperature"](grey, 75, draw(sign=sign))[0, 0]
        assert tinted[more] > tinted[1] > tinted[less]
        assert tinted[1] == pytest.approx(0.5)


def test_daylight_of_6500_k_is_white():
    # D65 is 6504 K; white of sRGB.
    np.testing.assert_allclose(daylight(6504) / daylight(6504)[1], 1, atol=0.01)


# ---- the report --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def some_cells(cells):
    """24 real cells, three of each class, and their classes."""
    return cells[:, :3].reshape(-1, 96, 96, 3), np.arange(8).repeat(3)


@pytest.fixture(scope="module")
def report(some_cells, classifier):
    return robustness(some_cells[0], classifier, labels=some_cells[1])


def row_of(report, name, step):
    return report.by_perturbation[name][step]


def test_blur_of_real_cells_costs_labels_and_accuracy(report):
    blur = report.by_perturbation["blur"]
    assert report.accuracy > 0.85
    assert blur[4].stability < blur[0].stability
    assert blur[4].accuracy < report.accuracy
    assert blur[4].probability_drop > blur[0].probability_drop > -0.05


def test_what_is_counted_is_what_the_classifier_says(report, some_cells, classifier):
    """Contrast does not depend on the surroundings, so it can be done by hand."""
    pixels, labels = some_cells
    before = classifier.predict(pixels)
    told = before.probabilities.argmax(axis=1)
    scaled = pixels.astype(np.float32) / 255
    signs = [1 if np.random.default_rng((0, i)).random() < 0.5 else -1 for i in range(len(pixels))]
    factors = 1.5 ** np.array(signs, np.float32)[:, None, None, None]
    mean = scaled.mean(axis=(1, 2), keepdims=True)
    after = classifier.predict((mean + (scaled - mean) * factors).clip(0, 1)).probabilities
    row = row_of(report, "contrast", 4)
    assert row.stability == pytest.approx((after.argmax(axis=1) == told).mean())
    assert row.accuracy == pytest.approx((after.argmax(axis=1) == labels).mean())
    drop = before.probabilities.max(axis=1) - after[np.arange(len(told)), told]
    assert row.probability_drop == pytest.approx(drop.mean(), abs=1e-3)
    assert report.accuracy == (told == labels).mean()


def test_the_sentence_names_what_labels_change_most_with(report):
    middle = {name: rows[2] for name, rows in report.by_perturbation.items()}
    worst = min(middle.values(), key=lambda row: row.stability)
    assert report.sentence.startswith(
        f"Labels change most with {worst.perturbation}: {1 - worst.stability:.0%} of 24 at strength"
    )


def test_batches_and_order_of_reading_do_not_matter(some_cells, classifier, monkeypatch):
    pixels, labels = some_cells[0][:5], some_cells[1][:5]
    monkeypatch.setattr(measuring, "PERTURBATIONS", (BY_NAME["noise"], BY_NAME["rotation"]))
    whole = robustness(pixels, classifier, labels=labels)
    monkeypatch.setattr(type(classifier), "batch_size", lambda self: 2)
    parts = robustness(pixels, classifier, labels=labels)
    for one, other in zip(whole.rows, parts.rows, strict=True):
        assert one.stability == other.stability
        assert one.probability_drop == pytest.approx(other.probability_drop, abs=1e-4)


def test_tiles_of_an_image_show_their_neighbours_and_patches_do_not(sheet, classifier, monkeypatch):
    monkeypatch.setattr(measuring, "PERTURBATIONS", (BY_NAME["translation"],))
    image = as_image(sheet[:288, :288])
    tiles = plan_tiles(image.plane_shape, tile_size=96)
    seen = []
    predict = type(classifier).predict
    monkeypatch.setattr(
        type(classifier), "predict", lambda self, p: (seen.append(p), predict(self, p))[1]
    )
    robustness_of_tiles(image, [tiles[4]], classifier)
    unchanged, *moved = [p[0] for p in seen]
    scaled = sheet[:288, :288].astype(np.float32) / 255
    np.testing.assert_array_equal(unchanged, scaled[96:192, 96:192])
    windows = np.lib.stride_tricks.sliding_window_view(scaled, (96, 96, 3))[:, :, 0]
    for patch in moved:
        assert (windows[72:121, 72:121] == patch).all(axis=(2, 3, 4)).any()


def test_tiles_of_a_pyramid_are_those_that_were_classified(sheet, classifier, monkeypatch):
    monkeypatch.setattr(measuring, "PERTURBATIONS", (BY_NAME["brightness"],))
    fine = sheet.repeat(4, axis=0).repeat(4, axis=1)
    image = as_image([fine, fine[::2, ::2], fine[::4, ::4]])
    tiles = plan_tiles(image.plane_shape, tile_size=384)
    seen = []
    predict = type(classifier).predict
    monkeypatch.setattr(
        type(classifier), "predict", lambda self, p: (seen.append(p), predict(self, p))[1]
    )
    robustness_of_tiles(image, [tiles[13]], classifier)
    np.testing.assert_array_equal(seen[0][0], sheet[96:192, 96:192].astype(np.float32) / 255)


def test_tiles_of_several_sizes_and_at_the_edge_are_measured(sheet, classifier, monkeypatch):
    monkeypatch.setattr(measuring, "PERTURBATIONS", (BY_NAME["rotation"],))
    image = as_image(sheet)
    tiles = [
        *tiles_at_points([(0, 0), (767, 400)], tile_size=96),
        *tiles_at_points([(200, 300)], tile_size=51),
    ]
    assert robustness_of_tiles(image, tiles, classifier).n == 3


def test_grey_cells_are_measured_without_colour_temperature(some_cells, classifier, monkeypatch):
    kept = (BY_NAME["noise"], BY_NAME["colour temperature"])
    monkeypatch.setattr(measuring, "PERTURBATIONS", kept)
    report = robustness(some_cells[0][:2].mean(axis=-1).astype(np.uint16) * 20, classifier)
    assert list(report.by_perturbation) == ["noise"]
    assert report.notes == (
        "Colour temperature is left out: the pixels are not red, green and blue.",
    )
    assert report.accuracy is None
    assert report.rows[0].accuracy is None


def test_known_classes_may_be_missing_for_some(some_cells, classifier, monkeypatch):
    monkeypatch.setattr(measuring, "PERTURBATIONS", (BY_NAME["contrast"],))
    pixels, labels = some_cells[0][:3], np.array([0, -1, -1])
    report = robustness(pixels, classifier, labels=labels)
    assert (report.n, report.n_known) == (3, 1)
    told = classifier.predict(pixels[:1]).probabilities.argmax()
    assert report.accuracy == float(told == 0)


@pytest.mark.parametrize(
    ("patches", "labels", "words"),
    [
        (np.zeros((0, 9, 9, 3), np.uint8), None, "no patches"),
        (np.zeros((2, 9, 8, 3), np.uint8), None, "square patches"),
        (np.zeros((2, 9, 9, 2), np.uint8), None, "2 channels"),
        (np.zeros((2, 9, 9, 3), np.uint8), [1], "2 patches and 1 known"),
        (np.full((1, 9, 9, 3), np.nan), None, "NaN"),
    ],
)
def test_what_cannot_be_measured_gets_a_sentence(classifier, patches, labels, words):
    with pytest.raises(MambamicError, match=words):
        robustness(patches, classifier, labels=labels)


def test_it_stops_after_the_step_at_work(some_cells, classifier):
    steps = iter_robustness(some_cells[0][:2], classifier)
    assert next(steps).message == "Reading"
    progress = next(steps)
    assert (progress.done, progress.total) == (2, 2 * 36)
    steps.close()


def test_the_report_is_saved_as_json_and_as_a_page(report, tmp_path):
    figures = json.loads(report.to_json(tmp_path / "r.json").read_text())
    assert figures["n"] == 24
    assert len(figures["rows"]) == 35
    assert figures["rows"][0]["in_words"] == "by 10 degrees"
    page = report.to_html(tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 7
    assert report.sentence in page
    assert "Gaussian, standard deviation 4 % of the tile&#x27;s side" in page


def test_samples_are_drawn_in_order_and_by_seed():
    assert sampled(5, 9).tolist() == [0, 1, 2, 3, 4]
    drawn = sampled(1000, 200, seed=3)
    assert len(set(drawn.tolist())) == 200
    assert (np.diff(drawn) > 0).all()
    assert drawn.tolist() != sampled(1000, 200, seed=4).tolist()


def test_the_interval_is_wilsons():
    # Brown, Cai and DasGupta, Statistical Science 2001: 95 % of 18 in 20 is 0.699 to 0.972.
    assert wilson(18, 20) == (0.699, 0.972)
    assert wilson(0, 20)[0] == 0


def test_results_of_a_run_can_be_sampled(classifier, sheet, monkeypatch):
    monkeypatch.setattr(measuring, "PERTURBATIONS", (BY_NAME["brightness"],))
    image = as_image(sheet[:96])
    tiles = plan_tiles(image.plane_shape, tile_size=96)
    results = TileResults(classifier.class_names, tiles, np.zeros((12, 8), np.float32), None, {})
    report = robustness_of_tiles(image, results.tiles[2:5], classifier)
    assert report.n == 3
