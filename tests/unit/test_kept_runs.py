"""Long runs on files are kept without being asked for, and go when they are complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from napari_mambamic import iter_classify, kept_runs
from napari_mambamic.image import as_image
from napari_mambamic.kept_runs import KeptRuns, tidy
from napari_mambamic.progress import drained

N, CLASSES = 300, 2


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "slide.tif"
    path.write_bytes(b"pixels")
    return path


@pytest.fixture
def runs(tmp_path, file):
    return KeptRuns(tmp_path / "runs", (str(file),))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("napari_mambamic.run_store._BLOCK", 24)
    monkeypatch.setattr("napari_mambamic.kept_runs.LEAST_TILES", 50)


def image_of(seed=0):
    return as_image(np.random.default_rng(seed).integers(0, 255, (90, 90)).astype(np.uint8))


def run_of(runs, image=None, n=N, **decisive):
    return runs.run_of(image or image_of(), decisive, n, CLASSES)


def some(first, n):
    return np.arange(first, first + n), np.ones((n, CLASSES), np.float32)


def states(runs):
    return sorted(path.name for path in runs.folder.glob("*"))


def interrupted(runs, image=None, **decisive):
    run = run_of(runs, image, **decisive)
    run.add(*some(0, 24))
    run.end(complete=False)


def test_a_long_run_goes_on_and_a_complete_one_leaves_nothing(runs, small_blocks):
    run = run_of(runs)
    assert states(runs) == [run.path.with_suffix(".lock").name]
    run.add(*some(0, 23))
    assert not run.path.exists()
    run.add(*some(23, 1))
    assert run.path.exists()
    run.end(complete=False)
    again = run_of(runs)
    assert len(again.done()[0]) == 24
    again.end(complete=True)
    assert states(runs) == []


def test_what_was_short_leaves_nothing(runs, small_blocks):
    run = run_of(runs)
    run.add(*some(0, 5))
    run.end(complete=False)
    assert states(runs) == []
    assert run_of(runs, n=49) is None


def test_slow_runs_are_written_after_a_minute(runs, monkeypatch):
    run = run_of(runs)
    run.add(*some(0, 3))
    assert not run.path.exists()
    now = time.monotonic()
    monkeypatch.setattr("napari_mambamic.run_store.time.monotonic", lambda: now + 61)
    run.add(*some(3, 3))
    run.end(complete=False)
    assert len(run_of(runs).done()[0]) == 6


def test_another_file_setting_plane_or_pixel_in_memory_is_another_run(runs, file, small_blocks):
    interrupted(runs)
    one_pixel = image_of()
    one_pixel.levels[0].data[45, 33] ^= 1
    others = [
        run_of(runs, one_pixel),
        run_of(runs, tile_size=9),
        run_of(KeptRuns(runs.folder, runs.files, (1,))),
    ]
    same = run_of(runs)
    assert [len(run.done()[0]) for run in (*others, same)] == [0, 0, 0, 24]
    for run in (*others, same):
        run.end(complete=False)
    file.write_bytes(b"other pixels")
    assert len(run_of(runs).done()[0]) == 0


def test_a_run_that_another_program_is_at_is_left_to_it(runs, small_blocks):
    first = run_of(runs)
    first.add(*some(0, 24))
    assert run_of(runs) is None
    first.end(complete=False)
    assert len(run_of(runs).done()[0]) == 24


def test_old_runs_and_too_many_are_removed_but_not_one_at_work(runs, small_blocks, monkeypatch):
    for number in range(4):
        interrupted(runs, number=number)
    paths = [run_of(runs, number=number).path for number in range(4)]
    for age, path in zip((40, 3, 2, 1), paths, strict=True):
        for each in path.rglob("*"):
            os.utime(each, (time.time() - age * 86_400,) * 2)
    tidy(runs.folder)
    assert [path.exists() for path in paths] == [False, True, True, True]
    size = sum(each.stat().st_size for each in paths[1].rglob("*") if each.is_file())
    monkeypatch.setattr("napari_mambamic.kept_runs.MOST_BYTES", int(2.5 * size))
    tidy(runs.folder)
    assert [path.exists() for path in paths] == [False, False, True, True]
    at_work = run_of(runs, number=2)
    monkeypatch.setattr("napari_mambamic.kept_runs.MOST_BYTES", 0)
    tidy(runs.folder)
    assert [path.exists() for path in paths] == [False, False, True, False]
    at_work.end(complete=True)


def test_a_damaged_state_is_begun_anew(runs, small_blocks):
    interrupted(runs)
    path = next(runs.folder.glob("*.zarr"))
    for chunk in (path / "probabilities").rglob("c/*/*"):
        chunk.write_bytes(b"rubbish")
    run = run_of(runs)
    assert len(run.done()[0]) == 0
    run.add(*some(0, 24))
    run.end(complete=False)
    assert len(run_of(runs).done()[0]) == 24


def test_a_run_without_room_goes_on_without_being_kept(runs, small_blocks, monkeypatch):
    (runs.folder.parent / "runs").write_text("a file where the folder should be")
    assert run_of(runs) is None
    (runs.folder.parent / "runs").unlink()
    run = run_of(runs)
    shutil.rmtree(runs.folder)
    runs.folder.write_text("the folder went away")
    run.add(*some(0, 24))
    run.add(*some(24, 24))
    run.end(complete=False)
    assert runs.folder.is_file()


KILLED = """
import os, signal, sys
import numpy as np
import napari_mambamic.run_store as run_store
from napari_mambamic import iter_classify, kept_runs, load_classifier

run_store._BLOCK, kept_runs.LEAST_TILES = 24, 50
keep_in = kept_runs.KeptRuns(kept_runs.kept_runs_folder(), (sys.argv[1],))
classifier = load_classifier(device="cpu")
for step in iter_classify(np.load(sys.argv[1]), classifier, batch_size=8, keep_in=keep_in):
    if step.done >= 58:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_run_goes_on_and_equals_one_that_was_not(
    sheet, classifier, tmp_path, small_blocks, monkeypatch
):
    path = str(tmp_path / "sheet.npy")
    np.save(path, sheet)
    monkeypatch.setenv("MAMBAMIC_RUNS_DIR", str(tmp_path / "runs"))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, path], env=os.environ, capture_output=True, timeout=300
    )
    assert killed.returncode == -9, killed.stderr
    keep_in = KeptRuns(kept_runs.kept_runs_folder(), (path,))
    steps = []
    run = iter_classify(sheet, classifier, batch_size=8, keep_in=keep_in)
    resumed = drained(run, steps.append)
    assert {step.before for step in steps} == {48}
    assert sum(len(step.tiles) for step in steps[1:]) == len(resumed) - 48
    assert steps[1].tiles_per_second == pytest.approx(8 / steps[1].seconds)
    whole = drained(iter_classify(sheet, classifier, batch_size=8))
    np.testing.assert_array_equal(resumed.probabilities, whole.probabilities)
    assert states(keep_in) == []
