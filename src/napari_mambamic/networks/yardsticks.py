"""What the benchmark compares with: the published layout, no scan at all, and a ResNet-18.

The published layout computes the same numbers by a longer way: the four channel groups one after
the other, four permuted copies of the map, projections of each copy, and the loop over positions
of Mamba's reference scan, or the scan of the mamba-ssm package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_mambamic.networks.mambamic import GROUPS, ScanBranch
from napari_mambamic.networks.selective_scan.reference import four_orders, sum_of_four_orders
from napari_mambamic.networks.ss2d import N_STATES, SS2D, shuffle_channels


@contextmanager
def published_layout(network: nn.Module, *, mamba_ssm: bool = False) -> Iterator[None]:
    """Let a network compute in the published layout for a while.

    By a loop over positions, or with the CUDA kernel of the mamba-ssm package.
    """
    if mamba_ssm:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn as scan
    else:
        scan = _loop_over_positions
    with (
        _forward_replaced(network, SS2D, partial(_ss2d, scan)),
        _forward_replaced(network, ScanBranch, _scan_branch),
    ):
        yield


@contextmanager
def scan_left_out(network: nn.Module) -> Iterator[None]:
    """Let a network compute without its scans, and all the rest, for a while."""
    with _forward_replaced(network, SS2D, _without_scan):
        yield


class ResNet18(nn.Module):
    """ResNet-18 (He et al., CVPR 2016, doi:10.1109/CVPR.2016.90), as plain as torch has it."""

    def __init__(self, n_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        layers = [
            *_convolved(in_channels, 64, 7, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
        ]
        inner = 64
        for channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            layers += [_Residual(inner, channels, stride), _Residual(channels, channels, 1)]
            inner = channels
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(inner, n_classes)

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings (n, 512) of patches (n, channels, height, width)."""
        embeddings: Tensor = self.body(x)
        return embeddings

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, n_classes) of patches (n, channels, height, width)."""
        logits: Tensor = self.head(self.embed(x))
        return logits


class _Residual(nn.Module):
    def __init__(self, inner: int, channels: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_convolved(inner, channels, 3, stride),
            nn.ReLU(inplace=True),
            *_convolved(channels, channels, 3, 1),
        )
        same = stride == 1 and inner == channels
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(*_convolved(inner, channels, 1, stride))
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu_(self.branch(x) + self.shortcut(x))


def _convolved(inner: int, channels: int, size: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inner, channels, size, stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(channels)]


@contextmanager
def _forward_replaced(
    network: nn.Module, kind: type[nn.Module], forward: Callable[[Any, Tensor], Tensor]
) -> Iterator[None]:
    modules = [module for module in network.modules() if isinstance(module, kind)]
    for module in modules:
        module.forward = partial(forward, module)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def _without_scan(module: SS2D, x: Tensor) -> Tensor:
    values, gate, _ = module.project(x)
    return module.gated(values, gate)


def _scan_branch(branch: ScanBranch, x: Tensor) -> Tensor:
    joined = torch.cat(
        [
            branch.filter(branch.ss2d(group)) + group * (1 + branch.skip_scale)
            for group in branch.norm(x).chunk(GROUPS, dim=-1)
        ],
        dim=-1,
    )
    return shuffle_channels(branch.norm(joined), joined.shape[-1] // 2)


def _ss2d(scan: Callable[..., Tensor], module: SS2D, x: Tensor) -> Tensor:
    n, height, width, _ = x.shape
    values, gate = functional.linear(x, module.in_proj).chunk(2, dim=-1)
    maps = functional.silu(module.conv(values.permute(0, 3, 1, 2).contiguous()))
    inner = maps.shape[1]
    copies = four_orders(maps.permute(0, 2, 3, 1)).transpose(2, 3)  # (n, 4, inner, length)
    projected = torch.einsum("nkdl,kcd->nkcl", copies, module.x_proj)
    low_rank, b, c = projected.split([module.dt_weight.shape[-1], N_STATES, N_STATES], dim=2)
    delta = torch.einsum("nkrl,kdr->nkdl", low_rank, module.dt_weight)
    scanned = scan(
        copies.reshape(n, 4 * inner, -1),
        functional.softplus(delta + module.dt_bias[:, :, None]).reshape(n, 4 * inner, -1),
        -torch.exp(module.a_log.flatten(0, 1)),
        b.contiguous(),
        c.contiguous(),
        module.skip.flatten(),
    )
    orders = scanned.reshape(n, 4, inner, -1).transpose(2, 3)
    return module.gated(sum_of_four_orders(orders, height, width), gate)


def _loop_over_positions(
    u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Tensor
) -> Tensor:
    """Scan u (n, d, length) as Mamba's reference does.

    B and C are (n, 4, states, length).  The decay and the input of all positions are laid out
    first, (n, d, length, states) each.
    """
    b, c = (values.repeat_interleave(u.shape[1] // 4, dim=1) for values in (b, c))
    decay = torch.exp(torch.einsum("ndl,ds->ndls", delta, a))
    driven = torch.einsum("ndl,ndsl,ndl->ndls", delta, b, u)
    state = u.new_zeros(*u.shape[:2], N_STATES)
    outputs = []
    # Unbound at once, because the gradient of a slice is as large as what it was cut from.
    for factor, inflow, weight in zip(decay.unbind(2), driven.unbind(2), c.unbind(3), strict=True):
        state = factor * state + inflow
        outputs.append(torch.einsum("nds,nds->nd", state, weight))
    return torch.stack(outputs, dim=2) + u * skip[:, None]
