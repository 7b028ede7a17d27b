"""Add statistics of the training set, thresholds and conformal scores to weights that exist.

    python benchmarks/store_trust.py --data DATA blood-cells-t red-cell-shapes-t

The samples are split as they were for training.  Up to 4,000 training samples give the statistics,
one half of the validation samples the thresholds, the other half the rates that the manifest names.
The bundled weights also get the temperature that they lacked, from the first half.  The weights
themselves stay as they are; SHA-256 and registry follow.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accuracy import SETS, VALIDATION_SHARE
from numpy.typing import NDArray
from train_blood_cells import augment, load_cells, split, without_copies_of_held

from napari_mambamic.classifier import TileClassifier, load_classifier
from napari_mambamic.patches import PatchSpec, prepare_patches
from napari_mambamic.training.augment import jitter_stain
from napari_mambamic.training.batches import Batches
from napari_mambamic.training.calibration import fit_temperature, reliability
from napari_mambamic.training.config import TrainConfig
from napari_mambamic.training.samples import samples_from_arrays, without_copies
from napari_mambamic.training.splits import split_samples
from napari_mambamic.trust.appearance import appearance_of
from napari_mambamic.trust.assessment import (
    MOST_TRAINING,
    Seen,
    appearance_of_samples,
    assess,
    halves,
)
from napari_mambamic.trust.pixels import pixel_ranges, without_normalisation
from napari_mambamic.weights.checkpoint import (
    SELF_TEST_LOGITS,
    SELF_TEST_PATCH,
    load_network,
    save_weights,
)

ROOT = Path(__file__).parents[1]
BUNDLED = ROOT / "src/napari_mambamic/weights/bundled"
REGISTRY = ROOT / "src/napari_mambamic/weights/registry.json"
# Trained before blur was among the changes.
ALWAYS_IN_FOCUS = ("blood-cells-medmamba-t", "smear-objects-t")
SET_OF = {
    "blood-cells-s": "pbc",
    "blood-cells-medmamba-t": "pbc",
    "red-cell-shapes-t": "chula",
    "smear-objects-t": "bccd",
    "cell-cycle-t": "jurkat",
}


def samples_of(name: str, data: Path) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], object]:
    """Pixels, labels, [training, validation] and groups, as they were for training."""
    if name == "blood-cells-t":
        images, labels, _, _ = load_cells(data / "pbc96.zip")
        training, validation = split(labels)
        return (
            images,
            labels,
            [without_copies_of_held(images, training, validation), validation],
            None,
        )
    samples = SETS[SET_OF[name]](data)
    if name != "cell-cycle-t":  # which was trained with the copy that is in its data
        samples = without_copies(samples)
    sides = split_samples(samples, validation_share=VALIDATION_SHARE, test_share=0.0, seed=0)
    return samples.pixels, samples.labels, [sides.training, sides.validation], samples.groups


def seen_by(
    classifier: TileClassifier, pixels: np.ndarray, cache: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and logits, from the cache where they are in it."""
    if cache is not None and cache.exists():
        with np.load(cache) as file:
            return file["embeddings"], file["logits"]
    parts = [classifier.predict(pixels[i : i + 64]) for i in range(0, len(pixels), 64)]
    embeddings, logits = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("embeddings", "logits")
    )
    if cache is not None:
        np.savez(cache, embeddings=embeddings, logits=logits)
    return embeddings, logits


def changed_appearance(
    name: str, pixels: np.ndarray, spec: PatchSpec, report: Path
) -> NDArray[np.float32]:
    """Appearance (n, k) of samples (n, y, x, channel) as the training changed them."""
    torch.manual_seed(0)
    if name == "blood-cells-t":
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (spec.mean, spec.std))

        def changed(part: np.ndarray) -> torch.Tensor:
            return augment(torch.from_numpy(part), spec.patch_size) * std + mean

    else:
        config = TrainConfig(**json.loads(report.read_text(encoding="utf-8"))["config"])

        def changed(part: np.ndarray) -> torch.Tensor:
            if name in ALWAYS_IN_FOCUS:
                patches = torch.from_numpy(prepare_patches(part, without_normalisation(spec)))
                return jitter_stain(patches, config.gain or 1.12)
            samples = samples_from_arrays(part, ["any"] * len(part), channels=spec.channels)
            batches = Batches(samples, spec, config, torch.device("cpu"))
            return batches.changed_pixels(np.arange(len(part)))

    parts = [changed(pixels[i : i + 64]) for i in range(0, len(pixels), 64)]
    return torch.cat([appearance_of(part) for part in parts]).numpy()


def store(name: str, data: Path, cache: Path | None) -> None:
    """Add to one set of weights."""
    folder = BUNDLED if name == "blood-cells-t" else ROOT / "weights"
    path = folder / f"{name}.safetensors"
    network, manifest, beside = load_network(path)
    classifier = load_classifier(path, device="cpu")
    pixels, labels, (training, validation), groups = samples_of(name, data)
    if len(training) > MOST_TRAINING:
        order = np.random.default_rng(0).permutation(len(training))
        training = training[np.sort(order[:MOST_TRAINING])]
    kept = [None if cache is None else cache / f"{name}-{side}.npz" for side in ("tr", "va")]
    embedded, _ = seen_by(classifier, pixels[training], kept[0])
    held, logits = seen_by(classifier, pixels[validation], kept[1])
    report = path.with_suffix(".report.json")
    if report.exists():
        stated = json.loads(report.read_text(encoding="utf-8"))
        held_back = np.array(stated["validation_indices"])
        same = np.array_equal(held_back, validation)
        same &= stated["validation_labels"] == labels[validation].tolist()
    else:
        stated = manifest.metrics["validation_accuracy"]
        same = abs((logits.argmax(1) == labels[validation]).mean() - stated) < 1e-5
    if not same:
        raise SystemExit(f"{name}: these are not the samples that were held back. Nothing written.")
    if groups is not None:
        groups = np.asarray(groups)[validation]
    temperature, spec = manifest.temperature, manifest.patch
    first, second = halves(len(validation), groups=groups)
    if name == "blood-cells-t":
        temperature = fit_temperature(logits[first], labels[validation][first])
    probabilities, before = (
        torch.from_numpy(logits / t).softmax(dim=1).numpy() for t in (temperature, 1.0)
    )
    errors = [
        reliability(p[second], labels[validation][second])["expected_calibration_error"]
        for p in (before, probabilities)
    ]
    look = [
        appearance_of_samples(pixels[training], spec),
        changed_appearance(name, pixels[training], spec, report),
    ]
    reference, trust = assess(
        Seen(embedded, np.concatenate(look), labels[training]),
        Seen(held, appearance_of_samples(pixels[validation], spec), labels[validation]),
        probabilities,
        groups=groups,
    )
    trust["pixels"] = pixel_ranges(pixels[training], spec)
    manifest = save_weights(
        network,
        path,
        replace(manifest, temperature=temperature, trust=trust),
        self_test=(beside[SELF_TEST_PATCH].numpy(), beside[SELF_TEST_LOGITS].numpy()),
        reference=reference,
    )
    registry = json.loads(REGISTRY.read_text(encoding="utf-8"))
    if name in registry["weights"]:
        registry["weights"][name] |= {
            "size": path.stat().st_size,
            "sha256": manifest.sha256,
            "manifest": json.loads(path.with_suffix(".json").read_text(encoding="utf-8")),
        }
        REGISTRY.write_text(json.dumps(registry, indent=2) + "\n", encoding="utf-8")
    load_classifier(path, device="cpu")
    trust["conformal"] = trust["conformal"]["held_out"]
    print(name, path.stat().st_size, "temperature", temperature, "calibration error", errors)
    print(json.dumps(trust, indent=1), flush=True)


def main() -> None:
    """Add to the weights that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=["blood-cells-t", *SET_OF])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="folder for embeddings")
    options = parser.parse_args()
    for name in options.names:
        store(name, options.data, options.cache)


if __name__ == "__main__":
    main()
