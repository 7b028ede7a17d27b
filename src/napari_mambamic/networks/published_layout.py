"""The layout of computation that was published, as the yardstick of the benchmark.

The same numbers by a longer way: the four channel groups one after the other, four permuted copies
of the map, projections of each copy, and a Python loop over positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_mambamic.networks.mambamic import GROUPS, ScanBranch
from napari_mambamic.networks.selective_scan.reference import four_orders, sum_of_four_orders
from napari_mambamic.networks.ss2d import N_STATES, SS2D, shuffle_channels


@contextmanager
def published_layout(network: nn.Module) -> Iterator[None]:
    """Let a MambaMIC network compute in the published layout for a while."""
    branches = [module for module in network.modules() if isinstance(module, ScanBranch)]
    for branch in branches:
        branch.forward = partial(_scan_branch, branch)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for branch in branches:
            del branch.forward


def _scan_branch(branch: ScanBranch, x: Tensor) -> Tensor:
    joined = torch.cat(
        [
            branch.filter(_ss2d(branch.ss2d, group)) + group * (1 + branch.skip_scale)
            for group in branch.norm(x).chunk(GROUPS, dim=-1)
        ],
        dim=-1,
    )
    return shuffle_channels(branch.norm(joined), joined.shape[-1] // 2)


def _ss2d(module: SS2D, x: Tensor) -> Tensor:
    height, width = x.shape[1:3]
    values, gate = functional.linear(x, module.in_proj).chunk(2, dim=-1)
    maps = functional.silu(module.conv(values.permute(0, 3, 1, 2).contiguous()))
    copies = four_orders(maps.permute(0, 2, 3, 1))
    projected = torch.einsum("nkld,kcd->nklc", copies, module.x_proj)
    low_rank, b, c = projected.split([module.dt_weight.shape[-1], N_STATES, N_STATES], dim=-1)
    delta = functional.softplus(
        torch.einsum("nklr,kdr->nkld", low_rank, module.dt_weight)
        + module.dt_bias[None, :, None, :]
    )
    a = -torch.exp(module.a_log)
    state = x.new_zeros(len(x), 4, copies.shape[-1], N_STATES)
    outputs = []
    for position in range(height * width):
        step = delta[:, :, position, :, None]
        driven = step * copies[:, :, position, :, None] * b[:, :, position, None, :]
        state = torch.exp(step * a) * state + driven
        outputs.append(torch.einsum("nkds,nks->nkd", state, c[:, :, position]))
    y = torch.stack(outputs, dim=2) + module.skip[:, None, :] * copies
    normed: Tensor = module.norm(sum_of_four_orders(y, height, width))
    return normed * functional.silu(gate)
