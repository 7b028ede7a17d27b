"""The four-direction selective scan as the papers write it: one position after the other.

Slow, and right: every other back end is held against this one.  It unrolls the map into four
permuted copies and walks them with a Python loop, in whatever precision its inputs have.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def four_orders(values: Tensor) -> Tensor:
    """Unroll maps (n, height, width, c) into sequences (n, 4, length, c).

    Order 0 goes row by row, 1 column by column, 2 and 3 are the same two backwards.
    """
    by_rows = values.flatten(1, 2)
    by_columns = values.transpose(1, 2).flatten(1, 2)
    return torch.stack([by_rows, by_columns, by_rows.flip(1), by_columns.flip(1)], dim=1)


def sum_of_four_orders(sequences: Tensor, height: int, width: int) -> Tensor:
    """Put sequences (n, 4, length, c) back on the map and add them: (n, height, width, c)."""
    by_rows = sequences[:, 0] + sequences[:, 2].flip(1)
    by_columns = sequences[:, 1] + sequences[:, 3].flip(1)
    return by_rows.unflatten(1, (height, width)) + by_columns.unflatten(
        1, (width, height)
    ).transpose(1, 2)


def in_four_orders(
    projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, n_states: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Unroll ``projected`` and compute the step sizes: delta (n, 4, length, d), B and C.

    Each direction reads its own quarter of the projections (n, height, width, 4, rank + 2 states).
    """
    rank = dt_weight.shape[-1]
    own = torch.stack([four_orders(projected[:, :, :, k])[:, k] for k in range(4)], dim=1)
    low_rank, b, c = own.split([rank, n_states, n_states], dim=-1)
    delta = functional.softplus(
        torch.einsum("nklr,kdr->nkld", low_rank, dt_weight) + dt_bias[None, :, None, :]
    )
    return delta, b, c


def scan(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor
) -> Tensor:
    """Scan a map in four directions; shapes as in :func:`..selective_scan`."""
    n, height, width, d = x.shape
    delta, b, c = in_four_orders(projected, dt_weight, dt_bias, a_log.shape[-1])
    sequence = four_orders(x)
    a = -torch.exp(a_log)
    state = x.new_zeros(n, 4, d, a_log.shape[-1])
    outputs = []
    for position in range(height * width):
        step = delta[:, :, position, :, None]
        state = torch.exp(step * a) * state + (
            step * sequence[:, :, position, :, None] * b[:, :, position, None, :]
        )
        outputs.append(torch.einsum("nkds,nks->nkd", state, c[:, :, position]))
    y = torch.stack(outputs, dim=2) + skip[:, None, :] * sequence
    return sum_of_four_orders(y, height, width)
