"""Random changes of training patches, on the device that trains.

What a microscope changes without changing the class: place, turn, mirror image, light, stain,
focus, noise.  From kornia, except for the jitter of gain and gamma channel by channel, which stands
for stain and white balance.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from napari_mambamic.errors import TrainingError

PRESETS = ("none", "bright-field", "fluorescence", "autoaugment")
_DEFOCUSED = 1 / 3  # of the patches
_LARGEST_BLUR = 0.03  # standard deviation, of the patch's side


def make_augmentation(
    preset: str, *, zoom: float = 1.2, gain: float | None = None
) -> Callable[[Tensor], Tensor]:
    """Function from patches (n, channel, y, x) with values 0 to 1 to changed ones of that kind.

    Parameters
    ----------
    preset : str
        "none"; "bright-field": any turn, mirror image, zoom, shift by up to 8 %, light, contrast,
        gain and gamma per channel, and a third of them out of focus; "fluorescence": the same
        places, gain per channel, offset and noise, all relative to what the channel holds;
        "autoaugment": the ImageNet policy of AutoAugment (Cubuk et al., CVPR 2019), with which
        MedMamba-X was trained, for RGB alone.
    zoom : float
        Largest zoom, in and out.
    gain : float, optional
        Largest change of brightness, up and down; by default 1.12 for bright-field and 1.5 for
        fluorescence.

    Raises
    ------
    TrainingError
        There is no such preset.
    """
    if preset not in PRESETS:
        raise TrainingError(f"There is no augmentation {preset!r}. Choose {', '.join(PRESETS)}.")
    if preset == "none":
        return lambda patches: patches
    from kornia import augmentation

    if preset == "autoaugment":
        policy = augmentation.auto.AutoAugment("imagenet")
        return lambda patches: policy(patches).clamp(0, 1)
    place = augmentation.AugmentationSequential(
        augmentation.RandomHorizontalFlip(p=0.5),
        augmentation.RandomAffine(
            degrees=180.0,
            translate=(0.08, 0.08),
            scale=(1 / zoom, zoom),
            padding_mode="reflection",
            p=1.0,
        ),
    )
    if preset == "bright-field":
        return lambda patches: defocus(jitter_stain(place(patches), gain or 1.12))
    return lambda patches: add_noise(jitter_gain(place(patches), gain or 1.5)).clamp(0, 1)


def jitter_stain(patches: Tensor, gain: float) -> Tensor:
    """Change light by up to `gain`, and in proportion contrast, and gamma and gain per channel."""
    light = math.log(gain)
    mean = patches.mean(dim=(2, 3), keepdim=True)
    patches = (patches - mean) * _around_one(patches, 1.3 * light, 1) + mean
    channels = patches.shape[1]
    gains = _around_one(patches, light, 1) * _around_one(patches, 0.45 * light, channels)
    gamma = _around_one(patches, 1.3 * light, channels)
    return (patches.clamp(1e-3, 1) ** gamma * gains).clamp(0, 1)


def defocus(patches: Tensor) -> Tensor:
    """Blur a third of the patches by up to 3 % of their side (standard deviation)."""
    from kornia.filters import gaussian_blur2d

    chosen = (torch.rand(len(patches), device=patches.device) < _DEFOCUSED).nonzero().squeeze(1)
    if not len(chosen):
        return patches
    largest = _LARGEST_BLUR * min(patches.shape[-2:])
    sigma = torch.rand((len(chosen), 1), device=patches.device) * largest + 1e-3
    blurred = gaussian_blur2d(patches[chosen], 2 * math.ceil(2 * largest) + 1, sigma.repeat(1, 2))
    return patches.index_copy(0, chosen, blurred.to(patches.dtype))


def jitter_gain(patches: Tensor, gain: float) -> Tensor:
    """Change gain and offset of each channel."""
    gains = gain ** (_around_one(patches, 1.0, patches.shape[1]) - 1)
    offsets = (_around_one(patches, 0.02, patches.shape[1]) - 1) * patches.amax((2, 3), True)
    return patches * gains + offsets


def add_noise(patches: Tensor) -> Tensor:
    """Noise of up to a tenth of the spread of each channel: a camera rarely uses its full range."""
    spread = patches.std(dim=(0, 2, 3), keepdim=True)
    strength = torch.rand((len(patches), 1, 1, 1), device=patches.device) * 0.1
    return patches + torch.randn_like(patches) * spread * strength


def _around_one(patches: Tensor, strength: float, channels: int) -> Tensor:
    shape = (len(patches), channels, 1, 1)
    return 1 + (torch.rand(shape, device=patches.device) * 2 - 1) * strength
