"""The four-direction selective scan on the CPU: one numba kernel, forward and backward.

The kernel walks the un-permuted map in the four orders and adds the four results in place, so no
permuted copy is made.  Channels are contiguous and innermost, so that the compiler vectorises
over them; the state of one direction (states x channels) stays in the first-level cache.
exp and softplus are short polynomials (relative error under 1e-6), because calls to the maths
library do not vectorise.  The forward pass for training keeps the state every 16 positions; the
backward pass recomputes the 16 states in between.  Parameter gradients go to one slot per batch
element and are summed afterwards, so they do not depend on the number of threads.
"""

from __future__ import annotations

import importlib
import math
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
from numba.extending import overload
from torch import Tensor
from torch.nn import functional

_CHUNK = 16  # positions between two kept states
_LANES = 16  # float32 numbers in the widest vector register; channels are filled up to it
_LOG2_E = 1.4426950408889634
# Not every OpenMP library survives two threads that start parallel loops at once.
_one_kernel_at_a_time = threading.Lock()
_PARTS_PER_THREAD = 2  # so that a thread that was held up does not hold up the others


def _exp2(value: Any) -> Any:
    """2 ** value for value <= 0."""
    return 2.0**value


def _softplus(value: Any) -> Any:
    """log(1 + exp(value))."""
    return math.log1p(math.exp(-abs(value))) + max(value, 0.0)


@overload(_exp2, inline="always")
def _exp2_compiled(value: Any) -> Any:
    if value == numba.types.float64:

        def double(value: Any) -> Any:
            return math.exp(value * 0.6931471805599453)

        return double

    def single(value: Any) -> Any:
        # 2^value = 2^whole * 2^part with part in [-0.5, 0.5]; 2^whole is written into the
        # exponent bits.  Coefficients: Chebyshev fit of 2^part, degree 6.
        value = max(value, np.float32(-126.0))
        whole = np.int32(value - np.float32(0.5))
        part = value - np.float32(whole)
        power = np.float32(1.5403530e-4)
        power = power * part + np.float32(1.3333558e-3)
        power = power * part + np.float32(9.6181291e-3)
        power = power * part + np.float32(5.5504109e-2)
        power = power * part + np.float32(2.4022651e-1)
        power = power * part + np.float32(6.9314718e-1)
        power = power * part + np.float32(1.0)
        return power * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)

    return single


@overload(_softplus, inline="always")
def _softplus_compiled(value: Any) -> Any:
    if value == numba.types.float64:

        def double(value: Any) -> Any:
            return math.log1p(math.exp(-abs(value))) + max(value, 0.0)

        return double

    def single(value: Any) -> Any:
        # softplus(v) = max(v, 0) + log1p(e), e = exp(-|v|) in (0, 1];
        # log1p(e) = 2 atanh(r), r = e / (2 + e) in (0, 1/3]: an odd series that converges fast.
        e = _exp2(-abs(value) * np.float32(_LOG2_E))
        r = e / (np.float32(2.0) + e)
        square = r * r
        series = np.float32(2.0 / 13.0)
        series = series * square + np.float32(2.0 / 11.0)
        series = series * square + np.float32(2.0 / 9.0)
        series = series * square + np.float32(2.0 / 7.0)
        series = series * square + np.float32(2.0 / 5.0)
        series = series * square + np.float32(2.0 / 3.0)
        series = series * square + np.float32(2.0)
        return max(value, np.float32(0.0)) + r * series

    return single


# Rounding may be reassociated, so that sums vectorise; NaN and infinity keep their meaning.
_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    # Python's model raises when it divides by zero, and a loop that may raise is not vectorised.
    "error_model": "numpy",
}
_inner = numba.njit(**_OPTIONS)


@_inner
def _place(direction: int, step: int, height: int, width: int) -> int:
    """Where on the row-major map a direction is at a step of its walk."""
    if direction >= 2:
        step = height * width - 1 - step
    if direction % 2 == 0:
        return step
    return (step % height) * width + step // height


@_inner
def _step_sizes(projected, i, p, k, dt_weight, dt_bias, t, delta):  # type: ignore[no-untyped-def]
    """delta[t, j] = softplus(dt_bias[k, j] + sum over r of projected[.., r] dt_weight[k, r, j])."""
    rank, padded = dt_weight.shape[1:]
    for j in range(padded):
        delta[t, j] = dt_bias[k, j]
    for r in range(rank):
        factor = projected[i, p, k, r]
        for j in range(padded):
            delta[t, j] += factor * dt_weight[k, r, j]
    for j in range(padded):
        delta[t, j] = _softplus(delta[t, j])


def _forward(  # type: ignore[no-untyped-def]
    maps, x, projected, dt_weight, dt_bias, a, skip, height, width, kept, y
):
    """Write y; where ``kept`` has room, keep the state before every 16th step in it.

    maps (first, stop): which of the n are worked on;
    x, y (n, length, d); projected (n, length, 4, rank + 2 states); and, with the channels filled
    up to a multiple of 16: dt_weight (4, rank, d); dt_bias, skip (4, d); a (4, states, d), times
    log2(e); kept (n, 4, chunks or 0, states, d).
    """
    length, d = x.shape[1:]
    rank, padded = dt_weight.shape[1:]
    states = a.shape[1]
    for i in numba.prange(maps[0], maps[1]):
        state = np.empty((states, padded), x.dtype)
        delta = np.empty((1, padded), x.dtype)
        scaled = np.zeros(padded, x.dtype)
        total = np.zeros(padded, x.dtype)
        y[i] = 0
        for k in range(4):
            state[:] = 0
            for t in range(length):
                if kept.shape[2] > 0 and t % _CHUNK == 0:
                    kept[i, k, t // _CHUNK] = state
                p = _place(k, t, height, width)
                _step_sizes(projected, i, p, k, dt_weight, dt_bias, 0, delta)
                for j in range(d):
                    value = x[i, p, j]
                    scaled[j] = delta[0, j] * value
                    total[j] = skip[k, j] * value
                # Two states at a time: fewer loops to enter, and their registers still suffice.
                for s in range(0, states, 2):
                    b0 = projected[i, p, k, rank + s]
                    b1 = projected[i, p, k, rank + s + 1]
                    c0 = projected[i, p, k, rank + states + s]
                    c1 = projected[i, p, k, rank + states + s + 1]
                    for j in range(padded):
                        h0 = _exp2(delta[0, j] * a[k, s, j]) * state[s, j] + scaled[j] * b0
                        h1 = _exp2(delta[0, j] * a[k, s + 1, j]) * state[s + 1, j] + scaled[j] * b1
                        state[s, j] = h0
                        state[s + 1, j] = h1
                        total[j] += h0 * c0 + h1 * c1
                for j in range(d):
                    y[i, p, j] += total[j]


def _backward(  # type: ignore[no-untyped-def]
    maps, x, projected, dt_weight, dt_bias, a, skip, height, width, kept, grad_y,
    grad_x, grad_projected, grad_dt_weight, grad_dt_bias, grad_a, grad_skip,
):  # fmt: skip
    """Gradients of everything; parameter gradients have one slot per batch element in front."""
    length, d = x.shape[1:]
    rank, padded = dt_weight.shape[1:]
    states = a.shape[1]
    ln_2 = x.dtype.type(0.6931471805599453)
    log2_e = x.dtype.type(_LOG2_E)
    one = x.dtype.type(1.0)
    for i in numba.prange(maps[0], maps[1]):
        after = np.empty((_CHUNK + 1, states, padded), x.dtype)  # the state before each step
        decay = np.empty((_CHUNK, states, padded), x.dtype)
        deltas = np.empty((_CHUNK, padded), x.dtype)
        scaled = np.zeros((_CHUNK, padded), x.dtype)
        flow = np.zeros(padded, x.dtype)
        grad_state = np.empty((states, padded), x.dtype)
        grad_delta = np.empty(padded, x.dtype)
        grad_scaled = np.empty(padded, x.dtype)
        grad_x[i] = 0
        for k in range(4):
            grad_state[:] = 0
            for chunk in range(kept.shape[2] - 1, -1, -1):
                first = chunk * _CHUNK
                steps = min(_CHUNK, length - first)
                after[0] = kept[i, k, chunk]
                for t in range(steps):
                    p = _place(k, first + t, height, width)
                    _step_sizes(projected, i, p, k, dt_weight, dt_bias, t, deltas)
                    for j in range(d):
                        scaled[t, j] = deltas[t, j] * x[i, p, j]
                    for s in range(states):
                        b = projected[i, p, k, rank + s]
                        for j in range(padded):
                            factor = _exp2(deltas[t, j] * a[k, s, j])
                            decay[t, s, j] = factor
                            after[t + 1, s, j] = factor * after[t, s, j] + scaled[t, j] * b
                for t in range(steps - 1, -1, -1):
                    p = _place(k, first + t, height, width)
                    for j in range(d):
                        flow[j] = grad_y[i, p, j]
                    grad_delta[:] = 0
                    grad_scaled[:] = 0
                    for s in range(states):
                        b = projected[i, p, k, rank + s]
                        c = projected[i, p, k, rank + states + s]
                        grad_b = x.dtype.type(0.0)
                        grad_c = x.dtype.type(0.0)
                        for j in range(padded):
                            h = after[t + 1, s, j]
                            grad_h = grad_state[s, j] + flow[j] * c
                            grad_c += flow[j] * h
                            grad_b += grad_h * scaled[t, j]
                            grad_scaled[j] += grad_h * b
                            # d h / d (delta a) is the decayed state: h minus what came in
                            through = grad_h * (h - scaled[t, j] * b)
                            grad_delta[j] += through * a[k, s, j]
                            grad_a[i, k, s, j] += through * deltas[t, j]
                            grad_state[s, j] = grad_h * decay[t, s, j]
                        grad_projected[i, p, k, rank + s] = grad_b
                        grad_projected[i, p, k, rank + states + s] = grad_c
                    for j in range(d):
                        value = x[i, p, j]
                        grad_x[i, p, j] += flow[j] * skip[k, j] + grad_scaled[j] * deltas[t, j]
                        grad_skip[i, k, j] += flow[j] * value
                        # a carries log2(e); softplus' = 1 - exp(-delta)
                        whole = grad_delta[j] * ln_2 + grad_scaled[j] * value
                        grad_raw = whole * (one - _exp2(-deltas[t, j] * log2_e))
                        grad_delta[j] = grad_raw
                        grad_dt_bias[i, k, j] += grad_raw
                    for r in range(rank):
                        low_rank = projected[i, p, k, r]
                        total = x.dtype.type(0.0)
                        for j in range(d):
                            total += grad_delta[j] * dt_weight[k, r, j]
                            grad_dt_weight[i, k, r, j] += grad_delta[j] * low_rank
                        grad_projected[i, p, k, r] = total


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
    return functional.pad(parameter, (0, -parameter.shape[-1] % _LANES))


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
            _array(_filled(skip), dtype),
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
            grad_skip,
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
