"""Each thing that goes wrong in silence gets a sentence; nothing is said of good results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skimage import data

from napari_mambamic import classify_image, classify_objects, load_classifier
from napari_mambamic._napari.sample_data import blood_cells
from napari_mambamic.classifier import TileClassifier
from napari_mambamic.cli import main
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import plan_tiles
from napari_mambamic.trust.warnings import one_class

SENTENCES = {
    "unlike": "are unlike the training data of",
    "size": "the pixel size may be wrong",
    "um": "um wide, and those that",
    "constant": "nearly the same probabilities",
    "one class": "If that is not so, the network does not see",
    "empty": "hold only glass or darkness and yet got a class",
    "overexposed": "the image is overexposed",
    "inverted": "it may be inverted",
    "dark": "reach only",
    "grey": "The image is grey, and blood-cells-t was trained on colours",
}


def said(results):
    """Names of the sentences; each must be known."""
    names = [
        [name for name, words in SENTENCES.items() if words in sentence]
        for sentence in results.warnings
    ]
    assert all(len(each) == 1 for each in names), results.warnings
    return {each[0] for each in names}


def centres_of_cells(size, rows=8, columns=12):
    return np.stack(np.mgrid[:rows, :columns].reshape(2, -1), axis=1) * size + (size - 1) / 2


def test_nothing_is_said_of_the_shipped_cells(sheet, classifier):
    assert classify_image(sheet, classifier).warnings == ()
    image, points = blood_cells()
    assert classify_objects(image[0], points[0], classifier).warnings == ()


def test_nothing_is_said_of_a_few_cells(sheet, classifier):
    for row in range(8):
        results = classify_image(sheet[row * 96 : row * 96 + 96, : 96 * 4], classifier)
        assert said(results) <= {"unlike"}, row
    assert classify_image(sheet[:96, :96], classifier).warnings == ()


def test_foreign_tissue(classifier):
    results = classify_image(data.immunohistochemistry(), classifier)
    assert "unlike" in said(results)
    assert "100% of the tiles are unlike" in results.warnings[0]
    assert "blood-cells-t (Blood cells: 8 classes" in results.warnings[0]
    assert results.provenance["warnings"] == list(results.warnings)
    assert "objects or points instead of tiles" in results.warnings[0]
    assert "heatmap 'distance'" in results.warnings[0]
    points = centres_of_cells(96, 5, 5)
    of_points = classify_objects(data.immunohistochemistry(), points, classifier)
    assert "of the objects are unlike" in of_points.warnings[0]
    assert "heatmap" not in of_points.warnings[0]  # there is none of objects
    assert "instead of tiles" not in of_points.warnings[0]


def test_an_inverted_image(sheet, classifier):
    assert "inverted" in said(classify_image(255 - sheet[:288], classifier))


def test_a_grey_image(sheet, classifier):
    grey = sheet[:192].mean(axis=2).astype(np.uint8)
    assert "grey" in said(classify_image(grey, classifier))
    assert "grey" in said(classify_image(np.stack([grey] * 3, axis=2), classifier))


def test_a_dark_fluorescence_image_gets_three_sentences_at_most(classifier):
    nuclei = data.cell()  # 0 to 255, dark around the cell
    results = classify_image(nuclei, classifier)
    assert {"unlike", "inverted"} <= said(results)
    cause, unlike, *others = results.warnings
    assert unlike == "100% of the tiles are unlike the training data of blood-cells-t."
    assert cause.startswith("The image is grey, and dark where the training images of blood-cells")
    assert len(others) <= 1
    sentences = " ".join(results.warnings).count(". ") + 1
    assert sentences <= 3, results.warnings


def test_a_12_bit_camera_in_16_bits(sheet, classifier):
    twelve_bits = sheet[:288].astype(np.uint16) * 16
    results = classify_image(twelve_bits, classifier)
    assert "dark" in said(results)
    assert "inverted" not in said(results)
    assert "reach only 6% of what uint16 can hold" in " ".join(results.warnings)
    assert "dark" not in said(classify_image(sheet[:288].astype(np.uint16) * 257, classifier))


def test_an_overexposed_image(sheet, classifier):
    bright = (sheet[:288].astype(float) * 1.6).clip(0, 255).astype(np.uint8)
    assert "overexposed" in said(classify_image(bright, classifier))


def test_cells_of_twice_and_of_half_the_size(sheet, classifier):
    large = sheet[:384, :576].repeat(2, axis=0).repeat(2, axis=1)
    results = classify_objects(large, centres_of_cells(192, 4, 6), classifier)
    assert "size" in said(results)
    assert "a tile size of 192 px" in " ".join(results.warnings)
    small = sheet.reshape(384, 2, 576, 2, 3).mean((1, 3)).astype(np.uint8)
    results = classify_objects(small, centres_of_cells(48), classifier)
    assert "size" in said(results)
    assert "a tile size of 48 px" in " ".join(results.warnings)


def test_a_pixel_size_that_is_not_that_of_the_weights(sheet, classifier):
    patch = replace(classifier.manifest.patch, pixel_size_um=0.2)
    manifest = replace(classifier.manifest, patch=patch)
    known = TileClassifier(classifier.network, manifest, classifier.device, classifier.reference)
    as_trained = classify_image(sheet[:96], known, pixel_size_um=0.2)
    assert said(as_trained) <= {"unlike"}
    coarse = classify_image(sheet[:96], known, pixel_size_um=0.8, use_pixels=True)
    assert "um" in said(coarse)
    assert "The tiles are 76.8 um wide, and those that" in " ".join(coarse.warnings)


def test_glass_among_cells_that_is_called_a_class(sheet, classifier):
    image = sheet.copy()
    glass = np.median(sheet[:96, :10].reshape(-1, 3), axis=0)
    noise = np.random.default_rng(0).normal(0, 1, (768, 576, 3))
    image[:, :576] = (glass + noise).clip(0, 255)
    results = classify_image(image, classifier)
    left = (np.arange(96) % 12) < 6
    assert (results.probabilities[left].max(1) > 0.5).mean() > 0.5  # it does call it one
    assert "empty" in said(results)
    skipped = classify_image(image, classifier, skip_background=True)
    assert "empty" not in said(skipped)


def test_tiles_that_are_larger_than_the_image(sheet, classifier):
    results = classify_image(sheet[:200, :300], classifier, tile_size=500)
    assert any("only 300 x 200 px" in sentence for sentence in results.warnings)
    fits = classify_image(sheet[:200, :300], classifier, tile_size=220)
    assert not any("Choose a smaller tile size" in sentence for sentence in fits.warnings)


def test_pale_objects_are_not_called_glass(sheet, classifier):
    pale = sheet * 0.2 + 0.8 * np.median(sheet, axis=(0, 1))
    middles = np.stack(np.mgrid[48:768:96, 48:1152:96], axis=-1).reshape(-1, 2)
    results = classify_objects(pale.astype(np.uint8), middles, classifier)
    assert "empty" not in said(results)


def test_a_network_that_gives_the_same_for_everything(sheet, classifier):
    dead = load_classifier(device="cpu")
    head = dead.network.head
    head.weight.data *= 1e-3
    head.bias.data *= 1e-3
    assert "constant" in said(classify_image(sheet, dead))


def test_one_class_for_everything(sheet, classifier):
    biased = load_classifier(device="cpu")
    biased.network.head.bias.data[3] += 1000
    assert "one class" in said(classify_image(sheet, biased))
    shares = np.tile(np.float32([0.9, 0.1]), (49, 1))
    few = TileResults(("a", "b"), plan_tiles((7, 7), tile_size=1), shares, None, {})
    assert one_class(few) is None  # too few to be strange


def test_the_command_prints_the_warnings(tmp_path, capsys):
    from skimage.io import imsave

    imsave(tmp_path / "tissue.png", data.immunohistochemistry())
    command = ["classify", str(tmp_path / "tissue.png"), "--out", str(tmp_path), "--device", "cpu"]
    assert main(command) == 0
    assert "warning: 100% of the tiles are unlike" in capsys.readouterr().out
    assert "are unlike the training data" in (tmp_path / "summary.csv").read_text()
    assert main(command) == 0  # skipped, and still told
    assert "warning: 100% of the tiles are unlike" in capsys.readouterr().out


@pytest.mark.parametrize("n", [96, 1600])
def test_few_tiles_are_looked_at(sheet, classifier, n):
    from napari_mambamic.image import as_image
    from napari_mambamic.trust.warnings import look_at

    results = classify_image(sheet, classifier)
    grid = plan_tiles((768, 1152), tile_size=96 if n == 96 else 24)
    shares = np.resize(results.probabilities, (len(grid), 8))
    many = TileResults(results.class_names, grid, shares, None, results.provenance)
    look = look_at(many, as_image(sheet), classifier.manifest.patch)
    assert len(look.tiles) <= max(8, len(grid) // 20)
