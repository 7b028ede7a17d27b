"""What of a network learns, by which optimiser, and how fast."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_mambamic.errors import TrainingError
from napari_mambamic.networks.triton_loading import load_triton
from napari_mambamic.training.config import TrainConfig

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork


def unfreeze(network: StagedNetwork, mode: str) -> tuple[nn.Module, ...]:
    """Let the modules of a mode learn, and no others; returns them."""
    if mode == "all":
        trained: tuple[nn.Module, ...] = (network,)
    elif mode == "last stage":
        trained = (network.merges[-1], network.stages[-1], network.head)
    elif mode == "head":
        trained = (network.head,)
    else:
        raise TrainingError(f"There is no mode {mode!r}. Choose head, last stage or all.")
    network.requires_grad_(False)
    for module in trained:
        module.requires_grad_(True)
    return trained


def freeze_statistics(network: nn.Module, trained: tuple[nn.Module, ...]) -> None:
    """Leave what does not learn in evaluation mode, so that its BatchNorm keeps its statistics."""
    learning = {id(module) for root in trained for module in root.modules()}
    for module in network.modules():
        if id(module) not in learning:
            module.training = False


def make_optimiser(network: nn.Module, config: TrainConfig, rate: float) -> torch.optim.Optimizer:
    """Optimiser of the parameters that learn, `rate` being the highest learning rate."""
    load_triton()  # before torch does, which it does to make an optimiser
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    return kind(_decayed(network, config.weight_decay), lr=rate)


def share_of_rate(schedule: str, step: int, *, steps_per_epoch: int, total: int) -> float:
    """Share of the highest learning rate that a step learns with, above 0 and up to 1."""
    if schedule == "one-cycle":
        done, rise = step / total, 0.15
        share = done / rise if done < rise else _cosine((done - rise) / (1 - rise))
    else:
        warm_up = min(10 * steps_per_epoch, total // 2)
        share = (
            (step + 1) / (warm_up + 1)
            if step < warm_up
            else _cosine((step - warm_up) / max(1, total - warm_up))
        )
    return max(share, 1e-3)


def _decayed(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    free: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            small = parameter.ndim < 2 or name.split(".")[-1] in ("a_log", "skip", "dt_bias")
            (free if small else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
