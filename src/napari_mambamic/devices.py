"""Which device computes, and why, in plain words."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import torch

from napari_mambamic.errors import DeviceError

DEVICES = ("auto", "cuda", "mps", "cpu")


@dataclass(frozen=True)
class DeviceChoice:
    """A device and the sentence that explains it."""

    device: torch.device
    reason: str


def choose_device(name: str = "auto") -> DeviceChoice:
    """Choose where to compute.

    Parameters
    ----------
    name : str
        "auto" (CUDA GPU, else Apple GPU, else CPU), "cuda", "cuda:1", "mps" or "cpu".

    Raises
    ------
    DeviceError
        A device that was asked for by name is not there; nothing falls back in silence.
    """
    kind = name.split(":")[0]
    if kind not in DEVICES:
        raise DeviceError(f"There is no device {name!r}. Choose one of {', '.join(DEVICES)}.")
    if kind == "cuda" or (kind == "auto" and torch.cuda.is_available()):
        if not torch.cuda.is_available():
            raise DeviceError(f"A CUDA GPU was asked for, but {why_no_cuda()}. Choose auto or cpu.")
        index = int(name.split(":")[1]) if ":" in name else 0
        if index >= torch.cuda.device_count():
            raise DeviceError(
                f"{name} was asked for, and there are {torch.cuda.device_count()} CUDA GPUs, "
                f"numbered from 0."
            )
        return DeviceChoice(
            torch.device("cuda", index), f"CUDA GPU: {torch.cuda.get_device_name(index)}"
        )
    if kind == "mps" or (kind == "auto" and torch.backends.mps.is_available()):
        if not torch.backends.mps.is_available():
            raise DeviceError("The Apple GPU was asked for and is not there. Choose auto or cpu.")
        return DeviceChoice(torch.device("mps"), "Apple GPU")
    threads = f"CPU, {torch.get_num_threads()} threads"
    reason = threads if kind == "cpu" else f"{threads}: {why_no_cuda()}"
    return DeviceChoice(torch.device("cpu"), reason)


def why_no_cuda() -> str:
    """Say why torch cannot use a CUDA GPU."""
    if torch.version.cuda is None:
        return "this build of torch is for the CPU alone"
    if not torch.cuda.is_available():
        return "torch finds no CUDA GPU or driver"
    return "a CUDA GPU is there"


def report() -> dict[str, str]:
    """What this machine has and what would be used, by heading."""
    choice = choose_device()
    return {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads for torch",
        "cuda": (
            torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"no: {why_no_cuda()}"
        ),
        "device": choice.reason,
    }
