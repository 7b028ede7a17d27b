"""A copy of a network that only predicts, and does so with fewer passes over memory."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork


def lean_copy(network: StagedNetwork) -> StagedNetwork:
    """Fold each BatchNorm into the convolution before it, and rectify in place.

    The logits are the same but for rounding.  The copy is in evaluation mode, cannot be trained,
    and has other names in its state dict.  (A BatchNorm before a zero-padded convolution stays:
    folded, it would change the padding.)
    """
    lean = copy.deepcopy(network).eval().requires_grad_(False)
    for module in lean.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Sequential):
                setattr(module, name, _folded(child))
    return lean


def _folded(layers: nn.Sequential) -> nn.Sequential:
    folded: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d) and folded and isinstance(folded[-1], nn.Conv2d):
            folded[-1] = fuse_conv_bn_eval(folded[-1], layer)
        elif isinstance(layer, nn.ReLU):
            folded.append(nn.ReLU(inplace=True))
        else:
            folded.append(layer)
    return nn.Sequential(*folded)
