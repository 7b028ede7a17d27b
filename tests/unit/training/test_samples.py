"""Samples from arrays, images and files; and how they are split."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from napari_mambamic.errors import SamplesError
from napari_mambamic.image import as_image
from napari_mambamic.patches import read_tiles
from napari_mambamic.tiling import Tile, plan_tiles, tiles_at_points
from napari_mambamic.training.datasets import (
    samples_from_boxes,
    samples_from_csv,
    samples_from_folder,
    samples_from_npz,
    samples_from_path,
    samples_from_points,
)
from napari_mambamic.training.samples import (
    join_samples,
    overlapping,
    samples_from_arrays,
    samples_from_image,
    without_copies,
)
from napari_mambamic.training.splits import split_samples


def noise(n, size=8, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def some(n=40, classes=2, **more):
    names = [f"kind {i}" for i in range(classes)]
    return samples_from_arrays(noise(n), np.arange(n) % classes, class_names=names, **more)


# ---- arrays and images -------------------------------------------------------------------------


def test_names_of_classes_are_numbered_in_sorted_order():
    samples = samples_from_arrays(noise(3), ["b", "a", "b"])
    assert samples.class_names == ("a", "b")
    assert samples.labels.tolist() == [1, 0, 1]
    assert samples.counts == {"a": 1, "b": 2}
    assert samples.channels == ("red", "green", "blue")
    assert samples_from_arrays(noise(2)[..., 0], ["a", "b"]).channels == ("grey",)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((noise(2), [0, 1]), "numbers: give the names"),
        ((noise(2), [0, 5], {"class_names": ["a", "b"]}), "from 0 to 5 and there are 2 class"),
        ((noise(2), ["a"]), r"2 images and labels of shape \(1,\)"),
        ((noise(2)[:, :5], ["a", "b"]), "give square patches"),
        ((noise(2), ["a", "b"], {"groups": ["x"]}), r"2 images and \(1,\) groups"),
        ((noise(2), ["a", "c"], {"class_names": ["a", "b"]}), "without a class name: c"),
    ],
)
def test_arrays_that_do_not_fit_get_a_sentence(arguments, sentence):
    *positional, keywords = arguments if len(arguments) == 3 else (*arguments, {})
    with pytest.raises(SamplesError, match=sentence):
        samples_from_arrays(*positional, **keywords)


def test_tiles_are_cut_as_the_classifier_cuts_them():
    image = as_image(noise(1, 40)[0], name="plane")
    tiles = [*plan_tiles((40, 40), tile_size=16, overlap=4)[:3], Tile(30, 30, 16)]
    samples = samples_from_image(image, tiles, [0, 1, 0, 1], class_names=["a", "b"])
    assert np.array_equal(samples.pixels, read_tiles(image, tiles))
    assert samples.tile_size == 16
    # The first three overlap in a row; the last lies apart.
    assert len(set(samples.groups[:3])) == 1
    assert samples.groups[3] not in samples.groups[:3]
    assert samples.names[3] == "plane at (y, x) = (30, 30)"


def test_tiles_that_share_a_pixel_are_together():
    rng = np.random.default_rng(1)
    tiles = [Tile(int(y), int(x), 7) for y, x in rng.integers(0, 60, (40, 2))]
    clusters = overlapping(tiles)
    for i, a in enumerate(tiles):
        for j, b in enumerate(tiles):
            if abs(a.y - b.y) < 7 and abs(a.x - b.x) < 7:
                assert clusters[i] == clusters[j]
    assert len(set(clusters)) > 1
    # Neighbours of a grid without overlap share no pixel.
    assert len(set(overlapping([*plan_tiles((28, 28), tile_size=7)]))) == 16


def test_an_image_whose_tiles_all_overlap_is_split_by_region():
    image = as_image(noise(1, 200)[0], name="dense")
    tiles = [Tile(y, x, 20) for y in range(0, 180, 12) for x in range(0, 180, 12)]
    labels = np.arange(len(tiles)) % 2
    assert len(set(overlapping(tiles))) == 1
    samples = samples_from_image(image, tiles, labels, class_names=["a", "b"])
    assert 0.7 * len(tiles) < len(samples) < len(tiles)
    assert f"of {len(tiles)} tiles of image 'dense' are left out" in samples.note
    split = split_samples(samples)
    places = [tuple(map(int, re.findall(r"\d+", name))) for name in samples.names]
    for i in split.training:
        for j in split.validation:
            distance = max(abs(a - b) for a, b in zip(places[i], places[j], strict=True))
            assert distance >= 20
    assert len(split.validation) / len(samples) == pytest.approx(0.25, abs=0.05)


def test_sources_are_joined_by_the_names_of_their_classes():
    first = samples_from_arrays(noise(2), ["a", "b"], groups=["g", "h"])
    second = samples_from_arrays(noise(2, seed=1), ["c", "b"])
    joined = join_samples([first, second])
    assert joined.class_names == ("a", "b", "c")
    assert joined.labels.tolist() == [0, 1, 2, 1]
    assert len(set(joined.groups)) == 4
    with pytest.raises(SamplesError, match="different kinds of samples: a tile size of 8 and of 9"):
        join_samples([first, samples_from_arrays(noise(1, 9), ["a"])])
    with pytest.raises(SamplesError, match="no samples"):
        join_samples([])


# ---- files -------------------------------------------------------------------------------------


@pytest.fixture
def class_folders(tmp_path):
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            pixels = noise(1, 20, seed=i + len(kind) * (kind == "dog"))[0]
            imsave(tmp_path / kind / f"{i}.png", pixels[: 20 - i])
    return tmp_path


def test_folders_are_classes(class_folders):
    samples = samples_from_folder(class_folders)
    assert samples.class_names == ("cat", "dog")
    assert samples.pixels.shape == (6, 19, 19, 3)
    assert samples.names[0].replace("\\", "/") == "cat/0.png"
    assert samples_from_folder(class_folders, tile_size=11).tile_size == 11


def test_an_unreadable_image_is_named_and_skipped_only_when_asked(class_folders):
    (class_folders / "cat" / "1.png").write_bytes(b"not an image")
    with pytest.raises(SamplesError, match=r"1\.png cannot be read as an image"):
        samples_from_folder(class_folders)
    samples = samples_from_path(class_folders, skip_unreadable=True)
    assert len(samples) == 5
    assert samples.note.replace("\\", "/") == "1 unreadable images are left out: cat/1.png."


def test_tiff_samples_keep_their_channels_and_tell_the_plane_of_a_stack(tmp_path):
    cells = noise(4, 20, 5)
    for i, kind in enumerate(["cat", "cat", "dog", "dog"]):
        (tmp_path / kind).mkdir(exist_ok=True)
        planes = np.stack([cells[i] // 2, cells[i], cells[i] // 3]).transpose(0, 3, 1, 2)
        how = {"photometric": "minisblack", "metadata": {"axes": "ZCYX"}}
        tifffile.imwrite(tmp_path / kind / f"{i}.tif", planes, ome=True, **how)
    samples = samples_from_folder(tmp_path)
    np.testing.assert_array_equal(samples.pixels, cells)
    assert "0.tif is a stack of 3 planes: the one at z = 1 of 3 is read." in samples.note


def test_places_in_a_tiled_file_are_samples(tmp_path):
    plane = noise(1, 200)[0]
    tifffile.imwrite(tmp_path / "a.tif", plane, photometric="rgb", tile=(64, 64), compression="lzw")
    (tmp_path / "a.csv").write_text("path,label,y,x\na.tif,a,60,70\na.tif,b,5,190\n")
    samples = samples_from_csv(tmp_path / "a.csv", tile_size=16)
    tiles = tiles_at_points([(60, 70), (5, 190)], tile_size=16)
    pixels = dict(zip("ab", read_tiles(as_image(plane), tiles), strict=True))
    for label, sample in zip(samples.labels, samples.pixels, strict=True):
        np.testing.assert_array_equal(sample, pixels[samples.class_names[label]])
    (tmp_path / "a.tif").write_bytes(b"II*\0 and so on")
    with pytest.raises(SamplesError, match=r"a\.tif holds no image"):
        samples_from_csv(tmp_path / "a.csv", tile_size=16)


def test_images_with_other_channels_are_named(class_folders):
    imsave(class_folders / "dog" / "grey.png", noise(1, 20)[0, ..., 0])
    with pytest.raises(
        SamplesError, match=r"different channels: .*0\.png has 3, .*grey\.png has 1"
    ):
        samples_from_folder(class_folders)
    with pytest.raises(SamplesError, match="has no folders with images"):
        samples_from_folder(class_folders / "cat")


def test_a_table_gives_paths_labels_groups_and_places(class_folders):
    table = class_folders / "table.csv"
    table.write_text("path,label,group\ncat/0.png,cat,p1\ndog/0.png,dog,p2\n", encoding="utf-8")
    samples = samples_from_csv(table)
    assert samples.class_names == ("cat", "dog")
    assert samples.groups.tolist() == ["p1", "p2"]
    table.write_text("path,label,y,x\ncat/0.png,a,5,6\ncat/0.png,b,9,9\n", encoding="utf-8")
    samples = samples_from_csv(table, tile_size=5)
    whole = samples_from_folder(class_folders, tile_size=20).pixels[0]
    assert np.array_equal(samples.pixels[0], whole[3:8, 4:9])
    with pytest.raises(SamplesError, match="choose a tile size"):
        samples_from_csv(table)
    table.write_text("file,kind\nx,y\n", encoding="utf-8")
    with pytest.raises(SamplesError, match="columns file, kind; it needs path and label"):
        samples_from_csv(table)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_table_may_be_saved_by_any_spreadsheet(class_folders, line_end, separator, mark):
    rows = ["Path| Label", "cat/0.png|größer, rund", '"dog/0.png"|flat', "", "|"]
    if separator == ",":
        rows[1] = 'cat/0.png|"größer, rund"'
    text = mark + line_end.join(rows).replace("|", separator) + line_end
    table = class_folders / "table.csv"
    table.write_bytes(text.encode())
    samples = samples_from_csv(table)
    assert samples.counts == {"flat": 1, "größer, rund": 1}
    assert samples.names.tolist() == ["cat/0.png", "dog/0.png"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\ncat/0.png,a\n\ncat/1.png\n", "nothing for label in line 4"),
        ("path,label,group\ncat/0.png,a\n", "nothing for group in line 2"),
        ("path,label\n,a\n", "nothing for path in line 2"),
        ("path,label\ncat/0.png,a,b\n", "3 cells in line 2, and 2 columns"),
        ("path,label\n", "no rows below its header"),
        ("", r"has the columns \(none\)"),
        ('path,label,y,x\ncat/0.png,a,"5,5",5\n', "y = 5,5 in line 2, which is no number"),
        ("path,label,y,x\ncat/0.png,a,5,\n", "nothing for x in line 2"),
        ("path,label,y,x\ncat/0.png,a,5,nan\n", "x = nan in line 2, which is no number"),
        ("path,label,y,x\ncat/0.png,a,500,5\n", r"0\.png: 1 of 1 points lie outside"),
    ],
)
def test_what_is_wrong_in_a_table_is_told_with_its_line(class_folders, text, said):
    table = class_folders / "table.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(SamplesError, match=said):
        samples_from_csv(table, tile_size=5)


def test_a_table_in_another_encoding_is_refused(class_folders):
    table = class_folders / "table.csv"
    table.write_bytes("path,label\ncat/0.png,größer\n".encode("latin-1"))
    with pytest.raises(SamplesError, match="not in UTF-8"):
        samples_from_csv(table)


def test_points_outside_of_their_image_are_refused(class_folders, tmp_path):
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "0.txt").write_text("5 5 0\n500 5 1\n")
    with pytest.raises(SamplesError, match=r"0\.png: 1 of 1 points lie outside of the image"):
        samples_from_points(class_folders / "cat", tmp_path / "points", tile_size=5)


def test_hidden_folders_are_no_classes(class_folders):
    (class_folders / ".ipynb_checkpoints").mkdir()
    imsave(class_folders / ".ipynb_checkpoints" / "0.png", noise(1, 20)[0])
    assert samples_from_folder(class_folders).class_names == ("cat", "dog")


def test_transparent_samples_are_laid_on_white(tmp_path):
    clear = np.concatenate([noise(1, 20)[0], np.full((20, 20, 1), 255, np.uint8)], axis=2)
    half = clear.copy()
    half[:10, :, 3] = 0
    for kind, pixels in (("clear", clear), ("half", half)):
        (tmp_path / kind).mkdir()
        imsave(tmp_path / kind / "0.png", pixels)
    samples = samples_from_folder(tmp_path)
    assert samples.channels == ("red", "green", "blue")
    assert samples.pixels.dtype == np.uint8
    np.testing.assert_array_equal(samples.pixels[0], clear[..., :3])
    assert (samples.pixels[1, :10] == 255).all()
    np.testing.assert_array_equal(samples.pixels[1, 10:], clear[10:, :, :3])
    tiles = tiles_at_points([(5, 5), (15, 15)], tile_size=8)
    cut = samples_from_image(as_image(half), tiles, [0, 1], class_names=["a", "b"])
    assert cut.channels == ("red", "green", "blue")
    assert (cut.pixels[0] == 255).all()


def test_arrays_in_a_file(tmp_path):
    images = np.random.default_rng(0).integers(0, 65535, (6, 2, 9, 9), dtype=np.uint16)
    np.savez(
        tmp_path / "own.npz",
        images=images,
        labels=np.array([0, 1, 1, 0, 1, 0], np.uint8),
        classes=np.array(["x", "y"]),
        channels=np.array(["dna", "actin"]),
        patient=np.array(["a", "a", "b", "b", "c", "c"]),
    )
    samples = samples_from_npz(tmp_path / "own.npz")
    assert np.array_equal(samples.pixels[2], images[2].transpose(1, 2, 0))
    assert samples.channels == ("dna", "actin")
    assert samples.groups.tolist() == ["a", "a", "b", "b", "c", "c"]
    np.savez(tmp_path / "bad.npz", pictures=images)
    with pytest.raises(SamplesError, match="holds pictures; it needs images and labels"):
        samples_from_npz(tmp_path / "bad.npz")


def test_the_split_of_medmnist_files_is_kept(tmp_path):
    arrays = {}
    for seed, (part, n) in enumerate((("train", 6), ("val", 3), ("test", 4))):
        arrays[f"{part}_images"] = noise(n, seed=seed)
        arrays[f"{part}_labels"] = (np.arange(n) % 3)[:, np.newaxis].astype(np.uint8)
    np.savez(tmp_path / "mnist.npz", **arrays)
    split = split_samples(samples_from_npz(tmp_path / "mnist.npz"))
    assert split.training.tolist() == [*range(6)]
    assert split.validation.tolist() == [6, 7, 8]
    assert split.test.tolist() == [9, 10, 11, 12]


def test_medmnist_files_need_no_test_part_but_both_others(tmp_path):
    arrays = {
        f"{part}_{what}": noise(2, seed=len(part)) if what == "images" else np.array([[0], [1]])
        for part in ("train", "val")
        for what in ("images", "labels")
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    split = split_samples(samples_from_npz(tmp_path / "mnist.npz"))
    assert (split.validation.tolist(), split.test.tolist()) == ([2, 3], [])
    del arrays["val_labels"]
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(SamplesError, match="it needs val_labels too"):
        samples_from_npz(tmp_path / "mnist.npz")
    np.savez(tmp_path / "none.npz", images=noise(2)[:0], labels=np.zeros(0, int))
    with pytest.raises(SamplesError, match="holds no images"):
        samples_from_npz(tmp_path / "none.npz")


def test_boxes_become_squares_around_their_middle(tmp_path):
    field = noise(1, 60)[0]
    imsave(tmp_path / "f.png", field)
    boxes = [("red", 10, 20, 20, 40), ("white", 30, 30, 31, 30)]
    objects = "".join(
        f"<object><name>{n}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for n, a, b, c, d in boxes
    )
    (tmp_path / "f.xml").write_text(
        f"<annotation><filename>f.png</filename>{objects}</annotation>", encoding="utf-8"
    )
    samples = samples_from_boxes(tmp_path, tile_size=11)
    assert len(samples) == 1  # a box without an area is none
    assert np.array_equal(samples.pixels[0], field[25:36, 10:21])
    assert samples.class_names == ("red",)
    (tmp_path / "f.png").unlink()
    with pytest.raises(SamplesError, match=r"speaks of the image 'f\.png'"):
        samples_from_boxes(tmp_path)


def test_points_with_classes(tmp_path):
    for folder in ("images", "points"):
        (tmp_path / folder).mkdir()
    field = noise(1, 60)[0]
    imsave(tmp_path / "images" / "1.png", field)
    (tmp_path / "points" / "1.txt").write_text("20 30 0\n40 10 2\n")
    samples = samples_from_points(
        tmp_path / "images", tmp_path / "points", tile_size=9, class_names=["a", "b", "c"]
    )
    assert samples.class_names == ("a", "c")
    assert np.array_equal(samples.pixels[0], field[26:35, 16:25])
    assert samples.groups.tolist() == ["1", "1"]


# ---- splits ------------------------------------------------------------------------------------


def test_a_split_is_disjoint_complete_and_stratified():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    samples = samples_from_arrays(noise(100), labels, class_names=["a", "b", "c"])
    split = split_samples(samples, validation_share=0.2, test_share=0.2)
    sides = [split.training, split.validation, split.test]
    assert sorted(np.concatenate(sides).tolist()) == [*range(100)]
    for side, counts in zip(sides, ([36, 18, 6], [12, 6, 2], [12, 6, 2]), strict=True):
        assert np.bincount(labels[side]).tolist() == counts
    assert np.array_equal(split_samples(samples, test_share=0.2).test, split.test)


@pytest.mark.parametrize("shares", [(0.2, 0.0), (0.2, 0.2), (0.5, 0.1)])
def test_no_group_is_on_two_sides(shares):
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 30, 300).astype(str)
    samples = samples_from_arrays(
        noise(300), rng.integers(0, 3, 300), class_names=["a", "b", "c"], groups=groups
    )
    split = split_samples(samples, validation_share=shares[0], test_share=shares[1])
    sides = [set(groups[side]) for side in (split.training, split.validation, split.test)]
    assert not sides[0] & sides[1]
    assert not sides[2] & (sides[0] | sides[1])
    assert len(split.validation) / 300 == pytest.approx(shares[0], abs=0.1)


@pytest.mark.parametrize("groups", [None, "each its own", "pairs"])
def test_very_few_samples_are_split_all_the_same(groups):
    labels = np.repeat(np.arange(8), 4)
    named = {None: None, "each its own": np.arange(32), "pairs": np.arange(32) // 2}[groups]
    samples = samples_from_arrays(
        noise(32), labels, class_names=[*"abcdefgh"], groups=named if named is None else [*named]
    )
    split = split_samples(samples)
    assert set(labels[split.training]) == set(range(8))
    assert len(split.validation)
    if groups != "pairs":
        assert set(labels[split.validation]) == set(range(8))


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (samples_from_arrays(noise(4), ["a"] * 4), r"one class only \(a\)"),
        (samples_from_arrays(noise(5), ["a"] * 4 + ["b"]), r"single sample: b \(1\)"),
        (some(8, groups=["one"] * 8), r"All samples belong together \(group .one.\)"),
        (
            samples_from_arrays(noise(4), [0, 0, 1, 1], class_names=["a", "b", "c"]),
            "Classes without samples: c",
        ),
        (some(4, parts=["training"] * 4), "no samples for validation"),
    ],
)
def test_samples_that_cannot_be_split_get_a_sentence(samples, sentence):
    with pytest.raises(SamplesError, match=sentence):
        split_samples(samples)


def test_the_same_patch_on_two_sides_is_refused():
    samples = some(40, parts=["training"] * 30 + ["validation"] * 10, names=[*map(str, range(40))])
    samples.pixels[35] = samples.pixels[3]
    with pytest.raises(SamplesError, match=r"two sides of the split: 3 \(training\) and 35"):
        split_samples(samples)


def test_copies_are_left_out_and_named():
    samples = some(40, groups=[str(i) for i in range(40)], names=[*map(str, range(40))])
    samples.pixels[35] = samples.pixels[3]
    samples.labels[35] = samples.labels[3]
    unique = without_copies(samples)
    kept = [i for i in range(40) if i != 35]
    np.testing.assert_array_equal(unique.pixels, samples.pixels[kept])
    np.testing.assert_array_equal(unique.labels, samples.labels[kept])
    assert unique.groups.tolist() == unique.names.tolist() == [str(i) for i in kept]
    assert unique.note == "1 copies of other samples are left out: 35."
    assert without_copies(unique) is unique


def test_copies_of_two_classes_are_refused():
    samples = some(4, names=["a.png", "b.png", "c.png", "d.png"])
    samples.pixels[3] = samples.pixels[0]
    samples.labels[:] = [0, 1, 0, 1]
    with pytest.raises(
        SamplesError, match=r"is kind 0 and d[.]png, with the same pixels, is kind 1"
    ):
        without_copies(samples)
