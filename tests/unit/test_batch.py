"""Many images: what was done is skipped, what is wrong is named, and nothing stops the rest."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from napari_mambamic import classify_image, read_results
from napari_mambamic.batch import FORMATS, classify_many, find_images
from napari_mambamic.cli import main
from napari_mambamic.errors import ExportError, ImageError, WeightsError

KILLED = """
import os, signal, sys
import napari_mambamic.run_store as run_store
from napari_mambamic import classify_many

run_store._BLOCK = 8

def kill(progress):
    if progress.settled == 1 and progress.step is not None and progress.step.done == 12:
        os.kill(os.getpid(), signal.SIGKILL)

classify_many(sys.argv[2:], out=sys.argv[1], device="cpu", batch_size=4, on_progress=kill)
"""


@pytest.fixture(scope="module")
def slides(sheet, tmp_path_factory):
    """Three files: one of 12 tiles, one that is damaged, one of 24 tiles."""
    folder = tmp_path_factory.mktemp("slides")
    keywords = {"tile": (128, 128), "compression": "zlib", "photometric": "rgb"}
    tifffile.imwrite(folder / "a.tif", sheet[:96], **keywords)
    (folder / "b.tif").write_bytes((folder / "a.tif").read_bytes()[:1000])
    tifffile.imwrite(folder / "c.tif", sheet[384:576], **keywords)
    return [folder / name for name in ("a.tif", "b.tif", "c.tif")]


def statuses(summary):
    return [image.status for image in summary.images]


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_damaged_image_is_named_and_the_others_are_done(slides, sheet, classifier, tmp_path):
    steps = []
    summary = classify_many(
        slides, out=tmp_path / "new", device="cpu", formats=["parquet"], on_progress=steps.append
    )
    assert statuses(summary) == ["done", "failed", "done"]
    assert "b.tif" in summary.images[1].sentence
    results = read_results(tmp_path / "new" / "c.classes.parquet")
    alone = classify_image(sheet[384:576], classifier)
    np.testing.assert_array_equal(results.probabilities, alone.probabilities)
    assert results.provenance["image"]["path"] == str(slides[2])
    assert not (tmp_path / "new" / ".runs").exists()
    a, b, c = rows_of(tmp_path / "new" / "summary.csv")
    assert (a["status"], b["status"], c["status"]) == ("done", "failed", "done")
    assert b["sentence"] == summary.images[1].sentence
    assert [int(row["tiles"]) for row in (a, b, c)] == [12, 0, 24]
    assert {k: int(c[k]) for k in alone.counts} == alone.counts
    assert [step.settled for step in steps if step.outcome] == [1, 2, 3]


def test_what_was_done_is_skipped_until_something_changes(slides, sheet, tmp_path):
    image = tmp_path / "image.tif"
    image.write_bytes(slides[0].read_bytes())

    def status(**options):
        return statuses(classify_many([image], out=tmp_path, device="cpu", **options)).pop()

    assert status() == "done"
    assert status() == "skipped"
    assert status(batch_size=3) == "skipped"
    assert status(formats=["csv", "geojson"]) == "done"
    assert status(formats=["csv", "geojson"]) == "skipped"
    assert status(tile_size=192) == "done"
    assert status(tile_size=192) == "skipped"
    (tmp_path / "image.classes.csv").unlink()
    assert status(tile_size=192) == "done"
    tifffile.imwrite(image, sheet[96:192], photometric="rgb")
    assert status(tile_size=192) == "done"
    skipped = classify_many([image], out=tmp_path, device="cpu", tile_size=192)
    assert skipped.images[0].n_tiles == int(rows_of(tmp_path / "summary.csv")[0]["tiles"]) == 6
    assert sum(skipped.images[0].counts.values()) == 6


def test_files_of_other_settings_do_not_stay_in_other_formats(slides, tmp_path):
    """The provenance beside them would tell the settings of the new run."""

    def written(**options):
        classify_many([slides[0]], out=tmp_path, device="cpu", **options)
        return sorted(path.name.removeprefix("a.classes.") for path in tmp_path.glob("a.*"))

    assert written(formats=["csv", "ome.zarr"]) == ["csv", "ome.zarr", "provenance.json"]
    assert written(formats=["png"]) == ["csv", "ome.zarr", "png", "provenance.json"]
    assert written(formats=["geojson"], tile_size=192) == ["geojson", "provenance.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_batch_goes_on_within_the_image(slides, tmp_path, monkeypatch):
    arguments = [sys.executable, "-c", KILLED, tmp_path, slides[0], slides[2]]
    killed = subprocess.run(arguments, env=os.environ, capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    steps = []
    summary = classify_many(
        [slides[0], slides[2]], out=tmp_path, device="cpu", on_progress=steps.append
    )
    assert statuses(summary) == ["skipped", "done"]
    assert next(s.step.done for s in steps if s.step) == 8  # of 24: the block at work is lost
    whole = classify_many([slides[2]], out=tmp_path / "whole", device="cpu")
    assert summary.images[1].counts == whole.images[0].counts
    assert not (tmp_path / ".runs").exists()


def test_every_format_is_written_and_images_of_one_name_do_not_meet(slides, tmp_path):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "A.tif"
    other.write_bytes(slides[0].read_bytes())
    out = tmp_path / "out"
    summary = classify_many([slides[0], other], out=out, device="cpu", formats=list(FORMATS))
    files = [file for image in summary.images for file in image.files]
    assert len(set(files)) == 2 * len(FORMATS)
    assert all(file.exists() for file in files)
    assert {file.name.split(".")[0][:2] for file in files} == {"a-", "A-"}
    # One by one they do not meet either.
    alone = [classify_many([file], out=tmp_path, device="cpu") for file in (slides[0], other)]
    a, b = (summary.images[0].files[0] for summary in alone)
    assert a.name == "a.classes.csv"
    assert read_results(a).provenance["image"]["path"] == str(slides[0])
    assert read_results(b).provenance["image"]["path"] == str(other)


def test_folders_and_patterns_are_expanded_without_own_results(slides, tmp_path):
    folder = slides[0].parent
    (folder / "a.classes.png").touch()
    (folder / "notes.txt").touch()
    assert find_images([folder]) == slides
    assert find_images([folder / "*.tif", slides[0]]) == slides
    assert find_images([folder / "none.tif"]) == [folder / "none.tif"]
    with pytest.raises(ImageError, match="holds no images"):
        find_images([tmp_path])
    with pytest.raises(ImageError, match="No file fits the pattern"):
        find_images([folder / "*.svs"])


def test_what_cannot_be_done_at_all_is_a_sentence(slides, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "summary.csv").write_text("my,own,table\n1,2,3\n")
    for error, words, keywords in [
        (ExportError, "cannot be made", {"out": tmp_path / "file" / "out"}),
        (ExportError, "not written by napari-mambamic", {"out": tmp_path / "taken"}),
        (ExportError, "no format 'xls'", {"formats": ["csv", "xls"]}),
        (WeightsError, "no weights 'mine'", {"weights": "mine"}),
        (ImageError, "no option 'tilesize'", {"tilesize": 96}),
        (ImageError, "no images", {"paths": []}),
    ]:
        asked = {"paths": slides, "out": tmp_path / "out"} | keywords
        with pytest.raises(error, match=words):
            classify_many(asked.pop("paths"), **asked)
    assert (tmp_path / "taken" / "summary.csv").read_text() == "my,own,table\n1,2,3\n"


def test_the_exit_code_says_whether_all_some_or_none_failed(slides, tmp_path, capsys):
    def run(*paths):
        return main(["classify", *map(str, paths), "--out", str(tmp_path), "--device", "cpu"])

    assert run(slides[0], slides[1]) == 2
    said = capsys.readouterr()
    assert "b.tif" in said.err
    assert "2 images: 1 done, 1 failed" in said.out
    assert run(slides[0]) == 0
    assert "It was done before." in capsys.readouterr().out
    assert run(slides[1]) == 1
    assert run(tmp_path / "*.svs") == 1
    assert "No file fits the pattern" in capsys.readouterr().err
