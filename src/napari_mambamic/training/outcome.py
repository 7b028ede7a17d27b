"""What a run came to: its best weights, with report and manifest."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.patches import prepare_patches
from napari_mambamic.training.calibration import fit_temperature, measured, probabilities_of
from napari_mambamic.training.checkpoint import Checkpoint
from napari_mambamic.training.metrics import evaluate
from napari_mambamic.weights.checkpoint import logits_of
from napari_mambamic.weights.manifest import Manifest

if TYPE_CHECKING:
    from napari_mambamic.training.run import Run


def checkpoint_of(run: Run) -> Checkpoint:
    """The best weights of a run so far, and what they come to on the validation samples."""
    best, samples, validation = run.best, run.samples, run.split.validation
    network = deepcopy(run.learner.averaged).cpu()
    network.load_state_dict(best.weights)
    network.eval().requires_grad_(False)
    temperature = fit_temperature(best.logits, samples.labels[validation])
    report = _report(run, best.logits, temperature)
    manifest = Manifest(
        name="trained-here",
        title=f"trained on {len(samples)} samples of {len(samples.class_names)} classes",
        network=run.origin.network,
        class_names=samples.class_names,
        patch=run.spec,
        sha256="",
        licence="not stated",
        training_data=f"{len(samples)} samples, {date.today().isoformat()}",
        split=report["split"],
        metrics={"validation": _headline(report["validation"])},
        published_filter=run.origin.published_filter,
        temperature=temperature,
    )
    example = samples.pixels[validation[0]]
    stored = deepcopy(network).half().float()  # what will be read back
    example_logits = logits_of(stored, prepare_patches(example[np.newaxis], run.spec))[0]
    return Checkpoint(network, manifest, report, example, example_logits)


def with_test(
    checkpoint: Checkpoint, logits: NDArray[np.float32], labels: NDArray[np.int64]
) -> Checkpoint:
    """The same with its figures on the test samples, from their logits (n, n_classes)."""
    manifest = checkpoint.manifest
    probabilities = probabilities_of(logits, manifest.temperature)
    figures = evaluate(probabilities, labels, manifest.class_names)
    metrics = {**manifest.metrics, "test": _headline(figures)}
    return replace(
        checkpoint,
        manifest=replace(manifest, metrics=metrics),
        report=checkpoint.report | {"test": figures},
    )


def _report(run: Run, logits: NDArray[np.float32], temperature: float) -> dict[str, Any]:
    samples, split = run.samples, run.split
    labels = samples.labels[split.validation]
    before, after = (probabilities_of(logits, t) for t in (1.0, temperature))
    return {
        "class_names": list(samples.class_names),
        "config": asdict(run.config) | {"augmentation": run.learner.batches.augmentation},
        "start": None if run.start is None else str(run.start),
        "device": run.choice.reason,
        "seconds": run.seconds,
        "notes": run.notes,
        "split": {"method": split.method, "counts": _counts(run)},
        "history": [asdict(epoch) for epoch in run.epochs.history],
        "validation": evaluate(after, labels, samples.class_names),
        "calibration": {
            "temperature": temperature,
            "before": measured(before, labels),
            "after": measured(after, labels),
        },
        "validation_indices": split.validation.tolist(),
        "validation_labels": labels.tolist(),
        "validation_predictions": after.argmax(axis=1).tolist(),
        "validation_confidences": [round(float(v), 4) for v in after.max(axis=1)],
    }


def _counts(run: Run) -> dict[str, list[int]]:
    """Samples of each class on each side of the split."""
    labels, n_classes = run.samples.labels, len(run.samples.class_names)
    return {
        name: np.bincount(labels[members], minlength=n_classes).tolist()
        for name, members in (
            ("training", run.split.training),
            ("validation", run.split.validation),
            ("test", run.split.test),
        )
    }


def _headline(figures: dict[str, Any]) -> dict[str, Any]:
    names = ("n", "overall_accuracy", "balanced_accuracy", "f1", "auc")
    return {name: figures[name] for name in names if name in figures}
