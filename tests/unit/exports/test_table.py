"""Tables: what is written is read back."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest
from pyarrow import parquet
from result_cases import CASES, NAMES, assert_same

from napari_mambamic import read_results
from napari_mambamic.errors import ExportError


def test_csv_reads_back_to_the_digits_that_it_shows(results, tmp_path):
    assert_same(read_results(results.to_csv(tmp_path / "a.csv")), results, exactly=False)


def test_a_table_that_a_spreadsheet_saved_again_is_read(results, tmp_path):
    path = results.to_csv(tmp_path / "a.csv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n")
    assert_same(read_results(path), results, exactly=False)


def test_parquet_reads_back_exactly(results, tmp_path):
    read = read_results(results.to_parquet(tmp_path / "a.parquet"))
    assert_same(read, results)
    assert type(read.tiles) is type(results.tiles)


def test_other_programs_find_the_columns_of_a_parquet_file(tmp_path):
    results = CASES["points"]()
    table = parquet.read_table(results.to_parquet(tmp_path / "a.parquet"))
    assert table.column_names == [
        *("tile", "y", "x", "size", "object", "class", "probability"),
        *(f"p_{name}" for name in NAMES),
    ]
    rows = table.to_pylist()
    assert (rows[0]["class"], rows[0]["probability"], rows[0]["p_two words"]) == (None, None, None)
    assert [row["class"] for row in rows[1:]] == [NAMES[i] for i in results.labels[1:]]
    best = [np.float32(row["probability"]) for row in rows[1:]]
    assert best == results.probabilities[1:].max(axis=1).tolist()
    described = json.loads(table.schema.metadata[b"mambamic"])
    assert described["provenance"] == results.provenance


def test_csv_of_a_tile_that_was_not_classified_is_kept_and_empty(tmp_path):
    results = CASES["partial grid"]()
    with open(results.to_csv(tmp_path / "a.csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results)
    assert [row["class"] == "" for row in rows] == (~results.is_done).tolist()
    assert rows[0]["probability"] == rows[0]["p_two words"] == ""


def test_without_pyarrow_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExportError, match=r"pip install 'napari-mambamic\[exports\]'"):
        CASES["grid"]().to_parquet(tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["csv", "parquet", "geojson", "geojson.gz"])
def test_a_file_of_another_program_is_refused_with_a_sentence(ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ExportError, match=r"was saved|were saved|cannot be read"):
        read_results(path)
    path.unlink()
    with pytest.raises(ExportError, match="cannot be read"):
        read_results(path)


def test_a_table_of_another_program_is_refused(tmp_path):
    import pyarrow

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"tile": [1]}), path)
    with pytest.raises(ExportError, match="were saved by napari-mambamic"):
        read_results(path)


def test_an_unknown_ending_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"none of the endings .csv, .parquet"):
        read_results(tmp_path / "a.txt")
