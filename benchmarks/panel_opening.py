"""How long the Classify panel takes to open, and what importing torch with it would cost.

    python benchmarks/panel_opening.py --json benchmarks/results/panel-opening.json

Each figure is the median of fresh processes; the window of napari is already open when it starts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

_OPEN = """
import time, napari
viewer = napari.Viewer()
begin = time.perf_counter()
{before}
viewer.window.add_plugin_dock_widget("napari-mambamic", "Classify tiles and cells")
print(time.perf_counter() - begin)
viewer.close()
"""


def opening_seconds(before: str, repeats: int) -> float:
    """Seconds to open the panel in a fresh process that first does something else."""
    command = [sys.executable, "-W", "ignore", "-c", _OPEN.format(before=before)]
    runs = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(repeats)
    ]
    return statistics.median(runs)


def main() -> None:
    """Measure both, print and save them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    report = {
        "seconds_as_it_is": opening_seconds("", options.repeats),
        "seconds_if_torch_came_with_it": opening_seconds(
            "import napari_mambamic.classifier", options.repeats
        ),
    }
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
