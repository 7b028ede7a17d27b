"""Triton can be imported after a window was drawn."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

_SCRIPT = """
import numpy as np, napari
from qtpy.QtWidgets import QApplication
viewer = napari.Viewer(show=True)
viewer.add_image(np.zeros((9, 9)))
for _ in range(30):
    QApplication.processEvents()
from napari_mambamic.networks.triton_loading import load_triton
print("imported", load_triton().__name__)
import torch
torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
print("made an optimiser")
viewer.close()
"""


@pytest.mark.skipif(
    find_spec("triton") is None, reason="there are no Triton wheels for this system"
)
def test_triton_is_imported_after_a_window_was_drawn():
    # In a process of its own: without care, the process ends here (with Mesa's software drawing).
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "imported triton" in done.stdout
    assert "made an optimiser" in done.stdout
