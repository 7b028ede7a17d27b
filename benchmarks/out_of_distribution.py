"""Measure whether a classifier notices that an image is nothing like its training data.

    python benchmarks/out_of_distribution.py --data DATA --json FILE

Cells and tiles of many kinds go through the bundled blood-cell weights.  The distance was chosen on
`DEVELOPMENT` (distorted training-like cells, and objects of another blood smear); `FOREIGN` was
looked at only to report it.  The JSON has all the distances that there were to choose from.
Held-out cells are those of the half of the validation cells that the threshold did not see.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import skimage.data
import tifffile
from scipy.ndimage import gaussian_filter
from skimage.io import imread
from sklearn.metrics import roc_auc_score
from store_trust import seen_by
from train_blood_cells import load_cells, split

from napari_mambamic import load_classifier, open_image
from napari_mambamic.patches import read_tiles
from napari_mambamic.tiling import plan_tiles
from napari_mambamic.trust.assessment import MOST_TRAINING, halves
from napari_mambamic.trust.reference import threshold_of

SIDE, N = 96, 200  # px of a tile; tiles of each kind, at most


def tiles_of(image: np.ndarray, n: int = N) -> np.ndarray:
    """Up to n tiles of an image (y, x, 3) of 8 bit, spread evenly."""
    grid = plan_tiles(image.shape[:2], tile_size=SIDE)
    chosen = np.unique(np.linspace(0, len(grid) - 1, min(n, len(grid))).round().astype(int))
    return np.stack([image[t.y : t.y + SIDE, t.x : t.x + SIDE] for t in (grid[i] for i in chosen)])


def as_rgb(plane: np.ndarray) -> np.ndarray:
    """A grey plane as napari shows it: stretched to 8 bit, three times."""
    low, high = np.percentile(plane, [0.1, 99.9])
    grey = ((plane - low) / max(high - low, 1e-9)).clip(0, 1) * 255
    return np.repeat(grey.astype(np.uint8)[..., np.newaxis], 3, axis=-1)


def _fields(data: Path, archive: str, folder: str, n: int = 20) -> np.ndarray:
    with zipfile.ZipFile(data / archive) as file:
        names = sorted(x for x in file.namelist() if folder in x and x.endswith(".jpg"))
        chosen = names[:: max(1, len(names) // n)][:n]
        return np.concatenate([tiles_of(imread(BytesIO(file.read(x))), N // n) for x in chosen])


def _malaria(data: Path) -> np.ndarray:
    with np.load(data / "malaria50.npz") as file:
        pixels = file[next(k for k in file.files if file[k].ndim == 3)]
    pixels = pixels[np.random.default_rng(0).choice(len(pixels), N, replace=False)]
    return np.repeat(pixels[..., np.newaxis], 3, axis=-1)


def _slide(data: Path) -> np.ndarray:
    image = open_image(data / "images/CMU-1-Small-Region.svs")
    grid = plan_tiles(image.plane_shape, tile_size=SIDE)
    chosen = np.unique(np.linspace(0, len(grid) - 1, N).round().astype(int))
    return read_tiles(image, [grid[i] for i in chosen])


def _fluorescence(data: Path) -> np.ndarray:
    found = []
    for path in sorted((data / "images").glob("*.tif")):
        pixels = tifffile.imread(path)
        if pixels.shape[-1] == 3:
            pixels = pixels[..., 0]
        planes = pixels.reshape(-1, *pixels.shape[-2:])
        found += [tiles_of(as_rgb(planes[i]), 25) for i in (0, len(planes) // 2)]
    return np.concatenate(found)


FOREIGN: dict[str, Callable[[Path], np.ndarray]] = {
    "malaria: red cells, grey": _malaria,
    "H&E: CMU-1-Small-Region.svs": _slide,
    "H-DAB: skimage immunohistochemistry": lambda _: tiles_of(skimage.data.immunohistochemistry()),
    "fluorescence: images/*.tif": _fluorescence,
    "Chula: fields of blood smears": lambda data: _fields(data, "chula_fields.zip", "fields/"),
    "retina: skimage": lambda _: tiles_of(skimage.data.retina()),
    "noise, uniform": lambda _: np.random.default_rng(1).integers(
        0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8
    ),
}


def development(data: Path, cells: np.ndarray) -> dict[str, np.ndarray]:
    """What the distance was chosen on: distorted cells, and fields of BCCD.

    Parameters
    ----------
    cells : ndarray
        (n, 96, 96, 3) of the half that the threshold is from.
    """
    some = cells[:: max(1, len(cells) // 100)][:100]
    blurred = gaussian_filter(some.astype(np.float32), (0, 4, 4, 0)).astype(np.uint8)
    quarters = some[:, :, np.r_[48:96, 0:48]][:, np.r_[48:96, 0:48]]
    return {
        "inverted cells": 255 - some,
        "blurred cells": blurred,
        "quarters exchanged": quarters,
        "cells at half the size": some.repeat(2, 1).repeat(2, 2)[:, 48:144, 48:144],
        "BCCD: whole fields": _fields(data, "bccd.zip", "JPEGImages/")[::2],
    }


Distance = Callable[[np.ndarray], np.ndarray]


def other_distances(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, Distance]:
    """What there was to choose from beside the one that is used, fitted to training cells."""
    values, centre = embeddings.astype(np.float64), embeddings.mean(axis=0)
    means = np.stack([values[labels == c].mean(axis=0) for c in np.unique(labels)])

    def whitened(rest: np.ndarray, shrinkage: float, rank: int | None = None) -> np.ndarray:
        variances, directions = np.linalg.eigh(rest.T @ rest / len(rest))
        shrunk = (1 - shrinkage) * variances.clip(0) + shrinkage * variances.mean()
        return (directions / np.sqrt(shrunk))[:, -(rank or len(shrunk)) :]

    def mahalanobis(shrinkage: float, rank: int | None = None) -> Distance:
        matrix = whitened(values - means[labels], shrinkage, rank)
        middles = means @ matrix
        return lambda e: np.min([((e @ matrix - m) ** 2).sum(1) for m in middles], axis=0)

    background = whitened(values - centre, 0.1)
    near = mahalanobis(0.1)
    some = values[:: max(1, len(values) // 1000)]
    some = some / np.linalg.norm(some, axis=1, keepdims=True)

    def neighbour(e: np.ndarray, k: int = 10) -> np.ndarray:
        cosines = e / np.linalg.norm(e, axis=1, keepdims=True) @ some.T
        return 1 - np.partition(cosines, -k, axis=1)[:, -k]

    _, axes = np.linalg.eigh(np.cov((values - centre).T))
    rare = axes[:, :-128]
    return {
        "Mahalanobis, shrinkage 0.3": mahalanobis(0.3),
        "Mahalanobis, shrinkage 0.1": near,
        "Mahalanobis, first 64 directions": mahalanobis(0.1, 64),
        "relative Mahalanobis": lambda e: near(e) - (((e - centre) @ background) ** 2).sum(1),
        "cosine to the 10th of 1,000 neighbours": neighbour,
        "rest beyond 128 principal components": lambda e: (((e - centre) @ rare) ** 2).sum(1),
    }


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Chance that a foreign tile is farther away than a held-out cell."""
    return float(roc_auc_score(np.repeat([0, 1], [len(inside), len(outside)]), [*inside, *outside]))


def scored(
    distance: Distance, first: np.ndarray, second: np.ndarray, kinds: dict[str, np.ndarray]
) -> dict[str, object]:
    """AUROC and rates under the threshold that 99 % of the first half pass."""
    threshold = threshold_of(distance(first))
    inside = distance(second)
    rows: dict[str, object] = {"held-out cells flagged": float((inside > threshold).mean())}
    for name, embeddings in kinds.items():
        outside = distance(embeddings)
        rows[name] = {
            "n": len(outside),
            "auroc": round(auroc(inside, outside), 4),
            "flagged": round(float((outside > threshold).mean()), 4),
        }
    return rows


def main() -> None:
    """Embed, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cache", type=Path, help="folder of store_trust.py with embeddings")
    options = parser.parse_args()
    classifier = load_classifier(device="cpu")
    images, labels, _, _ = load_cells(options.data / "pbc96.zip")
    training, validation = split(labels)
    order = np.random.default_rng(0).permutation(len(training))
    training = training[np.sort(order[:MOST_TRAINING])]
    first, second = halves(len(validation))
    kept = [options.cache and options.cache / f"blood-cells-t-{s}.npz" for s in ("tr", "va")]
    fitted, _ = seen_by(classifier, images[training], kept[0])
    held, logits = seen_by(classifier, images[validation], kept[1])
    temperature = classifier.manifest.temperature

    def sure(of: np.ndarray) -> float:
        odds = np.exp((of - of.max(1, keepdims=True)) / temperature)
        return float((1 / odds.sum(1) >= 0.9).mean())

    near = development(options.data, images[validation][first])
    tried = {name: seen_by(classifier, pixels, None)[0] for name, pixels in near.items()}
    foreign, sureness = {}, {"held-out cells": sure(logits[second])}
    for name, make in FOREIGN.items():
        foreign[name], of = seen_by(classifier, make(options.data), None)
        sureness[name] = sure(of)
        print(name, len(of), flush=True)
    distances = {"used": classifier.reference.distances}
    distances |= other_distances(fitted, labels[training])
    report = {
        "weights": classifier.manifest.sha256,
        "n_held_out": len(second),
        "test": scored(classifier.reference.distances, held[first], held[second], foreign),
        "share of probabilities from 0.9": sureness,
        "development": {
            name: scored(distance, held[first], held[second], tried)
            for name, distance in distances.items()
        },
        "the others on the test, not chosen by": {
            name: scored(distance, held[first], held[second], foreign)
            for name, distance in distances.items()
            if name != "used"
        },
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    print("| tiles | n | sure (p >= 0.9) | AUROC | flagged |\n|---|---|---|---|---|")
    flagged = report["test"]["held-out cells flagged"]
    share = sureness["held-out cells"]
    print(f"| held-out cells | {len(second)} | {share:.0%} | | {flagged:.1%} |")
    for name in FOREIGN:
        row = report["test"][name]
        print(
            f"| {name} | {row['n']} | {sureness[name]:.0%} | {row['auroc']:.3f} | "
            f"{row['flagged']:.0%} |"
        )
    for name, rows in report["development"].items():
        cells = [r["flagged"] for r in rows.values() if isinstance(r, dict)]
        print(name, f"held-out {rows['held-out cells flagged']:.3f}", cells)


if __name__ == "__main__":
    main()
