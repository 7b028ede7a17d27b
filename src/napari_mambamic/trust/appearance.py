"""What a patch looks like, whatever the network makes of it: light, contrast, colours, sharpness.

A network that was trained on colours may give a grey cell the embedding of a coloured one.  These
few statistics cannot overlook it.  They are computed where the patches are, at a small part of the
cost of the network.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_LEAST = 4e-5  # of the range of pixels: light and contrasts below this are alike
# Units of the statistics: differences below them do not count, even where no training patch varies.
_LIGHT, _CONTRAST = 0.01, 0.1  # 1 % and 10 %


def appearance_of(pixels: Tensor) -> Tensor:
    """Statistics (n, n_statistics(channels)) of patches (n, channel, y, x), pixels being 0 ... 1.

    Of each channel the logarithms of its mean, its standard deviation, its gradient, and its
    gradient at half the size; and of the standard deviation of the difference between each two
    neighbouring channels, the last and the first being neighbours too.
    """
    channels = pixels.shape[1]
    contrasts = [_spread(pixels), _gradient(pixels), _gradient(functional.avg_pool2d(pixels, 2))]
    if channels > 1:
        differences = pixels - pixels.roll(-1, dims=1)
        contrasts.append(_spread(differences if channels > 2 else differences[:, :1]))
    light = (pixels.mean(dim=(2, 3)) + _LEAST).log() / _LIGHT
    return torch.cat([light, (torch.cat(contrasts, dim=1) + _LEAST).log() / _CONTRAST], dim=1)


def n_statistics(channels: int) -> int:
    """How many statistics `appearance_of` gives."""
    return 4 * channels + (channels if channels > 2 else channels - 1)


def _spread(pixels: Tensor) -> Tensor:
    """(n, channel): standard deviation."""
    return pixels.var(dim=(2, 3), correction=0).sqrt()


def _gradient(pixels: Tensor) -> Tensor:
    """(n, channel): root of the mean square of the differences between neighbouring pixels."""
    down, right = pixels.diff(dim=2), pixels.diff(dim=3)
    return (down.square().mean(dim=(2, 3)) + right.square().mean(dim=(2, 3))).sqrt()
