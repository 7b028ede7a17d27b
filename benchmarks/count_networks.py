"""Count parameters and multiply-adds of every network: the table of docs/networks.md.

    python benchmarks/count_networks.py

Multiply-adds of convolutions and matrix products are counted by ``torch.utils.flop_counter`` for
one RGB patch of 224 px.  It does not see the scan, which is added by hand: for each direction,
position and channel, three per state (decay of the state, its input, its share of the output) and
one per rank of the step size.
"""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_mambamic.networks import build_network, list_networks
from napari_mambamic.networks.ss2d import N_STATES, SS2D


def count(name: str) -> dict[str, float]:
    """Millions of parameters, and 1e9 multiply-adds without and with the scan."""
    network = build_network(name, n_classes=8).eval()
    scans = 0

    def add_scan(module: SS2D, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal scans
        n, height, width, inner = output.shape
        rank = module.dt_weight.shape[-1]
        scans += 4 * n * height * width * inner * (3 * N_STATES + rank)

    for module in network.modules():
        if isinstance(module, SS2D):
            module.register_forward_hook(add_scan)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 224, 224))
    rest = counter.get_total_flops() / 2
    parameters = {
        classes: sum(p.numel() for p in build_network(name, n_classes=classes).parameters()) / 1e6
        for classes in (8, 1000)
    }
    return {
        "million_parameters_8": parameters[8],
        "million_parameters_1000": parameters[1000],
        "giga_multiply_adds_without_scan": rest / 1e9,
        "giga_multiply_adds": (rest + scans) / 1e9,
    }


def main() -> None:
    """Print a Markdown table."""
    print("| network | parameters, 8 classes | 1000 classes | without the scan | with the scan |")
    print("|---|---|---|---|---|")
    for name in list_networks():
        row = count(name)
        print(
            f"| `{name}` | {row['million_parameters_8']:.2f} M "
            f"| {row['million_parameters_1000']:.2f} M "
            f"| {row['giga_multiply_adds_without_scan']:.2f} G "
            f"| {row['giga_multiply_adds']:.2f} G |"
        )


if __name__ == "__main__":
    main()
