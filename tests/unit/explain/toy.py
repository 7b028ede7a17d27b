"""A classifier whose reasons are known."""

from __future__ import annotations

import torch
from torch import nn

from napari_mambamic import Manifest, PatchSpec, TileClassifier
from napari_mambamic.devices import choose_device

SIZE = 32


class Corner(nn.Module):
    """Its class 0 is a bright upper left quarter, its class 1 a dark one; nothing else counts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Conv2d(1, 1, 1, bias=False)
        self.head = nn.Linear(1, 2, bias=False)
        with torch.no_grad():
            self.seen.weight.fill_(1)
            self.head.weight.copy_(torch.tensor([[5.0], [-5.0]]))

    def embed(self, x):
        return self.seen(x)[:, :, : SIZE // 2, : SIZE // 2].mean(dim=(2, 3))

    def forward(self, x):
        return self.head(self.embed(x))


def classifier_of(network: nn.Module, **patch) -> TileClassifier:
    """A network with a manifest of its own, on the CPU."""
    spec = {"tile_size": SIZE, "patch_size": SIZE, "channels": ("grey",), "mean": (0.5,)}
    spec |= {"std": (0.5,)} | patch
    manifest = Manifest("toy", "toy", "mambamic-t", ("bright", "dark"), PatchSpec(**spec), "")
    return TileClassifier(network, manifest, choose_device("cpu"))
