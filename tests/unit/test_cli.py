"""The command line."""

from __future__ import annotations

import csv
import json

import pytest
from skimage.io import imsave

from napari_mambamic.cli import main


def test_classify_writes_a_table_and_prints_the_counts(sheet, tmp_path, capsys):
    imsave(tmp_path / "cells.png", sheet[:192])
    arguments = ["classify", str(tmp_path / "cells.png"), "--out", str(tmp_path)]
    assert main([*arguments, "--device", "cpu"]) == 0
    with open(tmp_path / "cells.classes.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 24
    assert "basophil" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["classify", "none.png"], "none.png cannot be read"),
        (["classify", "none.png", "--out", "nowhere"], "There is no folder nowhere"),
        (["classify", "none.png", "--weights", "mine"], "no weights 'mine'"),
    ],
)
def test_an_error_is_a_sentence_and_an_exit_code(arguments, words, capsys):
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_weights_and_doctor_say_what_there_is(capsys):
    assert main(["weights"]) == 0
    assert "blood-cells-t" in capsys.readouterr().out
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "torch" in said
    assert "numba scan      works on cpu" in said


def test_bench_compares_with_the_published_layout(tmp_path, capsys):
    arguments = ["bench", "--patch-size", "32", "--batch-size", "1", "--device", "cpu"]
    assert main([*arguments, "--json", str(tmp_path / "bench.json")]) == 0
    assert "published layout" in capsys.readouterr().out
    report = json.loads((tmp_path / "bench.json").read_text())
    baseline, *ours = report["rows"]
    assert baseline["times_faster"] == 1
    assert len(ours) == 2
    for row in ours:
        # The yardstick computes the same numbers by a longer way.
        assert row["largest_logit_difference"] < 1e-4
        assert row["times_faster"] == pytest.approx(
            baseline["ms_per_image"] / row["ms_per_image"], rel=1e-6
        )
