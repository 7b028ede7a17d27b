"""Measure whether a classifier notices that an image is nothing like its training data.

    python benchmarks/out_of_distribution.py --data DATA --json FILE

Cells and tiles of many kinds go through the bundled blood-cell weights.  The distance was chosen on
`development` (distorted training-like cells, and fields of another blood smear) and `harmless`;
`FOREIGN` was looked at only to report it.  The JSON has the distances that it was chosen from.
Held-out cells are those of the half of the validation cells that the threshold did not see.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import skimage.data
import tifffile
import torch
from scipy.ndimage import gaussian_filter
from skimage.io import imread
from sklearn.metrics import roc_auc_score
from store_trust import changed_appearance, seen_by
from train_blood_cells import load_cells, split

from napari_mambamic import load_classifier, open_image
from napari_mambamic.patches import read_tiles
from napari_mambamic.tiling import plan_tiles
from napari_mambamic.trust.assessment import (
    MOST_TRAINING,
    Seen,
    appearance_of_samples,
    distances_of,
    fit_reference,
    halves,
)
from napari_mambamic.trust.reference import Reference, fit_clusters, threshold_of

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
    values = some.astype(np.float32)
    middle = values.mean(axis=(1, 2), keepdims=True)
    grey = np.repeat((values @ [0.2125, 0.7154, 0.0721])[..., np.newaxis], 3, axis=-1)
    noise = np.random.default_rng(0).normal(0, 25, values.shape)
    quarters = some[:, :, np.r_[48:96, 0:48]][:, np.r_[48:96, 0:48]]
    changed = {
        "inverted cells": 255 - values,
        "slightly blurred cells": gaussian_filter(values, (0, 2, 2, 0)),
        "blurred cells": gaussian_filter(values, (0, 4, 4, 0)),
        "quarters exchanged": quarters,
        "cells at half the size": some.repeat(2, 1).repeat(2, 2)[:, 48:144, 48:144],
        "grey cells": grey,
        "grey inverted cells": 255 - grey,
        "cells of half the colour": (values + grey) / 2,
        "blue and red exchanged": values[..., ::-1],
        "cells with 0.7 of the light": values * 0.7,
        "cells with half the light": values * 0.5,
        "brighter cells": values + 40,
        "darker cells": values - 40,
        "cells of half the contrast": (values + middle) / 2,
        "noisy cells": values + noise,
    }
    found = {name: pixels.clip(0, 255).astype(np.uint8) for name, pixels in changed.items()}
    return found | {"BCCD: whole fields": _fields(data, "bccd.zip", "JPEGImages/")[::2]}


def harmless(cells: np.ndarray) -> dict[str, np.ndarray]:
    """Cells (n, 96, 96, 3) as another day would show them: they are not to be flagged."""
    values = cells[1 :: max(1, len(cells) // 200)][:200].astype(np.float32)
    middle = values.mean(axis=(1, 2), keepdims=True)
    noise = np.random.default_rng(0).normal(0, 5, values.shape)
    changed = {
        "0.9 of the light": values * 0.9,
        "1.1 of the light": values * 1.1,
        "0.95 of the blue": values * np.float32([1, 1, 0.95]),
        "0.9 of the contrast": values * 0.9 + middle * 0.1,
        "a little noise": values + noise,
        "gamma 0.8": 255 * (values / 255) ** 0.8,
        "gamma 1.25": 255 * (values / 255) ** 1.25,
    }
    return {name: pixels.clip(0, 255).astype(np.uint8) for name, pixels in changed.items()}


Distance = Callable[[Seen], np.ndarray]
# Columns of `appearance_of` for three channels.
_LIGHT, _CONTRAST, _SHARPNESS, _COLOUR = [*range(3)], [*range(3, 6)], [*range(6, 12)], [12, 13, 14]


def other_distances(
    fitted: Seen, held: Seen, first: np.ndarray, used: Reference, plain: Reference
) -> dict[str, Distance]:
    """What there was to choose from beside the one that is used, fitted to training cells."""

    def pair(columns: list[int], labels: np.ndarray) -> Distance:
        train = Seen(fitted.embeddings, fitted.appearance[:, columns], fitted.labels)
        kept = Seen(held.embeddings, held.appearance[:, columns], held.labels)
        look = fit_clusters(train.appearance, labels, least_spread=1.0)
        limits = [
            threshold_of(clusters.distances(torch.from_numpy(vectors[first])).numpy())
            for clusters, vectors in (
                (used.embeddings, kept.embeddings),
                (look, kept.appearance),
            )
        ]
        reference = Reference(used.embeddings, look.scaled(limits[0] / limits[1]))
        return lambda s: distances_of(
            reference, Seen(s.embeddings, s.appearance[:, columns], s.labels)
        )

    together = np.zeros(len(fitted.appearance), np.int64)
    every = _LIGHT + _CONTRAST + _SHARPNESS + _COLOUR
    return {
        "embedding alone": lambda s: used.embeddings.distances(
            torch.from_numpy(s.embeddings)
        ).numpy(),
        "appearance alone": lambda s: used.appearance.distances(
            torch.from_numpy(s.appearance)
        ).numpy(),
        "appearance without sharpness": pair(_LIGHT + _CONTRAST + _COLOUR, together),
        "appearance without colour": pair(_LIGHT + _CONTRAST + _SHARPNESS, together),
        "appearance: means of the classes": pair(every, np.tile(fitted.labels, 2)),
        "appearance: samples as they are": lambda s: distances_of(plain, s),
    }


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Chance that a foreign tile is farther away than a held-out cell."""
    return float(roc_auc_score(np.repeat([0, 1], [len(inside), len(outside)]), [*inside, *outside]))


def scored(
    distance: Distance, held: Seen, halves: tuple[np.ndarray, np.ndarray], kinds: dict[str, Seen]
) -> dict[str, object]:
    """AUROC and rates under the threshold that 99 % of the first half pass."""
    first, second = (distance(held)[half] for half in halves)
    threshold = threshold_of(first)
    rows: dict[str, object] = {"held-out cells flagged": float((second > threshold).mean())}
    for name, seen in kinds.items():
        outside = distance(seen)
        rows[name] = {
            "n": len(outside),
            "auroc": round(auroc(second, outside), 4),
            "flagged": round(float((outside > threshold).mean()), 4),
        }
    return rows


def main() -> None:
    """Embed, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cache", type=Path, help="folder of store_trust.py with embeddings")
    parser.add_argument("--development", action="store_true", help="look at nothing else")
    options = parser.parse_args()
    classifier = load_classifier(device="cpu")
    spec = classifier.manifest.patch
    images, labels, _, _ = load_cells(options.data / "pbc96.zip")
    training, validation = split(labels)
    order = np.random.default_rng(0).permutation(len(training))
    training = training[np.sort(order[:MOST_TRAINING])]
    first, second = halves(len(validation))
    kept = [options.cache and options.cache / f"blood-cells-t-{s}.npz" for s in ("tr", "va")]

    def see(pixels: np.ndarray, labels: np.ndarray, cache: Path | None) -> tuple[Seen, np.ndarray]:
        embeddings, logits = seen_by(classifier, pixels, cache)
        return Seen(embeddings, appearance_of_samples(pixels, spec), labels), logits

    def see_all(kinds: dict[str, np.ndarray]) -> dict[str, Seen]:
        return {name: see(pixels, np.zeros(len(pixels)), None)[0] for name, pixels in kinds.items()}

    fitted, _ = see(images[training], labels[training], kept[0])
    changed = changed_appearance("blood-cells-t", images[training], spec, Path())
    unchanged, fitted = (
        fitted,
        replace(fitted, appearance=np.concatenate([fitted.appearance, changed])),
    )
    held, logits = see(images[validation], labels[validation], kept[1])
    temperature = classifier.manifest.temperature

    def sure(of: np.ndarray) -> float:
        odds = np.exp((of - of.max(1, keepdims=True)) / temperature)
        return float((1 / odds.sum(1) >= 0.9).mean())

    reference = fit_reference(fitted, held, first)
    cells = images[validation][first]
    tried, passing = see_all(development(options.data, cells)), see_all(harmless(cells))
    distances: dict[str, Distance] = {"used": lambda seen: distances_of(reference, seen)}
    distances |= other_distances(
        fitted, held, first, reference, fit_reference(unchanged, held, first)
    )
    both = first, second
    chosen = {name: scored(d, held, both, tried) for name, d in distances.items()}
    passed = {name: scored(d, held, both, passing) for name, d in distances.items()}
    for title, table in (("distorted", chosen), ("harmless", passed)):
        for name, rows in table.items():
            shares = [r["flagged"] for r in rows.values() if isinstance(r, dict)]
            print(title, name, rows["held-out cells flagged"], shares, np.mean(shares))
    if options.development:
        return
    foreign, sureness = {}, {"held-out cells": sure(logits[second])}
    for name, make in FOREIGN.items():
        pixels = make(options.data)
        foreign[name], of = see(pixels, np.zeros(len(pixels)), None)
        sureness[name] = sure(of)
        print(name, len(of), flush=True)
    tested = {name: scored(d, held, both, foreign) for name, d in distances.items()}
    report = {
        "weights": classifier.manifest.sha256,
        "n_held_out": len(second),
        "test": tested.pop("used"),
        "share of probabilities from 0.9": sureness,
        "development": chosen,
        "harmless, not to be flagged": passed,
        "the others on the test, not chosen by": tested,
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


if __name__ == "__main__":
    main()
