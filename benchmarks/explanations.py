"""Measure whether maps tell what the network looks at, on blood cells that it was not trained on.

    python benchmarks/explanations.py --data pbc96.zip

Deletion and insertion (areas under the curve of the probability of the predicted class, see
``explain/faithfulness.py``) of Grad-CAM and occlusion, and of maps that know nothing of the cell:
random ones of the same coarseness, a blob in the middle of the patch, and the Grad-CAM map of
another cell of the same predicted class.  Intervals are 95 %, by bootstrap over cells.  The stage
that Grad-CAM looks at was chosen on the first cells, and the methods are measured on others; all of
them are validation cells of ``train_blood_cells.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from skimage.transform import resize
from train_blood_cells import load_cells, split

from napari_mambamic import deletion_score, explain_patches, insertion_score, load_classifier
from napari_mambamic.explain.faithfulness import randomised_cascade, rank_correlation
from napari_mambamic.explain.grad_cam import DEFAULT_STAGE
from napari_mambamic.explain.maps import Explainer
from napari_mambamic.patches import prepare_patches

RESULT = Path(__file__).parent / "results/explanations.json"
SEED = 7
N_RANDOMISED = 48


def scores(classifier, cells, maps, labels) -> dict[str, np.ndarray]:
    """Deletion and insertion of each cell."""
    return {
        "deletion": deletion_score(classifier, cells, maps, target=labels),
        "insertion": insertion_score(classifier, cells, maps, target=labels),
    }


def in_figures(found: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Mean, and the ends of its 95 % interval."""
    rng = np.random.default_rng(SEED)
    figures = {}
    for name, values in found.items():
        means = values[rng.integers(0, len(values), (2000, len(values)))].mean(axis=1)
        figures[name] = [
            round(float(v), 4) for v in (values.mean(), *np.quantile(means, (0.025, 0.975)))
        ]
    return figures


def without_knowledge(labels: np.ndarray, own: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Maps that know nothing of the cell that they are scored on."""
    rng = np.random.default_rng(SEED)
    n = len(labels)
    random = np.stack([resize(rng.random((8, 8)), (size, size), order=1) for _ in range(n)])
    away = np.arange(size) - (size - 1) / 2
    middle = np.exp(-(away[:, np.newaxis] ** 2 + away**2) / 2 / (size * 3 / 16) ** 2)
    another = own.copy()
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        another[members] = own[np.roll(members, 1)]
    return {
        "random": random,
        "middle of the patch": np.broadcast_to(middle, (n, size, size)),
        "Grad-CAM of another cell of the class": another,
    }


def main() -> None:
    """Choose the stage, measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--choosing", type=int, default=64, help="cells to choose the stage on")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    images, truth, _, _ = load_cells(args.data)
    held = np.random.default_rng(SEED).permutation(split(truth)[1])
    classifier = load_classifier(device="cpu")

    choosing = images[held[: args.choosing]]
    prepared = prepare_patches(choosing, classifier.manifest.patch)
    labels = classifier.predict(choosing).logits.argmax(axis=1)
    stages = {}
    for stage in range(4):
        explainer = Explainer(classifier, "grad-cam", stage=stage)
        maps = np.concatenate(
            [
                explainer.maps(prepared[i : i + 32], labels[i : i + 32])
                for i in range(0, len(choosing), 32)
            ]
        )
        found = in_figures(scores(classifier, choosing, maps, labels))
        stages[str(stage)] = {"map": list(maps.shape[1:]), **found}
        print(stage, stages[str(stage)], flush=True)

    cells = images[held[args.choosing : args.choosing + args.cells]]
    labels = np.concatenate(
        [classifier.predict(part).logits.argmax(axis=1) for part in np.array_split(cells, 10)]
    )
    maps, seconds = {}, {}
    for name, method in (("Grad-CAM", "grad-cam"), ("occlusion", "occlusion")):
        explain_patches(classifier, cells[:2], method=method)  # what is loaded once
        begin = time.process_time()
        maps[name] = explain_patches(classifier, cells, target=labels, method=method)
        seconds[name] = round((time.process_time() - begin) / len(cells), 4)
        print(name, seconds[name], "CPU seconds per cell", flush=True)
    maps |= without_knowledge(labels, maps["Grad-CAM"], cells.shape[1])
    methods = {}
    for name, each in maps.items():
        methods[name] = in_figures(scores(classifier, cells, each, labels))
        print(name, methods[name], flush=True)

    some = slice(0, N_RANDOMISED)
    randomised = {
        part: round(
            rank_correlation(
                maps["Grad-CAM"][some], explain_patches(other, cells[some], target=labels[some])
            ),
            3,
        )
        for part, other in randomised_cascade(classifier)
    }
    result = {
        "weights": classifier.manifest.name,
        "cells": len(cells),
        "cells that the stage was chosen on": len(choosing),
        "chosen stage": DEFAULT_STAGE,
        "stages": stages,
        "methods": methods,
        "CPU seconds per cell": seconds,
        "agreement of Grad-CAM and occlusion (rank correlation)": round(
            rank_correlation(maps["Grad-CAM"], maps["occlusion"]), 3
        ),
        "rank correlation of Grad-CAM after randomising from the head down": randomised,
        "machine": f"{platform.processor() or platform.machine()}, one thread",
        "torch": torch.__version__,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(randomised))


if __name__ == "__main__":
    main()
