"""Real images to try the plugin on; their licences are in ``samples/LICENCES.md``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from skimage.draw import ellipse
from skimage.io import imread

SAMPLES = Path(__file__).parent / "samples"
LayerData = tuple[Any, dict[str, Any], str]


def blood_cells() -> list[LayerData]:
    """A sheet of 96 cells, one class per row, that the bundled weights were not trained on.

    The cells fill squares of 96 px, the bundled weights' tile size, without gaps.  A point on each
    cell carries its known class.
    """
    known = json.loads((SAMPLES / "blood-cells.json").read_text())
    size, names, columns = known["cell_size"], known["rows"], known["columns"]
    rows, cols = np.mgrid[: len(names), :columns].reshape(2, -1)
    centres = np.stack([rows, cols], axis=1) * size + (size - 1) / 2
    points = {
        "name": "known classes",
        "features": {"known class": [names[row] for row in rows]},
        "size": 12,
        "face_color": "transparent",
        "border_color": "black",
        "visible": False,
    }
    return [
        (imread(SAMPLES / "blood-cells.jpg"), {"name": "blood cells", "rgb": True}, "image"),
        (centres, points, "points"),
    ]


def blood_smear() -> list[LayerData]:
    """A field of a stained blood smear, with its white cells and platelets as labelled objects."""
    image = imread(SAMPLES / "blood-smear.jpg")
    objects = json.loads((SAMPLES / "blood-smear.json").read_text())["objects"]
    labels = np.zeros(image.shape[:2], np.int32)
    wanted = [o["box"] for o in objects if o["kind"] != "RBC"]
    for number, (top, left, bottom, right) in enumerate(wanted, start=1):
        inside = ellipse(
            (top + bottom) / 2,
            (left + right) / 2,
            (bottom - top) / 2,
            (right - left) / 2,
            shape=labels.shape,
        )
        labels[inside] = number
    return [
        (image, {"name": "blood smear", "rgb": True}, "image"),
        (labels, {"name": "white cells and platelets", "opacity": 0.4}, "labels"),
    ]
