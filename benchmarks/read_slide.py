"""How many patches per second are read from a slide, with and without the cache of tiles.

    python benchmarks/read_slide.py CMU-1-Small-Region.svs --json benchmarks/results/read-slide.json

Patches lie in rows, as `classify_image` reads them.  Each way runs in a fresh process, which also
tells the peak of its memory; "tifffile zarr store" is tifffile's own way to read regions.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from napari_mambamic.atomic import written_atomically
from napari_mambamic.chunks import CACHE_BYTES

WAYS = {"with cache": CACHE_BYTES, "without cache": 0, "tifffile zarr store": None}


def read_all(slide: Path, way: str, patch: int, stride: int) -> dict[str, float]:
    """Read every patch of the plane once, in rows."""
    peak_before = peak_memory_mb()
    begin = time.perf_counter()
    if WAYS[way] is None:
        import tifffile
        import zarr

        data = zarr.open(tifffile.imread(slide, aszarr=True, level=0, series=0), mode="r")
        height, width = data.shape[:2]

        def read(y: int, x: int) -> object:
            return data[y : y + patch, x : x + patch]
    else:
        from napari_mambamic import open_image

        image = open_image(slide, cache_bytes=WAYS[way])
        height, width = image.plane_shape

        def read(y: int, x: int) -> object:
            return image.read(y, x, patch, patch)

    opened = time.perf_counter()
    n = 0
    for y in range(0, height - patch + 1, stride):
        for x in range(0, width - patch + 1, stride):
            read(y, x)
            n += 1
    seconds = time.perf_counter() - opened
    return {
        "seconds_to_open": opened - begin,
        "patches": n,
        "patches_per_second": n / seconds,
        "peak_memory_added_mb": peak_memory_mb() - peak_before,
    }


def peak_memory_mb() -> float:
    """The most memory that this process has held."""
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def measure(options: argparse.Namespace, way: str, stride: int) -> dict[str, float]:
    """Medians over fresh processes."""
    command = [sys.executable, __file__, str(options.slide), "--way", way]
    command += ["--patch", str(options.patch), "--stride", str(stride)]
    runs = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(options.repeats)
    ]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def main() -> None:
    """Compare the ways for patches side by side and for overlapping ones; print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--patch", type=int, default=224, metavar="PX")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--stride", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(read_all(options.slide, options.way, options.patch, options.stride)))
        return
    report: dict[str, object] = {
        "slide": options.slide.name,
        "patch_px": options.patch,
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    for stride in (options.patch, options.patch // 2):
        ways = {way: measure(options, way, stride) for way in WAYS}
        ratio = (
            ways["with cache"]["patches_per_second"] / ways["without cache"]["patches_per_second"]
        )
        report[f"stride_{stride}_px"] = {**ways, "times_faster_with_cache": ratio}
    print(json.dumps(report, indent=2))
    if options.json:
        with written_atomically(options.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
