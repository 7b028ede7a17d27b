"""One HTML file that says how weights were made and how good they are."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.io import imsave

from napari_mambamic.atomic import written_atomically
from napari_mambamic.pages import line_chart, page, table
from napari_mambamic.training.calibration import FEWEST_TO_MEASURE
from napari_mambamic.training.samples import Samples

_MOST_ERRORS = 48


def write_report(
    report: dict[str, Any],
    path: str | os.PathLike[str],
    *,
    samples: Samples | None = None,
    sections: Mapping[str, str] | None = None,
) -> Path:
    """Write the report of a checkpoint as one HTML file that needs nothing else.

    Parameters
    ----------
    report : dict
        Of `Checkpoint`.
    path : path
    samples : Samples, optional
        Those of the run: the validation samples that are classified wrongly are then shown.
    sections : mapping of str, optional
        More to show, as HTML by its heading.
    """
    names = report["class_names"]
    parts = [
        f"<h1>Training report</h1><p>{escape(_headline(report))}</p>",
        *(_figures(report[part], part) for part in ("validation", "test") if part in report),
        "<h2>Confusion matrix (validation)</h2><p>Rows: true class. Columns: predicted.</p>",
        _confusion(np.array(report["validation"]["confusion_matrix"]), names),
        "<h2>Curves</h2>",
        _curves(report["history"]),
        "<h2>Calibration</h2>",
        _calibration(report["calibration"]),
        "<h2>Data and split</h2>",
        f"<p>{escape(report['split']['method'])}</p>",
        table(
            ["class", *report["split"]["counts"]],
            [[n, *c] for n, *c in zip(names, *report["split"]["counts"].values(), strict=True)],
        ),
        "<h2>Settings</h2>",
        table(["setting", "value"], [[k, str(v)] for k, v in _settings(report).items()]),
    ]
    for heading, html in (sections or {}).items():
        parts += [f"<h2>{escape(heading)}</h2>", html]
    if samples is not None:
        parts += [
            "<h2>Validation samples classified wrongly</h2>",
            _errors(report, samples),
        ]
    with written_atomically(path) as temporary:
        temporary.write_text(page("Training report", parts), encoding="utf-8")
    return Path(path)


def wrong_samples(report: dict[str, Any]) -> list[tuple[int, int, int, float]]:
    """(sample, true class, predicted class, confidence) of errors, the most confident first."""
    figures = zip(
        report["validation_indices"],
        report["validation_labels"],
        report["validation_predictions"],
        report["validation_confidences"],
        strict=True,
    )
    return sorted((f for f in figures if f[1] != f[2]), key=lambda f: -f[3])


def mean_in_words(figures: dict[str, Any]) -> str:
    """Say over which classes means of these figures are.

    >>> mean_in_words({"per_class": {"a": {"n": 4}, "b": {"n": 0}, "c": {"n": 2}}})
    'mean over the 2 classes with samples'
    >>> mean_in_words({"per_class": {"a": {"n": 4}, "b": {"n": 0}}})
    'mean over the 1 class with samples'
    """
    counts = [row["n"] for row in figures["per_class"].values()]
    if all(counts):
        return "mean over classes"
    present = sum(n > 0 for n in counts)
    return f"mean over the {present} class{'es' if present > 1 else ''} with samples"


def unknown_in_words(figures: dict[str, Any]) -> str:
    """Say which classes have no samples among these, and what this means; else nothing."""
    names = [name for name, row in figures["per_class"].items() if not row["n"]]
    if not names:
        return ""
    return (
        f"No sample of {', '.join(names)} was held back, so its figures are not known, and means "
        f"leave it out. Label this class in more images or places."
    )


def accuracy_in_words(figures: dict[str, Any]) -> str:
    """Say how many samples are classified correctly, and how sure that is."""
    low, high = figures["intervals"]["overall_accuracy"]
    n = figures["n"]
    samples = "1 validation sample is" if n == 1 else f"{n:,} validation samples are"
    return (
        f"{figures['overall_accuracy']:.1%} of {samples} classified correctly (95 % interval "
        f"{low:.1%} to {high:.1%}); {mean_in_words(figures)} {figures['balanced_accuracy']:.1%}."
    )


def calibration_in_words(calibration: dict[str, Any]) -> str:
    """Say how far probabilities are from what is right, where that was measured.

    >>> calibration_in_words({"temperature": 1.5, "before": None, "after": None})
    'How far probabilities can be trusted is not known: that takes 100 validation samples.'
    """
    if calibration["after"] is None:
        return (
            f"How far probabilities can be trusted is not known: that takes {FEWEST_TO_MEASURE} "
            f"validation samples."
        )
    before, after = (calibration[k]["expected_calibration_error"] for k in ("before", "after"))
    return f"Calibration error {before:.3f} before and {after:.3f} after temperature scaling."


def _headline(report: dict[str, Any]) -> str:
    return (
        f"{accuracy_in_words(report['validation'])} Trained for {report['seconds'] / 60:.1f} "
        f"minutes on {report['device']}."
    )


def _settings(report: dict[str, Any]) -> dict[str, Any]:
    return {"start": report["start"] or "from scratch", **report["config"]} | {
        "notes": "; ".join(report["notes"]) or "none"
    }


def _figures(figures: dict[str, Any], part: str) -> str:
    columns = ("precision", "sensitivity", "specificity", "f1", "auc")
    rows = [
        [name, row["n"], *(_percent(row[column]) for column in columns)]
        for name, row in figures["per_class"].items()
    ]
    means = [_percent(figures.get(column)) for column in columns]
    rows.append([mean_in_words(figures), figures["n"], *means])
    told = f"Overall accuracy {figures['overall_accuracy']:.2%}. {unknown_in_words(figures)}"
    return f"<h2>Figures ({part})</h2><p>{escape(told)}</p>" + table(
        ["class", "samples", *columns], rows
    )


def _confusion(matrix: NDArray[Any], names: Sequence[str]) -> str:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *names))
    rows = ""
    for name, counts, row in zip(names, matrix, shares, strict=True):
        cells = "".join(
            f"<td style='background: rgba(59,111,182,{share:.2f});"
            f"color: {'#fff' if share > 0.6 else '#222'}'>{count}</td>"
            for count, share in zip(counts, row, strict=True)
        )
        rows += f"<tr><td>{escape(name)}</td>{cells}</tr>"
    return f"<table class='confusion'><tr>{head}</tr>{rows}</table>"


def _curves(history: Sequence[dict[str, Any]]) -> str:
    epochs = [epoch["number"] for epoch in history]
    losses = {
        "training loss": [epoch["loss"] for epoch in history],
        "validation loss": [epoch["validation_loss"] for epoch in history],
    }
    accuracies = {
        "accuracy": [epoch["accuracy"] for epoch in history],
        "balanced accuracy": [epoch["balanced_accuracy"] for epoch in history],
    }
    return line_chart(epochs, losses, "epoch") + line_chart(epochs, accuracies, "epoch", top=1.0)


def _calibration(calibration: dict[str, Any]) -> str:
    said = (
        f"<p>Logits are divided by a temperature of {calibration['temperature']:.2f}, fitted on "
        f"the validation samples. {calibration_in_words(calibration)}</p>"
    )
    after = calibration["after"]
    if after is None:
        return said
    return said + line_chart(
        after["confidence"],
        {"accuracy in each bin of confidence": after["accuracy"]},
        "confidence",
        top=1.0,
        diagonal=True,
    )


def _errors(report: dict[str, Any], samples: Samples) -> str:
    names = report["class_names"]
    shown = wrong_samples(report)
    if not shown:
        return "<p>None.</p>"
    figures = "".join(
        f"<figure><img alt='' src='data:image/png;base64,{_png(samples.pixels[index])}'>"
        f"<figcaption>{escape(names[true])}, predicted "
        f"{escape(names[predicted])} ({confidence:.0%})<br>"
        f"{escape(samples.name_of(index))}</figcaption></figure>"
        for index, true, predicted, confidence in shown[:_MOST_ERRORS]
    )
    return f"<p>{len(shown)} in all, the most confident first.</p>{figures}"


def _png(pixels: NDArray[Any]) -> str:
    values = pixels[..., :3].astype(float)
    if pixels.shape[-1] == 2 or pixels.dtype != np.uint8:
        low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
        values = (values - low) / np.maximum(high - low, 1e-12) * 255
    if values.shape[-1] != 3:
        values = values[..., :1].repeat(3, axis=-1)
    buffer = io.BytesIO()
    imsave(buffer, values.astype(np.uint8), extension=".png", check_contrast=False)
    return base64.b64encode(buffer.getvalue()).decode()


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"  # noqa: RUF001
