"""The window while a million tiles are classified: its thread always has little to do at a time.

The processor time of the window's thread is measured, which does not depend on what else the
machine does, and what a run makes the window do is counted.
"""

from __future__ import annotations

import itertools
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_mambamic._napari import classify_panel
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
        self.in_step: threading.Barrier | None = None  # of each batch with the window

    def steps(self, request):
        """What a run yields and returns; after the first step it waits."""
        total = len(self.tiles)
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
        yield Progress(0, total, message="Starting", results=results)
        self.may_go_on.wait(60)
        done = 0
        for batch in np.array_split(np.arange(total), _BATCHES):
            results.probabilities[batch] = self.found[batch]
            if self.in_step is not None:
                self.in_step.wait(60)
            done += len(batch)
            results.complete = done == total
            yield Progress(done, total, 1.0, "Classifying", batch, results)
        return [results]


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


def test_the_window_is_never_held_while_a_million_tiles_are_classified(
    viewer, panel, run, begin, monkeypatch
):
    # By this clock, which moves when it is looked at, every fifth batch or so is shown.
    clock = SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(classify_panel, "time", clock)
    run.in_step = threading.Barrier(2)
    held = []

    def handle_events():
        before = time.thread_time()
        QApplication.processEvents()
        held[-1].append(time.thread_time() - before)

    for _ in range(3):
        held.append([])
        begin()
        for _ in range(_BATCHES):
            run.in_step.wait(60)
            handle_events()
        while panel.is_running:
            handle_events()
        assert panel.results.complete
        assert viewer.layers[-1].data.all()
    assert min(max(each) for each in held) < _MOST_SECONDS  # in some, garbage is collected


def test_batches_that_come_faster_than_the_window_draws_are_shown_together(
    viewer, panel, run, begin, finish, monkeypatch, qtbot
):
    """The bar draws the whole window at once, whenever it moves."""
    monkeypatch.setattr(classify_panel, "_SECONDS_BETWEEN_UPDATES", 3600.0)
    begin()
    moves, drawn, thumbnails = [], [], []
    panel.progress.valueChanged.connect(moves.append)
    layer = viewer.layers[-1]
    layer.events.set_data.connect(drawn.append)
    layer.events.thumbnail.connect(thumbnails.append)
    finish(panel)
    assert len(moves) == 1  # with the first tiles
    assert len(drawn) == 3  # the first tiles, the others, and the end
    assert len(thumbnails) == 1
    assert layer.data.all()
    counts = [int(panel.legend.item(row, 1).text().replace(",", "")) for row in range(8)]
    assert sum(counts) == len(run.tiles) == layer.features["tiles"][:-1].sum()
