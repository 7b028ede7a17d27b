"""The four-direction selective scan in plain torch, for any device that torch knows.

A loop over every position would launch thousands of tiny kernels.  Here the sequence is cut into
about sqrt(length) runs: first all runs are walked side by side from a zero state, then the state
is handed from run to run, and last all runs are walked again from their true start.  That takes
3 sqrt(length) steps instead of length, keeps no state but the current one, and raises
nothing to a positive power, so it cannot overflow (the form of this scan with a cumulative sum
does, at e^102 in float32).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from napari_mambamic.networks.selective_scan.reference import (
    four_orders,
    in_four_orders,
    sum_of_four_orders,
)


def _runs(sequence: Tensor, n_runs: int, run_length: int) -> Tensor:
    """Cut (n, 4, length, c) into (n, 4, n_runs, run_length, c), the end filled with zeros."""
    missing = n_runs * run_length - sequence.shape[2]
    return functional.pad(sequence, (0, 0, 0, missing)).unflatten(2, (n_runs, run_length))


def scan(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor
) -> Tensor:
    """Scan a map in four directions; shapes as in :func:`..selective_scan`."""
    height, width = x.shape[1:3]
    length = height * width
    delta, b, c = in_four_orders(projected, dt_weight, dt_bias, a_log.shape[-1])
    sequence = four_orders(x)
    a = -torch.exp(a_log)[:, None]  # (4, 1, d, states): the same for every run
    run_length = max(1, round(math.sqrt(length)))
    n_runs = -(-length // run_length)
    # A filled-up position has delta 0: it leaves the state as it is and adds nothing.
    delta_runs, input_runs, b_runs, c_runs = (
        _runs(part, n_runs, run_length) for part in (delta, delta * sequence, b, c)
    )

    def step(state: Tensor, position: int) -> Tensor:
        decay = torch.exp(delta_runs[:, :, :, position, :, None] * a)
        return decay * state + (
            input_runs[:, :, :, position, :, None] * b_runs[:, :, :, position, None, :]
        )

    state = x.new_zeros(*delta_runs.shape[:3], *a_log.shape[-2:])
    if n_runs > 1:
        for position in range(run_length):
            state = step(state, position)
        whole_run = torch.exp(delta_runs.sum(dim=3)[..., None] * a)
        starts = [torch.zeros_like(state[:, :, 0])]
        for run in range(n_runs - 1):
            starts.append(whole_run[:, :, run] * starts[-1] + state[:, :, run])
        state = torch.stack(starts, dim=2)
    outputs = []
    for position in range(run_length):
        state = step(state, position)
        outputs.append(torch.einsum("nkqds,nkqs->nkqd", state, c_runs[:, :, :, position]))
    y = torch.stack(outputs, dim=3).flatten(2, 3)[:, :, :length]
    return sum_of_four_orders(y + skip[:, None, :] * sequence, height, width)
