"""MambaMIC (Zou et al.), also published as Microscopic-Mamba (arXiv 2409.07896).

Everything inside is channels last: (n, height, width, C).  Names of the two papers for the parts:

    Filter  = LAEF  = PSFFN      local enhancement after the scan
    Fusion  = FMIAM = MIFA       the two branches gate each other
    Block   = MambaMIC block = Hybrid-Conv-SSM block
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_mambamic.errors import NetworkError
from napari_mambamic.networks.ss2d import (
    SS2D,
    StochasticDepth,
    convolve,
    depthwise,
    shuffle_channels,
)
from napari_mambamic.networks.stages import StagedNetwork

GROUPS = 4  # parts of the SSM branch that share one SS2D


class Filter(nn.Module):
    """1x1 convolution, then a depthwise 3x3 on the first quarter of the channels.

    The released code gives the filter's output with height and width exchanged and adds it to a
    residual that is not.  ``transposes`` reproduces that, for published checkpoints alone.
    """

    def __init__(self, inner: int, channels: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(inner, channels, 1)
        self.depthwise = depthwise(channels // 4)
        self.transposes = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, height, width, inner) to (n, height, width, channels)."""
        x = functional.silu(convolve(x, self.pointwise))
        quarter = self.depthwise.in_channels
        first = functional.silu(convolve(x[..., :quarter], self.depthwise))
        filtered = shuffle_channels(torch.cat([first, x[..., quarter:]], dim=-1), x.shape[-1] // 2)
        return filtered.transpose(1, 2) if self.transposes else filtered


class ScanBranch(nn.Module):
    """LayerNorm, four channel groups through one shared SS2D and filter, LayerNorm, shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        group = channels // GROUPS
        self.norm = nn.LayerNorm(channels)
        self.ss2d = SS2D(group)
        self.filter = Filter(2 * group, group)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, height, width, channels) to the same shape."""
        n, height, width, channels = x.shape
        # The groups become batch elements: one call of the shared module instead of four.
        groups = (
            self.norm(x)
            .unflatten(-1, (GROUPS, -1))
            .permute(0, 3, 1, 2, 4)
            .reshape(n * GROUPS, height, width, channels // GROUPS)
        )
        groups = self.filter(self.ss2d(groups)) + groups * (1 + self.skip_scale)
        joined = groups.unflatten(0, (n, GROUPS)).permute(0, 2, 3, 1, 4).flatten(-2)
        return shuffle_channels(self.norm(joined), channels // 2)


class Fusion(nn.Module):
    """The convolution branch and the scan branch gate each other, then channel attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = depthwise(channels)
        self.attention = nn.Parameter(torch.empty(2 * channels))
        nn.init.uniform_(self.attention, -1, 1)

    def forward(self, local: Tensor, scanned: Tensor) -> Tensor:
        """Fuse two maps (n, height, width, channels) to (n, height, width, 2 channels)."""
        local_gate = torch.sigmoid(functional.relu(convolve(local, self.depthwise)))
        scanned_gate = torch.sigmoid(functional.gelu(convolve(scanned, self.depthwise)))
        both = torch.cat([local_gate * scanned, scanned_gate * local], dim=-1)
        both = shuffle_channels(both, both.shape[-1] // 4)
        weight = torch.sigmoid(both.mean(dim=(1, 2), keepdim=True) * self.attention)
        return both * weight


class Block(nn.Module):
    """Half of the channels through convolutions, half through the scan, then fusion."""

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        half = channels // 2
        self.local_branch = nn.Sequential(
            nn.BatchNorm2d(half),
            depthwise(half),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, channels, 3, padding=1, groups=half),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, half, 1),
            nn.BatchNorm2d(half),
            nn.ReLU(),
        )
        self.scan_branch = ScanBranch(half)
        self.drop_path = StochasticDepth(drop_path)
        self.fusion = Fusion(half)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, height, width, channels) to the same shape."""
        left, right = x.chunk(2, dim=-1)
        local = self.local_branch(left.contiguous().permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        scanned = self.drop_path(self.scan_branch(right))
        fused: Tensor = self.fusion(local, scanned)
        return fused


class MambaMIC(StagedNetwork):
    """The whole network; a token of the stem is 4 x 4 px."""

    least_size = 29

    def __init__(
        self,
        *,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        n_classes: int,
        in_channels: int = 3,
    ) -> None:
        first = widths[0]
        stem = nn.Sequential(
            nn.Conv2d(in_channels, first // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(first // 2),
            nn.GELU(),
            nn.Conv2d(first // 2, first, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(first),
        )
        super().__init__(stem, Block, depths=depths, widths=widths, n_classes=n_classes)

    @property
    def published_filter(self) -> bool:
        """Whether the filters exchange height and width, as in the released code."""
        return any(m.transposes for m in self.modules() if isinstance(m, Filter))

    @published_filter.setter
    def published_filter(self, transposes: bool) -> None:
        for module in self.modules():
            if isinstance(module, Filter):
                module.transposes = transposes

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings (n, widths[-1]) of patches (n, channels, height, width)."""
        height, width = x.shape[-2:]
        if height != width and self.published_filter:
            raise NetworkError(
                f"Published MambaMIC weights take square patches only, and these are {height} x "
                f"{width} px: the published network exchanges height and width. Use square tiles."
            )
        return super().embed(x)
