"""How far the logits are from those of the released code, by network, scan and precision.

python benchmarks/parity.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "unit"))
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from test_networks import GOLDEN, golden_network, use_back_end  # noqa: E402

from napari_mambamic.networks.lean import lean_copy  # noqa: E402


@torch.no_grad()
def main() -> None:
    """Print a table for docs/networks.md, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = {}
    for path in sorted(GOLDEN.glob("*.json")):
        network, patches, logits = golden_network(path.stem)
        scale = float(logits.abs().max())
        row = {"largest logit": scale}
        for dtype, back_ends in (
            (torch.float64, ("reference", "torch", "numba")),
            (torch.float32, ("reference", "torch", "numba")),
        ):
            for back_end in back_ends:
                use_back_end(network, back_end)
                got = network.to(dtype)(patches.to(dtype)).double()
                name = f"{str(dtype).removeprefix('torch.')}, {back_end}"
                row[name] = float((got - logits).abs().max())
            network.double()
        use_back_end(network, "numba")
        got = lean_copy(network.float())(patches.float()).double()
        row["float32, numba, lean copy"] = float((got - logits).abs().max())
        figures[path.stem] = row
    columns = list(next(iter(figures.values())))
    print("| network | " + " | ".join(columns) + " |")
    print("|---" * (1 + len(columns)) + "|")
    for name, row in figures.items():
        print(f"| `{name}` | " + " | ".join(f"{row[c]:.1e}" for c in columns) + " |")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
