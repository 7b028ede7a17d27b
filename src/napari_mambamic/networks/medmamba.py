"""MedMamba (Yue and Li, arXiv 2403.03849).

Everything inside is channels last: (n, height, width, C).  A block (the paper's SS-Conv-SSM) sends
one half of the channels through convolutions and the other through the scan.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor, nn

from napari_mambamic.errors import NetworkError
from napari_mambamic.networks.ss2d import (
    SS2D,
    PatchMerging,
    StochasticDepth,
    pointwise,
    shuffle_channels,
)

_PATCH = 4  # px per token along each side


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


class MedMamba(nn.Module):
    """The whole network: 4x4 px per token, four stages, mean over the map, linear head."""

    def __init__(
        self,
        *,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        n_classes: int,
        in_channels: int = 3,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, widths[0], _PATCH, stride=_PATCH)
        self.stem_norm = nn.LayerNorm(widths[0])
        shares = torch.linspace(0, drop_path, sum(depths)).tolist()
        ends = list(accumulate(depths))
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, share) for share in shares[end - depth : end]))
            for depth, width, end in zip(depths, widths, ends, strict=True)
        )
        self.merges = nn.ModuleList(PatchMerging(width) for width in widths[:-1])
        self.head = nn.Linear(widths[-1], n_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings (n, widths[-1]) of patches (n, channels, height, width)."""
        height, width = x.shape[-2:]
        least = _PATCH * 2 ** len(self.merges)
        if min(height, width) < least:
            raise NetworkError(
                f"Patches are {height} x {width} px; MedMamba needs at least {least} x {least} px."
            )
        tokens = self.stem(x.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)
        tokens = self.stem_norm(tokens)
        for index, stage in enumerate(self.stages):
            tokens = stage(tokens)
            if index < len(self.merges):
                tokens = self.merges[index](tokens)
        return tokens.mean(dim=(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, n_classes) of patches (n, channels, height, width)."""
        logits: Tensor = self.head(self.embed(x))
        return logits
