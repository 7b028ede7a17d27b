"""Train and score networks on public microscopy sets, under one budget.

    python benchmarks/accuracy.py --data DATA --set chula --network mambamic-t --out runs
    python benchmarks/accuracy.py --table --out runs --json benchmarks/results/accuracy.json

Sets: ``pbc`` (single blood cells, 8 classes), ``chula`` (red cells in smears, 13 classes, split by
field), ``bccd`` (objects of a blood smear, 3 classes, split by field), ``malaria`` (red cells, 2
classes, split by patient), ``jurkat`` (cell cycle, 7 classes, 3 channels).  Networks: those of the
package, ``mambamic-t-published-filter`` (height and width exchanged in its filters, as released),
``resnet-18``, and ``histogram``: a linear head on colour histograms, the floor.

A run that was interrupted goes on where it was.  Nothing is chosen on the validation samples: what
is scored is the running mean of the weights after the last epoch.  Times are CPU times.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import nn

from napari_mambamic import build_network, list_networks, register_network
from napari_mambamic.networks.yardsticks import ResNet18
from napari_mambamic.training.config import TrainConfig
from napari_mambamic.training.datasets import (
    samples_from_boxes,
    samples_from_folder,
    samples_from_npz,
    samples_from_points,
)
from napari_mambamic.training.fine_tune import fine_tune
from napari_mambamic.training.head import fit_linear
from napari_mambamic.training.metrics import evaluate
from napari_mambamic.training.progress import TrainProgress
from napari_mambamic.training.samples import Samples, without_copies
from napari_mambamic.training.splits import split_samples

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


@dataclass(frozen=True)
class Budget:
    """What every network gets on a set."""

    epochs: int
    patch_size: int
    zoom: float = 1.2
    gain: float | None = None


# Size tells red cells and phases apart, and the amount of DNA phases.
BUDGETS = {
    "pbc": Budget(12, 64),
    "chula": Budget(12, 64, zoom=1.05),
    "bccd": Budget(6, 64),
    "malaria": Budget(6, 48),
    "jurkat": Budget(24, 40, zoom=1.02, gain=1.02),
}
VALIDATION_SHARE = 0.15
FIGURES = ("overall_accuracy", "balanced_accuracy", "f1", "auc")


def published_filter(**sizes: int) -> nn.Module:
    """MambaMIC-T as released."""
    network = build_network("mambamic-t", **sizes)
    network.published_filter = True
    return network


def histogram_floor(samples: Samples, seed: int) -> dict[str, object]:
    """Score logistic regression on the joint histogram of the channels."""
    begin = time.process_time()
    channels = samples.pixels.shape[-1]
    bins = {1: 64, 3: 8}[channels]
    brightest = float(np.quantile(samples.pixels[::20], 0.9999))
    levels = (samples.pixels / brightest * bins).astype(int).clip(0, bins - 1)
    codes = np.zeros(levels.shape[:-1], int)
    for channel in range(channels):
        codes = codes * bins + levels[..., channel]
    counts = [np.bincount(code.ravel(), minlength=bins**channels) for code in codes]
    shares = np.sqrt(np.array(counts, np.float32) / codes[0].size)
    split = split_samples(samples, validation_share=VALIDATION_SHARE, test_share=0.0, seed=seed)
    weight, bias = fit_linear(shares[split.training], samples.labels[split.training])
    logits = (shares[split.validation] @ weight.T + bias).astype(float)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    figures = evaluate(odds, samples.labels[split.validation], samples.class_names)
    return {"validation": figures, "cpu_minutes": (time.process_time() - begin) / 60}


def train(options: argparse.Namespace, samples: Samples, folder: Path) -> dict[str, object]:
    """Train a network, keep its weights in a folder, and report."""
    budget = BUDGETS[options.set]
    config = TrainConfig(
        network=options.network,
        epochs=options.epochs or budget.epochs,
        patch_size=options.patch_size or budget.patch_size,
        batch_size=32,
        learning_rate=options.rate,
        balance=options.balance,
        prior=options.prior,
        zoom=budget.zoom,
        gain=budget.gain,
        seed=options.seed,
        choose_best=False,
        validation_share=VALIDATION_SHARE,
    )
    folder.mkdir(parents=True, exist_ok=True)
    times = folder / "cpu_seconds.txt"  # a line per epoch, because a run may be interrupted
    last = time.process_time()

    def on_epoch(progress: TrainProgress) -> None:
        nonlocal last
        now = time.process_time()
        with open(times, "a") as file:
            print(now - last, file=file)
        last = now
        print(json.dumps(asdict(progress.history[-1])), flush=True)

    checkpoint = fine_tune(
        samples, start=options.start, config=config, folder=folder, on_epoch=on_epoch
    )
    seconds = [float(line) for line in times.read_text().split()]
    checkpoint.report["cpu_minutes"] = sum(seconds) / 60
    checkpoint.save(folder / f"{folder.name}.safetensors")
    return checkpoint.report


def kept_runs(out: Path, kept: Path) -> list[dict[str, object]]:
    """The figures of each run: those that were kept, and those in a folder, which replace them."""
    runs = {}
    for run in json.loads(kept.read_text()) if kept.exists() else []:
        runs[run["set"], run["network"], run["seed"]] = run
    for path in sorted(out.glob("*-scratch-seed*/*.report.json")):
        name, seed = path.name.removesuffix(".report.json").split("-scratch-seed")
        data, network = name.split("-", 1)
        report = json.loads(path.read_text())
        figures = report["validation"]
        runs[data, network, int(seed)] = {
            "set": data,
            "network": network,
            "seed": int(seed),
            **{figure: figures[figure] for figure in FIGURES},
            "cpu_minutes": report["cpu_minutes"],
            "n_validation": figures["n"],
            "intervals": figures["intervals"],
            **asdict(BUDGETS[data]),
        }
    place = [(data, network) for data in BUDGETS for network in NETWORKS]
    return sorted(runs.values(), key=lambda r: (place.index((r["set"], r["network"])), r["seed"]))


def print_table(runs: list[dict[str, object]]) -> None:
    """Mean and, of several seeds, spread (standard deviation) of each network on each set."""
    print("| set | network | seeds | OA | balanced | F1 | AUC | CPU minutes |")
    for (data, network), group in groupby(runs, key=lambda run: (run["set"], run["network"])):
        rows = list(group)
        shown = []
        for figure in FIGURES:
            digits, unit, times = (3, "", 1) if figure == "auc" else (1, " %", 100)
            values = [times * run[figure] for run in rows]
            text = f"{statistics.mean(values):.{digits}f}"
            if len(values) > 1:
                text += f" ± {statistics.stdev(values):.{digits}f}"
            shown.append(text + unit)
        minutes = statistics.mean(run["cpu_minutes"] for run in rows)
        print(f"| {data} | {network} | {len(rows)} | {' | '.join(shown)} | {minutes:.0f} |")


register_network("mambamic-t-published-filter", published_filter)
register_network("resnet-18", ResNet18)
NETWORKS = (*list_networks(), "histogram")


def main() -> None:
    """Train, score, and write a JSON report and the weights; or sum up what was run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--set", choices=SETS)
    parser.add_argument("--network", default="mambamic-t", choices=NETWORKS)
    parser.add_argument("--start", help="weights to start from; by default from scratch")
    parser.add_argument("--epochs", type=int, help="by default those of the budget")
    parser.add_argument("--patch-size", type=int, help="by default that of the budget")
    parser.add_argument("--rate", type=float, help="highest learning rate")
    parser.add_argument("--balance", default="root")
    parser.add_argument("--prior", default="balanced")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--name", help="of the run; by default set, network, start and seed")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="sum up what was run")
    parser.add_argument("--json", type=Path, help="with --table: where each run's figures are kept")
    options = parser.parse_args()
    if options.table:
        if not options.json:
            parser.error("--table wants --json, the file where the figures of all runs are kept")
        runs = kept_runs(options.out, options.json)
        options.json.write_text(json.dumps(runs, indent=1) + "\n")
        print_table(runs)
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    samples = without_copies(SETS[options.set](options.data))
    print(samples.note)
    print(len(samples), samples.pixels.shape, samples.counts, flush=True)
    began = "scratch" if options.start is None else f"from-{Path(options.start).stem}"
    name = options.name or f"{options.set}-{options.network}-{began}-seed{options.seed}"
    folder = options.out / name
    path = folder / f"{name}.report.json"
    if options.network == "histogram":
        report = histogram_floor(samples, options.seed)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        report = train(options, samples, folder)
    report["machine"] = {
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    path.write_text(json.dumps(report, indent=1) + "\n")
    figures = report["validation"]
    print(json.dumps({k: v for k, v in figures.items() if not isinstance(v, dict)}, indent=1))
    recalls = {k: round(v["sensitivity"], 3) for k, v in figures["per_class"].items()}
    print(json.dumps(recalls), round(report["cpu_minutes"], 1), "minutes")


if __name__ == "__main__":
    main()
