"""What the manifest promises, on cells that neither weights nor thresholds have seen."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from skimage.io import imread

from napari_mambamic.trust.assessment import halves
from napari_mambamic.trust.conformal import coverage_of, sets_of

CELLS = Path(__file__).parents[4] / "shared/data/pbc96.zip"  # too many to be in the repository
SEED, SHARE, N = 20261121, 0.15, 300


@pytest.fixture(scope="module")
def held_out(classifier):
    """Predictions of cells of the second half of the validation cells, and their classes."""
    if not CELLS.exists():
        pytest.skip("the single blood cells are not here")
    with zipfile.ZipFile(CELLS) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        folders = [name.split("/")[-2] for name in names]
        labels = np.unique(folders, return_inverse=True)[1]
        rng = np.random.default_rng(SEED)  # as benchmarks/train_blood_cells.py splits
        parts = []
        for label in range(8):
            members = rng.permutation(np.flatnonzero(labels == label))
            parts.append(members[: round(SHARE * len(members))])
        validation = np.sort(np.concatenate(parts))
        _, second = halves(len(validation))
        chosen = validation[np.random.default_rng(0).permutation(second)[:N]]
        cells = np.stack([imread(BytesIO(archive.read(names[i]))) for i in chosen])
    return classifier.predict(cells), labels[chosen]


def test_about_one_in_a_hundred_held_out_cells_is_unlike_the_training_cells(held_out, classifier):
    predicted, _ = held_out
    limit = classifier.manifest.trust["distance"]["threshold"]
    assert (predicted.distances > limit).sum() <= 9  # of 300; 3 are expected


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_cover_what_was_asked_for(held_out, classifier, coverage):
    predicted, labels = held_out
    sets = sets_of(predicted.probabilities, classifier.manifest.trust["conformal"], coverage)
    assert coverage_of(sets, labels) > coverage - 3 * np.sqrt(coverage * (1 - coverage) / N)
    assert sets.sum(1).mean() < 1.1
