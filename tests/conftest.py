"""What several test files need."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton's kernels run on the CPU, slowly

from napari_mambamic.classifier import load_classifier

settings.register_profile("no-deadline", deadline=None)  # a busy machine is not a defect
settings.load_profile("no-deadline")


@pytest.fixture(scope="session")
def classifier():
    """The bundled weights on the CPU."""
    return load_classifier(device="cpu")


@pytest.fixture(scope="session")
def cells():
    """96 real cells (8, 12, 96, 96, 3) uint8: a row per class, in the order of the weights."""
    from pathlib import Path

    from skimage.io import imread

    import napari_mambamic

    samples = Path(napari_mambamic.__file__).parent / "_napari/samples"
    sheet = imread(samples / "blood-cells.jpg")
    return sheet.reshape(8, 96, 12, 96, 3).swapaxes(1, 2)


@pytest.fixture(scope="session")
def sheet(cells):
    """The same cells as one image (768, 1152, 3)."""
    return np.ascontiguousarray(cells.swapaxes(1, 2).reshape(768, 1152, 3))
