"""Label images, points and polygons beside image files, through the command line."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from napari_mambamic import classify_image, classify_many, classify_objects, read_results
from napari_mambamic.cli import main
from napari_mambamic.errors import ImageError
from napari_mambamic.image import as_image
from napari_mambamic.partners import partner_of, read_partners

SIZE = 192, 384


@pytest.fixture
def slides(sheet, tmp_path):
    """Two images of 4 x 2 cells."""
    folder = tmp_path / "slides"
    folder.mkdir()
    tifffile.imwrite(folder / "a.ome.tif", sheet[:192, :384], photometric="rgb")
    tifffile.imwrite(folder / "b.tif", sheet[384:576, :384], photometric="rgb", tile=(64, 64))
    return folder


def labels_of(n):
    """The first n of eight cells, numbered from 5 on."""
    labels = np.zeros(SIZE, np.uint16)
    for i in range(n):
        row, column = divmod(i, 4)
        labels[row * 96 + 20 : row * 96 + 76, column * 96 + 24 : column * 96 + 70] = 5 + i
    return labels


def run(slides, *arguments):
    out = slides.parent / "out"
    return main(["classify", str(slides), "--out", str(out), "--device", "cpu", *arguments]), out


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def feature(kind, coordinates):
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": "annotation"}}


def box(y, x, height, width):
    """A ring of (x, y) from the corner of the first pixel, as QuPath writes it."""
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
    return [list(corner) for corner in corners]


def test_label_images_beside_images_are_their_objects(slides, sheet, classifier, capsys):
    tifffile.imwrite(slides / "a_labels.tif", labels_of(8), compression="zlib")
    tifffile.imwrite(slides / "b_labels.tif", labels_of(3))
    arguments = ["--objects", "{stem}_labels.tif", "--object-scale", "1.5"]
    formats = ["--format", "csv", "geojson", "ome.zarr", "png"]
    code, out = run(slides, *arguments, *formats)
    assert code == 0, capsys.readouterr().err
    # The label images lie in the same folder and are no images.
    assert [row["status"] for row in rows_of(out / "summary.csv")] == ["done", "done"]
    pixels = sheet[:192, :384]
    expected = classify_objects(pixels, labels_of(8), classifier, object_scale=1.5)
    found = read_results(out / "a.ome.classes.csv")
    np.testing.assert_array_equal(found.object_ids, np.arange(5, 13))
    np.testing.assert_array_equal(found.labels, expected.labels)
    features = json.loads((out / "b.classes.geojson").read_text())["features"]
    assert len(features) == 3
    assert sorted(features[0]["geometry"]["coordinates"][0])[0][0] in (24, 25)  # its outline
    assert (out / "b.classes.ome.zarr" / "labels" / "objects").is_dir()

    def statuses():
        assert run(slides, *arguments, *formats)[0] == 0
        return [row["status"] for row in rows_of(out / "summary.csv")]

    assert statuses() == ["skipped", "skipped"]
    tifffile.imwrite(slides / "b_labels.tif", labels_of(4))
    assert statuses() == ["skipped", "done"]


def test_a_folder_of_label_images_of_the_same_names(slides, classifier, sheet, capsys):
    masks = slides.parent / "masks"
    masks.mkdir()
    imsave(masks / "a.png", labels_of(2).astype(np.uint8), check_contrast=False)
    tifffile.imwrite(masks / "b.tif", labels_of(5))
    code, out = run(slides, "--objects", str(masks))
    assert code == 0, capsys.readouterr().err
    assert len(rows_of(out / "a.ome.classes.csv")) == 2
    expected = classify_objects(sheet[384:576, :384], labels_of(5), classifier)
    np.testing.assert_array_equal(read_results(out / "b.classes.csv").labels, expected.labels)


@pytest.mark.parametrize("mark", ["_labels", "_masks", "_cp_masks", "_mask", "_label"])
def test_a_folder_of_images_holds_their_label_images_too(mark, slides, classifier, sheet, capsys):
    tifffile.imwrite(slides / f"a{mark}.tif", labels_of(2))
    imsave(slides / f"b{mark}.png", labels_of(3).astype(np.uint8), check_contrast=False)
    code, out = run(slides, "--objects", str(slides))
    said = capsys.readouterr().err
    assert code == 0, said
    assert f"label images of others: a{mark}.tif, b{mark}.png." in said
    assert [row["tiles"] for row in rows_of(out / "summary.csv")] == ["2", "3"]
    expected = classify_objects(sheet[384:576, :384], labels_of(3), classifier)
    np.testing.assert_array_equal(read_results(out / "b.classes.csv").labels, expected.labels)


def test_label_images_that_are_named_with_their_images_are_left_out_aloud(slides):
    tifffile.imwrite(slides / "b_labels.tif", labels_of(3))
    said = []
    summary = classify_many(
        [slides / "b.tif", slides / "b_labels.tif"],  # as a shell writes out *.tif
        out=slides.parent / "out",
        objects="{stem}_labels.tif",
        device="cpu",
        on_progress=lambda progress: said.append(progress.message),
    )
    assert summary.left_out == (slides / "b_labels.tif",)
    assert [(image.path.name, image.status) for image in summary.images] == [("b.tif", "done")]
    assert "Left out, as the label images of others: b_labels.tif." in said


def test_a_file_named_alone_is_never_left_out(slides, capsys):
    tifffile.imwrite(slides / "b_labels.tif", labels_of(3))
    out = str(slides.parent / "out")
    only = [str(slides / "b_labels.tif"), "--out", out, "--device", "cpu"]
    assert main(["classify", *only, "--objects", "{stem}_labels.tif"]) == 1
    assert "b_labels.tif has no label image" in capsys.readouterr().err


def test_without_objects_files_named_like_label_images_are_classified_and_told(slides, capsys):
    tifffile.imwrite(slides / "b_masks.tif", labels_of(8).astype(np.uint8))
    code, out = run(slides)
    said = capsys.readouterr().err
    assert code == 0, said
    assert "named like label images of others: b_masks.tif. To classify objects" in said
    assert len(rows_of(out / "summary.csv")) == 3


def test_two_files_of_one_name_are_not_taken_for_each_others_labels(slides, capsys):
    imsave(slides / "b.png", labels_of(3).astype(np.uint8), check_contrast=False)
    code, out = run(slides, "--objects", str(slides))
    assert code == 1
    assert "which of them is the label image cannot be told" in capsys.readouterr().err
    imsave(slides / "a.png", labels_of(2).astype(np.uint8), check_contrast=False)
    code, out = run(slides, "--objects", "{stem}.png")
    assert code == 0, capsys.readouterr().err
    assert [row["tiles"] for row in rows_of(out / "summary.csv")] == ["2", "3"]


def test_an_image_is_not_its_own_label_image(slides, capsys):
    tifffile.imwrite(slides / "b.tif", labels_of(3))
    out = str(slides.parent / "out")
    image = str(slides / "b.tif")
    assert main(["classify", image, "--out", out, "--objects", "{stem}.tif"]) == 1
    assert "b.tif has no label image" in capsys.readouterr().err


def test_in_a_folder_of_their_own_the_very_name_goes_first(slides):
    masks = slides.parent / "masks"
    masks.mkdir()
    for name in ("b.tif", "b_mask.tif"):  # the latter belongs to an image b_mask.tif
        (masks / name).write_bytes(b"")
    assert partner_of(slides / "b.tif", "objects", str(masks)) == masks / "b.tif"
    (masks / "b.tif").unlink()
    assert partner_of(slides / "b.tif", "objects", str(masks)) == masks / "b_mask.tif"
    (masks / "b_labels.png").write_bytes(b"")
    with pytest.raises(ImageError, match="more than one label image"):
        partner_of(slides / "b.tif", "objects", str(masks))


def test_points_come_from_tables_and_from_geojson(slides, sheet, classifier, capsys):
    points = np.array([[48, 48], [144.5, 240], [50, 336]])
    with open(slides / "a.csv", "w", newline="") as file:  # as napari saves points
        rows = csv.writer(file)
        rows.writerow(["index", "axis-0", "axis-1"])
        rows.writerows([i, *point] for i, point in enumerate(points))
    # QuPath counts from the corner of the first pixel, x first.
    places = (points[:, ::-1] + 0.5).tolist()
    collection = [feature("Point", places[0]), feature("MultiPoint", places[1:])]
    (slides / "b.geojson").write_text(json.dumps(collection))
    code, out = run(slides, "--points", str(slides), "--format", "parquet", "png")
    assert code == 0, capsys.readouterr().err
    for name, top in (("a.ome", 0), ("b", 384)):
        found = read_results(out / f"{name}.classes.parquet")
        expected = classify_objects(sheet[top : top + 192, :384], points, classifier)
        assert list(found.tiles) == list(expected.tiles)
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)


def test_polygons_with_holes_tell_where_to_classify(slides, sheet, classifier, capsys):
    whole, hole = box(0, 0, 192, 384), box(96, 96, 96, 192)
    inside = {"type": "FeatureCollection", "features": [feature("Polygon", [whole, hole[::-1]])]}
    with gzip.open(slides / "a.geojson.gz", "wt") as file:
        json.dump(inside, file)
    parts = [[box(0, 0, 96, 96)], [box(96, 288, 96, 96)]]
    text = json.dumps(feature("MultiPolygon", parts))
    (slides / "b.json").write_text(text, encoding="utf-8-sig")  # as some editors save it
    code, out = run(slides, "--within", str(slides))
    assert code == 0, capsys.readouterr().err
    done = {
        name: {
            (int(row["y"]), int(row["x"]))
            for row in rows_of(out / f"{name}.classes.csv")
            if row["class"]
        }
        for name in ("a.ome", "b")
    }
    grid = {(y, x) for y in (0, 96) for x in (0, 96, 192, 288)}
    assert done["a.ome"] == grid - {(96, 96), (96, 192)}
    assert done["b"] == {(0, 0), (96, 288)}
    expected = classify_image(sheet[384:576, :384], classifier).labels[[0, 7]]
    found = read_results(out / "b.classes.csv")
    np.testing.assert_array_equal(found.labels[found.is_done], expected)


def test_objects_only_within_polygons(slides):
    image = as_image(np.zeros((*SIZE, 3), np.uint8))
    tifffile.imwrite(slides / "b_labels.tif", labels_of(8))
    (slides / "b.geojson").write_text(json.dumps(feature("Polygon", [box(0, 0, 96, 192)])))
    patterns = {"objects": "{stem}_labels.tif", "within": "{stem}.geojson"}
    beside = read_partners(image, slides / "b.tif", patterns)
    np.testing.assert_array_equal(beside.labels, labels_of(8))
    assert len(beside.within) == 1
    summary = classify_many([slides / "b.tif"], out=slides.parent / "out", device="cpu", **patterns)
    assert summary.images[0].n_tiles == 8
    assert sum(summary.images[0].counts.values()) == 2


@pytest.mark.parametrize(
    ("name", "content", "arguments", "words"),
    [
        ("x", b"", ["--objects", "{stem}_labels.tif"], "has no label image: there is no"),
        ("x", b"", ["--objects", "masks"], "has no label image: there is no"),
        ("b_l.tif", labels_of(8)[:100], ["--objects", "{stem}_l.tif"], "100 x 384 px and image"),
        ("b_l.tif", labels_of(0), ["--objects", "{stem}_l.tif"], "has no objects"),
        ("b_l.tif", labels_of(8) / 2, ["--objects", "{stem}_l.tif"], "labels are whole numbers"),
        ("b_l.tif", b"II*", ["--objects", "{stem}_l.tif"], "b_l.tif cannot be read"),
        ("b.png", np.zeros((*SIZE, 3), "u1"), ["--objects", "{stem}.png"], "it has 3 channels"),
        ("b.csv", b"a,b\n1,2\n", ["--points", "{stem}.csv"], "the columns a, b; y and x are"),
        (
            "b.csv",
            b"axis-0,axis-1,axis-2\n1,2,3\n",
            ["--points", "{stem}.csv"],
            "has a single plane",
        ),
        ("b.csv", b"x,y\n1,\n", ["--points", "{stem}.csv"], "no numbers for y and x in line 2"),
        ("b.csv", b"y,x\n", ["--points", "{stem}.csv"], "b.csv holds no points"),
        ("b.csv", b"y,x\n5,5\n200,5\n", ["--points", "{stem}.csv"], "1 of the 2 points of"),
        ("b.csv", b"\xff\xfe\x00", ["--points", "{stem}.csv"], "cannot be read as a table"),
        ("b.json", b'{"features": []}', ["--points", "{stem}.json"], "b.json holds no points"),
        ("b.json", b'{"features": []}', ["--within", "{stem}.json"], "b.json holds no polygons"),
        ("b.json", b"{", ["--within", "{stem}.json"], "cannot be read as GeoJSON"),
        ("b.json", b"[3]", ["--within", "{stem}.json"], "cannot be read as GeoJSON"),
        (
            "b.json",
            json.dumps(feature("Polygon", [[["a", "b"]] * 4])).encode(),
            ["--within", "{stem}.json"],
            "b.json is damaged",
        ),
        (
            "b.json",
            json.dumps(feature("Polygon", [box(0, 0, 9, 9)])).encode(),
            ["--points", "{stem}.json"],
            "holds no points, but Polygon",
        ),
        ("x", b"", ["--objects", "o", "--points", "p"], "Choose one of them"),
        ("x", b"", ["--object-scale", "2"], "A scale for objects was given"),
        ("x", b"", ["--objects", "o", "--overlap", "4"], "Overlap is for tiles"),
        ("x", b"", ["--points", "p", "--format", "ome.zarr"], "cannot be saved as OME-Zarr"),
    ],
)
def test_what_is_wrong_beside_an_image_is_a_sentence(
    name, content, arguments, words, slides, capsys
):
    if isinstance(content, bytes):
        (slides / name).write_bytes(content)
    elif name.endswith(".png"):
        imsave(slides / name, content, check_contrast=False)
    else:
        tifffile.imwrite(slides / name, content)
    image, out = str(slides / "b.tif"), str(slides.parent / "out")
    assert main(["classify", image, "--out", out, "--device", "cpu", *arguments]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert "defect" not in said


def test_one_image_without_its_partner_does_not_stop_the_others(slides, capsys):
    tifffile.imwrite(slides / "b_labels.tif", labels_of(3))
    code, out = run(slides, "--objects", "{stem}_labels.tif")
    assert code == 2
    assert [row["status"] for row in rows_of(out / "summary.csv")] == ["failed", "done"]
    assert "a.ome.tif has no label image: there is no" in capsys.readouterr().err


def test_partners_lie_beside_the_image_or_where_you_are(slides, monkeypatch):
    image, here = slides / "b.tif", slides.parent
    (here / "masks").mkdir()
    (here / "masks" / "b.tif").write_bytes(b"")
    monkeypatch.chdir(here)
    for pattern in ("masks", "masks/{stem}.tif", "../masks/{stem}.tif", str(here / "masks")):
        assert partner_of(image, "objects", pattern).resolve() == here / "masks" / "b.tif"
    (slides / "masks").mkdir()
    (slides / "masks" / "b.tif").write_bytes(b"")
    assert partner_of(image, "objects", "masks") == slides / "masks" / "b.tif"
