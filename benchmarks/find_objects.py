"""How many cells of stained blood smears the settings of Find objects find.

    python benchmarks/find_objects.py --data DATA --json benchmarks/results/find-objects.json

Fields of BCCD (a box per cell) and of Chula RBC-12 (a point per red cell; of fields with at least
60 points, because the others are marked in part).  The settings were chosen on 20 of each; at most
40 of each that nothing was tried on are scored with the settings chosen.

A box is found by an object of its own whose centre lies in it ("centre"), or whose bounding box
overlaps it by half ("overlap": intersection over union >= 0.5).  A point is found by an object of
its own that covers it.  An object that finds nothing is wrong, unless it touches the border of
the field: those that marked the fields left out most of the cells there.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import time
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from skimage.color import rgb2hed
from skimage.io import imread
from skimage.measure import regionprops

from napari_mambamic.objects import ObjectSettings, find_objects

SEEDS = (0, 20261121)  # of the draws of fields that settings were tried on
TRIED_FIELDS, HELD_FIELDS, LEAST_POINTS = 20, 40, 60
SEEN_FIRST = ("240",)  # of Chula, in a trial before these
DEFAULT = ObjectSettings()
NUCLEI = ObjectSettings(channel="nuclei", smoothing_px=3, min_size_px=1500, split=False)
TRIED = {
    "defaults": {},
    "threshold: Otsu": {"threshold": "otsu"},
    "green alone": {"channel": 1},
    "smoothing 0.5 px": {"smoothing_px": 0.5},
    "smoothing 1.5 px": {"smoothing_px": 1.5},
    "smoothing 2.5 px": {"smoothing_px": 2.5},
    "neck 0.8": {"neck": 0.8},
    "neck 0.85": {"neck": 0.85},
    "neck 0.95": {"neck": 0.95},
    "least size 100 px": {"min_size_px": 100},
    "least size 300 px": {"min_size_px": 300},
    "not split": {"split": False},
    "holes not filled": {"fill_holes": False},
}

Boxes = NDArray[np.float64]  # (n, 4): top, left, bottom, right
Counts = NDArray[np.int64]  # found, wanted, found by centre and in all (see `rates`)


def read_boxes(archive: zipfile.ZipFile, name: str, kinds: tuple[str, ...] = ()) -> Boxes:
    """Boxes (n, 4) of a field, of some kinds or of all."""
    boxes = []
    text = archive.read(f"BCCD/Annotations/{name}.xml").decode()
    for part in re.findall(r"<object>.*?</object>", text, re.DOTALL):
        if kinds and re.search(r"<name>(\w+)</name>", part)[1] not in kinds:
            continue
        sides = ("ymin", "xmin", "ymax", "xmax")
        boxes.append([int(re.search(rf"<{s}>(\d+)</{s}>", part)[1]) for s in sides])
    return np.array(boxes, float).reshape(-1, 4)


def score_boxes(labels: NDArray[np.int32], boxes: Boxes) -> dict[str, Counts]:
    """Counts (found, wanted, objects that count) by centre and by overlap."""
    objects = regionprops(labels)
    bounds = np.array([o.bbox for o in objects], float).reshape(-1, 4)
    centres = np.array([o.centroid for o in objects]).reshape(-1, 2)
    inside = ((boxes[:, None, :2] <= centres[None]) & (centres[None] <= boxes[:, None, 2:])).all(-1)
    top_left = np.maximum(boxes[:, None, :2], bounds[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], bounds[None, :, 2:])
    shared = np.clip(bottom_right - top_left, 0, None).prod(-1)
    areas = [(b[:, 2:] - b[:, :2]).prod(-1) for b in (boxes, bounds)]
    overlap = shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1)
    at_border = (bounds[:, :2] == 0).any(-1) | (bounds[:, 2:] == labels.shape).any(-1)
    return {
        "centre": _counts(inside, overlap, at_border),
        "overlap": _counts(overlap >= 0.5, overlap, at_border),
    }


def score_points(labels: NDArray[np.int32], points: NDArray[np.int64]) -> dict[str, Counts]:
    """Counts as of boxes; of several points in an object one is found."""
    points = points[(points >= 0).all(1) & (points < labels.shape).all(1)]
    hit = np.unique(labels[points[:, 0], points[:, 1]])
    hit = hit[hit > 0]
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    wrong = np.setdiff1d(np.arange(1, labels.max() + 1), np.union1d(hit, border))
    return {"point": np.array([len(hit), len(points), len(hit) + len(wrong)])}


def _counts(
    is_match: NDArray[np.bool_], overlap: NDArray[np.float64], at_border: NDArray[np.bool_]
) -> Counts:
    """Match boxes and objects one to one, as many as can be."""
    rows, columns = linear_sum_assignment(-(is_match + 1e-3 * overlap))
    found = columns[is_match[rows, columns]]
    wrong = ~at_border
    wrong[found] = False
    return np.array([len(found), len(is_match), len(found) + wrong.sum()])


def rates(counts: Counts) -> dict[str, float]:
    """Recall, precision and their harmonic mean (F1)."""
    found, wanted, objects = (int(n) for n in counts)
    return {
        "found": found,
        "wanted": wanted,
        "objects": objects,
        "recall": round(found / wanted, 4),
        "precision": round(found / max(objects, 1), 4),
        "f1": round(2 * found / (wanted + objects), 4),
    }


def _drawn(names: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    """Fields of each set that settings were chosen on, and others that none was ever tried on."""
    draws = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        draws.append({k: rng.permutation(v)[:TRIED_FIELDS].tolist() for k, v in names.items()})
    rng = np.random.default_rng(SEEDS[0])
    held = {}
    for kind, all_names in names.items():
        seen = {*SEEN_FIRST, *(name for draw in draws for name in draw[kind])}
        rest = [name for name in all_names if name not in seen]
        held[kind] = rng.permutation(rest)[:HELD_FIELDS].tolist()
    return {"chosen on": draws[0], "held back": held}


class Fields:
    """The fields of both sets."""

    def __init__(self, data: Path) -> None:
        self.bccd = zipfile.ZipFile(data / "bccd.zip")
        self.chula = zipfile.ZipFile(data / "chula_fields.zip")
        names = sorted(Path(n).stem for n in self.bccd.namelist() if n.endswith(".jpg"))
        marked = sorted(
            Path(n).stem
            for n in self.chula.namelist()
            if n.startswith("points/") and len(self.chula.read(n).splitlines()) >= LEAST_POINTS
        )
        self.drawn = _drawn({"bccd": names, "chula": marked})

    def score(self, drawn: str, settings: ObjectSettings) -> dict[str, dict[str, float]]:
        """Rates of all cells."""
        sums: dict[str, Counts] = {}
        for name in self.drawn[drawn]["bccd"]:
            labels = find_objects(self._field(name), settings)
            for how, counts in score_boxes(labels, read_boxes(self.bccd, name)).items():
                sums[f"bccd, {how}"] = sums.get(f"bccd, {how}", 0) + counts
        for name in self.drawn[drawn]["chula"]:
            image = imread(io.BytesIO(self.chula.read(f"fields/{name}.jpg")))
            table = np.loadtxt(io.BytesIO(self.chula.read(f"points/{name}.txt")), int, ndmin=2)
            for how, counts in score_points(
                find_objects(image, settings), table[:, [1, 0]]
            ).items():
                sums[f"chula, {how}"] = sums.get(f"chula, {how}", 0) + counts
        return {what: rates(counts) for what, counts in sums.items()}

    def score_nuclei(self, drawn: str, *, hematoxylin: bool) -> dict[str, float]:
        """Rates of white cells alone, found by their nuclei's colour or the stain of H&E."""
        total = np.zeros(3, int)
        for name in self.drawn[drawn]["bccd"]:
            image, settings = self._field(name), NUCLEI
            if hematoxylin:
                image = rgb2hed(image)[..., 0].astype(np.float32)
                settings = replace(settings, channel=None, bright=True, threshold="otsu")
            labels = find_objects(image, settings)
            total += score_boxes(labels, read_boxes(self.bccd, name, ("WBC",)))["centre"]
        return rates(total)

    def _field(self, name: str) -> NDArray[np.uint8]:
        return imread(io.BytesIO(self.bccd.read(f"BCCD/JPEGImages/{name}.jpg")))


def main() -> None:
    """Score, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    fields = Fields(options.data)
    report = {"settings": asdict(DEFAULT), "fields": fields.drawn, "tried": {}}
    for name, changes in TRIED.items():
        scores = fields.score("chosen on", replace(DEFAULT, **changes))
        report["tried"][name] = scores
        print(name, {what: s["f1"] for what, s in scores.items()}, flush=True)
    n_held = sum(len(names) for names in fields.drawn["held back"].values())
    begin = time.process_time()
    report["held back"] = fields.score("held back", DEFAULT)
    report["CPU seconds per field"] = round((time.process_time() - begin) / n_held, 3)
    report["white cells by their nuclei"] = {
        "settings": asdict(NUCLEI),
        "green - blue, chosen on": fields.score_nuclei("chosen on", hematoxylin=False),
        "hematoxylin, chosen on": fields.score_nuclei("chosen on", hematoxylin=True),
        "green - blue, held back": fields.score_nuclei("held back", hematoxylin=False),
    }
    print(json.dumps({k: report[k] for k in list(report)[3:]}, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
