"""A map of 100,000 tiles: how long the window is held by each thing that one does with it.

    xvfb-run -a python benchmarks/embedding_map.py --json benchmarks/results/embedding-map.json

Each step is called on the thread of the window; what it asks of other threads is waited for
separately, while a timer that should fire every 5 ms tells how long the window stood still.
Drawing itself is vispy's, here in software, and is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from many_tiles import Probe
from napari.components import ViewerModel
from qtpy.QtWidgets import QApplication

import napari
from napari_mambamic._napari.embedding_map_panel import EmbeddingMapPanel
from napari_mambamic._napari.from_layer import plane_of_layer
from napari_mambamic._napari.map_features import features_of
from napari_mambamic._napari.to_layers import ResultLayers
from napari_mambamic.explain.embedding_map import embedding_map, find_similar
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import plan_tiles

_CLASSES, _DIMENSIONS, _TIMES = 8, 768, 5


def made_up(count: int) -> TileResults:
    """Results of a square grid, with embeddings around a middle for each class."""
    rows = round(count**0.5)
    tiles = plan_tiles((rows * 16, count // rows * 16), tile_size=16)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, _CLASSES, len(tiles))
    middles = rng.normal(size=(_CLASSES, _DIMENSIONS)).astype(np.float32)
    embeddings = rng.standard_normal((len(tiles), _DIMENSIONS), np.float32) + 2 * middles[labels]
    shares = rng.dirichlet(np.ones(_CLASSES), len(tiles)).astype(np.float32)
    shares[np.arange(len(tiles)), labels] += 1
    shares /= shares.sum(axis=1, keepdims=True)
    names = tuple(f"class {i}" for i in range(_CLASSES))
    provenance = {"weights": {"name": "made up"}, "settings": {}, "layer": {"plane": []}}
    return TileResults(names, tiles, shares, embeddings, provenance)


def opened(results: TileResults) -> tuple[ViewerModel, EmbeddingMapPanel]:
    """A window with the map of the results."""
    viewer = napari.Viewer()
    viewer.window.resize(1400, 900)
    grid = results.tiles
    image = np.zeros((grid.region[2], grid.region[3]), np.uint8)
    layer = viewer.add_image(image, name="image")
    ResultLayers(viewer, [plane_of_layer(viewer, layer)], results)
    panel = EmbeddingMapPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Embedding map", area="right")
    return viewer, panel


def settle(panel: EmbeddingMapPanel) -> None:
    """Wait for what other threads were asked for."""
    while panel.is_busy:
        QApplication.processEvents()
        time.sleep(0.001)
    QApplication.processEvents()


def held(
    step: Callable[[], object],
    panel: EmbeddingMapPanel,
    *,
    before: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Time in ms that a step holds the window, on the clock and of the processor.

    `before` is called before each time, and not measured.

    Where other programs compete for the cores, only the time of the processor is the step's own.
    """
    clock, processor = [], []
    for _ in range(_TIMES):
        before()
        settle(panel)
        begin = time.perf_counter(), time.thread_time()
        step()
        clock.append((time.perf_counter() - begin[0]) * 1e3)
        processor.append((time.thread_time() - begin[1]) * 1e3)
        settle(panel)
    return {
        "processor_median": round(float(np.median(processor)), 1),
        "processor_longest": round(max(processor), 1),
        "clock_median": round(float(np.median(clock)), 1),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = made_up(options.tiles)
    viewer, panel = opened(results)
    settle(panel)
    report: dict[str, object] = {
        "tiles": len(results),
        "dimensions": _DIMENSIONS,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, software drawing",
        "load_at_start": round(os.getloadavg()[0], 1),
    }
    probe, begin = Probe(), time.perf_counter()
    panel.run_button.click()
    settle(panel)
    report["pca_map_seconds"] = round(time.perf_counter() - begin, 2)
    report["window_while_pca"] = probe.stop()
    scatter, camera = panel.scatter, panel.scatter._view.camera
    canvas = scatter.canvas
    colours = scatter._colours
    rng = np.random.default_rng(1)
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    low, high = scatter.points.min(axis=0), scatter.points.max(axis=0)
    circle = (low + high) / 2 + (high - low) / 4 * np.stack([np.cos(angle), np.sin(angle)], 1)
    half = np.sort(rng.choice(len(results), len(results) // 2, replace=False))
    few = half[:: len(half) // 50][:50]
    panel.select(few)  # adds the layers that show it
    panel.select(half)
    settle(panel)
    features = features_of(panel.mapped, None, False)
    report["held_ms"] = {
        "recolour": held(lambda: scatter.colour(colours), panel),
        "choose another colouring": held(
            lambda: panel.colouring.setCurrentIndex(1 - panel.colouring.currentIndex()), panel
        ),
        "find the point under a click": held(lambda: scatter.point_at((150, 150)), panel),
        "select 50 tiles": held(lambda: panel.select(few), panel),
        "select half of the tiles": held(lambda: panel.select(half), panel),
        "select a class": held(panel.select_class, panel),
        "end a lasso of 200 corners": held(lambda: panel._take_lasso(circle, False), panel),
        "ask for features": held(panel.write_features, panel),
        "take features": held(
            lambda: panel._take_features(features),
            panel,
            before=lambda: panel._viewer.layers.remove(features.name),
        ),
        "take features again": held(lambda: panel._take_features(features), panel),
    }

    def redraw() -> None:
        camera.pan((0.1, 0))
        canvas.render()

    report["vispy_draws_ms"] = held(redraw, panel)
    probe = Probe()
    panel._take_lasso(circle, False)
    settle(panel)
    report["window_while_lasso"] = probe.stop()
    begin = time.perf_counter()
    find_similar(results.embeddings, results.embeddings[0], 50)
    report["find_similar_seconds"] = round(time.perf_counter() - begin, 2)
    viewer.close()
    print(json.dumps(report, indent=1), flush=True)
    begin = time.perf_counter()
    embedding_map(results.embeddings, method="t-sne")
    report["t_sne_map_seconds"] = round(time.perf_counter() - begin, 1)
    print(report["t_sne_map_seconds"], "s for t-SNE")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
