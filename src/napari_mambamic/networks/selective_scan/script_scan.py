"""The four-direction selective scan for TorchScript: plain torch, prediction only.

The walk along the map is compiled by `torch.jit.script`, so a traced network holds it as a loop
and not as thousands of steps.  What does not depend on the state is computed for a block of
positions at once; then each position takes one operation, in place.  On a CPU that is two to four
times as fast as `torch_scan`, whose runs side by side compute everything twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from napari_mambamic.networks.selective_scan.reference import (
    four_orders,
    in_four_orders,
    sum_of_four_orders,
)


def scan(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor
) -> Tensor:
    """Scan a map in four directions; shapes as in :func:`..selective_scan`."""
    height, width = x.shape[1:3]
    delta, b, c = in_four_orders(projected, dt_weight, dt_bias, a_log.shape[-1])
    sequence = four_orders(x)
    y = _compiled_walk()(delta, delta * sequence, b, c, -torch.exp(a_log))
    return sum_of_four_orders(y + skip[:, None, :] * sequence, height, width)


@cache
def _compiled_walk() -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.jit.script(_walk)
    return compiled


def _walk(delta: Tensor, driven: Tensor, b: Tensor, c: Tensor, a: Tensor) -> Tensor:
    """Outputs (n, 4, length, d) of delta and delta x, of that shape, B, C and a (4, d, states)."""
    n, directions, length, d = delta.shape
    # The states go before all but the position: the inner loops of every operation are then long.
    delta = delta.permute(2, 0, 1, 3).contiguous().unsqueeze(1)
    driven = driven.permute(2, 0, 1, 3).contiguous().unsqueeze(1)
    b = b.permute(2, 3, 0, 1).contiguous().unsqueeze(-1)
    c = c.permute(2, 3, 0, 1).contiguous().unsqueeze(-1)
    a = a.permute(2, 0, 1).contiguous().unsqueeze(1)
    state = torch.zeros([a.shape[0], n, directions, d], dtype=delta.dtype, device=delta.device)
    # 0.5 MB stay in the cache of a CPU; a GPU wants few and large operations: 64 MB.
    size_of_block = 131_072 if delta.device.type == "cpu" else 16_777_216
    block = max(1, size_of_block // max(1, state.numel()))
    outputs = [torch.zeros([0, n, directions, d], dtype=delta.dtype, device=delta.device)]
    for first in range(0, length, block):
        here = slice(first, min(first + block, length))
        decays = torch.exp(delta[here] * a)
        states = driven[here] * b[here]
        for position in range(states.shape[0]):
            state = states[position].addcmul_(decays[position], state)
        outputs.append((c[here] * states).sum(dim=1))
    return torch.cat(outputs).permute(1, 2, 0, 3)
