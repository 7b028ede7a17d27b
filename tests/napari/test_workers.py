"""Threads end before the program does."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import time
from qtpy.QtWidgets import QApplication
from napari import Viewer
from napari_mambamic._napari.run_panel import RunPanel

def steps():
    while True:
        yield
        time.sleep(0.5)

class Panel(RunPanel):
    def start(self):
        self._run(steps)

viewer = Viewer()
panel = Panel("Run")
viewer.window.add_dock_widget(panel)
panel.start()
end = time.monotonic() + 1
while time.monotonic() < end:
    QApplication.processEvents()
    time.sleep(0.01)
viewer.close()
print("closed")
"""


def test_a_script_that_closes_the_window_during_a_run_ends_without_a_word():
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.stdout.strip() == "closed"
    for words in ("deleted", "Traceback", "RuntimeError"):
        assert words not in ended.stderr
    assert ended.returncode == 0
