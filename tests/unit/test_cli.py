"""The command line."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from napari_mambamic.bench import networks
from napari_mambamic.cli import main
from napari_mambamic.weights.store import fetch_weights


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_classify_writes_a_table_and_prints_the_counts(sheet, tmp_path, capsys):
    imsave(tmp_path / "cells.png", sheet[:192])
    arguments = ["classify", str(tmp_path / "cells.png"), "--out", str(tmp_path)]
    assert main([*arguments, "--device", "cpu"]) == 0
    with open(tmp_path / "cells.classes.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 24
    assert "basophil" in capsys.readouterr().out


def test_classify_reads_slides_and_stacks_and_tells_the_plane(sheet, tmp_path, capsys):
    tifffile.imwrite(
        tmp_path / "slide.ome.tif",
        np.stack([255 - sheet[:96], sheet[:96], 255 - sheet[:96]]),
        photometric="rgb",
        tile=(64, 64),
        compression="zlib",
        metadata={"axes": "ZYXS"},
    )
    imsave(tmp_path / "plane.png", sheet[:96])
    tables = []
    for name in ("slide.ome.tif", "plane.png"):
        arguments = ["classify", str(tmp_path / name), "--out", str(tmp_path)]
        assert main([*arguments, "--device", "cpu"]) == 0
        stem = name.rpartition(".")[0]
        tables.append((tmp_path / f"{stem}.classes.csv").read_text(encoding="utf-8"))
    assert tables[0] == tables[1]
    assert "stack of 3 planes: the one at z = 1 of 3 is read" in capsys.readouterr().out
    assert main([*arguments[:1], str(tmp_path / "slide.ome.tif"), "--z", "3"]) == 1
    assert "has 3 planes along z, 0 to 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["classify", "none.png"], "none.png cannot be read"),
        (["classify", "none.png", "--out", "nowhere/else"], "There is no folder nowhere"),
        (["classify", "none.png", "--weights", "mine"], "no weights 'mine'"),
        (["robustness", "cells", "--out", "nowhere/page.html"], "There is no folder nowhere"),
        (["bench", "--json", "nowhere/bench.json"], "There is no folder nowhere"),
        (["demo", "--screenshot", "nowhere/demo.png"], "There is no folder nowhere"),
    ],
)
def test_an_error_is_a_sentence_and_an_exit_code(arguments, words, capsys):
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_channels_that_are_no_colours_are_refused_with_the_name_of_the_file(tmp_path, capsys):
    pixels = np.zeros((4, 96, 96), np.uint16)
    tifffile.imwrite(tmp_path / "four.ome.tif", pixels, metadata={"axes": "CYX"})
    for arguments in (["classify"], ["robustness", "--out", "page.html"]):
        assert main([*arguments, str(tmp_path / "four.ome.tif")]) == 1
        said = capsys.readouterr().err
        assert "has 4 channels and the weights expect 3" in said
        assert "--channels" in said
        assert ("four.ome.tif: " in said) == (arguments == ["classify"])


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 1
    assert "classify the tiles or objects of image files" in capsys.readouterr().out


def test_the_folder_of_the_results_is_made(tmp_path, capsys):
    imsave(tmp_path / "cell.png", np.full((96, 96, 3), 200, np.uint8), check_contrast=False)
    classify = ["classify", str(tmp_path / "cell.png"), "--device", "cpu", "--out"]
    assert main([*classify, str(tmp_path / "new")]) == 0
    assert (tmp_path / "new/cell.classes.csv").exists()
    (tmp_path / "file").write_text("")
    assert main([*classify, str(tmp_path / "file")]) == 1
    assert "cannot be made: File exists" in capsys.readouterr().err


def test_every_option_says_what_it_is(capsys):
    actions = [f"weights {name}" for name in ("import", "fetch", "add", "remove", "export-wsinfer")]
    for command in ("demo", "classify", "train", "robustness", "compare", "bench", *actions):
        with pytest.raises(SystemExit):
            main([*command.split(), "--help"])
        lines = capsys.readouterr().out.partition("options:")[2].splitlines()
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            if line.startswith("  -"):
                assert "  " in line.strip() or following.startswith("     "), line


def test_weights_and_doctor_say_what_there_is(capsys):
    assert main(["weights"]) == 0
    said = capsys.readouterr().out
    assert "blood-cells-t" in said
    assert "98.6% right on 2,050 samples" in said
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "torch" in said
    assert "numba scan      works on cpu" in said


def test_weights_are_added_and_removed_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MAMBAMIC_WEIGHTS_DIR", str(tmp_path / "own"))
    for ending in (".safetensors", ".json"):
        shutil.copy(fetch_weights("default").with_suffix(ending), tmp_path / f"mine{ending}")
    assert main(["weights", "add", str(tmp_path / "mine.safetensors")]) == 0
    size = sum(path.stat().st_size for path in (tmp_path / "own").iterdir())
    capsys.readouterr()
    assert main(["weights", "remove", "mine"]) == 0
    assert capsys.readouterr().out == f"Removed 'mine': {size / 1e6:.1f} MB are free again\n"
    assert not list((tmp_path / "own").iterdir())
    assert main(["weights", "remove", "default"]) == 1
    assert "come with the package and cannot be removed" in capsys.readouterr().err


def test_bench_compares_with_the_published_layout(tmp_path, capsys):
    arguments = ["bench", "--networks", "mambamic-t", "medmamba-t", "--patch-size", "32"]
    arguments += ["--batch-size", "1", "--device", "cpu", "--parts", "forward"]
    assert main([*arguments, "--json", str(tmp_path / "bench.json")]) == 0
    assert "published layout" in capsys.readouterr().out
    report = json.loads((tmp_path / "bench.json").read_text())
    assert list(report["networks"]) == ["mambamic-t", "medmamba-t"]
    for measured in report["networks"].values():
        baseline, in_torch, in_numba, lowered, without_scan, resnet = measured["forward"]
        assert baseline["times_faster"] == 1
        # The yardstick computes the same numbers by a longer way.
        assert in_torch["largest_logit_difference"] < 1e-4
        assert in_numba["largest_logit_difference"] < 1e-4
        assert 0 < lowered["largest_logit_difference"] < 0.1
        assert without_scan["largest_logit_difference"] is None
        for row in (in_torch, in_numba, lowered, without_scan, resnet):
            assert row["times_faster"] == pytest.approx(
                baseline["ms_per_patch"] / row["ms_per_patch"], rel=1e-6
            )


def test_bench_recommends_a_batch_size_and_measures_training_and_memory(capsys, monkeypatch):
    monkeypatch.setattr(networks, "_TRAINING_SIZE", 32)  # the published layout takes its time
    monkeypatch.setattr(networks, "_TRAINING_BATCH", 4)
    parts = ("batches", "training", "memory")
    assert main(["bench", "--patch-size", "32", "--device", "cpu", "--parts", *parts]) == 0
    said = capsys.readouterr().out
    assert re.search(r"Recommended: numba scan, (float32|bfloat16), batches of \d+", said)
    assert re.search(r"training step, 32 px, batch 4", said)
    if sys.platform == "linux":
        assert re.search(r"batch 64: peak memory \d+ MB", said)


def test_train_reads_class_folders_and_saves_weights_that_classify(cells, tmp_path, capsys):
    for row, name in ((0, "basophil"), (7, "platelet")):
        (tmp_path / "cells" / name).mkdir(parents=True)
        for i, cell in enumerate(cells[row]):
            imsave(tmp_path / "cells" / name / f"{i}.png", cell)
    out = tmp_path / "own.safetensors"
    arguments = ["train", str(tmp_path / "cells"), "--out", str(out), "--mode", "head"]
    assert main([*arguments, "--device", "cpu", "--robustness"]) == 0
    said = capsys.readouterr().out
    assert "24 samples: basophil 12, platelet 12" in said
    assert "validation: accuracy 100.0%" in said
    page = (tmp_path / "own.html").read_text(encoding="utf-8")
    assert "<h2>Robustness (validation)</h2><p>" in page
    assert "As they are, 100.0% are classified correctly." in page
    assert "Confusion matrix" in page
    assert "that takes 100 validation samples" in page
    imsave(tmp_path / "cells" / "basophil" / "copy.png", cells[0, 3])
    (tmp_path / "cells" / "platelet" / "12.png").write_bytes(b"")
    assert main([*arguments, "--device", "cpu", "--skip-unreadable", "--drop-copies"]) == 0
    said = capsys.readouterr().out
    assert "1 unreadable images" in said
    assert "1 copies" in said
    assert "24 samples: basophil 12, platelet 12" in said
    imsave(tmp_path / "plane.png", cells[7, 0])
    classify = ["classify", str(tmp_path / "plane.png"), "--weights", str(out)]
    assert main([*classify, "--out", str(tmp_path), "--device", "cpu"]) == 0
    assert "platelet        1  100.0%" in capsys.readouterr().out
    assert main([*arguments[:2], "--out", str(tmp_path / "no" / "w.safetensors")]) == 1
    assert "There is no folder" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "nothing"), "--out", str(out)]) == 1
    assert "neither a folder nor" in capsys.readouterr().err


def test_robustness_of_class_folders_tells_accuracy_and_writes_page_and_figures(
    cells, tmp_path, capsys
):
    for row, name in ((0, "basophil"), (7, "platelet"), (1, "something else")):
        (tmp_path / "cells" / name).mkdir(parents=True)
        imsave(tmp_path / "cells" / name / "0.png", cells[row, 0])
    out = tmp_path / "robust.html"
    arguments = ["robustness", str(tmp_path / "cells"), "--out", str(out), "--device", "cpu"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "The weights have no class something else: no accuracy there." in said
    assert re.search(r"^labels that stay, at +1 +2 +3 +4 +5 of 5\nrotation +\d", said, re.M)
    figures = json.loads((tmp_path / "robust.json").read_text())
    assert (figures["n"], figures["n_known"], len(figures["rows"])) == (3, 2, 35)
    page = out.read_text(encoding="utf-8")
    assert page.count("<svg") == 7
    assert f"<p>Samples: {tmp_path / 'cells'}</p>" in page


def test_robustness_of_an_image_cuts_tiles_and_draws_some(sheet, tmp_path, capsys):
    imsave(tmp_path / "cells.png", sheet[:192])
    arguments = ["robustness", "cells.png", "--out", "r.html", "--most", "2", "--device", "cpu"]
    assert main(arguments) == 0
    figures = json.loads((tmp_path / "r.json").read_text())
    assert (figures["n"], figures["accuracy"]) == (2, None)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"<p>Image: {tmp_path / 'cells.png'}</p>" in page
    assert main([*arguments, "--most", "0"]) == 1
    assert "Choose at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        "train cells --out a.safetensors --seed -1",
        "train cells --out a.safetensors --patch-size 0",
        "robustness cells --out r.html --seed -1",
        "classify a.png --tile-size 0",
        "bench --batch-size 0",
    ],
)
def test_numbers_that_are_too_small_are_told_before_the_work(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments.split())
    assert "is the least" in capsys.readouterr().err


def test_compare_reads_two_tables(sheet, tmp_path, capsys):
    for name, size in (("first", "96"), ("second", "96"), ("third", "48")):
        (tmp_path / name).mkdir()
        imsave(tmp_path / "cells.png", sheet[:96])
        arguments = ["classify", "cells.png", "--out", name, "--device", "cpu"]
        assert main([*arguments, "--tile-size", size]) == 0
    table = tmp_path / "second" / "cells.classes.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    number, y, x, side, _, best, *others = lines[1].split(",")
    shares, trust = ["0.001"] * 7 + ["0.993"], others[8:]
    changed = [number, y, x, side, "platelet", best, *shares, *trust]
    table.write_text("\n".join([lines[0], ",".join(changed), *lines[2:]]) + "\n", encoding="utf-8")
    capsys.readouterr()
    first = "first/cells.classes.csv"
    assert main(["compare", first, str(table), "--out", "compared.csv"]) == 0
    assert "11 of 12 tiles agree (91.7%)" in capsys.readouterr().out
    with open("compared.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["class_b"], rows[0]["agree"]) == ("platelet", "0")
    assert main(["compare", first, "third/cells.classes.csv"]) == 1
    assert "different tiles: 12 of 96 px and 48 of 48 px" in capsys.readouterr().err
