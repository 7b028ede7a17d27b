"""Do bfloat16 and float32 give the same labels?  On the validation cells of the bundled weights.

python benchmarks/compare_precisions.py --data pbc96.zip [--device cuda] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from train_blood_cells import load_cells, split

from napari_mambamic.classifier import load_classifier


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    images, labels, _, _ = load_cells(options.data)
    _, held = split(labels)
    logits = {}
    for precision in ("float32", "bfloat16"):
        classifier = load_classifier("blood-cells-t", device=options.device, precision=precision)
        batches = np.array_split(held, max(1, len(held) // classifier.batch_size()))
        logits[precision] = np.concatenate([classifier.predict(images[b]).logits for b in batches])
    chosen = {precision: values.argmax(axis=1) for precision, values in logits.items()}
    same = chosen["float32"] == chosen["bfloat16"]
    report = {
        "device": classifier.device.reason,
        "torch": torch.__version__,
        "cells": len(held),
        "labels_that_differ": int((~same).sum()),
        "same_labels": float(same.mean()),
        "largest_logit_difference": float(np.abs(logits["float32"] - logits["bfloat16"]).max()),
        "accuracy": {k: float((v == labels[held]).mean()) for k, v in chosen.items()},
    }
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
