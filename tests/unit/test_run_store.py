"""A run that is interrupted goes on where it was; nothing is done twice but one block."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from napari_mambamic import classify_image, iter_classify
from napari_mambamic.errors import ExportError
from napari_mambamic.image import as_image
from napari_mambamic.run_store import RunStore, key_of

KILLED = """
import os, signal, sys
import numpy as np
import napari_mambamic.run_store as run_store
from napari_mambamic import classify_image, load_classifier

run_store._BLOCK = 24
sheet = np.load(sys.argv[1])

def kill(progress):
    if progress.done >= 58:
        os.kill(os.getpid(), signal.SIGKILL)

classify_image(
    sheet, load_classifier(device="cpu"), batch_size=8, keep_in=sys.argv[2], on_progress=kill
)
"""


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("napari_mambamic.run_store._BLOCK", 24)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_killed_at_60_percent_goes_on_and_equals_one_that_was_not(
    sheet, classifier, tmp_path, small_blocks
):
    np.save(tmp_path / "sheet.npy", sheet)
    arguments = [str(tmp_path / "sheet.npy"), str(tmp_path / "runs")]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], env=os.environ, capture_output=True, timeout=300
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    steps = []
    resumed = classify_image(
        sheet, classifier, batch_size=8, keep_in=tmp_path / "runs", on_progress=steps.append
    )
    assert steps[0].done == 48  # of 64: the block at work is lost
    assert sum(len(step.tiles) for step in steps[1:]) == 48
    whole = classify_image(sheet, classifier, batch_size=8)
    np.testing.assert_array_equal(resumed.probabilities, whole.probabilities)
    assert resumed.complete


def test_a_cancelled_run_loses_nothing(sheet, classifier, tmp_path):
    steps = iter_classify(sheet[:192], classifier, batch_size=8, keep_in=tmp_path)
    while next(steps).done < 16:
        pass
    steps.close()
    steps = iter_classify(sheet[:192], classifier, batch_size=8, keep_in=tmp_path)
    first = next(steps)
    assert first.done == 16
    assert first.results.is_done.sum() == 16


def test_another_image_setting_or_weights_is_another_run(sheet, tmp_path):
    image = as_image(sheet)
    other = sheet.copy()
    other[300:500] = 0
    keys = {
        key_of(image, {"a": 1}),
        key_of(image, {"a": 2}),
        key_of(as_image(other), {"a": 1}),
        key_of(as_image(sheet[:-1]), {"a": 1}),
    }
    assert len(keys) == 4
    assert key_of(as_image(sheet.copy()), {"a": 1}) in keys


def test_a_store_of_another_run_of_that_name_starts_anew(tmp_path):
    store = RunStore(tmp_path, "k" * 24 + "1", 10, 2)
    store.add(np.arange(4), np.ones((4, 2), np.float32))
    store.write()
    assert len(RunStore(tmp_path, "k" * 24 + "1", 10, 2).done()[0]) == 4
    assert len(RunStore(tmp_path, "k" * 24 + "2", 10, 2).done()[0]) == 0
    store.remove()
    assert not store.path.exists()


def test_a_folder_that_cannot_be_written_is_a_sentence(sheet, classifier, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ExportError, match="state of the run cannot be kept in"):
        classify_image(sheet[:96], classifier, keep_in=tmp_path / "file")
