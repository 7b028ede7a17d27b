"""Labels of the same cells at several pixel sizes: how many stay the same.

    python benchmarks/pixel_sizes.py --data pbc96.zip --json benchmarks/results/pixel-sizes.json

The validation cells of the bundled weights, as if those had been trained at 1 um per px: enlarged
four times, to 0.25 um per px, and averaged down to 0.5 and 1 um per px.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from skimage.transform import downscale_local_mean, resize
from train_blood_cells import load_cells, split

from napari_mambamic import classify_image, load_classifier


def main() -> None:
    """Classify, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    images, labels, _, _ = load_cells(options.data)
    cells = images[split(labels)[1]]
    classifier = load_classifier(device="cpu")
    patch = replace(classifier.manifest.patch, pixel_size_um=1.0)
    classifier.manifest = replace(classifier.manifest, patch=patch)
    found: dict[float, list[int]] = {0.25: [], 0.5: [], 1.0: []}
    for first in range(0, len(cells), 16):  # a strip of cells as an image
        strip = np.concatenate(cells[first : first + 16], axis=1)
        shape = 4 * strip.shape[0], 4 * strip.shape[1]
        fine = resize(strip, shape, order=3, preserve_range=True).clip(0, 255)
        for pixel_size_um, numbers in found.items():
            factor = int(pixel_size_um / 0.25)
            image = downscale_local_mean(fine, (factor, factor, 1)).round().astype(np.uint8)
            results = classify_image(image, classifier, pixel_size_um=pixel_size_um)
            numbers += results.labels.tolist()
    same = {
        f"{one} and {other} um": float(np.mean(np.equal(found[one], found[other])))
        for one, other in ((0.25, 0.5), (0.25, 1.0), (0.5, 1.0))
    }
    report = {"cells": len(cells), "same_label": same}
    print(json.dumps(report, indent=1))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
