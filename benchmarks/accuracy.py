"""Train and score networks on public microscopy sets, under one budget.

    python benchmarks/accuracy.py --data DATA --set chula --network mambamic-t --out runs

Sets: ``pbc`` (single blood cells, 8 classes), ``chula`` (red cells in smears, 13 classes, split by
field), ``bccd`` (objects of a blood smear, 3 classes, split by field), ``malaria`` (red cells, 2
classes, split by patient), ``jurkat`` (cell cycle, 7 classes, 3 channels).  A run that was
interrupted goes on where it was.  Nothing is chosen on the validation samples: what is scored is
the running mean of the weights after the last epoch.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from napari_mambamic.training.datasets import (
    samples_from_boxes,
    samples_from_folder,
    samples_from_npz,
    samples_from_points,
)
from napari_mambamic.training.fine_tune import TrainConfig, fine_tune
from napari_mambamic.training.samples import Samples

CHULA = (
    "normal", "macrocyte", "microcyte", "spherocyte", "target cell", "stomatocyte", "ovalocyte",
    "teardrop", "burr cell", "schistocyte", "uncategorised", "hypochromia", "elliptocyte",
)  # fmt: skip


def _unpacked(archive: Path, read: Callable[[Path], Samples]) -> Samples:
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
        return read(Path(folder))


def _class_folders(root: Path) -> Samples:
    first = next(root.rglob("*.jpg")).parent.parent
    return samples_from_folder(first)


SETS: dict[str, Callable[[Path], Samples]] = {
    "pbc": lambda data: _unpacked(data / "pbc96.zip", _class_folders),
    "chula": lambda data: _unpacked(
        data / "chula_fields.zip",
        lambda root: samples_from_points(
            root / "fields", root / "points", tile_size=80, class_names=CHULA
        ),
    ),
    "bccd": lambda data: _unpacked(
        data / "bccd.zip", lambda root: samples_from_boxes(root, tile_size=128)
    ),
    "malaria": lambda data: samples_from_npz(data / "malaria50.npz"),
    "jurkat": lambda data: samples_from_npz(data / "jurkat40.npz"),
}


def main() -> None:
    """Train, score, and write a JSON report and the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=SETS, required=True)
    parser.add_argument("--network", default="mambamic-t")
    parser.add_argument("--start", help="weights to start from; by default from scratch")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--patch-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--balance", default="root")
    parser.add_argument("--zoom", type=float, default=1.2)
    parser.add_argument("--gain", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    samples = SETS[options.set](options.data)
    print(len(samples), samples.pixels.shape, samples.counts, flush=True)
    config = TrainConfig(
        network=options.network,
        epochs=options.epochs,
        patch_size=options.patch_size,
        batch_size=options.batch_size,
        balance=options.balance,
        zoom=options.zoom,
        gain=options.gain,
        seed=options.seed,
        choose_best=False,
        validation_share=0.15,
    )
    began = "scratch" if options.start is None else f"from-{options.start}"
    name = f"{options.set}-{options.network}-{began}-seed{options.seed}"
    folder = options.out / name
    begin = time.perf_counter()
    checkpoint = fine_tune(
        samples,
        start=options.start,
        config=config,
        folder=folder,
        on_epoch=lambda progress: print(json.dumps(asdict(progress.history[-1])), flush=True),
    )
    report = checkpoint.report
    report["machine"] = {
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "seconds_of_the_last_session": round(time.perf_counter() - begin),
    }
    checkpoint = replace(checkpoint, report=report)
    checkpoint.save(folder / f"{name}.safetensors")
    figures = report["validation"]
    print(json.dumps({k: v for k, v in figures.items() if not isinstance(v, dict)}, indent=1))
    recalls = {k: round(v["sensitivity"], 3) for k, v in figures["per_class"].items()}
    print(json.dumps(recalls), np.round(report["seconds"] / 60, 1), "minutes")


if __name__ == "__main__":
    main()
