"""How fast the networks are on this machine, as ratios inside one run.

Weights and patches are random: the time does not depend on them.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from napari_mambamic.devices import choose_device, choose_precision
from napari_mambamic.errors import DeviceError
from napari_mambamic.memory import freed_memory_kept
from napari_mambamic.networks import build_network
from napari_mambamic.networks.lean import lean_copy
from napari_mambamic.networks.selective_scan import back_end_for
from napari_mambamic.networks.ss2d import SS2D
from napari_mambamic.networks.triton_loading import load_triton
from napari_mambamic.networks.yardsticks import ResNet18, published_layout, scan_left_out

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork

N_CLASSES = 8
PARTS = ("forward", "batches", "training", "memory")
_TRAINING_SIZE, _TRAINING_BATCH = 64, 32
_MEMORY_BATCH = 64


def measure(
    *,
    networks: Sequence[str] = ("mambamic-t",),
    patch_size: int = 224,
    batch_size: int | None = None,
    device: str = "auto",
    parts: Sequence[str] = PARTS,
    repeats: int = 7,
) -> dict[str, Any]:
    """Time networks on a device.

    Parameters
    ----------
    networks : sequence of str
        Names that `build_network` takes.
    patch_size : int
        In px.
    batch_size : int, optional
        Patches per forward pass where the ways to run a network are compared; by default 8 on a
        CPU and 256 on a GPU.
    device : str
        As `choose_device` takes it.
    parts : sequence of str
        "forward": against the published layout with its plain loop (and with the mamba-ssm
        package, where that is installed), without the scan, and against a ResNet-18.
        "batches": patches per second by batch size and precision, and which of them to choose.
        "training": a step with 32 patches of 64 px against the published layout.
        "memory": the peak of a forward pass with 64 patches.
    repeats : int
        Each time is the median of so many runs after two warm-ups; of one run for the plain loop.

    Returns
    -------
    dict
        ``machine``, ``settings`` and ``networks``: ready for JSON.
    """
    choice = choose_device(device)
    size = batch_size or (256 if choice.device.type == "cuda" else 8)
    bench = _Bench(choice.device, patch_size, size, repeats)
    measured = {}
    for name in networks:
        measured[name] = {part: getattr(bench, part)(name) for part in PARTS if part in parts}
    return {
        "machine": {
            "device": choice.reason,
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "system": f"{platform.system()} {platform.machine()}",
            "torch": torch.__version__,
            "python": platform.python_version(),
            "date": time.strftime("%Y-%m-%d"),
        },
        "settings": {"patch_size": patch_size, "batch_size": size, "repeats": repeats},
        "networks": measured,
    }


class _Bench:
    def __init__(self, device: torch.device, patch_size: int, batch_size: int, repeats: int):
        self.device = device
        self.patch_size = patch_size
        self.batch_size = batch_size
        self.repeats = repeats

    def forward(self, name: str) -> list[dict[str, Any]]:
        network = self.network(name)
        patches = self.patches(self.batch_size)
        lean = lean_copy(network)
        rows: list[dict[str, Any]] = []

        def add(
            what: str,
            run: Callable[[Tensor], Tensor],
            *,
            precision: str = "float32",
            repeats: int = self.repeats,
            same: bool = True,
        ) -> None:
            logits, seconds = self.timed(lambda: run(patches), precision, repeats)
            first = rows[0] if rows else None
            rows.append(
                {
                    "what": what,
                    "precision": precision,
                    "ms_per_patch": 1e3 * seconds / len(patches),
                    "times_faster": first["seconds"] / seconds if first else 1.0,
                    "largest_logit_difference": (
                        float((logits - first["logits"]).abs().max()) if first and same else None
                    ),
                    "seconds": seconds,
                    "logits": logits,
                }
            )

        with published_layout(network):
            network(patches[:1, :, :32, :32])  # the warm-up
            add("published layout, loop over positions", network, repeats=1)
        if self.device.type == "cuda" and find_spec("mamba_ssm"):
            with published_layout(network, mamba_ssm=True):
                add("published layout, mamba-ssm scan", network)
        fastest = back_end_for(self.device)
        for back_end in dict.fromkeys(("torch", fastest)):
            _set_back_end(lean, back_end)
            add(f"napari-mambamic, {back_end} scan", lean)
        for precision in self.precisions()[1:]:
            add(f"napari-mambamic, {fastest} scan", lean, precision=precision)
        with scan_left_out(lean):
            add("napari-mambamic, scan left out", lean, same=False)
        resnet = ResNet18(N_CLASSES).to(self.device).eval()
        add("ResNet-18, plain torch", resnet, same=False)
        for row in rows:
            del row["seconds"], row["logits"]
        return rows

    def batches(self, name: str) -> dict[str, Any]:
        lean = lean_copy(self.network(name))
        sizes = (1, 4, 8, 16, 32) if self.device.type == "cpu" else (16, 64, 128, 256, 512, 1024)
        rows: list[dict[str, Any]] = []
        for precision in self.precisions():
            for size in sizes:
                patches = self.patches(size)
                try:
                    _, seconds = self.timed(partial(lean, patches), precision, self.repeats)
                except torch.OutOfMemoryError:
                    break
                rows.append(
                    {
                        "precision": precision,
                        "batch_size": size,
                        "patches_per_second": size / seconds,
                    }
                )
        # The smallest batch that is within 5 % of the fastest one: it reports and stops sooner.
        enough = 0.95 * max(row["patches_per_second"] for row in rows)
        chosen = next(row for row in rows if row["patches_per_second"] >= enough)
        return {
            "rows": rows,
            "recommended": {
                "back_end": back_end_for(self.device),
                "precision": chosen["precision"],
                "batch_size": chosen["batch_size"],
            },
        }

    def training(self, name: str) -> list[dict[str, Any]]:
        network = self.network(name).train()
        patches = self.patches(_TRAINING_BATCH, _TRAINING_SIZE)
        labels = torch.arange(_TRAINING_BATCH, device=self.device) % N_CLASSES
        load_triton()  # before torch does, which it does to make an optimiser
        optimiser = torch.optim.AdamW(network.parameters())

        def step() -> Tensor:
            optimiser.zero_grad()
            logits: Tensor = network(patches)
            functional.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            return logits.detach()

        _, ours = self.timed(step, "float32", self.repeats, training=True)
        with published_layout(network):
            _, published = self.timed(step, "float32", 1, training=True)
        rows = (("published layout, loop over positions", published), ("napari-mambamic", ours))
        return [
            {"what": what, "ms_per_step": 1e3 * seconds, "times_faster": published / seconds}
            for what, seconds in rows
        ]

    @torch.inference_mode()
    def memory(self, name: str) -> dict[str, Any]:
        lean, patches = lean_copy(self.network(name)), self.patches(_MEMORY_BATCH)
        lean(patches[:1])
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            lean(patches)
            peak: int | None = torch.cuda.max_memory_allocated(self.device) - before
        else:
            peak = _peak_memory(lambda: lean(patches))
        return {"batch_size": _MEMORY_BATCH, "peak_mb": peak and peak / 1e6}

    def network(self, name: str) -> StagedNetwork:
        torch.manual_seed(0)
        return build_network(name, n_classes=N_CLASSES).to(self.device).eval()

    def patches(self, n: int, size: int | None = None) -> Tensor:
        size = size or self.patch_size
        return torch.randn(n, 3, size, size, device=self.device)

    def precisions(self) -> list[str]:
        try:
            return ["float32", choose_precision("bfloat16", self.device)]
        except DeviceError:
            return ["float32"]

    def timed(
        self,
        run: Callable[[], Tensor],
        precision: str,
        repeats: int,
        *,
        training: bool = False,
    ) -> tuple[Tensor, float]:
        """Last result, in float32 on the CPU, and the median of the seconds.

        What runs once, without a warm-up, is a yardstick that has none of our ways.
        """
        lowered = precision == "bfloat16"
        seconds = []
        with (
            freed_memory_kept() if repeats > 1 else nullcontext(),
            nullcontext() if training else torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=lowered),
        ):
            for _ in range(2 if repeats > 1 else 0):
                run()
            for _ in range(repeats):
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                begin = time.perf_counter()
                result = run().float().cpu()  # waits for the device
                seconds.append(time.perf_counter() - begin)
        return result, statistics.median(seconds)


def table(report: dict[str, Any]) -> str:
    """Lay a report out for a terminal."""
    machine, settings = report["machine"], report["settings"]
    size = settings["patch_size"]
    lines = [f"{machine['processor']}; {machine['device']}; torch {machine['torch']}"]
    for name, parts in report["networks"].items():
        if rows := parts.get("forward"):
            what = f"{name}, {size} px, batch {settings['batch_size']}"
            lines += ["", f"{what:46}{'':10}{'ms / patch':>12}{'faster':>10}"]
            lines += [
                f"{row['what']:46}{row['precision']:10}{row['ms_per_patch']:12.2f}"
                f"{row['times_faster']:9.1f}x"
                for row in rows
            ]
        if batches := parts.get("batches"):
            lines += ["", f"{f'{name}, {size} px':46}{'':10}{'batch':>12}{'patches/s':>11}"]
            lines += [
                f"{'':46}{row['precision']:10}{row['batch_size']:12}"
                f"{row['patches_per_second']:11.1f}"
                for row in batches["rows"]
            ]
            best = batches["recommended"]
            lines.append(
                f"Recommended: {best['back_end']} scan, {best['precision']}, batches of "
                f"{best['batch_size']}"
            )
        if rows := parts.get("training"):
            what = f"{name}, training step, {_TRAINING_SIZE} px, batch {_TRAINING_BATCH}"
            lines += ["", f"{what:56}{'ms / step':>12}{'faster':>10}"]
            lines += [
                f"{row['what']:56}{row['ms_per_step']:12.1f}{row['times_faster']:9.1f}x"
                for row in rows
            ]
        if memory := parts.get("memory"):
            peak = memory["peak_mb"]
            said = "not measured on this system" if peak is None else f"{peak:.0f} MB"
            lines += ["", f"{name}, {size} px, batch {memory['batch_size']}: peak memory {said}"]
    return "\n".join(lines)


def _set_back_end(network: torch.nn.Module, back_end: str) -> None:
    for module in network.modules():
        if isinstance(module, SS2D):
            module.back_end = back_end


def _peak_memory(run: Callable[[], object]) -> int | None:
    """Bytes that a call adds to the memory of this process at its peak, where Linux tells."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _memory_status("VmRSS")
        run()
        return max(0, _memory_status("VmHWM") - before)
    except OSError:
        return None


def _memory_status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
