"""A Dask cluster computes what one process does, whatever happens to its workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import dask
import numpy as np
import pytest
import tifffile

distributed = pytest.importorskip("distributed")

from napari_mambamic import classify_many, read_results  # noqa: E402
from napari_mambamic.cli import main  # noqa: E402
from napari_mambamic.errors import ClusterError, DeviceError  # noqa: E402

OPTIONS = {"device": "cpu", "formats": ["parquet"], "batch_size": 4}


@pytest.fixture(scope="module")
def cluster():
    """Two workers, each a process with one thread."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def slides(sheet, tmp_path_factory):
    """Files of 36, 0 (damaged) and 12 tiles."""
    folder = tmp_path_factory.mktemp("slides")
    keywords = {"tile": (128, 128), "compression": "zlib", "photometric": "rgb"}
    tifffile.imwrite(folder / "a.tif", sheet[:288], **keywords)
    (folder / "b.tif").write_bytes((folder / "a.tif").read_bytes()[:1000])
    tifffile.imwrite(folder / "c.tif", sheet[384:480], **keywords)
    return [folder / name for name in ("a.tif", "b.tif", "c.tif")]


@pytest.fixture(scope="module")
def in_one_process(slides, tmp_path_factory):
    out = tmp_path_factory.mktemp("here")
    classify_many(slides, out=out, **OPTIONS)
    return out


def same(out, other):
    for name in ("a", "c"):
        got, expected = (read_results(f / f"{name}.classes.parquet") for f in (out, other))
        np.testing.assert_array_equal(got.probabilities, expected.probabilities)
        assert got.complete


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_worker_that_is_killed_midway_changes_nothing(cluster, slides, in_one_process, tmp_path):
    with distributed.Client(cluster, set_as_default=False) as client:
        before = client.run(os.getpid)
        killed = []

        def kill(progress):
            if not killed and progress.step is not None and progress.step.done:
                killed.append(next(iter(before.values())))
                os.kill(killed[0], signal.SIGKILL)

        summary = classify_many(slides, out=tmp_path, dask=client, on_progress=kill, **OPTIONS)
        client.wait_for_workers(2, timeout=60)
        after = client.run(os.getpid)
    assert [image.status for image in summary.images] == ["done", "failed", "done"]
    assert killed
    assert killed[0] not in after.values()
    same(tmp_path, in_one_process)


def test_objects_beside_images_are_classified_on_a_cluster(cluster, slides, tmp_path):
    labels = np.zeros((288, 1152), np.int32)
    for i in range(36):
        row, column = divmod(i, 12)
        labels[row * 96 + 20 : row * 96 + 76, column * 96 + 24 : column * 96 + 70] = 90 - 2 * i
    tifffile.imwrite(tmp_path / "a.tif", labels)
    results = []
    with distributed.Client(cluster, set_as_default=False) as client:
        for out, more in (("here", {}), ("there", {"dask": client})):
            more |= {"objects": tmp_path, "object_scale": 1.5}
            classify_many(slides[:1], out=tmp_path / out, **more, **OPTIONS)
            results.append(read_results(tmp_path / out / "a.classes.parquet"))
    here, there = results
    np.testing.assert_array_equal(there.object_ids, here.object_ids)
    np.testing.assert_array_equal(there.probabilities, here.probabilities)
    assert there.is_done.all()
    assert len(there) == 36


def test_planes_of_a_stack_are_classified_on_a_cluster(cluster, sheet, tmp_path):
    stack = np.stack([sheet[:96, :192], sheet[384:480, :192]])
    path = tmp_path / "s.ome.tif"
    tifffile.imwrite(path, stack, photometric="rgb", metadata={"axes": "ZYXS"})
    with distributed.Client(cluster, set_as_default=False) as client:
        for out, more in (("here", {}), ("there", {"dask": client})):
            summary = classify_many([path], out=tmp_path / out, z="all", **more, **OPTIONS)
            assert [image.status for image in summary.images] == ["done", "done"]
    tables = [
        [read_results(tmp_path / out / f"s.ome-z{z}.classes.parquet") for z in range(2)]
        for out in ("here", "there")
    ]
    for here, there in zip(*tables, strict=True):
        np.testing.assert_array_equal(there.probabilities, here.probabilities)
    assert not np.array_equal(tables[0][0].labels, tables[0][1].labels)


def test_the_command_line_runs_on_a_cluster_and_says_what_failed(
    cluster, slides, in_one_process, tmp_path, capsys
):
    arguments = ["classify", *map(str, slides), "--out", str(tmp_path), "--format", "parquet"]
    arguments += ["--device", "cpu", "--batch-size", "4", "--dask", cluster.scheduler_address]
    assert main(arguments) == 2
    assert "b.tif" in capsys.readouterr().err
    same(tmp_path, in_one_process)
    provenance = json.loads((tmp_path / "a.classes.provenance.json").read_text())
    assert provenance["device"].startswith("Dask workers: CPU")


def test_an_image_that_workers_do_not_see_is_named(cluster, slides, sheet, tmp_path, monkeypatch):
    if not os.path.isdir("/proc/self/cwd"):
        pytest.skip("needs a path that each process sees otherwise")
    monkeypatch.chdir(tmp_path)
    for name in ("unseen.tif", "other.tif"):
        tifffile.imwrite(tmp_path / name, sheet[:96], photometric="rgb")
    (tmp_path / "workers").mkdir()
    tifffile.imwrite(tmp_path / "workers" / "other.tif", sheet[:96, :192], photometric="rgb")
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        client.run(os.chdir, tmp_path / "workers")
    paths = [f"/proc/self/cwd/{name}" for name in ("unseen.tif", "other.tif")]
    summary = classify_many(
        [*paths, slides[2]], out=tmp_path / "out", dask=cluster.scheduler_address, **OPTIONS
    )
    unseen, other, seen = summary.images
    assert (unseen.status, other.status, seen.status) == ("failed", "failed", "done")
    assert "On worker tcp://" in unseen.sentence
    assert "No such file" in unseen.sentence
    assert "finds another file at" in other.sentence
    assert all("that all machines share" in image.sentence for image in (unseen, other))


def test_what_is_wrong_on_the_workers_is_raised_here(cluster, slides, tmp_path):
    with pytest.raises(DeviceError):
        classify_many(
            slides, out=tmp_path, dask=cluster.scheduler_address, device="cuda:7", formats=["csv"]
        )


def test_a_cluster_that_does_not_answer_is_a_sentence(slides, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("napari_mambamic.cluster._CONNECT_S", 0.5)
    for address, words in [
        ("tcp://127.0.0.1:9", "No Dask cluster answers at tcp://127.0.0.1:9"),
        ("nonsense://x", "No Dask cluster answers at nonsense"),
        (str(tmp_path / "none.json"), "There is no scheduler file"),
    ]:
        arguments = ["classify", str(slides[0]), "--out", str(tmp_path), "--dask", address]
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert words in said
        assert "Traceback" not in said
        # What dask computes afterwards, such as the pixels of an image, it computes here.
        assert dask.config.get("scheduler", None) is None
        assert dask.base.get_scheduler() is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_what_was_done_is_kept_when_the_cluster_goes_away(
    slides, in_one_process, tmp_path, monkeypatch
):
    monkeypatch.setattr("napari_mambamic.cluster._CONNECT_S", 10)
    file = tmp_path / "scheduler.json"
    start = [sys.executable, "-m", "dask"]
    scheduler = subprocess.Popen(
        [*start, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    )
    worker = None
    try:
        while not file.exists():
            assert scheduler.poll() is None
            time.sleep(0.1)
        arguments = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--scheduler-file", file]
        worker = subprocess.Popen([*start, "worker", *map(str, arguments)], cwd=tmp_path)

        def kill(progress):
            if progress.step is not None and progress.step.done:
                scheduler.kill()

        with pytest.raises(ClusterError, match=r"went away.*What was done is kept"):
            classify_many(slides, out=tmp_path, dask=file, on_progress=kill, **OPTIONS)
    finally:
        for process in (scheduler, worker):
            if process is not None:
                process.kill()
                process.wait()
    steps = []
    summary = classify_many(slides, out=tmp_path, on_progress=steps.append, **OPTIONS)
    assert 0 < max(s.step.done for s in steps if s.step and s.step.message == "Starting") < 36
    assert [image.status for image in summary.images] == ["done", "failed", "done"]
    for name in ("a", "c"):
        got, expected = (
            read_results(f / f"{name}.classes.parquet") for f in (tmp_path, in_one_process)
        )
        # Batches begin elsewhere after a resumption.
        np.testing.assert_allclose(got.probabilities, expected.probabilities, atol=1e-5)
        np.testing.assert_array_equal(got.labels, expected.labels)
