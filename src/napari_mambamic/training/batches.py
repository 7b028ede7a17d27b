"""Batches of training patches: changed at random, and as the network is fed them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_mambamic.patches import PatchSpec, prepare_patches
from napari_mambamic.training.augment import make_augmentation
from napari_mambamic.training.config import TrainConfig
from napari_mambamic.training.samples import Samples
from napari_mambamic.trust.pixels import without_normalisation

_RGB = ("red", "green", "blue")


class Batches:
    """Batches of samples.

    Parameters
    ----------
    samples : Samples
    spec : PatchSpec
        What the network is fed.
    config : TrainConfig
    device : torch.device
        Where the patches are changed and go to.
    """

    def __init__(
        self, samples: Samples, spec: PatchSpec, config: TrainConfig, device: torch.device
    ) -> None:
        self.samples, self.spec, self.device = samples, spec, device
        self.augmentation = config.augmentation
        if self.augmentation == "auto":
            self.augmentation = "bright-field" if samples.channels == _RGB else "fluorescence"
        self._augment = make_augmentation(self.augmentation, zoom=config.zoom, gain=config.gain)

    def of(self, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Patches (n, channel, y, x) and labels (n,) of chosen samples, by their numbers (n,)."""
        mean, std = (
            torch.tensor(v, device=self.device).view(1, -1, 1, 1)
            for v in (self.spec.mean, self.spec.std)
        )
        labels = torch.from_numpy(self.samples.labels[chosen]).to(self.device)
        return (self.changed_pixels(chosen) - mean) / std, labels

    def changed_pixels(self, chosen: NDArray[np.int64]) -> Tensor:
        """The same patches before they are normalised, pixels being 0 ... 1."""
        spec = self.spec
        # At the samples' own size, so that turning and zooming do not blur what is shrunk after.
        own = replace(without_normalisation(spec), patch_size=self.samples.tile_size)
        pixels = torch.from_numpy(prepare_patches(self.samples.pixels[chosen], own))
        patches = self._augment(pixels.to(self.device))
        if patches.shape[-1] != spec.patch_size:
            patches = functional.interpolate(
                patches, spec.patch_size, mode="bilinear", antialias=True
            )
        return patches


def mixed(patches: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Each patch and its target with a share of another one (mixup)."""
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(patches), device=patches.device)
    return (
        torch.lerp(patches[order], patches, share),
        torch.lerp(targets[order], targets, share),
    )
