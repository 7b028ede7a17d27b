"""What MambaMIC and MedMamba share: a stem, four stages of blocks, a mean over the map, a head."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor, nn

from napari_mambamic.errors import NetworkError
from napari_mambamic.networks.ss2d import PatchMerging


class StagedNetwork(nn.Module):
    """Maps patches (n, channels, height, width) to logits (n, n_classes).

    Parameters
    ----------
    stem : nn.Module
        Maps patches to tokens.
    block : callable
        Makes a block from its channels and its share of dropped samples.
    depths, widths : tuple of int
        Blocks and channels of each stage; between stages the map is halved.
    n_classes : int
    drop_path : float
        Share of the last block; it grows linearly from 0.
    """

    least_size: int  # px; a smaller patch would leave no map

    def __init__(
        self,
        stem: nn.Module,
        block: Callable[[int, float], nn.Module],
        *,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        n_classes: int,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        self.stem = stem
        shares = torch.linspace(0, drop_path, sum(depths)).tolist()
        ends = list(accumulate(depths))
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(width, share) for share in shares[end - depth : end]))
            for depth, width, end in zip(depths, widths, ends, strict=True)
        )
        self.merges = nn.ModuleList(PatchMerging(width) for width in widths[:-1])
        self.head = nn.Linear(widths[-1], n_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def tokens(self, x: Tensor) -> Tensor:
        """Tokens (n, height, width, widths[0]) of patches."""
        mapped: Tensor = self.stem(x.contiguous(memory_format=torch.channels_last))
        return mapped.permute(0, 2, 3, 1)

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings (n, widths[-1]) of patches (n, channels, height, width)."""
        height, width = x.shape[-2:]
        if min(height, width) < self.least_size:
            raise NetworkError(
                f"Patches are {height} x {width} px; {type(self).__name__} needs at least "
                f"{self.least_size} x {self.least_size} px."
            )
        tokens = self.tokens(x)
        for index, stage in enumerate(self.stages):
            tokens = stage(tokens)
            if index < len(self.merges):
                tokens = self.merges[index](tokens)
        return tokens.mean(dim=(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, n_classes) of patches (n, channels, height, width)."""
        logits: Tensor = self.head(self.embed(x))
        return logits
