"""MedMamba (Yue and Li, arXiv 2403.03849).

Everything inside is channels last: (n, height, width, C).  A block (the paper's SS-Conv-SSM) sends
one half of the channels through convolutions and the other through the scan.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_mambamic.networks.ss2d import (
    SS2D,
    StochasticDepth,
    pointwise,
    shuffle_channels,
)
from napari_mambamic.networks.stages import StagedNetwork


class Block(nn.Module):
    """Left half: convolutions. Right half: LayerNorm, SS2D, projection. Shuffled, and added."""

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        half = channels // 2
        self.local_branch = nn.Sequential(
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, half, 1),
            nn.ReLU(),
        )
        self.norm = nn.LayerNorm(half)
        self.ss2d = SS2D(half)
        self.out_proj = nn.Parameter(torch.empty(half, 2 * half))
        nn.init.trunc_normal_(self.out_proj, std=0.02)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, height, width, channels) to the same shape."""
        left, right = x.chunk(2, dim=-1)
        local = self.local_branch(left.contiguous().permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        scanned = self.drop_path(pointwise(self.ss2d(self.norm(right)), self.out_proj))
        return x + shuffle_channels(torch.cat([local, scanned], dim=-1), 2)


class MedMamba(StagedNetwork):
    """The whole network; a token of the stem is 4 x 4 px."""

    least_size = 32

    def __init__(
        self,
        *,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        n_classes: int,
        in_channels: int = 3,
    ) -> None:
        stem = nn.Conv2d(in_channels, widths[0], 4, stride=4)
        super().__init__(stem, Block, depths=depths, widths=widths, n_classes=n_classes)
        self.stem_norm = nn.LayerNorm(widths[0])

    def tokens(self, x: Tensor) -> Tensor:
        """Tokens (n, height, width, widths[0]) of patches."""
        normed: Tensor = self.stem_norm(super().tokens(x))
        return normed
