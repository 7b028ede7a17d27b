"""What this machine would compute with, whether it works, and what to do about it."""

from __future__ import annotations

import torch

from napari_mambamic.devices import choose_device, describe, gather_facts, warnings_about
from napari_mambamic.networks.selective_scan import back_end_for, list_back_ends, why_not


def examine() -> dict[str, str]:
    """Findings by heading; every back end of the scan is run against the reference."""
    facts = gather_facts()
    device = choose_device(facts=facts).device
    findings = describe(facts)
    for number, warning in enumerate(warnings_about(facts), start=1):
        findings[f"warning {number}"] = warning
    findings["used"] = f"{choose_device(facts=facts).reason}; {back_end_for(device)} scan"
    for back_end in list_back_ends():
        findings[f"{back_end} scan"] = _state_of(back_end, device)
    return findings


def _state_of(back_end: str, device: torch.device) -> str:
    if back_end in ("triton", "mamba-ssm") and device.type != "cuda":
        return "needs a CUDA GPU"
    if back_end == "numba" and device.type != "cpu":
        device = torch.device("cpu")
    reason = why_not(back_end, device)
    return f"does not work on {device}: {reason}" if reason else f"works on {device}"
