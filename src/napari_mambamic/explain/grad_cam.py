"""Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391) of every network of the package.

The map of a stage is weighted by how much each of its channels, on the mean over the map, raises
the logit of the class.  captum computes it; what is ours is the view of a stage that captum needs:
channels before (y, x), and no gradients before that stage.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from napari_mambamic.errors import NetworkError

# Counted from 0.  Of the four stages, whose maps have 16, 8, 4 and 2 places along a side of 64 px,
# this one scored best in deletion and insertion: see docs/why.md.
DEFAULT_STAGE = 1


class MappedNetwork(nn.Module):
    """A network whose map after one stage passes through `map`, as (n, channels, y, x).

    It shares its tensors with the network that is given, which is left as it is: other threads may
    use it.  What comes before the stage computes without gradients.

    Parameters
    ----------
    network : nn.Module
        A `StagedNetwork`; of another network the last module that gives a map (n, channels, y, x)
        is looked at, and `stage` does not count.
    stage : int
        From 0 on.
    example : Tensor
        (1, channels, height, width): a patch to find that module with.
    """

    def __init__(self, network: nn.Module, stage: int, example: Tensor) -> None:
        super().__init__()
        shared = {id(t): t for t in (*network.parameters(), *network.buffers())}
        self.network: nn.Module = copy.deepcopy(network, shared).eval()
        self.map = nn.Identity()
        stages = getattr(self.network, "stages", None)
        self._channels_last = stages is not None
        seen = _last_with_a_map(self.network, example) if stages is None else stages[stage]
        seen.register_forward_hook(self._pass_through)

    def forward(self, patches: Tensor) -> Tensor:
        """Logits (n, n_classes) of prepared patches."""
        logits: Tensor = self.network(patches)
        return logits

    def _pass_through(self, _module: nn.Module, _given: Any, found: Tensor) -> Tensor:
        found = found.detach()
        if self._channels_last:
            mapped: Tensor = self.map(found.permute(0, 3, 1, 2).requires_grad_())
            return mapped.permute(0, 2, 3, 1)
        mapped = self.map(found.requires_grad_())
        # What follows may rectify in place, and what is looked at must stay.
        return mapped.clone()


def grad_cam(network: MappedNetwork, patches: Tensor, targets: Tensor) -> Tensor:
    """Maps (n, y, x) of the stage, 0 where nothing speaks for the class; not yet scaled.

    Parameters
    ----------
    network : MappedNetwork
    patches : Tensor
        (n, channels, patch_size, patch_size), prepared, on the network's device.
    targets : Tensor
        (n,) the class to explain of each.
    """
    from captum.attr import LayerGradCam  # takes seconds to load, matplotlib for the most part

    found = LayerGradCam(network, network.map).attribute(
        patches, target=targets, relu_attributions=True
    )
    maps: Tensor = found.detach()[:, 0]
    return maps


@torch.no_grad()
def _last_with_a_map(network: nn.Module, example: Tensor) -> nn.Module:
    """The last module, in the order of computing, whose output is larger than one pixel."""
    found: list[nn.Module] = []

    def look(module: nn.Module, _given: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            found.append(module)

    hooks = [module.register_forward_hook(look) for module in network.modules()]
    network(example)
    for hook in hooks:
        hook.remove()
    if not found:
        raise NetworkError(
            f"The network {type(network).__name__} has no layer whose output is a map (n, "
            f"channels, y, x), which Grad-CAM needs. Choose the method 'occlusion'."
        )
    return found[-1]
