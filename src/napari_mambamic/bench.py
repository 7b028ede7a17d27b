"""How fast a network is here, as ratios inside one run."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from napari_mambamic.devices import choose_device
from napari_mambamic.memory import freed_memory_kept
from napari_mambamic.networks import build_network
from napari_mambamic.networks.lean import lean_copy
from napari_mambamic.networks.published_layout import published_layout
from napari_mambamic.networks.selective_scan import back_end_for
from napari_mambamic.networks.ss2d import SS2D

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork


@dataclass(frozen=True)
class Row:
    """One way to run the network."""

    what: str
    ms_per_image: float
    times_faster: float
    largest_logit_difference: float


@torch.inference_mode()
def measure(
    *,
    network_name: str = "mambamic-t",
    patch_size: int = 224,
    batch_size: int = 8,
    device: str = "auto",
    repeats: int = 5,
) -> dict[str, Any]:
    """Time forward passes in float32, against the published layout with its plain loop.

    Random weights and patches; one warm-up each, then the median of `repeats` (of one for the
    plain loop).  The logits of all rows are compared.

    Returns
    -------
    dict
        ``settings``, ``machine`` and ``rows``: ready for JSON.
    """
    choice = choose_device(device)
    torch.manual_seed(0)
    network = build_network(network_name, n_classes=8).to(choice.device).eval()
    patches = torch.randn(batch_size, 3, patch_size, patch_size, device=choice.device)

    def forward(of: StagedNetwork) -> torch.Tensor:
        logits: torch.Tensor = of(patches)
        return logits.cpu()

    with published_layout(network):
        network(patches[:1, :, :32, :32])
        logits, slow = _timed(partial(forward, network), 1)
    lean = lean_copy(network)
    rows = [Row("published layout, plain loop over positions", 1e3 * slow / batch_size, 1.0, 0.0)]
    fastest = back_end_for(choice.device)
    for back_end in dict.fromkeys(("torch", fastest)):
        for module in lean.modules():
            if isinstance(module, SS2D):
                module.back_end = back_end
        with freed_memory_kept():
            forward(lean)
            got, seconds = _timed(partial(forward, lean), repeats)
        difference = float((got - logits).abs().max())
        what = f"napari-mambamic, {back_end} scan"
        rows.append(Row(what, 1e3 * seconds / batch_size, slow / seconds, difference))
    return {
        "settings": {
            "network": network_name,
            "patch_size": patch_size,
            "batch_size": batch_size,
            "precision": "float32",
            "repeats": repeats,
        },
        "machine": {
            "device": choice.reason,
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "rows": [asdict(row) for row in rows],
    }


def table(report: dict[str, Any]) -> str:
    """Lay a report out for a terminal."""
    settings, machine = report["settings"], report["machine"]
    lines = [
        f"{settings['network']}, {settings['patch_size']} px, batch {settings['batch_size']}, "
        f"{settings['precision']}, on {machine['device']}",
        f"{'':48}{'ms / image':>12}{'faster':>10}",
    ]
    for row in report["rows"]:
        lines.append(f"{row['what']:48}{row['ms_per_image']:12.1f}{row['times_faster']:9.1f}x")
    return "\n".join(lines)


def _timed(run: Callable[[], torch.Tensor], repeats: int) -> tuple[torch.Tensor, float]:
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - begin)
    return result, statistics.median(seconds)
