"""Which device computes, and why, in plain words."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass

import torch

from napari_mambamic.errors import DeviceError

DEVICES = ("auto", "cuda", "mps", "cpu")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class DeviceChoice:
    """A device and the sentence that explains it."""

    device: torch.device
    reason: str


@dataclass(frozen=True)
class Gpu:
    """A CUDA GPU that torch can see; memory in bytes."""

    name: str
    capability: tuple[int, int]
    free_memory: int
    total_memory: int


@dataclass(frozen=True)
class DeviceFacts:
    """What was found on this machine.

    Parameters
    ----------
    torch_version : str
    cuda_build : str or None
        CUDA version that torch was built with; None for a build without CUDA.
    architectures : tuple of str
        Compute capabilities that torch was built for, such as "sm_90".
    gpus : tuple of Gpu
        Those that torch can use.
    driver_gpus : tuple of str
        Names of those that NVIDIA's driver reports.
    driver_cuda : str or None
        Highest CUDA version that the driver supports.
    has_mps : bool
        Whether torch can use an Apple GPU.
    cores, threads : int
        Of the CPU, and for torch.
    """

    torch_version: str
    cuda_build: str | None
    architectures: tuple[str, ...]
    gpus: tuple[Gpu, ...]
    driver_gpus: tuple[str, ...]
    driver_cuda: str | None
    has_mps: bool
    cores: int
    threads: int


def gather_facts() -> DeviceFacts:
    """Look at torch, the driver and the CPU."""
    available = torch.cuda.is_available()
    gpus = []
    for index in range(torch.cuda.device_count() if available else 0):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        gpus.append(Gpu(properties.name, (properties.major, properties.minor), free, total))
    driver_gpus, driver_cuda = _ask_driver()
    return DeviceFacts(
        torch_version=torch.__version__,
        cuda_build=torch.version.cuda,
        architectures=tuple(torch.cuda.get_arch_list()) if available else (),
        gpus=tuple(gpus),
        driver_gpus=driver_gpus,
        driver_cuda=driver_cuda,
        has_mps=torch.backends.mps.is_available(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
    )


def why_no_cuda(facts: DeviceFacts) -> str:
    """Say why torch cannot use a CUDA GPU, and what mends it; nothing when it can."""
    if facts.gpus:
        return ""
    seen = " and ".join(facts.driver_gpus)
    if not facts.driver_gpus:
        if facts.cuda_build is None:
            return "there is no NVIDIA GPU or driver, and torch is built for the CPU alone"
        return "no NVIDIA GPU or driver was found (nvidia-smi does not report one)"
    if facts.cuda_build is None:
        return f"there is {seen}, but this torch is built for the CPU alone. {_pip_line(facts)}"
    if facts.driver_cuda and _major(facts.driver_cuda) < _major(facts.cuda_build):
        return (
            f"there is {seen}, but its driver supports CUDA {facts.driver_cuda} and torch is built "
            f"for CUDA {facts.cuda_build}. Update the driver. Or: {_pip_line(facts)}"
        )
    return (
        f"there is {seen}, but torch cannot use it. Restart the computer after a driver update; "
        f"in a container, start it with access to GPUs; check CUDA_VISIBLE_DEVICES"
    )


def warnings_about(facts: DeviceFacts) -> list[str]:
    """Say what is wrong with GPUs that torch can see."""
    said = []
    for gpu in facts.gpus:
        architecture = f"sm_{gpu.capability[0]}{gpu.capability[1]}"
        majors = {a.split("_")[1][:-1] for a in facts.architectures if a.startswith("sm_")}
        if majors and str(gpu.capability[0]) not in majors:
            said.append(
                f"{gpu.name} has compute capability {gpu.capability[0]}.{gpu.capability[1]} "
                f"({architecture}), and this torch is built for {', '.join(facts.architectures)}. "
                f"{_pip_line(facts)}"
            )
        if gpu.free_memory < 1 << 30:
            said.append(
                f"{gpu.name} has {gpu.free_memory / 2**30:.1f} of {gpu.total_memory / 2**30:.0f} "
                f"GiB of memory free. Close other programs that use it."
            )
    return said


def choose_device(name: str = "auto", *, facts: DeviceFacts | None = None) -> DeviceChoice:
    """Choose where to compute.

    Parameters
    ----------
    name : str
        "auto" (CUDA GPU, else Apple GPU, else CPU), "cuda", "cuda:1", "mps" or "cpu".
    facts : DeviceFacts, optional
        By default those of this machine.

    Raises
    ------
    DeviceError
        A device that was asked for by name is not there; nothing falls back in silence.
    """
    kind, _, number = name.partition(":")
    if kind not in DEVICES or (number and not (kind == "cuda" and number.isdigit())):
        raise DeviceError(f"There is no device {name!r}. Choose one of {', '.join(DEVICES)}.")
    facts = facts or gather_facts()
    if kind == "cuda" or (kind == "auto" and facts.gpus):
        if not facts.gpus:
            raise DeviceError(
                f"A CUDA GPU was asked for, but {why_no_cuda(facts)}. To go on without it, choose "
                f"auto or cpu."
            )
        index = int(number or 0)
        if index >= len(facts.gpus):
            raise DeviceError(
                f"{name} was asked for, and there are {len(facts.gpus)} CUDA GPUs, numbered from 0."
            )
        return DeviceChoice(torch.device("cuda", index), f"CUDA GPU: {facts.gpus[index].name}")
    if kind == "mps" or (kind == "auto" and facts.has_mps):
        if not facts.has_mps:
            raise DeviceError("The Apple GPU was asked for and is not there. Choose auto or cpu.")
        return DeviceChoice(torch.device("mps"), "Apple GPU")
    threads = f"CPU, {facts.threads} thread{'s' if facts.threads != 1 else ''}"
    return DeviceChoice(
        torch.device("cpu"), threads if kind == "cpu" else f"{threads}: {why_no_cuda(facts)}"
    )


def choose_precision(name: str, device: torch.device) -> str:
    """Choose the precision of a prediction: "float32" or "bfloat16".

    "auto" takes bfloat16 on CUDA GPUs that compute in it (compute capability 8.0 or higher).

    Raises
    ------
    DeviceError
        There is no such precision, or the device does not compute in it.
    """
    if name not in PRECISIONS:
        raise DeviceError(f"There is no precision {name!r}. Choose {' or '.join(PRECISIONS)}.")
    has_bfloat16 = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
    if name == "auto":
        return "bfloat16" if device.type == "cuda" and has_bfloat16 else "float32"
    if name == "bfloat16" and not has_bfloat16:
        raise DeviceError("This GPU does not compute in bfloat16. Choose float32 or auto.")
    return name


def describe(facts: DeviceFacts) -> dict[str, str]:
    """The facts by heading, in words."""
    described = {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        "torch": f"{facts.torch_version}, CUDA {facts.cuda_build or 'not built in'}",
        "driver": f"CUDA {facts.driver_cuda}" if facts.driver_cuda else "none of NVIDIA's found",
        "cpu": f"{facts.cores} cores, {facts.threads} threads for torch",
    }
    for index, gpu in enumerate(facts.gpus):
        described[f"cuda:{index}"] = (
            f"{gpu.name}, compute capability {gpu.capability[0]}.{gpu.capability[1]}, "
            f"{gpu.free_memory / 2**30:.1f} of {gpu.total_memory / 2**30:.1f} GiB free"
        )
    if not facts.gpus:
        described["cuda"] = f"no: {why_no_cuda(facts)}"
    if facts.has_mps:
        described["mps"] = "Apple GPU"
    return described


def _ask_driver() -> tuple[tuple[str, ...], str | None]:
    """Names of the GPUs that NVIDIA's driver reports, and the CUDA version that it supports."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return (), None
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20).stdout
        table = subprocess.run([program], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return (), None
    names = tuple(re.findall(r"^GPU \d+: (.+?) \(UUID", listed, re.MULTILINE))
    version = re.search(r"CUDA Version: *(\d+\.\d+)", table)
    return names, version[1] if version else None


def _major(version: str) -> int:
    return int(version.split(".")[0])


def _pip_line(facts: DeviceFacts) -> str:
    newest = _major(facts.driver_cuda) if facts.driver_cuda else 12
    if newest < 12:
        return "Update the GPU's driver first: current builds of torch need CUDA 12 or later."
    tag = "cu130" if newest >= 13 else "cu126"
    return (
        f"Mend it with: pip install --force-reinstall torch "
        f"--index-url https://download.pytorch.org/whl/{tag}"
    )
