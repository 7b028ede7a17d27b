"""The four-direction selective scan by the CUDA kernel of the mamba-ssm package.

It wants sequences, so four permuted copies are made.  Used only where it is asked for: as a
yardstick, and to tell apart what comes from the scan and what from the rest of a network.
"""

from __future__ import annotations

import torch
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from torch import Tensor

from napari_mambamic.networks.selective_scan.reference import four_orders, sum_of_four_orders


def scan(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor
) -> Tensor:
    """Scan a map in four directions; shapes as in :func:`..selective_scan`."""
    _, height, width, d = x.shape
    rank, states = dt_weight.shape[-1], a_log.shape[-1]
    own = torch.stack([four_orders(projected[:, :, :, k])[:, k] for k in range(4)], dim=1)
    low_rank, b, c = own.split([rank, states, states], dim=-1)
    delta = torch.einsum("nklr,kdr->nkdl", low_rank, dt_weight)
    y = selective_scan_fn(
        four_orders(x).transpose(2, 3).flatten(1, 2).contiguous(),
        delta.flatten(1, 2).contiguous(),
        -torch.exp(a_log.float().flatten(0, 1)),
        b.transpose(2, 3).contiguous(),
        c.transpose(2, 3).contiguous(),
        skip.float().flatten(),
        delta_bias=dt_bias.float().flatten(),
        delta_softplus=True,
    )
    return sum_of_four_orders(y.unflatten(1, (4, d)).transpose(2, 3), height, width)
