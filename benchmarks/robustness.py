r"""How many labels of held-out blood cells change when the picture does.

Some of the cells that the weights were not trained on (of the bundled weights, see
``train_blood_cells.py``), drawn at random, without copies of training cells.  The cells fill their
pictures, so what lies beyond the edges is taken to be their mirror image.

    python benchmarks/robustness.py --data pbc96.zip --json benchmarks/results/robustness.json

The same for other weights for these cells that ``accuracy.py`` trained, with the report that lies
beside them telling which cells were held back:

    python benchmarks/robustness.py --data pbc96.zip --weights weights/blood-cells-s.safetensors \
        --json benchmarks/results/robustness-s.json

The picture, of the figures in the file:

    python benchmarks/robustness.py --json benchmarks/results/robustness.json \
        --picture docs/images/robustness.png
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import SETS
from train_blood_cells import load_cells, split

from napari_mambamic.classifier import load_classifier
from napari_mambamic.explain.robustness import robustness, sampled
from napari_mambamic.training.samples import hash_of, without_copies


def main() -> None:
    """Measure, or draw what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path, help="by default those of the package")
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.data:
        if options.weights is None:
            cells = held_out_by_bundled(options.data)
        else:
            cells = held_out_by(options.weights, options.data)
        report = measured(cells, options.weights, options.cells)
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.picture:
        draw(json.loads(options.json.read_text()), options.picture)


Cells = tuple[np.ndarray, np.ndarray]  # pixels and labels


def held_out_by_bundled(data: Path) -> Cells:
    """The cells that the weights of the package were not trained on, without copies of others."""
    images, labels, _, _ = load_cells(data)
    training, held_out = split(labels)
    seen = {hash_of(images[i]) for i in training}
    unseen = np.array([i for i in held_out if hash_of(images[i]) not in seen])
    return images[unseen], labels[unseen]


def held_out_by(weights: Path, data: Path) -> Cells:
    """The cells that other weights were scored on."""
    report = json.loads(weights.with_suffix(".report.json").read_text())
    samples = without_copies(SETS["pbc"](data.parent))
    held_out = np.array(report["validation_indices"])
    return samples.pixels[held_out], samples.labels[held_out]


def measured(cells: Cells, weights: Path | None, n_cells: int) -> dict[str, object]:
    """The report of some held-out cells."""
    images, labels = cells
    chosen = sampled(len(images), n_cells)
    classifier = load_classifier(*([] if weights is None else [weights]), device="cpu")
    begin = time.perf_counter()
    report = robustness(images[chosen], classifier, labels=labels[chosen])
    print(report.accuracy, report.sentence)
    return {
        **report.to_dict(),
        "seconds": round(time.perf_counter() - begin),
        "held_out": len(images),
        "cells": chosen.tolist(),
    }


def draw(report: dict[str, Any], path: Path) -> None:
    """The chart of the Robustness panel, as a PNG."""
    from qtpy.QtGui import QColor, QPalette
    from qtpy.QtWidgets import QApplication

    from napari_mambamic._napari.chart import Chart

    application = QApplication.instance() or QApplication([])
    application.setPalette(QPalette(QColor("#262930")))  # napari's dark theme
    lines: dict[str, list[float]] = {}
    for row in report["rows"]:
        lines.setdefault(row["perturbation"], [1.0]).append(row["stability"])
    label = "share of labels that stay, by strength (0: unchanged)"
    chart = Chart(label, "Labels that stay", top=1.0)
    chart.setFixedSize(860, 380)
    chart.show_lines({name: (range(len(line)), line) for name, line in lines.items()})
    application.processEvents()
    chart.grab().save(str(path))


if __name__ == "__main__":
    main()
