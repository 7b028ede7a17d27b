"""How many tiles per second `classify_many` does, in one process and with workers on this machine.

    python benchmarks/scaling.py --workers 1 2 --json benchmarks/results/scaling.json

The images are TIFF files of the sample cells, 96 tiles each.  The first image is timed apart: until
it is done, the weights are sent and loaded.  Ways take turns, in rounds; told is the median, with
the least and the most.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from distributed import LocalCluster
from skimage.io import imread

import napari_mambamic
from napari_mambamic import classify_many
from napari_mambamic.atomic import written_atomically


def make_images(folder: Path, *, n: int) -> list[Path]:
    """`n` images of 96 tiles."""
    samples = Path(napari_mambamic.__file__).parent / "_napari/samples"
    sheet = imread(samples / "blood-cells.jpg")
    keywords: dict[str, Any] = {"tile": (256, 256), "compression": "zlib", "photometric": "rgb"}
    images = [folder / f"{i}.tif" for i in range(n)]
    for i, path in enumerate(images):
        tifffile.imwrite(path, np.roll(sheet, 96 * i, axis=1), **keywords)
    return images


def seconds_of(paths: list[Path], dask: str | None) -> float:
    """Time of one batch, results written."""
    with tempfile.TemporaryDirectory() as out:
        begin = time.perf_counter()
        summary = classify_many(paths, out=out, device="cpu", dask=dask)
        seconds = time.perf_counter() - begin
    if summary.count("done") != len(paths):
        raise SystemExit(f"{summary}: {[image.sentence for image in summary.images]}")
    return seconds


def measure(images: list[Path], worker_counts: list[int], rounds: int) -> dict[str, Any]:
    """Tiles per second by way, and the seconds that the first image takes."""
    seconds: dict[str, list[float]] = {}
    startup: dict[str, list[float]] = {}

    def time_both(way: str, address: str | None) -> None:
        startup.setdefault(way, []).append(seconds_of(images[:1], address))
        seconds.setdefault(way, []).append(seconds_of(images[1:], address))
        print(f"{way}: {startup[way][-1]:.1f} s, then {seconds[way][-1]:.1f} s", flush=True)

    for _ in range(rounds):
        time_both("one process", None)
        for n in worker_counts:
            with LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=None) as cluster:
                time_both(f"{n} Dask worker{'s' * (n > 1)}", cluster.scheduler_address)
    n_tiles = 96 * len(images[1:])
    return {
        way: {
            "tiles_per_second": round(n_tiles / statistics.median(times), 1),
            "least_and_most": [round(n_tiles / f(times), 1) for f in (max, min)],
            "seconds_of_first_image": round(statistics.median(startup[way]), 1),
        }
        for way, times in seconds.items()
    }


def main() -> None:
    """Measure and print, and write where --json says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory() as folder:
        images = make_images(Path(folder), n=1 + options.images)
        ways = measure(images, options.workers, options.rounds)
    report = {
        "date": date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load_before": load and round(load, 1),
        "torch_threads_of_one_process": torch.get_num_threads(),
        "tiles": 96 * options.images,
        "rounds": options.rounds,
        "ways": ways,
    }
    print(json.dumps(report, indent=2))
    if options.json:
        with written_atomically(options.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
