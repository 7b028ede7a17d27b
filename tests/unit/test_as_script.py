"""A script that is made of the provenance of results repeats them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.io import imsave

from napari_mambamic.as_script import gaps_of, script_of
from napari_mambamic.classify import classify_image, classify_objects
from napari_mambamic.errors import ExportError

KEEP_LABELS = "import numpy\nnumpy.save('labels.npy', results.labels)\n"


def run(script, folder):
    """Labels that a script computes in a process of its own."""
    (folder / "again.py").write_text(script + KEEP_LABELS, encoding="utf-8")
    command = [sys.executable, "again.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "labels.npy")


@pytest.mark.parametrize(
    "settings",
    [{}, {"tile_size": 80, "overlap": 16, "region": (96, 0, 192, 288), "skip_background": True}],
)
def test_the_script_repeats_a_run_on_a_file(settings, tmp_path, sheet, classifier):
    path = tmp_path / 'a "quoted" näme.png'
    imsave(path, sheet[:288, :384])
    results = classify_image(sheet[:288, :384], classifier, **settings)
    results.provenance["image"]["path"] = str(path)
    script = script_of(json.loads(json.dumps(results.provenance)))
    assert "..." not in script
    assert ("skip_background" in script) == bool(settings)
    assert len(script.splitlines()) < 16
    np.testing.assert_array_equal(run(script, tmp_path), results.labels)


@pytest.mark.parametrize("settings", [{"object_scale": 1.5}, {"tile_size": 90}])
def test_objects_and_pixels_without_a_file_are_put_in_by_hand(
    settings, tmp_path, sheet, classifier
):
    labels = np.zeros((192, 288), int)
    labels[20:70, 30:70], labels[100:160, 200:280] = 1, 2
    results = classify_objects(sheet[:192, :288], labels, classifier, **settings)
    results.provenance["settings"]["overlap"] = 8  # of the form, and of no meaning to objects
    imsave(tmp_path / "cells.png", sheet[:192, :288])
    np.save(tmp_path / "labels_in.npy", labels)
    script = script_of(results.provenance)
    gaps = [line for line in script.splitlines() if "<-- put here" in line]
    assert [line.split(" = ")[0] for line in gaps] == ["image", "objects"]
    filled = script.replace("image = ...", "import skimage.io, numpy\nimage = FILE").replace(
        "objects = ...", "objects = numpy.load('labels_in.npy')"
    )
    filled = filled.replace("FILE", "skimage.io.imread('cells.png')")
    np.testing.assert_array_equal(run(filled, tmp_path), results.labels)


def test_polygons_and_blending_are_repeated(tmp_path, sheet, classifier):
    path = tmp_path / "cells.png"
    imsave(path, sheet[:288, :384])
    polygons = [[(0, 0), (0, 250.25), (150, 200)], np.array([(100, 100), (100, 384), (288, 384)])]
    results = classify_image(
        sheet[:288, :384], classifier, tile_size=80, overlap=40, within=polygons
    ).blended("gaussian")
    assert 0 < results.is_done.sum() < len(results)
    results.provenance["image"]["path"] = str(path)
    script = script_of(json.loads(json.dumps(results.provenance)))
    assert gaps_of(script) == []
    script += "numpy.save('sure.npy', results.probabilities)\n"
    script = f"import numpy\n{script}"
    np.testing.assert_array_equal(run(script, tmp_path), results.labels)
    sure = np.load(tmp_path / "sure.npy")
    np.testing.assert_allclose(sure, results.probabilities, atol=1e-5)


def test_a_mask_is_put_in_by_hand(sheet, classifier):
    mask = np.zeros((192, 288), bool)
    mask[:, :150] = True
    results = classify_image(sheet[:192, :288], classifier, within=mask)
    results.provenance["layer"] = {"plane": [], "within": "tissue"}
    script = script_of(results.provenance)
    assert gaps_of(script) == ["image", "within"]
    assert "mask of 28800 px, or label image (y, x), of layer 'tissue'" in script
    filled = script.replace("= ...", "= GIVEN.pop(0)")
    names = {"GIVEN": [sheet[:192, :288], mask]}
    exec(filled, names)
    np.testing.assert_array_equal(names["results"].labels, results.labels)


def test_chosen_channels_are_named(tmp_path, sheet, classifier):
    four = np.concatenate([sheet[:96, :192, ::-1], sheet[:96, :192, :1]], axis=2)
    imsave(tmp_path / "four.png", four)
    results = classify_image(four, classifier, channels=[2, 1, 0])
    results.provenance["image"]["path"] = str(tmp_path / "four.png")
    script = script_of(json.loads(json.dumps(results.provenance)))
    names = {}
    exec(script, names)
    assert "channels=[2, 1, 0]" in script
    np.testing.assert_array_equal(names["results"].labels, results.labels)


def test_another_image_in_the_file_is_refused(tmp_path, sheet, classifier):
    results = classify_image(sheet[:96, :192], classifier)
    results.provenance["image"]["path"] = str(tmp_path / "cells.png")
    imsave(tmp_path / "cells.png", sheet[:96, :96])
    with pytest.raises(SystemExit, match="another image"):
        exec(script_of(results.provenance), {})


def test_live_results_have_no_script(sheet, classifier):
    results = classify_image(sheet[:96, :96], classifier)
    with pytest.raises(ExportError, match="Train, press 'Use for Classify'"):
        script_of(results.provenance | {"live": {"labels": 5}})


def test_a_gap_that_was_not_filled_is_an_error_and_not_a_result(sheet, classifier):
    objects = np.array([[50.0, 50.0]])
    results = classify_objects(sheet, objects, classifier, tile_size=96)
    names = {"sheet": sheet}
    script = script_of(results.provenance).replace("image = ...", "image = sheet")
    with pytest.raises((ValueError, TypeError)):
        exec(script, names)
    assert "results" not in names


def test_other_weights_than_those_of_the_run_are_refused(sheet, classifier):
    results = classify_image(sheet[:96, :96], classifier)
    results.provenance["weights"]["sha256"] = "0" * 64
    script = script_of(results.provenance).replace("image = ...", "image = sheet")
    with pytest.raises(SystemExit, match="other weights"):
        exec(script, {"sheet": sheet})


def test_weights_that_are_not_registered_are_put_in_by_hand(sheet, classifier):
    results = classify_image(sheet[:96, :96], classifier)
    results.provenance["weights"]["name"] = "mine"
    assert "weights = ...  # <-- put here" in script_of(results.provenance)


def test_a_plane_of_a_volume_is_put_in_by_hand(sheet, classifier):
    results = classify_image(sheet[:96, :96], classifier)
    results.provenance["image"]["path"] = "stack.tif"
    results.provenance["layer"] = {"name": "stack", "plane": [3], "objects": None}
    script = script_of(results.provenance)
    assert "plane [3], of stack.tif" in script
    assert "open_image" not in script


@given(
    name=st.text(),
    path=st.none() | st.text(min_size=1) | st.just("a\nimport os\r\x00"),
    plane=st.lists(st.integers(0, 9), max_size=1),
)
def test_no_name_of_an_image_becomes_code(name, path, plane):
    provenance = {
        "created": "2026-11-21T13:00:00Z",
        "versions": {"python": "3.11"},
        "image": {
            "name": name,
            "plane_shape": [9, 9],
            "n_channels": 1,
            "dtype": "uint8",
            "path": path,
        },
        "layer": {
            "name": name,
            "plane": plane,
            "objects": name,
            "within": name,
            "channels": [name],
        },
        "weights": {"name": name, "sha256": name},
        "precision": "float32",
        "settings": {"cut": "objects", "tile_size": 9, "within": name},
    }
    script = script_of(provenance)
    kinds = [type(statement).__name__ for statement in ast.parse(script).body]
    assert kinds[-3:] == ["If", "Assign", "Expr"]
    assert set(kinds[:-3]) <= {"ImportFrom", "Assign", "If"}
    assert kinds.count("If") == 1 + ("open_image(" in script)
    imported = [line for line in script.splitlines() if "import" in line and line[0] != "#"]
    assert imported[0].startswith("from napari_mambamic import classify_objects")


@given(name=st.text(), path=st.none() | st.text() | st.just("a\nimport os\r\x00"))
def test_no_name_of_a_channel_becomes_code(name, path):
    image = {"name": name, "plane_shape": [9, 9], "n_channels": 2, "dtype": name, "path": path}
    of_axis = {"layer": name, "path": path, "leading_axes": 2, "axis": 1, "number": 0}
    other = {"layer": f"{name} 2", "path": path, "leading_axes": 0, "axis": None, "number": 0}
    provenance = {
        "created": "2026-11-21T13:00:00Z",
        "versions": {"python": "3.11"},
        "image": image,
        "layer": {
            "name": name,
            "plane": [1, 0],
            "planes": [[0, 0], [1, 0]],
            "objects": name,
            "points": True,
            "within": name,
            "channels": [name, name],
            "channel_axis": 1,
            "channel_sources": [of_axis, other],
        },
        "weights": {"name": "default", "sha256": name},
        "precision": "float32",
        "settings": {"cut": "objects", "tile_size": 9, "within": name or "mask of 3 px"},
    }
    script = script_of(provenance)
    assert gaps_of(script)[:4] == ["stack_1", "stack_2", "points", "mask"]
    kinds = [type(statement).__name__ for statement in ast.parse(script).body]
    assert kinds.count("For") == 1
    assert set(kinds) == {"Import", "ImportFrom", "Assign", "If", "For"}
    assert "stack_1[plane[0], 0]" in script
    imported = [line for line in script.splitlines() if "import" in line and line[0] != "#"]
    assert imported[0] == "import numpy as np"
    assert len([line for line in imported if line.startswith(("import", "from"))]) == 3
