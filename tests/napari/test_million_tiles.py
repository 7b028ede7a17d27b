"""The window while a million tiles are classified: its thread always has little to do at a time.

The processor time of the window's thread is measured, which does not depend on what else the
machine does, and what a run makes the window do is counted.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_mambamic._napari import classify_panel, shown_run
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import plan_tiles

_SIDE, _TILE, _BATCHES = 32_000, 32, 100
_MOST_SECONDS = 0.05  # of the processor, without a break


class Run:
    """Takes the place of the network: the classes of a million tiles, without reading an image."""

    def __init__(self, class_names, unsure_below):
        self.tiles = plan_tiles((_SIDE, _SIDE), tile_size=_TILE)
        rng = np.random.default_rng(0)
        self.found = rng.dirichlet(np.ones(len(class_names)), len(self.tiles)).astype(np.float32)
        self.class_names, self.unsure_below = class_names, unsure_below
        self.may_go_on = threading.Event()
        self.n_before = 0  # tiles that an interrupted run has done
        self.blends = False
        self.in_step: threading.Barrier | None = None  # of each batch with the window

    def steps(self, request):
        """What a run yields and returns; after the first step it waits."""
        total, before = len(self.tiles), np.arange(self.n_before)
        results = TileResults(
            self.class_names,
            self.tiles,
            np.full_like(self.found, np.nan),
            None,
            {
                "device": "CPU",
                "layer": {"plane": []},
                "settings": {"cut": "tiles", "unsure_below": self.unsure_below},
                "weights": {},
            },
            complete=False,
        )
        yield Progress(0, total, 0.0, "Starting", None, results)
        self.may_go_on.wait(60)
        done = len(before)
        results.probabilities[before] = self.found[before]
        yield Progress(done, total, 0.0, "Going on", before, results, done)
        for batch in np.array_split(np.arange(done, total), _BATCHES):
            results.probabilities[batch] = self.found[batch]
            if self.in_step is not None:
                self.in_step.wait(60)
            done += len(batch)
            results.complete = done == total
            yield Progress(done, total, 1.0, "Classifying", batch, results, self.n_before)
        return [replace(results, probabilities=self.found[::-1])] if self.blends else [results]


@pytest.fixture
def run(viewer, panel, monkeypatch):
    """A run of the panel, on an image that takes no memory."""
    plane = np.broadcast_to(np.uint8(0), (_SIDE, _SIDE, 3))
    viewer.add_image([plane, plane[::64, ::64]], rgb=True, multiscale=True, name="large")
    run = Run(panel.weights.manifest.class_names, unsure_below=0.3)
    monkeypatch.setattr(classify_panel, "iter_request", run.steps)
    return run


@pytest.fixture
def begin(viewer, panel, run, qtbot):
    """Start the run, and wait until napari has added its layer and drawn it."""

    def start():
        run.may_go_on.clear()
        n_layers = len(viewer.layers)
        panel.run_button.click()
        qtbot.waitUntil(lambda: len(viewer.layers) > n_layers, timeout=60_000)
        qtbot.wait(200)
        run.may_go_on.set()

    return start


def longest_turn(is_over, between=lambda: None):
    """The most processor time of the window's thread in a turn of its event loop."""
    longest = 0.0
    while not is_over():
        between()
        before = time.thread_time()
        QApplication.processEvents()
        longest = max(longest, time.thread_time() - before)
    return longest


def counts_in(panel):
    """What the legend says of each class, the unsure last."""
    rows = range(panel.legend.rowCount())
    return [int(panel.legend.item(row, 1).text().replace(",", "")) for row in rows]


def test_the_window_is_never_held_while_a_million_tiles_are_classified(
    viewer, panel, run, begin, monkeypatch
):
    monkeypatch.setattr(shown_run, "_SECONDS_BETWEEN_UPDATES", 0.0)
    run.in_step = threading.Barrier(2)
    held = []
    for _ in range(3):
        steps = iter(range(_BATCHES))
        begin()

        def let_one_batch_come(steps=steps):
            if next(steps, None) is not None:
                run.in_step.wait(60)

        held.append(longest_turn(lambda: not panel.is_running, let_one_batch_come))
        assert panel.results.complete
        assert viewer.layers[-1].data.all()
    assert min(held) < _MOST_SECONDS  # in some, garbage is collected


@pytest.mark.parametrize("how", ["resumed", "blended"])
def test_the_window_is_never_held_when_everything_is_known_at_once(
    viewer, panel, run, begin, monkeypatch, how
):
    monkeypatch.setattr(shown_run, "_SECONDS_BETWEEN_UPDATES", 3600.0)  # at the end
    if how == "resumed":
        run.n_before = 900_000
    else:
        run.blends = True
    held = []
    for _ in range(3):
        begin()
        held.append(longest_turn(lambda: not panel.is_running))
        found = panel.results.labels
        unsure = panel.results.is_unsure
        expected = np.where(unsure, len(run.class_names) + 1, found + 1)
        np.testing.assert_array_equal(viewer.layers[-1].data.ravel(), expected)
        assert counts_in(panel)[:8] == np.bincount(found, minlength=8).tolist()
    assert min(held) < _MOST_SECONDS


def test_the_window_is_never_held_when_the_threshold_is_changed(viewer, panel, run, begin, finish):
    begin()
    finish(panel)
    layer, held = viewer.layers[-1], []
    for threshold in (0.4, 0.5, 0.6):
        before = time.thread_time()
        panel.unsure_below.setValue(threshold)
        held.append(time.thread_time() - before)
        n_unsure = int((run.found.max(axis=1) < threshold).sum())
        held[-1] = max(
            held[-1], longest_turn(lambda n=n_unsure: layer.features["tiles"].iloc[-1] == n)
        )
        assert (layer.data == len(run.class_names) + 1).sum() == n_unsure
        assert counts_in(panel)[-1] == n_unsure
    assert min(held) < _MOST_SECONDS


def test_batches_that_come_faster_than_the_window_draws_are_shown_together(
    viewer, panel, run, begin, finish, monkeypatch, qtbot
):
    """The bar draws the whole window at once, whenever it moves."""
    monkeypatch.setattr(shown_run, "_SECONDS_BETWEEN_UPDATES", 3600.0)
    begin()
    moves, drawn, thumbnails = [], [], []
    panel.progress.valueChanged.connect(moves.append)
    layer = viewer.layers[-1]
    layer.events.set_data.connect(drawn.append)
    layer.events.thumbnail.connect(thumbnails.append)
    finish(panel)
    assert len(moves) == 0
    most = shown_run._MOST_AT_ONCE
    assert len(drawn) == len(run.tiles) / most + 1  # the tiles, and the end
    assert len(thumbnails) == 1
    assert layer.data.all()
    assert sum(counts_in(panel)[:8]) == len(run.tiles) == layer.features["tiles"][:-1].sum()
