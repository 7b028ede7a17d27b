"""Make the sample images that come with the plugin from the data sets that they are taken from.

    python scripts/make_samples.py --cells pbc96.zip --fields bccd.zip

The sheet holds validation cells alone, 12 of each class, drawn by the seed of the split.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from train_blood_cells import SPLIT_SEED, load_cells, split  # noqa: E402

SAMPLES = ROOT / "src/napari_mambamic/_napari/samples"
PER_CLASS = 12
FIELD = "BloodImage_00176"


def make_sheet(cells: Path) -> None:
    """One row per class, no gaps."""
    images, labels, classes, names = load_cells(cells)
    _, validation = split(labels)
    rng = np.random.default_rng(SPLIT_SEED)
    chosen = [
        rng.permutation(validation[labels[validation] == c])[:PER_CLASS]
        for c in range(len(classes))
    ]
    sheet = np.concatenate([np.concatenate(list(images[row]), axis=1) for row in chosen])
    Image.fromarray(sheet).save(SAMPLES / "blood-cells.jpg", quality=92, subsampling=0)
    known = {
        "cell_size": images.shape[1],
        "rows": ["immature granulocyte" if c == "ig" else c for c in classes],
        "columns": PER_CLASS,
        "files": [[names[i] for i in row] for row in chosen],
    }
    (SAMPLES / "blood-cells.json").write_text(json.dumps(known, indent=1) + "\n")


def make_field(fields: Path) -> None:
    """One field with the boxes of its white cells and platelets."""
    with zipfile.ZipFile(fields) as archive:
        (SAMPLES / "blood-smear.jpg").write_bytes(archive.read(f"BCCD/JPEGImages/{FIELD}.jpg"))
        text = archive.read(f"BCCD/Annotations/{FIELD}.xml").decode()
    objects = []
    for part in re.findall(r"<object>.*?</object>", text, re.DOTALL):
        name = re.search(r"<name>(\w+)</name>", part)[1]
        box = [
            int(re.search(rf"<{k}>(\d+)</{k}>", part)[1]) for k in ("ymin", "xmin", "ymax", "xmax")
        ]
        objects.append({"kind": name, "box": box})
    (SAMPLES / "blood-smear.json").write_text(json.dumps({"objects": objects}, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--fields", type=Path, required=True)
    args = parser.parse_args()
    SAMPLES.mkdir(parents=True, exist_ok=True)
    make_sheet(args.cells)
    make_field(args.fields)
