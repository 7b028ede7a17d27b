"""Stacks through the command line: each plane with its own objects, points and polygons."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from napari_mambamic import classify_image, classify_many, classify_objects, read_results
from napari_mambamic.as_script import script_of
from napari_mambamic.cli import main

N_PLANES, SIZE = 4, (96, 288)


@pytest.fixture
def stack(sheet):
    """Planes (z, y, x, 3) of three cells each, of another class in each plane."""
    return np.stack([sheet[192 * z : 192 * z + 96, :288] for z in range(N_PLANES)])


@pytest.fixture
def folder(stack, tmp_path):
    folder = tmp_path / "stacks"
    folder.mkdir()
    metadata = {"axes": "ZYXS"}
    tifffile.imwrite(folder / "a.ome.tif", stack, photometric="rgb", metadata=metadata)
    return folder


@pytest.fixture
def run(folder):
    out = folder.parent / "out"

    def classify(*arguments, images=("a.ome.tif",)):
        paths = [str(folder / name) for name in images]
        command = ["classify", *paths, "--out", str(out), "--device", "cpu"]
        return main([*command, *map(str, arguments)]), out

    return classify


def summary_of(out):
    with open(out / "summary.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_points(path, columns, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


POINTS = np.array([[3, 48, 48], [0, 48, 144], [3, 40, 240], [1.2, 50, 150], [0, 48, 50]])


def check_points(out, stack, classifier):
    """Each point has its class on its own plane, and its number in the file."""
    for z, numbers in ((0, [1, 4]), (1, [3]), (3, [0, 2])):
        found = read_results(out / f"a.ome-z{z}.classes.csv")
        expected = classify_objects(stack[z], POINTS[numbers, 1:], classifier)
        np.testing.assert_array_equal(found.object_ids, numbers)
        np.testing.assert_array_equal(found.labels, expected.labels)
    assert not (out / "a.ome-z2.classes.csv").exists()


def test_every_plane_of_a_stack_is_classified_by_itself(
    run, folder, stack, sheet, classifier, capsys
):
    imsave(folder / "flat.png", sheet[:96, :96])  # has but one plane
    code, out = run("--z", "all", images=["a.ome.tif", "flat.png"])
    assert code == 0, capsys.readouterr().err
    for z in range(N_PLANES):
        found = read_results(out / f"a.ome-z{z}.classes.csv")
        np.testing.assert_array_equal(found.labels, classify_image(stack[z], classifier).labels)
    rows = summary_of(out)
    assert [row["z"] for row in rows] == ["0", "1", "2", "3", ""]
    assert [row["tiles"] for row in rows] == ["3", "3", "3", "3", "1"]
    assert (out / "flat.classes.csv").exists()
    said = capsys.readouterr().out
    assert f"a.ome.tif, z = 2 -> {out / 'a.ome-z2.classes.csv'}" in said
    assert "5 planes: 5 done" in said
    assert run("--z", "all", images=["a.ome.tif", "flat.png"])[0] == 0
    assert {row["status"] for row in summary_of(out)} == {"skipped"}
    # A plane's own file repeats it.
    provenance = json.loads((out / "a.ome-z2.classes.provenance.json").read_text())
    assert provenance["image"]["stack"] == {"z": [2, 4]}
    names = {}
    exec(script_of(provenance), names)
    expected = read_results(out / "a.ome-z2.classes.csv").labels
    np.testing.assert_array_equal(names["results"].labels, expected)


@pytest.mark.parametrize("columns", ["index axis-0 axis-1 axis-2", "Cell z Y x"])
def test_points_of_a_table_are_classified_each_on_its_plane(
    columns, run, folder, stack, classifier, capsys
):
    rows = [(i, *point) for i, point in enumerate(POINTS.tolist())]
    write_points(folder / "a.csv", columns.split(), rows)
    code, out = run("--z", "all", "--points", "{stem}.csv")
    said = capsys.readouterr()
    assert code == 0, said.err
    check_points(out, stack, classifier)
    assert [row["status"] for row in summary_of(out)] == ["done", "done", "empty", "done"]
    assert "a.csv holds no points on the plane z = 2, but 5 on others." in said.out


def test_points_of_qupath_know_their_plane(run, folder, stack, classifier):
    """QuPath tells the plane of a geometry unless it is the first."""
    features = []
    for z, y, x in POINTS:
        geometry = {"type": "Point", "coordinates": [x + 0.5, y + 0.5]}
        if round(z):
            geometry["plane"] = {"c": -1, "z": round(z), "t": 0}
        features.append({"type": "Feature", "geometry": geometry, "properties": {}})
    collection = {"type": "FeatureCollection", "features": features}
    (folder / "a.geojson").write_text(json.dumps(collection))
    code, out = run("--z", "all", "--points", "{stem}.geojson")
    assert code == 0
    check_points(out, stack, classifier)


def test_of_one_plane_only_its_points_count_and_that_is_told(run, folder, capsys):
    write_points(folder / "a.csv", ["z", "y", "x"], POINTS)
    code, out = run("--z", "3", "--points", "{stem}.csv")
    assert code == 0
    assert read_results(out / "a.ome.classes.csv").object_ids.tolist() == [0, 2]
    said = capsys.readouterr().out
    assert "z = 3 of 4 is read" in said
    assert "2 of the 5 points of a.csv lie there." in said


def test_points_without_a_plane_are_on_all(run, folder, stack, classifier):
    write_points(folder / "a.csv", ["y", "x"], [(48, 48), (48, 240)])
    code, out = run("--z", "all", "--points", "{stem}.csv")
    assert code == 0
    for z in range(N_PLANES):
        expected = classify_objects(stack[z], [(48, 48), (48, 240)], classifier)
        found = read_results(out / f"a.ome-z{z}.classes.csv")
        np.testing.assert_array_equal(found.labels, expected.labels)


def labels_of_planes():
    labels = np.zeros((N_PLANES, *SIZE), np.uint16)
    labels[1, 20:76, 24:70], labels[2, 20:76, 120:166], labels[2, 20:76, 216:262] = 7, 8, 9
    return labels


@pytest.mark.parametrize(
    "saved",
    [
        {"metadata": {"axes": "ZYX"}, "photometric": "minisblack"},
        {"photometric": "minisblack"},  # pages that are not said to lie along z
        {"photometric": "rgb", "planarconfig": "separate"},  # four planes taken for colours
    ],
)
def test_label_stacks_give_each_plane_its_objects(saved, run, folder, stack, classifier):
    labels = labels_of_planes()
    tifffile.imwrite(folder / "a_labels.tif", labels, **saved)
    code, out = run("--z", "all", "--objects", "{stem}_labels.tif", "--format", "csv", "geojson")
    assert code == 0
    for z, numbers in ((1, [7]), (2, [8, 9])):
        found = read_results(out / f"a.ome-z{z}.classes.csv")
        expected = classify_objects(stack[z], labels[z], classifier)
        assert found.object_ids.tolist() == numbers
        np.testing.assert_array_equal(found.labels, expected.labels)
    assert [row["status"] for row in summary_of(out)] == ["empty", "done", "done", "empty"]
    # Without a choice, image and labels are of one plane: the middle one of the image.
    code, out = run("--objects", "{stem}_labels.tif")
    assert read_results(out / "a.ome.classes.csv").object_ids.tolist() == [8, 9]


def test_polygons_of_qupath_limit_their_plane(run, folder):
    def box(x, plane):
        ring = [[x, 0], [x + 96, 0], [x + 96, 96], [x, 96], [x, 0]]
        return {"type": "Polygon", "coordinates": [ring], **plane}

    polygons = [box(0, {}), box(96, {"plane": {"c": -1, "z": 3, "t": 0}})]
    (folder / "a.json").write_text(json.dumps(polygons))
    code, out = run("--z", "all", "--within", "{stem}.json")
    assert code == 0
    done = {
        z: np.flatnonzero(read_results(out / f"a.ome-z{z}.classes.csv").is_done).tolist()
        for z in (0, 3)
    }
    assert done == {0: [0], 3: [1]}
    assert [row["status"] for row in summary_of(out)] == ["done", "empty", "empty", "done"]


def test_nothing_on_any_plane_is_a_failure(run, folder, capsys):
    labels = np.zeros((N_PLANES, *SIZE), np.uint16)
    tifffile.imwrite(folder / "a_labels.tif", labels, photometric="minisblack")
    assert run("--z", "all", "--objects", "{stem}_labels.tif")[0] == 1
    assert "has no objects on the plane z = 1: no pixel" in capsys.readouterr().out


def test_films_have_time_points_and_planes(folder, stack, classifier):
    film = np.stack([stack[:2], stack[2:]])  # (t, z, y, x, 3)
    path = folder / "film.ome.tif"
    tifffile.imwrite(path, film, photometric="rgb", metadata={"axes": "TZYXS"})
    write_points(folder / "film.csv", ["axis-0", "axis-1", "axis-2", "axis-3"], [(1, 0, 48, 144)])
    out = folder.parent / "out"
    summary = classify_many([path], out=out, z="all", t="all", points="{stem}.csv", device="cpu")
    outcomes = [(dict(image.plane), image.status) for image in summary.images]
    assert outcomes == [
        ({"t": 0, "z": 0}, "empty"),
        ({"t": 0, "z": 1}, "empty"),
        ({"t": 1, "z": 0}, "done"),
        ({"t": 1, "z": 1}, "empty"),
    ]
    expected = classify_objects(film[1, 0], [(48, 144)], classifier)
    found = read_results(out / "film.ome-t1-z0.classes.csv")
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_planes_and_images_of_one_name_do_not_meet(run, folder, sheet):
    imsave(folder / "a.ome-z1.png", sheet[:96, :96])
    code, out = run("--z", "all", images=["a.ome.tif", "a.ome-z1.png"])
    assert code == 0
    tables = [path.name for path in out.glob("*.classes.csv")]
    assert len(tables) == 5
    assert "a.ome-z1.classes.csv" not in tables


@pytest.mark.parametrize(
    ("columns", "rows", "words"),
    [
        ("z y x", [(4, 48, 48)], "speaks of z = 4, and image 'a.ome.tif' has 4 planes along z"),
        ("z y x", [(-1, 48, 48)], "Planes are counted from 0"),
        ("z y x", [("", 48, 48)], "no numbers for y, x and z in line 2"),
        ("axis-0 axis-1 axis-2 axis-3", [(0, 1, 48, 48)], "Name the columns y and x"),
        ("axis-0", [(0,)], "y and x are needed"),
    ],
)
def test_tables_that_do_not_fit_a_stack_are_refused(columns, rows, words, run, folder, capsys):
    write_points(folder / "a.csv", columns.split(), rows)
    assert run("--z", "all", "--points", "{stem}.csv")[0] == 1
    assert words in capsys.readouterr().err


def test_labels_with_other_planes_are_refused(run, folder, sheet, capsys):
    labels = np.ones((5, *SIZE), np.uint8)
    tifffile.imwrite(folder / "a_labels.tif", labels, metadata={"axes": "ZYX"})
    assert run("--z", "1", "--objects", "{stem}_labels.tif")[0] == 1
    assert "is a stack of 5 planes along z" in capsys.readouterr().err
    imsave(folder / "flat.png", sheet[:96, :288])
    assert run("--objects", folder / "a_labels.tif", images=["flat.png"])[0] == 1
    assert "is a single plane" in capsys.readouterr().err


def test_the_terminal_says_once_what_holds_of_several_planes(run, sheet, folder, capsys):
    data = np.stack([sheet[:96, :96, 1] // 64] * 3)  # too dark, and told so
    about = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(folder / "dark.tif", data, **about)
    code, out = run("--z", "all", images=["dark.tif"])
    assert code == 0
    said = capsys.readouterr().out.splitlines()
    warnings = [line for line in said if line.startswith("warning: ")]
    assert len(warnings) == len(set(warnings)) > 0
    name = read_results(out / "dark-z2.classes.csv").class_names
    assert said[-2].startswith("1 ")
    assert said[-2][2:] in name
    assert all(len(row["sentence"]) > 50 for row in summary_of(out))  # of each plane
    run("--z", "all", "--channels", "5", images=["dark.tif"])
    one, *others = capsys.readouterr().err.splitlines()
    assert "has 1 channels" in one
    assert [line.partition("z = ")[2] for line in others] == ["1: the same.", "2: the same."]


def test_a_plane_is_a_number_or_all(folder, capsys):
    with pytest.raises(SystemExit):
        main(["classify", str(folder), "--z", "every"])
    assert "neither a number nor 'all'" in capsys.readouterr().err


def files_of(out, name):
    return sorted(path.name.removeprefix(f"{name}.classes.") for path in out.glob(f"{name}.*"))


def test_a_plane_that_became_empty_keeps_no_files_of_an_earlier_run(
    run, folder, stack, classifier, capsys
):
    write_points(folder / "a.csv", ["z", "y", "x"], POINTS)
    arguments = ["--z", "all", "--points", "{stem}.csv"]
    code, out = run(*arguments, "--format", "csv", "geojson", "png")
    assert code == 0
    assert files_of(out, "a.ome-z1") == ["csv", "geojson", "png", "provenance.json"]
    (out / "a.ome-z1.csv").write_text("of somebody else")
    (out / "a.ome-z2.classes.csv").write_text("saved by hand")  # of a plane that is empty always
    write_points(folder / "a.csv", ["z", "y", "x"], POINTS[[0, 1, 2, 4]])  # none on plane 1
    capsys.readouterr()
    for _ in range(2):
        code, out = run(*arguments)
        assert code == 0
        assert files_of(out, "a.ome-z1") == ["a.ome-z1.csv"]
    assert (out / "a.ome-z2.classes.csv").read_text() == "saved by hand"
    said = capsys.readouterr().out
    assert said.count("The files of an earlier run were removed.") == 1
    assert [row["status"] for row in summary_of(out)] == ["skipped", "empty", "empty", "skipped"]
    # A point that comes back is classified again.
    write_points(folder / "a.csv", ["z", "y", "x"], POINTS)
    assert run(*arguments)[0] == 0
    found = read_results(out / "a.ome-z1.classes.csv")
    expected = classify_objects(stack[1], POINTS[[3], 1:], classifier)
    np.testing.assert_array_equal(found.labels, expected.labels)


def write_stack(path, stack):
    tifffile.imwrite(path, stack, photometric="rgb", metadata={"axes": "ZYXS"})


def tables_of(out):
    return sorted(path.name.removesuffix(".classes.csv") for path in out.glob("*.classes.csv"))


def test_planes_that_a_stack_has_no_more_keep_no_files(run, folder, stack, capsys):
    write_stack(folder / "b.ome.tif", stack)
    formats = ["--format", "csv", "png", "ome.zarr"]
    run("--z", "all", *formats, images=["a.ome.tif", "b.ome.tif"])
    code, out = run("--z", "2", *formats)
    for name in ("a.ome-z2-notes.classes.csv", "a.ome-z3.txt", "a.ome-z9.classes.csv"):
        (out / name).write_text("of somebody else")
    others = {path.name for path in out.iterdir() if not path.name.startswith("a.ome-z")}
    write_stack(folder / "a.ome.tif", stack[:2])
    capsys.readouterr()
    code, _ = run("--z", "all", *formats)
    assert code == 0
    assert "whose results were removed: a.ome-z2, a.ome-z3." in capsys.readouterr().err
    left = [path.name for path in out.glob("a.ome-z[23]*")]
    assert sorted(left) == ["a.ome-z2-notes.classes.csv", "a.ome-z3.txt"]
    assert (out / "a.ome-z9.classes.csv").read_text() == "of somebody else"
    assert others <= {path.name for path in out.iterdir()}  # of b, and of a single plane of a
    assert [row["status"] for row in summary_of(out)] == ["done", "done"]


def test_planes_that_have_shorter_numbers_now_are_there_once(run, folder, stack):
    write_stack(folder / "a.tif", np.concatenate([stack[:, :, :96]] * 3)[:11])
    run("--z", "all", images=["a.tif"])
    write_stack(folder / "a.tif", stack[:2, :, :96])
    _, out = run("--z", "all", images=["a.tif"])
    assert tables_of(out) == ["a-z0", "a-z1"]
    write_stack(folder / "a.tif", stack[:1, :, :96])
    run("--z", "all", images=["a.tif"])
    assert tables_of(out) == ["a"]


def test_planes_stay_as_long_as_the_image_may_have_them(run, folder, stack):
    write_stack(folder / "a.tif", stack[:2, :, :96])
    _, out = run("--z", "all", images=["a.tif"])
    everything = ["a-z0", "a-z1"]
    write_stack(folder / "b.tif", stack[:2, :, :96])
    run("--z", "all", images=["b.tif"])  # a is not named
    assert tables_of(out) == [*everything, "b-z0", "b-z1"]
    (folder / "a.tif").write_bytes(b"damaged")
    assert run("--z", "all", images=["a.tif"])[0] == 1
    assert tables_of(out) == [*everything, "b-z0", "b-z1"]


def test_an_image_that_became_empty_keeps_no_files_either(run, folder, sheet):
    imsave(folder / "flat.png", sheet[:96, :96])
    write_points(folder / "flat.csv", ["y", "x"], [(48, 48)])
    code, out = run("--points", "{stem}.csv", images=["flat.png"])
    assert (code, files_of(out, "flat")) == (0, ["csv", "provenance.json"])
    write_points(folder / "flat.csv", ["y", "x"], [])
    assert run("--points", "{stem}.csv", images=["flat.png"])[0] == 1
    assert files_of(out, "flat") == []
    (row,) = summary_of(out)
    assert row["status"] == "failed"
    assert row["sentence"].endswith("The files of an earlier run were removed.")


def test_an_image_that_cannot_be_read_any_more_keeps_its_files(run, folder, sheet):
    imsave(folder / "flat.png", sheet[:96, :96])
    _, out = run(images=["flat.png"])
    (folder / "flat.png").write_bytes(b"damaged")
    assert run(images=["flat.png"])[0] == 1
    assert files_of(out, "flat") == ["csv", "provenance.json"]
