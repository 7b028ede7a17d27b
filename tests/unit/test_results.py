"""Results, and how they leave."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from napari_mambamic.errors import ExportError
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import plan_tiles, tiles_at_points

NAMES = ("white, small", 'größe "2"', "c")


def results_of(tiles, *, done=None):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), len(tiles)).astype(np.float32)
    if done is not None:
        probabilities[done:] = np.nan
    return TileResults(NAMES, tiles, probabilities, None, {"settings": {"overlap": 0}})


def test_labels_and_counts_leave_out_what_is_not_done():
    results = results_of(plan_tiles((40, 40), tile_size=10), done=10)
    assert (results.labels[:10] == results.probabilities[:10].argmax(1)).all()
    assert (results.labels[10:] == -1).all()
    assert sum(results.counts.values()) == 10
    assert tuple(results.counts) == NAMES


def test_a_table_reads_back_as_it_was(tmp_path):
    results = results_of(plan_tiles((20, 30), tile_size=10), done=5)
    path = results.to_csv(tmp_path / "classes.csv")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row, tile, label, shares in zip(
        rows[:5], results.tiles, results.labels, results.probabilities, strict=False
    ):
        assert (int(row["y"]), int(row["x"]), int(row["size"])) == (tile.y, tile.x, tile.size)
        assert row["class"] == NAMES[label]
        assert [float(row[f"p_{name}"]) for name in NAMES] == pytest.approx(shares, rel=1e-5)
    assert rows[5]["class"] == ""
    provenance = json.loads((tmp_path / "classes.provenance.json").read_text())
    assert provenance == {"settings": {"overlap": 0}, "complete": True}


def test_objects_are_numbered_in_the_table(tmp_path):
    results = results_of(tiles_at_points([(5, 5), (9, 9)], tile_size=3))
    with open(results.to_csv(tmp_path / "a.csv"), newline="", encoding="utf-8") as file:
        assert [row["object"] for row in csv.DictReader(file)] == ["0", "1"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_disk_that_is_full_leaves_the_old_table_as_it_was(tmp_path):
    (tmp_path / "classes.csv").write_text("old")
    # The system refuses to let this process write more than 1000 bytes to a file.
    script = """
import resource, signal, sys
import numpy as np
from napari_mambamic.errors import ExportError
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import plan_tiles
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
grid = plan_tiles((1000, 1000), tile_size=10)
results = TileResults(("a",), grid, np.ones((len(grid), 1), np.float32), None, {})
try:
    results.to_csv(sys.argv[1])
except ExportError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "classes.csv")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "could not be written: File too large. Nothing was changed there; free space" in said
    assert (tmp_path / "classes.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["classes.csv"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ExportError, match="There is no folder"):
        results_of(plan_tiles((9, 9), tile_size=9)).to_csv(tmp_path / "none" / "a.csv")
