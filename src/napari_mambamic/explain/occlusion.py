"""Occlusion (Zeiler and Fergus, ECCV 2014, arXiv 1311.2901): what is missed when it is covered.

A square of a quarter of the patch, in the patch's mean colour, goes over the patch in steps of an
eighth.  Where it takes away from the log-odds of the class, something speaks for the class.  (The
probability itself hardly moves where the network is sure.)  It needs no gradients and looks at the
network from outside, so it can contradict Grad-CAM.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

N_WINDOWS = 49  # of a patch
_AT_ONCE = 8  # places that are covered in one batch, each in its own copy of the patches


def occlusion(network: nn.Module, patches: Tensor, targets: Tensor) -> Tensor:
    """Maps (n, patch_size, patch_size), 0 where nothing speaks for the class; not yet scaled.

    Parameters
    ----------
    network : nn.Module
        Maps patches to logits.
    patches : Tensor
        (n, channels, patch_size, patch_size), prepared, on the network's device.
    targets : Tensor
        (n,) the class to explain of each.
    """
    from captum.attr import Occlusion

    def log_odds(covered: Tensor) -> Tensor:
        logits: Tensor = network(covered)
        return log_odds_of(logits)

    channels, side = patches.shape[1:3]
    window, step = max(side // 4, 1), max(side // 8, 1)
    colour = patches.mean(dim=(2, 3), keepdim=True).expand_as(patches)
    found: Tensor = Occlusion(log_odds).attribute(
        patches,
        sliding_window_shapes=(channels, window, window),
        strides=(channels, step, step),
        baselines=colour,
        target=targets,
        perturbations_per_eval=_AT_ONCE,
    )
    return found.mean(dim=1).clamp(min=0)


def log_odds_of(logits: Tensor) -> Tensor:
    """Logarithm of p / (1 - p) of each class, without the rounding of p near 1.

    >>> log_odds_of(torch.tensor([[100.0, 0.0]])).tolist()
    [[100.0, -100.0]]
    """
    n_classes = logits.shape[1]
    others = logits.unsqueeze(1).expand(-1, n_classes, -1)
    itself = torch.eye(n_classes, dtype=torch.bool, device=logits.device)
    return logits - others.masked_fill(itself, -torch.inf).logsumexp(dim=2)
