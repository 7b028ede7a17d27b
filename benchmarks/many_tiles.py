"""A million tiles in the window: how long it stalls, and how much memory a run takes.

    xvfb-run -a python benchmarks/many_tiles.py --json benchmarks/results/many-tiles.json

A dask image of 32,000 x 32,000 px is classified in tiles of 32 px by a network of one layer, so
that the window and the reading are what is measured; a small image was classified before.  A timer
that should fire every 5 ms tells the stalls; for comparison, also while napari by itself adds and
draws an empty layer of so many pixels, and while the view is only moved.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import dask.array as da
import numpy as np
import psutil
import torch
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication
from torch import nn

import napari
from napari_mambamic import Manifest, PatchSpec, register_network
from napari_mambamic._napari.classify_panel import ClassifyPanel
from napari_mambamic.patches import prepare_patches
from napari_mambamic.weights.checkpoint import save_weights


class MeanColour(nn.Module):
    """A linear layer on the mean of each channel."""

    def __init__(self, n_classes: int, in_channels: int) -> None:
        super().__init__()
        self.head = nn.Linear(in_channels, n_classes)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Mean of each channel (n, channels)."""
        return x.mean(dim=(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, n_classes)."""
        return self.head(self.embed(x))


class Probe:
    """Gaps between the firings of a timer, and the most memory that was held then."""

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self._process = psutil.Process()
        self._memory = self._most_memory = self._process.memory_info().rss
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setInterval(5)
        self._timer.timeout.connect(self._fire)
        self._timer.start()

    def _fire(self) -> None:
        now = time.perf_counter()
        self.gaps.append(now - self._last)
        self._last = now
        if len(self.gaps) % 20 == 0:
            self._most_memory = max(self._most_memory, self._process.memory_info().rss)

    @property
    def memory_added_mb(self) -> int:
        """Since it began."""
        return round((self._most_memory - self._memory) / 2**20)

    def stop(self) -> dict[str, float]:
        """Longest gaps in ms."""
        self._timer.stop()
        gaps = np.sort(self.gaps)[::-1] * 1e3
        return {
            "longest_ms": round(float(gaps[0]), 1),
            "tenth_longest_ms": round(float(gaps[min(9, len(gaps) - 1)]), 1),
            "median_ms": round(float(np.median(gaps)), 1),
            "over_50_ms": int((gaps > 50).sum()),
        }


def weights_in(folder: Path) -> Path:
    """Weights of the small network."""
    register_network("mean-colour", MeanColour)
    network = MeanColour(4, 3)
    spec = PatchSpec(32, 32, ("red", "green", "blue"), (0.5,) * 3, (0.5,) * 3)
    patch = np.zeros((32, 32, 3), np.uint8)
    with torch.inference_mode():
        logits = network(torch.from_numpy(prepare_patches(patch[np.newaxis], spec)))[0].numpy()
    manifest = Manifest("mean-colour", "mean colour", "mean-colour", tuple("abcd"), spec, "")
    path = folder / "mean-colour.safetensors"
    save_weights(network, path, manifest, self_test=(patch, logits), dtype="float32")
    return path


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=32_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    def block(block_info):
        where = block_info[None]["array-location"]
        shape = [stop - start for start, stop in where]
        rng = np.random.default_rng([start for start, _ in where])
        return np.broadcast_to(rng.integers(0, 255, 3, dtype=np.uint8), shape)

    count = options.side // 500
    image = da.map_blocks(
        block,
        chunks=((500,) * count, (500,) * count, (3,)),
        dtype=np.uint8,
        meta=np.empty((0, 0, 0), np.uint8),
    )
    small = image[::64, ::64]  # what is drawn; the finest level is only read
    viewer = napari.Viewer()
    app = QApplication.instance()
    panel = ClassifyPanel(viewer)
    viewer.window.add_dock_widget(panel)

    def has_colours() -> bool:
        layer = viewer.layers[-1]
        return isinstance(layer, napari.layers.Labels) and bool(layer.data.any())

    def wait(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            app.processEvents()
            time.sleep(0.001)

    with tempfile.TemporaryDirectory() as folder:
        panel.weights.add_file(weights_in(Path(folder)))
        panel.batch_size.setValue(512)
        viewer.add_image(np.asarray(small), rgb=True, name="small")
        panel.run_button.click()
        while panel.is_running:
            wait(0.05)
        viewer.layers.clear()
        viewer.add_image([image, small], rgb=True, multiscale=True, name="large")
        wait(2)
        probe = Probe()
        viewer.add_labels(np.zeros((options.side // 32,) * 2, np.uint8))
        wait(1)
        adding = probe.stop()
        viewer.layers.pop()
        wait(2)
        probe = Probe()
        begin = time.perf_counter()
        while time.perf_counter() < begin + 10:
            y, x = viewer.scene.camera.center[-2:]
            viewer.scene.camera.center = (y + 20, x + 20)
            wait(0.2)
        idle = probe.stop()
        viewer.reset_view()
        probe, begin, first = Probe(), time.perf_counter(), None
        panel.run_button.click()
        while panel.is_running:
            wait(0.05)
            if first is None and has_colours():
                first = time.perf_counter() - begin
        seconds = time.perf_counter() - begin
        busy = probe.stop()
    done = int(panel.results.is_done.sum())
    report = {
        "tiles": len(panel.results),
        "classified": done,
        "seconds": round(seconds, 1),
        "tiles_per_second": round(done / seconds),
        "first_colours_seconds": first and round(first, 2),
        "stalls_while_napari_adds_an_empty_layer": adding,
        "stalls_while_moving_the_view": idle,
        "stalls_while_classifying": busy,
        "peak_memory_added_mb": probe.memory_added_mb,
        "message": panel.message.text(),
    }
    print(json.dumps(report, indent=1))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    viewer.close()


if __name__ == "__main__":
    main()
