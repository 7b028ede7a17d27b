"""The four-direction selective scan on the CPU: one numba kernel, forward and backward.

The kernel walks the un-permuted map in the four orders and adds the four results in place, so no
permuted copy is made.  Channels are contiguous and go 16 at a time (`vectors`); the state of one
direction (states x channels) stays in the first-level cache.  The forward pass for training keeps
the state every 16 positions; the backward pass recomputes the 16 states in between.  Parameter
gradients go to one slot per batch element and are summed afterwards, so they do not depend on the
number of threads.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from types import FunctionType
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_mambamic.networks.selective_scan.vectors import (
    LANES,
    exp2,
    fill,
    load,
    load_first,
    repeat,
    softplus,
    store,
    store_first,
    total,
)

_CHUNK = 16  # positions between two kept states
_LOG2_E = 1.4426950408889634
# Not every OpenMP library survives two threads that start parallel loops at once.
_one_kernel_at_a_time = threading.Lock()
_PARTS_PER_THREAD = 2  # so that a thread that was held up does not hold up the others

# Python's model of errors raises where it divides by zero, which keeps loops from being fused.
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
_inner = numba.njit(forceinline=True, **_OPTIONS)


@_inner
def _place(direction: int, step: int, height: int, width: int) -> int:
    """Where on the row-major map a direction is at a step of its walk."""
    if direction >= 2:
        step = height * width - 1 - step
    if direction % 2 == 0:
        return step
    return (step % height) * width + step // height


@_inner
def _gather(  # type: ignore[no-untyped-def]
    x, projected, dt_weight, dt_bias, i, k, first, steps, height, width, deltas, scaled
):
    """Step sizes, and step sizes times x, of a few steps of a walk.

    Steps do not wait for each other here, so that the time to fetch them overlaps.
    """
    d = x.shape[2]
    rank, padded = dt_weight.shape[1:]
    for t in range(steps):
        p = _place(k, first + t, height, width)
        for block in range(0, padded, LANES):
            raw = load(dt_bias, (k, block))
            for r in range(rank):
                raw = raw + repeat(projected, (i, p, k, r)) * load(dt_weight, (k, r, block))
            delta = softplus(raw)
            store(deltas, (t, block), delta)
            store(scaled, (t, block), delta * load_first(x, (i, p, block), d - block))


def _forward(  # type: ignore[no-untyped-def]  # pragma: no cover
    maps, x, projected, dt_weight, dt_bias, a, skip, height, width, kept, y
):
    """Write y; where ``kept`` has room, keep the state before every 16th step in it.

    maps (first, stop): which of the n are worked on;
    x, y (n, length, d); projected (n, length, 4, rank + 2 states); and, with the channels filled
    up to a multiple of 16: dt_weight (4, rank, d); dt_bias (4, d); a (4, states, d), times
    log2(e); skip (d), summed over directions; kept (n, 4, chunks or 0, states, d).
    """
    length, d = x.shape[1:]
    states, padded = a.shape[1:]
    rank = dt_weight.shape[1]
    for i in numba.prange(maps[0], maps[1]):
        state = np.empty((states, padded), x.dtype)
        deltas = np.empty((_CHUNK, padded), x.dtype)
        scaled = np.empty((_CHUNK, padded), x.dtype)
        for p in range(length):
            for block in range(0, d, LANES):
                value = load(skip, (block,)) * load_first(x, (i, p, block), d - block)
                store_first(y, (i, p, block), value, d - block)
        for k in range(4):
            state[:] = 0
            for first in range(0, length, _CHUNK):
                if kept.shape[2] > 0:
                    kept[i, k, first // _CHUNK] = state
                steps = min(_CHUNK, length - first)
                _gather(
                    x, projected, dt_weight, dt_bias, i, k, first, steps, height, width,
                    deltas, scaled,
                )  # fmt: skip
                for t in range(steps):
                    p = _place(k, first + t, height, width)
                    for block in range(0, d, LANES):
                        delta = load(deltas, (t, block))
                        inflow = load(scaled, (t, block))
                        # Two sums, so that one need not wait for the other.
                        even = load_first(y, (i, p, block), d - block)
                        odd = fill(x.dtype.type(0.0))
                        for s in range(0, states, 2):
                            decay = exp2(delta * load(a, (k, s, block)))
                            h = inflow * repeat(projected, (i, p, k, rank + s)) + decay * load(
                                state, (s, block)
                            )
                            store(state, (s, block), h)
                            even = even + h * repeat(projected, (i, p, k, rank + states + s))
                            decay = exp2(delta * load(a, (k, s + 1, block)))
                            h = inflow * repeat(projected, (i, p, k, rank + s + 1))
                            h = h + decay * load(state, (s + 1, block))
                            store(state, (s + 1, block), h)
                            odd = odd + h * repeat(projected, (i, p, k, rank + states + s + 1))
                        store_first(y, (i, p, block), even + odd, d - block)


def _backward(  # type: ignore[no-untyped-def]  # pragma: no cover
    maps, x, projected, dt_weight, dt_bias, a, skip, height, width, kept, grad_y,
    grad_x, grad_projected, grad_dt_weight, grad_dt_bias, grad_a, grad_skip,
):  # fmt: skip
    """Gradients of everything; parameter gradients have one slot per batch element in front."""
    length, d = x.shape[1:]
    rank, padded = dt_weight.shape[1:]
    states = a.shape[1]
    ln_2 = x.dtype.type(0.6931471805599453)
    log2_e = x.dtype.type(_LOG2_E)
    for i in numba.prange(maps[0], maps[1]):
        after = np.empty((_CHUNK + 1, states, padded), x.dtype)  # the state before each step
        decays = np.empty((_CHUNK, states, padded), x.dtype)
        deltas = np.empty((_CHUNK, padded), x.dtype)
        scaled = np.empty((_CHUNK, padded), x.dtype)
        grad_state = np.empty((states, padded), x.dtype)
        # grad_projected before its sum over channels
        lanes = np.empty((rank + 2 * states, LANES), x.dtype)
        for p in range(length):
            for block in range(0, d, LANES):
                flow = load_first(grad_y, (i, p, block), d - block)
                store_first(grad_x, (i, p, block), flow * load(skip, (block,)), d - block)
                flow = flow * load_first(x, (i, p, block), d - block)
                store(grad_skip, (i, block), load(grad_skip, (i, block)) + flow)
        for k in range(4):
            grad_state[:] = 0
            for chunk in range(kept.shape[2] - 1, -1, -1):
                first = chunk * _CHUNK
                steps = min(_CHUNK, length - first)
                _gather(
                    x, projected, dt_weight, dt_bias, i, k, first, steps, height, width,
                    deltas, scaled,
                )  # fmt: skip
                after[0] = kept[i, k, chunk]
                for t in range(steps):
                    p = _place(k, first + t, height, width)
                    for block in range(0, d, LANES):
                        delta = load(deltas, (t, block))
                        inflow = load(scaled, (t, block))
                        for s in range(states):
                            decay = exp2(delta * load(a, (k, s, block)))
                            store(decays, (t, s, block), decay)
                            h = inflow * repeat(projected, (i, p, k, rank + s)) + decay * load(
                                after, (t, s, block)
                            )
                            store(after, (t + 1, s, block), h)
                for t in range(steps - 1, -1, -1):
                    p = _place(k, first + t, height, width)
                    lanes[:] = 0
                    for block in range(0, d, LANES):
                        flow = load_first(grad_y, (i, p, block), d - block)
                        delta = load(deltas, (t, block))
                        inflow = load(scaled, (t, block))
                        grad_delta = fill(x.dtype.type(0.0))
                        grad_inflow = fill(x.dtype.type(0.0))
                        for s in range(states):
                            b = repeat(projected, (i, p, k, rank + s))
                            h = load(after, (t + 1, s, block))
                            grad_h = load(grad_state, (s, block))
                            grad_h = grad_h + flow * repeat(projected, (i, p, k, rank + states + s))
                            of_b, of_c = (rank + s, 0), (rank + states + s, 0)
                            store(lanes, of_b, load(lanes, of_b) + grad_h * inflow)
                            store(lanes, of_c, load(lanes, of_c) + flow * h)
                            grad_inflow = grad_inflow + grad_h * b
                            # d h / d (delta a) is the decayed state: h minus what came in
                            through = grad_h * (h - inflow * b)
                            grad_delta = grad_delta + through * load(a, (k, s, block))
                            into = load(grad_a, (i, k, s, block)) + through * delta
                            store(grad_a, (i, k, s, block), into)
                            store(grad_state, (s, block), grad_h * load(decays, (t, s, block)))
                        into_x = load_first(grad_x, (i, p, block), d - block) + grad_inflow * delta
                        store_first(grad_x, (i, p, block), into_x, d - block)
                        # a carries log2(e); softplus' = 1 - exp(-delta)
                        value = load_first(x, (i, p, block), d - block)
                        whole = grad_delta * fill(ln_2) + grad_inflow * value
                        grad_raw = whole - whole * exp2(delta * fill(-log2_e))
                        slot = (i, k, block)
                        store(grad_dt_bias, slot, load(grad_dt_bias, slot) + grad_raw)
                        for r in range(rank):
                            into = load(grad_dt_weight, (i, k, r, block))
                            into = into + grad_raw * repeat(projected, (i, p, k, r))
                            store(grad_dt_weight, (i, k, r, block), into)
                            into = load(lanes, (r, 0)) + grad_raw * load(dt_weight, (k, r, block))
                            store(lanes, (r, 0), into)
                    for column in range(len(lanes)):
                        grad_projected[i, p, k, column] = total(load(lanes, (column, 0)))


@cache
def has_parallel_loops() -> bool:
    """Whether numba has OpenMP or TBB here to run parallel loops with.

    Without them it has only its work queue, which ends the process when two threads use it: the
    window classifies in one thread while it may train in another.
    """
    for layer in ("omppool", "tbbpool"):
        try:
            importlib.import_module(f"numba.np.ufunc.{layer}")
        except ImportError:
            continue
        return True
    return False


@cache
def _compiled(function: Any, parallel: bool) -> Callable[..., None]:
    # numba's cache on disk tells functions apart by their names and not by their options.
    name = f"{function.__name__}_{'parallel' if parallel else 'serial'}"
    named = FunctionType(function.__code__, function.__globals__, name)
    named.__qualname__ = name
    kernel: Callable[..., None] = numba.njit(parallel=parallel, **_OPTIONS)(named)
    return kernel


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="selective-scan")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


def _run(function: Callable[..., None], n: int, *arguments: Any) -> None:
    """Call a kernel for the maps 0 ... n - 1, shared out among threads.

    By numba's parallel loops where they are safe: they share their threads with torch, and are
    1.4 times as fast as a pool of our own, which has to compete with torch's waiting threads.
    """
    if has_parallel_loops():
        with _one_kernel_at_a_time:
            # As many as torch has: workers that share a machine have one each, and numba would
            # start one per core in each of them.
            numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
            _compiled(function, True)((0, n), *arguments)
        return
    kernel = _compiled(function, False)
    parts = min(n, torch.get_num_threads() * _PARTS_PER_THREAD)
    bounds = [n * part // max(parts, 1) for part in range(parts + 1)]
    running = [_pool().submit(kernel, maps, *arguments) for maps in pairwise(bounds)]
    for part in running:
        part.result()


def _filled(parameter: Tensor) -> Tensor:
    """Fill the channels, the last axis, up to a multiple of the vector length with zeros."""
    return functional.pad(parameter, (0, -parameter.shape[-1] % LANES))


def _array(tensor: Tensor, dtype: torch.dtype) -> Any:
    return tensor.detach().to(dtype).contiguous().numpy()


class _NumbaScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        x, projected, dt_weight, dt_bias, a_log, skip = inputs
        n, height, width, d = x.shape
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        arrays = (
            _array(x.flatten(1, 2), dtype),
            _array(projected.flatten(1, 2), dtype),
            _array(_filled(dt_weight.transpose(1, 2)), dtype),
            _array(_filled(dt_bias), dtype),
            _array(_filled(-_LOG2_E * torch.exp(a_log.detach().to(dtype)).transpose(1, 2)), dtype),
            _array(_filled(skip.detach().to(dtype).sum(0)), dtype),
        )
        trains = any(ctx.needs_input_grad)
        chunks = -(-height * width // _CHUNK) if trains else 0
        kept = torch.empty((n, 4, chunks, *arrays[4].shape[1:]), dtype=dtype).numpy()
        y = torch.empty((n, height * width, d), dtype=dtype)
        _run(_forward, n, *arrays, height, width, kept, y.numpy())
        if trains:
            ctx.save_for_backward(*inputs)
            ctx.arrays, ctx.kept = arrays, kept
        return y.unflatten(1, (height, width)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, projected, _dt_weight, _dt_bias, a_log, _skip = ctx.saved_tensors
        n, height, width, _ = x.shape
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        grad_x = torch.empty((n, height * width, x.shape[-1]), dtype=dtype)
        grad_projected = torch.empty(projected.flatten(1, 2).shape, dtype=dtype)
        slots = [torch.zeros((n, *array.shape), dtype=dtype) for array in ctx.arrays[2:]]
        _run(
            _backward,
            n,
            *ctx.arrays,
            height,
            width,
            ctx.kept,
            _array(grads[0].flatten(1, 2), dtype),
            grad_x.numpy(),
            grad_projected.numpy(),
            *(slot.numpy() for slot in slots),
        )
        grad_dt_weight, grad_dt_bias, grad_a, grad_skip = (
            slot.sum(0)[..., : x.shape[-1]] for slot in slots
        )
        grad_a_log = -grad_a.transpose(1, 2) * torch.exp(a_log.to(dtype))
        results = (
            grad_x.view_as(x),
            grad_projected.view_as(projected),
            grad_dt_weight.transpose(1, 2),
            grad_dt_bias,
            grad_a_log,
            grad_skip.expand(4, -1),
        )
        return tuple(g.to(p.dtype) for g, p in zip(results, ctx.saved_tensors, strict=True))


def scan(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor
) -> Tensor:
    """Scan a map in four directions; shapes as in :func:`..selective_scan`.

    The arithmetic is float64 for float64 inputs and float32 for all others.  The number of
    states must be a multiple of 2 (the published networks have 16).
    """
    result: Tensor = _NumbaScan.apply(x, projected, dt_weight, dt_bias, a_log, skip)
    return result
