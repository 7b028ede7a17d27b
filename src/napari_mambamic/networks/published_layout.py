"""The layout of computation that was published, as the yardstick of the benchmark.

The same numbers by a longer way: the four channel groups one after the other, four permuted copies
of the map, projections of each copy, and the loop over positions of Mamba's reference scan.
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
    n, height, width, _ = x.shape
    values, gate = functional.linear(x, module.in_proj).chunk(2, dim=-1)
    maps = functional.silu(module.conv(values.permute(0, 3, 1, 2).contiguous()))
    inner = maps.shape[1]
    copies = four_orders(maps.permute(0, 2, 3, 1)).transpose(2, 3)  # (n, 4, inner, length)
    projected = torch.einsum("nkdl,kcd->nkcl", copies, module.x_proj)
    low_rank, b, c = projected.split([module.dt_weight.shape[-1], N_STATES, N_STATES], dim=2)
    delta = torch.einsum("nkrl,kdr->nkdl", low_rank, module.dt_weight)
    scanned = _loop_over_positions(
        copies.reshape(n, 4 * inner, -1),
        functional.softplus(delta + module.dt_bias[:, :, None]).reshape(n, 4 * inner, -1),
        -torch.exp(module.a_log.flatten(0, 1)),
        b.repeat_interleave(inner, dim=1).reshape(n, 4 * inner, N_STATES, -1),
        c.repeat_interleave(inner, dim=1).reshape(n, 4 * inner, N_STATES, -1),
        module.skip.flatten(),
    )
    orders = scanned.reshape(n, 4, inner, -1).transpose(2, 3)
    normed: Tensor = module.norm(sum_of_four_orders(orders, height, width))
    return normed * functional.silu(gate)


def _loop_over_positions(
    u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Tensor
) -> Tensor:
    """Scan u (n, d, length) as Mamba's reference does.

    The decay and the input of all positions are laid out first, (n, d, length, states) each.
    """
    decay = torch.exp(torch.einsum("ndl,ds->ndls", delta, a))
    driven = torch.einsum("ndl,ndsl,ndl->ndls", delta, b, u)
    state = u.new_zeros(*u.shape[:2], N_STATES)
    outputs = []
    for position in range(u.shape[-1]):
        state = decay[:, :, position] * state + driven[:, :, position]
        outputs.append(torch.einsum("nds,nds->nd", state, c[..., position]))
    return torch.stack(outputs, dim=2) + u * skip[:, None]
