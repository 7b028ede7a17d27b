"""Score a finished run of ``train_blood_cells.py`` on its validation cells and bundle the weights.

Writes the weights and their manifest into the package, and what they scored to
``docs/blood-cells-t.json``: confusion matrix, accuracy in float32 and float16, labels that differ.

    python benchmarks/bundle_blood_cells.py --data pbc96.zip --run runs/blood-cells-t

Then ``store_trust.py`` adds what warnings and conformal sets need.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from train_blood_cells import (
    MEAN,
    SPLIT_SEED,
    STD,
    VALIDATION_SHARE,
    load_cells,
    split,
    without_copies_of_held,
)

from napari_mambamic.classifier import TileClassifier, load_classifier
from napari_mambamic.devices import choose_device
from napari_mambamic.networks import build_network
from napari_mambamic.patches import PatchSpec
from napari_mambamic.weights.checkpoint import save_weights
from napari_mambamic.weights.manifest import Manifest

ROOT = Path(__file__).parents[1]
BUNDLED = ROOT / "src/napari_mambamic/weights/bundled"


def logits_of(classifier: TileClassifier, images: np.ndarray) -> np.ndarray:
    """Logits of uint8 cells, as a user gets them."""
    parts = np.array_split(images, max(1, len(images) // 64))
    return np.concatenate([classifier.predict(part).logits for part in parts])


def scores(logits: np.ndarray, labels: np.ndarray, n_classes: int) -> dict[str, object]:
    """Accuracy, mean recall and confusion matrix (rows: true class)."""
    matrix = np.zeros((n_classes, n_classes), int)
    np.add.at(matrix, (labels, logits.argmax(1)), 1)
    recall = matrix.diagonal() / matrix.sum(1)
    return {
        "accuracy": round(float(matrix.trace() / matrix.sum()), 5),
        "balanced_accuracy": round(float(recall.mean()), 5),
        "confusion": matrix.tolist(),
    }


def main() -> None:
    """Score and bundle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--earlier", type=Path, help="log of the run that it went on from")
    parser.add_argument("--name", default="blood-cells-t")
    args = parser.parse_args()
    state = torch.load(args.run / "last.pt", weights_only=True)
    network_name = state["arguments"]["network"]
    images, labels, classes, _ = load_cells(args.data)
    training, validation = split(labels)
    training = without_copies_of_held(images, training, validation)
    network = build_network(network_name, n_classes=len(classes))
    network.load_state_dict(state["average"])
    log_text = (args.run / "log.jsonl").read_text()
    if args.earlier:
        log_text = args.earlier.read_text() + log_text
    log = [json.loads(line) for line in log_text.splitlines()]
    # The seconds of a run are counted from its beginning.
    ends = [a for a, b in pairwise(log) if b["epoch"] == 1] + log[-1:]
    manifest = Manifest(
        name=args.name,
        title="Blood cells: 8 classes of peripheral blood, stained smears",
        network=network_name,
        class_names=tuple("immature granulocyte" if c == "ig" else c for c in classes),
        patch=PatchSpec(
            tile_size=96,
            patch_size=log[-1]["patch_sizes"][-1],
            channels=("red", "green", "blue"),
            mean=MEAN,
            std=STD,
        ),
        sha256="",
        licence="CC BY 4.0",
        credit=(
            "Trained on images by Acevedo et al., Hospital Clinic of Barcelona, CC BY 4.0 "
            "(doi:10.1016/j.dib.2020.105474)"
        ),
        citation=(
            "Acevedo A. et al. A dataset of microscopic peripheral blood cell images for "
            "development of automatic recognition systems. Data in Brief 30, 105474 (2020)."
        ),
        training_data=(
            f"{len(training):,} single peripheral blood cells, May Grünwald-Giemsa, CellaVision "
            f"DM96, centre-cropped to 200 px and resized to 96 px"
        ),
        split={
            "seed": SPLIT_SEED,
            "validation_share": VALIDATION_SHARE,
            "stratified_by": "class",
            "n_training": len(training),
            "n_validation": len(validation),
            "epochs": len(log),
            "training_minutes": round(sum(end["training_seconds"] for end in ends) / 60),
        },
    )
    exact = logits_of(TileClassifier(network, manifest, choose_device("cpu")), images[validation])
    half = build_network(network_name, n_classes=len(classes))
    half.load_state_dict(
        {
            k: v.half().to(v.dtype) if v.is_floating_point() else v
            for k, v in state["average"].items()
        }
    )
    rounded = logits_of(TileClassifier(half, manifest, choose_device("cpu")), images[validation])
    result = {
        "classes": list(manifest.class_names),
        "n_validation": len(validation),
        "float32": scores(exact, labels[validation], len(classes)),
        "float16": scores(rounded, labels[validation], len(classes)),
        "labels_that_differ": int((exact.argmax(1) != rounded.argmax(1)).sum()),
    }
    metrics = {
        "validation_accuracy": result["float16"]["accuracy"],
        "validation_balanced_accuracy": result["float16"]["balanced_accuracy"],
        "labels_that_differ_from_float32": result["labels_that_differ"],
    }
    manifest = Manifest(**{**manifest.__dict__, "metrics": metrics})
    BUNDLED.mkdir(parents=True, exist_ok=True)
    path = BUNDLED / f"{args.name}.safetensors"
    # A misclassified or doubtful cell would make a poor self-test: take a sure one.
    sure = int(rounded.max(1).argmax())
    save_weights(half, path, manifest, self_test=(images[validation[sure]], rounded[sure]))
    load_classifier(path)
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / f"docs/{args.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (ROOT / f"docs/{args.name}-training.jsonl").write_text(log_text)
    print(json.dumps(metrics), path.stat().st_size)


if __name__ == "__main__":
    main()
