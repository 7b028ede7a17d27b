"""Corrections beside the image: nothing lost, nothing half-written, and samples of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from napari_mambamic.errors import ExportError, SamplesError
from napari_mambamic.image_files import open_image
from napari_mambamic.patches import read_tiles
from napari_mambamic.tiling import Tile
from napari_mambamic.training.corrections import (
    FORMAT,
    SUFFIX,
    Correction,
    Corrections,
    Sidecar,
    samples_from_corrections,
    sidecar_path,
)
from napari_mambamic.training.datasets import samples_from_path
from napari_mambamic.training.samples import samples_from_image

FACTS = {"name": "slide", "path": None, "plane_shape": [64, 96], "channels": None, "axes": []}
A, B, C = Tile(0, 0, 32), Tile(0, 32, 32), Tile(32, 64, 32)


def window(sidecar=None, **more):
    return Corrections(
        sidecar or Sidecar(FACTS), pixel_size_um=(0.5, 0.5), weights="w", sha256="abc", **more
    )


@pytest.fixture
def slide(tmp_path):
    path = tmp_path / "slide.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb")
    return path


def test_a_correction_keeps_all_that_is_known(tmp_path):
    here = window(plane=(4,))
    here.correct(A, "mitosis", old="normal")
    here.sidecar.write(tmp_path / f"x{SUFFIX}")
    content = json.loads((tmp_path / f"x{SUFFIX}").read_text())
    assert content["format"] == FORMAT
    (line,) = content["corrections"]
    assert line.pop("time").startswith("20")
    assert line == {
        "y": 0,
        "x": 0,
        "size": 32,
        "level": 0,
        "plane": [4],
        "pixel_size_um": [0.5, 0.5],
        "old": "normal",
        "new": "mitosis",
        "weights": "w",
        "sha256": "abc",
    }
    assert Sidecar.read(tmp_path / f"x{SUFFIX}") == here.sidecar


def test_two_windows_that_write_keep_what_both_say(tmp_path):
    path = tmp_path / f"x{SUFFIX}"
    one, other = window(), window()
    one.correct(A, "a", old=None)
    other.correct(B, "b", old=None)
    one.sidecar.write(path)
    other.take(other.sidecar.write(path))
    one.take(one.sidecar.write(path))
    assert dict(zip(one.tiles, one.classes, strict=True)) == {A: "a", B: "b"}
    assert dict(zip(other.tiles, other.classes, strict=True)) == {A: "a", B: "b"}


def test_the_last_word_counts_and_a_label_taken_back_stays_away(tmp_path):
    path = tmp_path / f"x{SUFFIX}"
    one, other = window(), window()
    one.correct(A, "a", old="z")
    other.take(one.sidecar.write(path))
    other.correct(A, "b", old="z")
    other.sidecar.write(path)
    one.take(one.sidecar.write(path))
    assert one.class_of(A) == "b"
    other.undo()
    other.undo()
    assert other.class_of(A) == "a"
    other.correct(A, None, old="z")
    other.sidecar.write(path)
    one.take(one.sidecar.write(path))
    assert one.class_of(A) is None
    assert len(one) == 0


def test_a_clock_that_is_behind_does_not_lose_the_word_that_came_last():
    here = window()
    here.correct(A, "a", old=None)
    key = ((), A)
    ahead = replace(here.sidecar.corrections[key], time="2999-01-01T00:00:00.000000+00:00")
    here.take(Sidecar(FACTS, {key: ahead}))
    here.correct(A, "b", old=None)
    assert here.sidecar.joined(Sidecar(FACTS, {key: ahead})).corrections[key].new == "b"


times = st.integers(0, 5).map(lambda s: f"2026-01-01T00:00:0{s}.000000+00:00")
corrections = st.builds(
    Correction,
    tile=st.sampled_from([A, B, C]),
    plane=st.sampled_from([(), (1,)]),
    pixel_size_um=st.none(),
    old=st.sampled_from([None, "a"]),
    new=st.sampled_from([None, "a", "b"]),
    weights=st.just("w"),
    sha256=st.just(""),
    time=times,
)
sidecars = st.lists(corrections).map(lambda said: Sidecar(FACTS, {c.key: c for c in said}))


def words(sidecar):
    return {key: (c.time, c.new) for key, c in sidecar.corrections.items()}


@given(one=sidecars, two=sidecars, three=sidecars)
def test_the_order_in_which_windows_write_does_not_matter(one, two, three):
    assert words(one.joined(two)) == words(two.joined(one))
    assert words(one.joined(two).joined(three)) == words(one.joined(two.joined(three)))
    assert words(one.joined(one)) == words(one)


def test_many_windows_that_write_at_once_lose_nothing(tmp_path):
    path = tmp_path / f"x{SUFFIX}"

    def write(row):
        for column in range(10):
            here = window()  # which does not know what it wrote before, and cannot repeat it
            here.correct(Tile(row, column, 8), "a", old=None)
            here.sidecar.write(path)

    threads = [threading.Thread(target=write, args=(row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Sidecar.read(path).corrections) == 40


WRITER = """
import sys
from napari_mambamic.tiling import Tile
from napari_mambamic.training.corrections import Corrections, Sidecar
facts = {"name": "slide", "path": None, "plane_shape": [64, 96], "channels": None, "axes": []}
here = Corrections(Sidecar(facts))
for i in range(100000):
    here.correct(Tile(0, i, 8), "a", old="b")
    here.sidecar.write(sys.argv[1])
    print(i, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_program_leaves_a_file_that_can_be_read_and_written(tmp_path):
    path = tmp_path / f"x{SUFFIX}"
    for round_ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            said = [writer.stdout.readline() for _ in range(40)]
            time.sleep(0.003 * round_)  # somewhere else in the middle of writing
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
        assert int(said[-1]) == 39
        assert len(Sidecar.read(path).corrections) >= 40
        here = window()
        here.correct(Tile(9, 9, 8), "c", old=None)
        assert here.sidecar.write(path).corrections[(), Tile(9, 9, 8)].new == "c"


def test_a_newer_file_is_refused_and_left_alone(tmp_path):
    path = tmp_path / f"x{SUFFIX}"
    newer = json.dumps({"format": FORMAT + 1, "image": FACTS, "corrections": [{"new": "thing"}]})
    path.write_text(newer)
    with pytest.raises(SamplesError, match="newer napari-mambamic"):
        Sidecar.read(path)
    with pytest.raises(SamplesError, match="newer napari-mambamic"):
        window().sidecar.write(path)
    assert path.read_text() == newer


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1, "image": {}}', "\x00\xff"])
def test_a_damaged_file_is_a_sentence_and_left_alone(tmp_path, content):
    path = tmp_path / f"x{SUFFIX}"
    path.write_text(content)
    with pytest.raises(SamplesError, match="damaged"):
        window().sidecar.write(path)
    assert path.read_text() == content


def test_corrections_of_another_image_are_not_mixed_in(tmp_path):
    path = tmp_path / f"x{SUFFIX}"
    window().sidecar.write(path)
    other = Sidecar(FACTS | {"plane_shape": [1, 2]})
    with pytest.raises(SamplesError, match="64 x 96 px, and this one is 1 x 2 px"):
        other.write(path)


def test_a_folder_that_is_a_file_is_a_sentence(tmp_path):
    (tmp_path / "folder").write_text("no folder")
    with pytest.raises(ExportError, match="cannot be kept"):
        window().sidecar.write(tmp_path / "folder" / f"x{SUFFIX}")


def test_the_file_lies_beside_the_image_else_with_the_user(slide, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    path, note = sidecar_path(slide, name="slide", plane_shape=(64, 96))
    assert (path, note) == (slide.with_name("slide.tif.mambamic.json"), "")
    assert sorted(p.name for p in slide.parent.iterdir()) == ["slide.tif"]
    gone = tmp_path / "not" / "there.tif"
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "elsewhere")
    own, note = sidecar_path(gone, name="there", plane_shape=(1, 1))
    assert str(own) in note
    assert "cannot be written to" in note
    monkeypatch.setattr(Path, "home", lambda: own.parents[1])
    _, note = sidecar_path(gone, name="there", plane_shape=(1, 1))
    assert note.endswith(f"are kept in {Path('~', own.parent.name, own.name)}.")
    several = {
        sidecar_path(None, name="there", plane_shape=(1, 1), pixels=pixels)[0] for pixels in "ab"
    }
    assert len(several | {own}) == 3


# ---- samples ------------------------------------------------------------------------------------


def corrected(slide, **facts):
    path = slide.with_name(slide.name + SUFFIX)
    here = window(Sidecar(FACTS | facts))
    here.correct(A, "b", old="a")
    here.correct(B, "a", old="a")
    here.correct(C, "b", old="a")
    here.correct(C, None, old="a")
    here.sidecar.write(path)
    return path


def test_samples_are_those_of_the_image(slide):
    samples = samples_from_corrections(corrected(slide))
    image = open_image(slide)
    same = samples_from_image(image, [A, B], [1, 0], class_names=["a", "b"])
    assert (samples.pixels == same.pixels).all()
    assert samples.counts == {"a": 1, "b": 1}
    assert samples.labels.tolist() == same.labels.tolist()
    assert samples.names.tolist() == same.names.tolist()
    assert samples.groups.tolist() == same.groups.tolist()


def test_training_takes_the_file_as_any_other(slide):
    assert samples_from_path(corrected(slide)).counts == {"a": 1, "b": 1}


def test_samples_have_the_channels_that_were_classified(slide):
    samples = samples_from_corrections(corrected(slide, channels=[2]))
    assert (samples.pixels == read_tiles(open_image(slide), [A, B])[..., 2:]).all()


def test_samples_of_a_stack_are_of_their_plane(tmp_path):
    path = tmp_path / "stack.ome.tif"
    pixels = np.random.default_rng(1).integers(0, 256, (3, 64, 96), dtype=np.uint8)
    tifffile.imwrite(path, pixels, metadata={"axes": "ZYX"})
    here = window(Sidecar(FACTS | {"axes": ["z"]}), plane=(2,))
    here.correct(B, "x", old=None)
    here.sidecar.write(f"{path}{SUFFIX}")
    samples = samples_from_corrections([f"{path}{SUFFIX}"])
    assert (samples.pixels[0, ..., 0] == pixels[2, :32, 32:64]).all()
    unnamed = window(Sidecar(FACTS | {"axes": ["-3"]}), plane=(2,))
    unnamed.correct(B, "x", old=None)
    unnamed.sidecar.write(tmp_path / f"other{SUFFIX}")
    (tmp_path / "other").write_bytes(path.read_bytes())
    with pytest.raises(SamplesError, match="not named z"):
        samples_from_corrections(tmp_path / f"other{SUFFIX}")


def test_an_image_that_was_never_a_file_is_a_sentence(tmp_path):
    here = window()
    here.correct(A, "a", old=None)
    here.sidecar.write(tmp_path / f"kept{SUFFIX}")
    with pytest.raises(SamplesError, match="never a file"):
        samples_from_corrections(tmp_path / f"kept{SUFFIX}")


def test_without_a_label_there_are_no_samples(slide):
    path = slide.with_name(slide.name + SUFFIX)
    window().sidecar.write(path)
    with pytest.raises(SamplesError, match="no samples"):
        samples_from_corrections(path)
