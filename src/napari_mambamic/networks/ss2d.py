"""SS2D: the selective scan over a map with its projections, shared by all networks.

Everything is channels last: (n, height, width, channels).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_mambamic.networks.selective_scan import selective_scan

N_STATES = 16


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Linear map of the channels of (n, height, width, c) by weight (out, c).

    A 1x1 convolution on channels-last memory: 1.5 to 2.5 times faster than `linear` on a CPU.
    """
    if not x.numel():
        return x.new_empty(*x.shape[:-1], len(weight))
    mapped = functional.conv2d(x.permute(0, 3, 1, 2), weight.reshape(*weight.shape[:2], 1, 1), bias)
    return mapped.permute(0, 2, 3, 1)


def convolve(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Apply a convolution to (n, height, width, c)."""
    mapped: Tensor = convolution(x.permute(0, 3, 1, 2))
    return mapped.permute(0, 2, 3, 1)


def depthwise(channels: int) -> nn.Conv2d:
    """Depthwise 3x3 convolution with bias."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    """Deal the channels (last axis) of `groups` equal parts out in turn."""
    return x.unflatten(-1, (groups, -1)).transpose(-1, -2).flatten(-2)


class SS2D(nn.Module):
    """Projection, depthwise convolution, four-direction scan, norm and gate.

    Maps (n, height, width, channels) to (n, height, width, 2 channels); what follows (a filter in
    MambaMIC, a projection in MedMamba) is the caller's.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = 2 * channels
        rank = math.ceil(channels / 16)
        self.in_proj = nn.Parameter(torch.empty(2 * inner, channels))
        self.conv = depthwise(inner)
        self.x_proj = nn.Parameter(torch.empty(4, rank + 2 * N_STATES, inner))
        self.dt_weight = nn.Parameter(torch.empty(4, inner, rank))
        self.dt_bias = nn.Parameter(torch.empty(4, inner))
        self.a_log = nn.Parameter(
            torch.arange(1.0, N_STATES + 1).log().expand(4, inner, N_STATES).clone()
        )
        self.skip = nn.Parameter(torch.ones(4, inner))
        self.norm = nn.LayerNorm(inner)
        self.back_end = "auto"
        nn.init.trunc_normal_(self.in_proj, std=0.02)
        nn.init.kaiming_uniform_(self.x_proj.view(-1, inner), a=math.sqrt(5))
        nn.init.uniform_(self.dt_weight, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():
            # softplus(dt_bias) is spread log-uniformly over 0.001 ... 0.1, as in Mamba.
            dt = torch.exp(torch.empty(4, inner).uniform_(math.log(1e-3), math.log(1e-1)))
            self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, height, width, channels) to (n, height, width, 2 channels)."""
        values, gate, projected = self.project(x)
        scanned = selective_scan(
            values,
            projected,
            self.dt_weight,
            self.dt_bias,
            self.a_log,
            self.skip,
            back_end=self.back_end,
        )
        return self.gated(scanned, gate)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is scanned, what gates the result, and step sizes, B and C of four directions."""
        values, gate = pointwise(x, self.in_proj).chunk(2, dim=-1)
        values = functional.silu(convolve(values, self.conv))
        return values, gate, pointwise(values, self.x_proj.flatten(0, 1)).unflatten(-1, (4, -1))

    def gated(self, scanned: Tensor, gate: Tensor) -> Tensor:
        """Normalise the scanned map and let the gate through."""
        normed: Tensor = self.norm(scanned)
        return normed * functional.silu(gate)


class PatchMerging(nn.Module):
    """Halve the map and double the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Parameter(torch.empty(2 * channels, 4 * channels))
        nn.init.trunc_normal_(self.reduction, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, height, width, c) to (n, height // 2, width // 2, 2 c); odd edges are cut."""
        x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
        neighbours = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return pointwise(self.norm(torch.cat(neighbours, dim=-1)), self.reduction)


class StochasticDepth(nn.Module):
    """Leave a branch out for a share of the samples, in training only."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Zero the branch of whole samples and scale the others up."""
        if not self.training or self.share == 0:
            return x
        kept = torch.rand(len(x), *([1] * (x.dim() - 1)), device=x.device) >= self.share
        return x * kept / (1 - self.share)
