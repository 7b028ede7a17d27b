"""The doctor's verdicts, for machines that are not at hand: the facts are made up."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

import pytest

from napari_mambamic.devices import (
    DeviceFacts,
    Gpu,
    choose_device,
    describe,
    gather_facts,
    warnings_about,
    why_no_cuda,
)
from napari_mambamic.errors import DeviceError

CPU_ONLY = DeviceFacts("2.13.0+cpu", None, (), (), (), None, False, 8, 4)
H200 = Gpu("NVIDIA H200", (9, 0), 130 << 30, 140 << 30)
WORKING = replace(
    CPU_ONLY,
    torch_version="2.13.0",
    cuda_build="12.6",
    architectures=("sm_80", "sm_90"),
    gpus=(H200, replace(H200, name="second")),
    driver_gpus=("NVIDIA H200", "second"),
    driver_cuda="12.8",
)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (CPU_ONLY, "no NVIDIA GPU or driver, and torch is built for the CPU alone"),
        (
            replace(CPU_ONLY, driver_gpus=("RTX 4090",), driver_cuda="12.4"),
            "there is RTX 4090, but this torch is built for the CPU alone. Mend it with: pip "
            "install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126",
        ),
        (
            replace(CPU_ONLY, driver_gpus=("RTX 5090",), driver_cuda="13.0"),
            "https://download.pytorch.org/whl/cu130",
        ),
        (
            replace(CPU_ONLY, driver_gpus=("K80",), driver_cuda="11.4"),
            "Update the GPU's driver first",
        ),
        (replace(WORKING, gpus=(), driver_gpus=(), driver_cuda=None), "nvidia-smi does not report"),
        (
            replace(WORKING, gpus=(), driver_cuda="11.8"),
            "its driver supports CUDA 11.8 and torch is built for CUDA 12.6. Update the driver",
        ),
        (replace(WORKING, gpus=()), "in a container, start it with access to GPUs"),
        (WORKING, ""),
    ],
)
def test_why_there_is_no_cuda(facts, words):
    said = why_no_cuda(facts)
    assert words in said
    assert bool(words) == bool(said)


@pytest.mark.parametrize(
    ("name", "facts", "device", "reason"),
    [
        ("auto", WORKING, "cuda:0", "CUDA GPU: NVIDIA H200"),
        ("cuda:1", WORKING, "cuda:1", "CUDA GPU: second"),
        ("cpu", WORKING, "cpu", "CPU, 4 threads"),
        ("auto", replace(CPU_ONLY, has_mps=True), "mps", "Apple GPU"),
        ("auto", replace(CPU_ONLY, threads=1), "cpu", "CPU, 1 thread: there is no NVIDIA"),
    ],
)
def test_the_device_is_chosen_and_explained(name, facts, device, reason):
    choice = choose_device(name, facts=facts)
    assert str(choice.device) == device
    assert choice.reason.startswith(reason)


@pytest.mark.parametrize(
    ("name", "facts", "words"),
    [
        ("tpu", WORKING, "no device 'tpu'"),
        ("cuda:x", WORKING, "no device 'cuda:x'"),
        ("cpu:1", WORKING, "no device 'cpu:1'"),
        ("cuda:2", WORKING, "there are 2 CUDA GPUs"),
        ("cuda", CPU_ONLY, "A CUDA GPU was asked for, but there is no NVIDIA GPU"),
        ("mps", WORKING, "Apple GPU was asked for"),
    ],
)
def test_what_is_not_there_is_refused(name, facts, words):
    with pytest.raises(DeviceError, match=words):
        choose_device(name, facts=facts)


def test_what_is_wrong_with_a_gpu_is_said():
    assert warnings_about(WORKING) == []
    new = replace(H200, name="Rubin", capability=(12, 0))
    full = replace(H200, name="busy", free_memory=300 << 20)
    said = warnings_about(replace(WORKING, gpus=(new, full)))
    assert "compute capability 12.0 (sm_120), and this torch is built for sm_80, sm_90" in said[0]
    assert "busy has 0.3 of 140 GiB" in said[1]


def test_the_facts_are_described():
    said = describe(WORKING)
    assert said["cuda:0"] == "NVIDIA H200, compute capability 9.0, 130.0 of 140.0 GiB free"
    assert "mps" not in said
    assert describe(replace(CPU_ONLY, has_mps=True))["mps"] == "Apple GPU"


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for nvidia-smi is a shell script")
def test_the_driver_is_asked(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = -L ]; then echo "GPU 0: Tesla T4 (UUID: GPU-1)"; '
        'else echo "| Driver Version: 550.1   CUDA Version: 12.4 |"; fi\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    facts = gather_facts()
    assert facts.driver_gpus == ("Tesla T4",)
    assert facts.driver_cuda == "12.4"
