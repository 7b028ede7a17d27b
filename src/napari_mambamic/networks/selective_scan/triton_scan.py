"""The four-direction selective scan on a CUDA GPU: one Triton kernel each way.

A program walks one map in one direction for a block of channels, with their states in registers,
serial in time: the walk is a few thousand steps, so the latency is a millisecond or two, and an
associative scan would only add work.  It reads the projections where they lie, on the un-permuted
map, and writes its own plane; the four planes are added afterwards, so the result does not depend
on the order in which programs run.  Inputs may be bfloat16; the state is float32.

The forward pass for training keeps the state before every 16th step.  The backward pass recomputes
the states in between into a scratch of its own and walks back over them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from napari_mambamic.networks.triton_loading import load_triton

load_triton()

import triton  # noqa: E402
import triton.language as tl  # noqa: E402

_CHUNK = 16  # steps between two kept states
# Channels per program. Forward: one for each lane of a warp, its 16 states in the lane's registers;
# compiled for sm_90 that is 64 registers without shuffles or barriers. Backward: 32 would spill.
_CHANNELS, _BACKWARD_CHANNELS = 32, 16
_LOG2_E = 1.4426950408889634


@triton.jit
def _place(direction, step, height, width):  # type: ignore[no-untyped-def]
    """Where on the row-major map a direction is at a step of its walk."""
    step = tl.where(direction >= 2, height * width - 1 - step, step)
    return tl.where(direction % 2 == 0, step, (step % height) * width + step // height)


@triton.jit
def _softplus(value):  # type: ignore[no-untyped-def]
    return tl.maximum(value, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(value)))


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    x, projected, dt_weight, dt_bias, a, skip, planes, kept,
    n, height, width, d, chunks,
    RANK: tl.constexpr, RANK_BLOCK: tl.constexpr, STATES: tl.constexpr,
    CHANNELS: tl.constexpr, CHUNK: tl.constexpr, KEEPS: tl.constexpr,
):  # fmt: skip
    """Write planes (4, n, length, d); ``a`` is (4, d, states), negative, times log2(e)."""
    i, k = tl.program_id(0), tl.program_id(1)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < d
    states, ranks = tl.arange(0, STATES), tl.arange(0, RANK_BLOCK)
    length = height * width
    row = RANK + 2 * STATES
    of_channel = k * d + channel
    grid_a = of_channel[:, None] * STATES + states[None, :]
    decay_rate = tl.load(a + grid_a, mask=inside[:, None], other=0.0)
    weight = tl.load(
        dt_weight + of_channel[:, None] * RANK + ranks[None, :],
        mask=inside[:, None] & (ranks < RANK)[None, :],
        other=0.0,
    )
    bias = tl.load(dt_bias + of_channel, mask=inside, other=0.0)
    through = tl.load(skip + of_channel, mask=inside, other=0.0)
    state = tl.zeros((CHANNELS, STATES), tl.float32)
    for t in range(length):
        if KEEPS:
            if t % CHUNK == 0:
                place = ((i * 4 + k) * chunks + t // CHUNK) * d
                tl.store(
                    kept + place * STATES + channel[:, None] * STATES + states[None, :],
                    state,
                    mask=inside[:, None],
                )
        p = _place(k, t, height, width)
        base = projected + ((i * length + p) * 4 + k) * row
        low_rank = tl.load(base + ranks, mask=ranks < RANK, other=0.0).to(tl.float32)
        b = tl.load(base + RANK + states).to(tl.float32)
        c = tl.load(base + RANK + STATES + states).to(tl.float32)
        value = tl.load(x + (i * length + p) * d + channel, mask=inside, other=0.0).to(tl.float32)
        delta = _softplus(tl.sum(weight * low_rank[None, :], axis=1) + bias)
        state = tl.exp2(delta[:, None] * decay_rate) * state + (delta * value)[:, None] * b[None, :]
        y = tl.sum(state * c[None, :], axis=1) + through * value
        tl.store(planes + ((k * n + i) * length + p) * d + channel, y, mask=inside)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    x, projected, dt_weight, dt_bias, a, skip, kept, grad_y, scratch,
    grad_x, grad_projected, grad_weight, grad_bias, grad_a, grad_skip,
    n, height, width, d, chunks,
    RANK: tl.constexpr, RANK_BLOCK: tl.constexpr, STATES: tl.constexpr,
    CHANNELS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Gradients; those of parameters have a slot per map, those of projections one per block."""
    i, k, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    blocks = tl.num_programs(2)
    lane = tl.arange(0, CHANNELS)
    channel = block * CHANNELS + lane
    inside = channel < d
    states, ranks = tl.arange(0, STATES), tl.arange(0, RANK_BLOCK)
    has_rank = ranks < RANK
    length = height * width
    row = RANK + 2 * STATES
    of_channel = k * d + channel
    decay_rate = tl.load(
        a + of_channel[:, None] * STATES + states[None, :], mask=inside[:, None], other=0.0
    )
    weight = tl.load(
        dt_weight + of_channel[:, None] * RANK + ranks[None, :],
        mask=inside[:, None] & has_rank[None, :],
        other=0.0,
    )
    bias = tl.load(dt_bias + of_channel, mask=inside, other=0.0)
    through = tl.load(skip + of_channel, mask=inside, other=0.0)
    of_state = lane[:, None] * STATES + states[None, :]
    own = scratch + ((i * 4 + k) * blocks + block) * CHUNK * CHANNELS * STATES
    grad_state = tl.zeros((CHANNELS, STATES), tl.float32)
    sum_a = tl.zeros((CHANNELS, STATES), tl.float32)
    sum_weight = tl.zeros((CHANNELS, RANK_BLOCK), tl.float32)
    sum_bias = tl.zeros((CHANNELS,), tl.float32)
    sum_skip = tl.zeros((CHANNELS,), tl.float32)
    for back in range(chunks):
        chunk = chunks - 1 - back
        first = chunk * CHUNK
        steps = tl.minimum(CHUNK, length - first)
        place = ((i * 4 + k) * chunks + chunk) * d
        state = tl.load(
            kept + place * STATES + channel[:, None] * STATES + states[None, :],
            mask=inside[:, None],
            other=0.0,
        )
        for t in range(steps):  # the state before each step goes to the scratch
            tl.store(own + t * CHANNELS * STATES + of_state, state)
            p = _place(k, first + t, height, width)
            base = projected + ((i * length + p) * 4 + k) * row
            low_rank = tl.load(base + ranks, mask=has_rank, other=0.0).to(tl.float32)
            b = tl.load(base + RANK + states).to(tl.float32)
            value = tl.load(x + (i * length + p) * d + channel, mask=inside, other=0.0)
            delta = _softplus(tl.sum(weight * low_rank[None, :], axis=1) + bias)
            driven = (delta * value.to(tl.float32))[:, None] * b[None, :]
            state = tl.exp2(delta[:, None] * decay_rate) * state + driven
        tl.debug_barrier()
        for turn in range(steps):
            t = steps - 1 - turn
            p = _place(k, first + t, height, width)
            base = projected + ((i * length + p) * 4 + k) * row
            low_rank = tl.load(base + ranks, mask=has_rank, other=0.0).to(tl.float32)
            b = tl.load(base + RANK + states).to(tl.float32)
            c = tl.load(base + RANK + STATES + states).to(tl.float32)
            at = (i * length + p) * d + channel
            value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
            flow = tl.load(grad_y + at, mask=inside, other=0.0).to(tl.float32)
            raw = tl.sum(weight * low_rank[None, :], axis=1) + bias
            delta = _softplus(raw)
            decay = tl.exp2(delta[:, None] * decay_rate)
            decayed = decay * tl.load(own + t * CHANNELS * STATES + of_state)
            scaled = delta * value
            after = decayed + scaled[:, None] * b[None, :]
            grad_after = grad_state + flow[:, None] * c[None, :]
            grad_exponent = grad_after * decayed
            grad_scaled = tl.sum(grad_after * b[None, :], axis=1)
            # decay_rate carries log2(e); its gradient is that of a without it
            grad_delta = tl.sum(grad_exponent * decay_rate, axis=1) * 0.6931471805599453
            grad_raw = (grad_delta + grad_scaled * value) * tl.sigmoid(raw)
            grad_raw = tl.where(inside, grad_raw, 0.0)
            sum_a += grad_exponent * delta[:, None]
            sum_bias += grad_raw
            sum_skip += flow * value
            sum_weight += grad_raw[:, None] * low_rank[None, :]
            grad_state = grad_after * decay
            tl.store(
                grad_x + (k * n * length + i * length + p) * d + channel,
                flow * through + grad_scaled * delta,
                mask=inside,
            )
            out = grad_projected + (((block * n + i) * length + p) * 4 + k) * row
            tl.store(out + ranks, tl.sum(grad_raw[:, None] * weight, axis=0), mask=has_rank)
            tl.store(out + RANK + states, tl.sum(grad_after * scaled[:, None], axis=0))
            tl.store(out + RANK + STATES + states, tl.sum(flow[:, None] * after, axis=0))
        tl.debug_barrier()
    slot = i * 4 * d + of_channel
    tl.store(grad_a + slot[:, None] * STATES + states[None, :], sum_a, mask=inside[:, None])
    tl.store(
        grad_weight + slot[:, None] * RANK + ranks[None, :],
        sum_weight,
        mask=inside[:, None] & has_rank[None, :],
    )
    tl.store(grad_bias + slot, sum_bias, mask=inside)
    tl.store(grad_skip + slot, sum_skip, mask=inside)


class _TritonScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        x, projected, dt_weight, dt_bias, a_log, skip = inputs
        n, height, width, d = x.shape
        rank, states = dt_weight.shape[-1], a_log.shape[-1]
        arrays = (
            x.contiguous(),
            projected.contiguous(),
            dt_weight.float().contiguous(),
            dt_bias.float().contiguous(),
            (-_LOG2_E * torch.exp(a_log.float())).contiguous(),
            skip.float().contiguous(),
        )
        trains = any(ctx.needs_input_grad)
        chunks = -(-height * width // _CHUNK)
        kept = x.new_empty(n, 4, chunks if trains else 0, d, states, dtype=torch.float32)
        planes = x.new_empty(4, n, height, width, d, dtype=torch.float32)
        ctx.sizes = {
            "RANK": rank,
            "RANK_BLOCK": triton.next_power_of_2(rank),
            "STATES": states,
            "CHUNK": _CHUNK,
        }
        grid = (n, 4, triton.cdiv(d, _CHANNELS))
        _forward[grid](
            *arrays, planes, kept, n, height, width, d, chunks,
            **ctx.sizes, CHANNELS=_CHANNELS, KEEPS=trains, num_warps=1,
        )  # fmt: skip
        if trains:
            ctx.save_for_backward(*inputs)
            ctx.arrays, ctx.kept = arrays, kept
        return planes.sum(0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, projected, dt_weight, _dt_bias, a_log, _skip = ctx.saved_tensors
        n, height, width, d = x.shape
        rank, states = dt_weight.shape[-1], a_log.shape[-1]
        blocks = triton.cdiv(d, _BACKWARD_CHANNELS)

        def empty(*shape: int) -> Tensor:
            return x.new_empty(*shape, dtype=torch.float32)

        scratch = empty(n, 4, blocks, _CHUNK, _BACKWARD_CHANNELS, states)
        grad_x = empty(4, *x.shape)
        grad_projected = empty(blocks, *projected.shape)
        slots = (empty(n, 4, d, rank), empty(n, 4, d), empty(n, 4, d, states), empty(n, 4, d))
        _backward[(n, 4, blocks)](
            *ctx.arrays, ctx.kept, grads[0].contiguous(), scratch, grad_x, grad_projected, *slots,
            n, height, width, d, ctx.kept.shape[2],
            **ctx.sizes, CHANNELS=_BACKWARD_CHANNELS, num_warps=1,
        )  # fmt: skip
        grad_weight, grad_bias, grad_a, grad_skip = (slot.sum(0) for slot in slots)
        results = (
            grad_x.sum(0),
            grad_projected.sum(0),
            grad_weight,
            grad_bias,
            -grad_a * torch.exp(a_log.float()),
            grad_skip,
        )
        return tuple(g.to(p.dtype) for g, p in zip(results, ctx.saved_tensors, strict=True))


def scan(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor
) -> Tensor:
    """Scan a map in four directions; shapes as in :func:`..selective_scan`.

    The arithmetic is float32; the number of states must be a power of 2.
    """
    result: Tensor = _TritonScan.apply(x, projected, dt_weight, dt_bias, a_log, skip)
    return result
