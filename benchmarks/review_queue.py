"""How many labels the review queue saves: blood cells, labelled by a simulated person.

    python benchmarks/review_queue.py few-cells --data pbc96.zip --train FOLDER
    python benchmarks/review_queue.py few-cells --data pbc96.zip --weights FOLDER/FOLDER.safetensors

In place of few-cells: other-microscope (the weights are those of few-cells), four-classes, or
red-cells.  Accuracy is that on the cells held out by ``train_blood_cells.py``.

few-cells: what the panel does.  The weights know all eight classes from 1,000 cells of one half of
the training side: MambaMIC-T, from scratch.  Of the other half 3,000 cells, drawn by the seed, are
the image.  A `Review` brings them, each fifth at random; the corrected head is fitted, and the rest
ordered, after each 20 labels (the panel: after each).  "random" brings all at random.

other-microscope: the same, with the image and the cells held out changed by `other_microscope`.

four-classes: a person has weights for other classes than hers, those of ``--train``: from scratch,
on the cells of four classes in one half of the training side.  Cells to label come from the other
half.  A linear head, which starts from nothing, is fitted to the labels so far after each 20.

red-cells: harder, weights that know no such cell, those of ``accuracy.py --set chula --network
mambamic-t`` (red-cell shapes, from scratch); cells to label come from all of the training side,
with ``--most 500``.  The published ``red-cell-shapes-t`` and ``smear-objects-t`` started from
blood-cells-t and would cheat.

With ``--develop`` choices are made: other seeds, pools that are parts of the training side, scored
on the rest of the training side.  For red-cells that chose "margin+diversity", which then did no
better than random on the held-out cells (seeds 0 to 2); the default became "margin", judged on
seeds 10 to 12: ``--seeds 10 11 12 --how random margin "queue of the panel"``.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter
from train_blood_cells import load_cells, split

from napari_mambamic import load_classifier, plan_tiles
from napari_mambamic.results import TileResults
from napari_mambamic.training.config import TrainConfig
from napari_mambamic.training.corrected_head import fit_corrected_head
from napari_mambamic.training.corrections import Corrections, Sidecar
from napari_mambamic.training.fine_tune import fine_tune
from napari_mambamic.training.head import fit_linear
from napari_mambamic.training.queue import DEFAULT, review_order
from napari_mambamic.training.review import SPOT_CHECK, Review
from napari_mambamic.training.samples import Samples

ROOT = Path(__file__).parents[1]
SETTINGS = ("few-cells", "other-microscope", "four-classes", "red-cells")
AS_THE_PANEL = SETTINGS[:2]
FEW, ON_THE_IMAGE = 1000, 3000  # cells
FIRST, BATCH = 20, 20  # labels
QUEUE = "queue of the panel"  # the default order, each fifth tile drawn at random
STRATEGIES = ("random", "margin", "entropy", "badge", "k-centre", "margin+diversity", QUEUE)
MILESTONES = (100, 200, 300, 400, 500, 600)
KNOWN = ("erythroblast", "lymphocyte", "neutrophil", "platelet")  # to the weights of four-classes
SMOOTHED = 3  # refits, because 2,050 cells leave a noise of 1 %
COLOURS = {
    "random": "#777777",
    "margin": "#4a7ab5",
    "entropy": "#9a6fb0",
    "badge": "#3f9a8a",
    "k-centre": "#b59a4a",
    "margin+diversity": "#d1603d",
    QUEUE: "#a01818",
}


@dataclass(frozen=True)
class Cells:
    """What the weights say of cells, what they are, and who is labelled and who is scored.

    Parameters
    ----------
    embeddings, probabilities : ndarray
        (n, d) and (n, k), k classes that the weights know.
    labels : ndarray
        (n,) of all eight classes.
    pool, scored : ndarray
        Numbers of cells.
    """

    embeddings: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    pool: NDArray[np.intp]
    scored: NDArray[np.intp]


def halves_of_training(labels: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """What the weights of --train are from, and what is labelled."""
    training, _ = split(labels)
    mixed = np.random.default_rng(77).permutation(training)
    return mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]


def other_microscope(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Darker stain (gamma 1.4), a warmer lamp and less focus (1.5 px) for images (n, y, x, 3).

    More than the augmentation of training covers: a gamma of 1.15, and 10 % of light.
    """
    light = (images / np.float32(255)) ** np.float32(1.4) * np.float32([0.95, 0.8, 0.9])
    return (255 * gaussian_filter(light, (0, 1.5, 1.5, 0))).round().astype(np.uint8)


def train(setting: str, data: Path, folder: Path) -> Path:
    """Weights that know the classes from few cells, or half of them; goes on if interrupted."""
    images, labels, classes, _ = load_cells(data)
    first, _ = halves_of_training(labels)
    known, chosen, epochs = tuple(classes), first[:FEW], 20
    if setting == "four-classes":
        known, epochs = KNOWN, 12
        chosen = first[np.isin(labels[first], [classes.index(name) for name in KNOWN])]
    numbers = [known.index(classes[label]) for label in labels[chosen]]
    samples = Samples(images[chosen], np.array(numbers), known, ("red", "green", "blue"))
    config = TrainConfig(
        network="mambamic-t", epochs=epochs, patch_size=64, batch_size=32, choose_best=False
    )
    checkpoint = fine_tune(samples, start=None, config=config, folder=folder)
    print(len(samples), "cells,", checkpoint.report["validation"]["overall_accuracy"])
    return checkpoint.save(folder / f"{folder.name}.safetensors")


def predicted(
    setting: str, data: Path, weights: str, cache: Path
) -> dict[str, NDArray[np.float32]]:
    """Embeddings, probabilities and labels of all cells, computed once."""
    if not cache.exists():
        images, labels, _, _ = load_cells(data)
        classifier = load_classifier(weights, device="cpu")
        parts = []
        for start in range(0, len(images), 64):
            part = images[start : start + 64]
            change = other_microscope if setting == "other-microscope" else np.asarray
            parts.append(classifier.predict(change(part)))
        np.savez(
            cache,
            embeddings=np.concatenate([part.embeddings for part in parts]),
            probabilities=np.concatenate([part.probabilities for part in parts]),
            labels=labels,
        )
    with np.load(cache) as file:
        return dict(file)


def cells_of(
    setting: str, told: dict[str, NDArray[np.float32]], seed: int, *, develop: bool
) -> Cells:
    """The cells of a run: the half that is labelled, or the whole, or a part to develop with."""
    labels = told["labels"]
    training, held = split(labels)
    if setting != "red-cells":
        _, training = halves_of_training(labels)
    if develop:
        mixed = np.random.default_rng(900 + seed).permutation(training)
        held, training = mixed[:2000], mixed[2000:]
    if setting in AS_THE_PANEL:
        training = np.random.default_rng(seed).permutation(training)[:ON_THE_IMAGE]
    return Cells(told["embeddings"], told["probabilities"], labels, training, held)


def point(n_labels: int, told: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, float]:
    """One point of a curve: classes (n,) that were told, and labels (n,)."""
    recalls = [(told[labels == c] == c).mean() for c in np.unique(labels)]
    return {
        "labels": n_labels,
        "accuracy": round(float((told == labels).mean()), 4),
        "balanced_accuracy": round(float(np.mean(recalls)), 4),
    }


def simulate_panel(cells: Cells, how: str, seed: int, most: int) -> list[dict[str, float]]:
    """Review an image, beginning with what the weights say, until `most` labels are given."""
    x, shares, y = (v[cells.pool] for v in (cells.embeddings, cells.probabilities, cells.labels))
    scored_x, scored_shares = cells.embeddings[cells.scored], cells.probabilities[cells.scored]
    names = tuple("class " + str(number) for number in range(shares.shape[1]))
    tiles = plan_tiles((1, len(x)), tile_size=1)
    sidecar = Sidecar({"name": "cells", "plane_shape": [1, len(x)]})
    review = Review(TileResults(names, tiles, shares, x, {}), Corrections(sidecar))
    if how == "random":
        review.order = np.random.default_rng(seed).permutation(len(x))
    curve = [point(0, scored_shares.argmax(axis=1), cells.labels[cells.scored])]
    for _ in range(most // BATCH):
        for _ in range(BATCH):
            number = review.forward()
            review.label(number, names[y[number]])
        known, said = review.labelled
        head = fit_corrected_head(shares, x, labelled=known, labels=said, class_names=names)
        if how != "random":
            way = DEFAULT if how == QUEUE else how
            corrected = head.probabilities(shares, x)
            review.order = review_order(corrected, x, labelled=known, how=way, seed=len(known))
        told = head.probabilities(scored_shares, scored_x).argmax(axis=1)
        curve.append(point(len(known), told, cells.labels[cells.scored]))
    return curve


def simulate_head(cells: Cells, how: str, seed: int, most: int) -> list[dict[str, float]]:
    """Begin with random labels and no head; label, refit and score until `most` are given."""
    x, y = cells.embeddings[cells.pool], cells.labels[cells.pool]
    rng = np.random.default_rng(seed)
    known = rng.permutation(len(x))[:FIRST].tolist()
    curve = []
    while True:
        present = np.unique(y[known])
        weight, bias = fit_linear(x[known], np.searchsorted(present, y[known]))
        scored = cells.labels[cells.scored]
        told = present[(cells.embeddings[cells.scored] @ weight.T + bias).argmax(axis=1)]
        curve.append(point(len(known), told, scored) | {"classes_found": len(present)})
        if len(known) >= most:
            return curve
        logits = x @ weight.T + bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = odds / odds.sum(axis=1, keepdims=True)
        n_random = BATCH // SPOT_CHECK if how == QUEUE else 0
        order = review_order(
            shares,
            x,
            labelled=known,
            how=DEFAULT if how == QUEUE else how,
            batch=BATCH - n_random,
            seed=1000 * seed + len(known),
        )
        known += order[: BATCH - n_random].tolist()
        if n_random:
            known += rng.permutation(np.setdiff1d(np.arange(len(x)), known))[:n_random].tolist()


def mean_curve(runs: list[list[dict[str, float]]], figure: str) -> NDArray[np.float64]:
    """Mean over seeds, then over neighbouring refits."""
    mean = np.mean([[point[figure] for point in run] for run in runs], axis=0)
    padded = np.pad(mean, SMOOTHED // 2, mode="edge")
    return np.convolve(padded, np.ones(SMOOTHED) / SMOOTHED, mode="valid")


def labels_needed(
    curves: dict[str, list[list[dict[str, float]]]], figure: str
) -> dict[str, object]:
    """For random's figure at some numbers of labels: the labels with which each strategy has it."""
    at = np.array([point["labels"] for point in curves["random"][0]])
    random = mean_curve(curves["random"], figure)
    table: dict[str, object] = {}
    for milestone in MILESTONES:
        if milestone not in at:
            continue
        wanted = random[at.tolist().index(milestone)]
        needed: dict[str, object] = {"random_reaches": round(float(wanted), 4)}
        for how, runs in curves.items():
            reached = np.flatnonzero(mean_curve(runs, figure) >= wanted)
            n = int(at[reached[0]]) if len(reached) else None
            needed[how] = {"labels": n, "share": n and round(n / milestone, 2)}
        table[str(milestone)] = needed
    return table


def draw(curves: dict[str, list[list[dict[str, float]]]], path: Path, title: str) -> None:
    """The mean curves as a PNG."""
    width, height, left, top, right, bottom = 1000, 620, 80, 60, 220, 70
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    font, small = (ImageFont.load_default(size) for size in (20, 16))
    at = np.array([point["labels"] for point in curves["random"][0]])
    lines = {how: mean_curve(runs, "accuracy") for how, runs in curves.items()}
    low = np.floor(min(line[2:].min() for line in lines.values()) * 20) / 20
    high = np.ceil(max(line.max() for line in lines.values()) * 50) / 50

    def place(labels: float, accuracy: float) -> tuple[float, float]:
        x = left + (labels - at[0]) / (at[-1] - at[0]) * (width - left - right)
        y = height - bottom - (accuracy - low) / (high - low) * (height - top - bottom)
        return float(x), float(y)

    pen.text((left, 16), title, fill="black", font=font)
    for accuracy in np.arange(low, high + 1e-9, 0.05):
        x, y = place(at[0], accuracy)
        pen.line([(x, y), place(at[-1], accuracy)], fill="#dddddd")
        pen.text((x - 10, y), f"{accuracy:.0%}", fill="black", font=small, anchor="rm")
    for labels in range(100, int(at[-1]) + 1, 100):
        x, y = place(labels, low)
        pen.line([(x, y), (x, y + 6)], fill="black")
        pen.text((x, y + 10), str(labels), fill="black", font=small, anchor="mt")
    middle = (left + width - right) / 2
    pen.text((middle, height - 14), "labels given", fill="black", font=small, anchor="mb")
    ends = sorted(lines, key=lambda how: -lines[how][-1])
    for i, how in enumerate(ends):
        points = [place(a, b) for a, b in zip(at, lines[how], strict=True) if b >= low]
        pen.line(points, fill=COLOURS[how], width=5 if how == QUEUE else 3)
        y = top + 30 * i
        pen.line([(width - right + 15, y), (width - right + 40, y)], fill=COLOURS[how], width=5)
        pen.text((width - right + 48, y), how, fill="black", font=small, anchor="lm")
    picture.save(path, optimize=True)


def main() -> None:
    """Simulate all strategies, and write the figures and the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--train", type=Path, help="folder: train the weights, and nothing else")
    parser.add_argument("--weights")
    parser.add_argument("--cache", type=Path, help="of predictions; by default beside the weights")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--most", type=int, default=600, help="labels")
    parser.add_argument("--how", nargs="+", choices=STRATEGIES)
    parser.add_argument("--develop", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    setting = args.setting
    if args.develop and min(args.seeds) < 100:
        parser.error("seeds below 100 are those that are reported")
    if args.train:
        print(train(setting, args.data, args.train))
        return
    if not args.weights:
        parser.error("give --weights, or --train to make them")
    cache = args.cache or Path(args.weights).with_suffix(f".{setting}.npz")
    told = predicted(setting, args.data, args.weights, cache)
    simulate = simulate_panel if setting in AS_THE_PANEL else simulate_head
    strategies = args.how or (("random", QUEUE) if setting in AS_THE_PANEL else STRATEGIES)
    begin = time.perf_counter()
    curves: dict[str, list[list[dict[str, float]]]] = {how: [] for how in strategies}
    for seed in args.seeds:
        cells = cells_of(setting, told, seed, develop=args.develop)
        for how in strategies:
            curves[how].append(simulate(cells, how, seed, args.most))
            print(seed, how, curves[how][-1][-1], round(time.perf_counter() - begin), flush=True)
    report = {
        "setting": setting,
        "cells": "PBC (Acevedo et al. 2020), split of train_blood_cells.py",
        "embedder": Path(args.weights).stem,
        "development": args.develop,
        "n_pool": len(cells.pool),
        "n_scored": len(cells.scored),
        "first_labels": 0 if setting in AS_THE_PANEL else FIRST,
        "labels_per_refit": BATCH,
        "seeds": args.seeds,
        "smoothed_over_refits": SMOOTHED,
        "labels_needed": {
            figure: labels_needed(curves, figure) for figure in ("accuracy", "balanced_accuracy")
        },
        "curves": curves,
        "seconds": round(time.perf_counter() - begin),
        "machine": platform.machine(),
    }
    out = args.out or ROOT / f"benchmarks/results/review-queue-{setting}.json"
    out.write_text(json.dumps(report, indent=1) + "\n")
    picture = args.picture or ROOT / f"docs/images/review-curve-{setting}.png"
    draw(curves, picture, "Accuracy on held-out blood cells, mean of three seeds")
    print(json.dumps(report["labels_needed"], indent=1))


if __name__ == "__main__":
    main()
