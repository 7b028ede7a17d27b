"""Reading the state dicts that were published with the papers.

Tensors keep their values and get the names they have here.  A MambaMIC file also holds two linear
maps per block that its forward pass never uses; they are dropped by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from napari_mambamic.errors import NetworkError
from napari_mambamic.networks import sizes_of
from napari_mambamic.networks.mambamic import MambaMIC

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork

_UNUSED = re.compile(r"\.(pvm_layer\.mamba\.out_proj|pvm_layer\.proj)\.")
_BOTH = (  # (published, here), applied in this order
    (r"^layers\.(\d+)\.blocks\.", r"stages.\1."),
    (r"^layers\.(\d+)\.downsample\.reduction\.weight", r"merges.\1.reduction"),
    (r"^layers\.(\d+)\.downsample\.", r"merges.\1."),
)
_SCAN = (
    (r"\.x_proj_weight$", ".x_proj"),
    (r"\.dt_projs_weight$", ".dt_weight"),
    (r"\.dt_projs_bias$", ".dt_bias"),
    (r"\.A_logs$", ".a_log"),
    (r"\.Ds$", ".skip"),
    (r"\.in_proj\.weight$", ".in_proj"),
    (r"\.conv2d\.", ".conv."),
    (r"\.out_norm\.", ".norm."),
)
_MAMBAMIC = (
    (r"^patch_embed\.0\.c\.", "stem.0."),
    (r"^patch_embed\.0\.bn\.", "stem.1."),
    (r"^patch_embed\.2\.c\.", "stem.3."),
    (r"^patch_embed\.2\.bn\.", "stem.4."),
    *_BOTH,
    (r"\.MIFA\.DWConv\.", ".fusion.depthwise."),
    (r"\.MIFA\.attention\.conv\.weight", ".fusion.attention"),
    (r"\.Conv_branch\.", ".local_branch."),
    (r"\.pvm_layer\.mamba\.PSFFN\.conv_0\.", ".scan_branch.filter.pointwise."),
    (r"\.pvm_layer\.mamba\.PSFFN\.conv_1\.", ".scan_branch.filter.depthwise."),
    (r"\.pvm_layer\.mamba\.", ".scan_branch.ss2d."),
    (r"\.pvm_layer\.", ".scan_branch."),
    *_SCAN,
)
_MEDMAMBA = (
    (r"^patch_embed\.proj\.", "stem."),
    (r"^patch_embed\.norm\.", "stem_norm."),
    *_BOTH,
    (r"\.conv33conv33conv11\.", ".local_branch."),
    (r"\.ln_1\.", ".norm."),
    (r"\.self_attention\.out_proj\.weight$", ".out_proj"),
    (r"\.self_attention\.", ".ss2d."),
    *_SCAN,
)


def looks_like(state_dict: Mapping[str, Tensor]) -> str | None:
    """Name of the published network that a state dict belongs to; None when it is of no other."""
    if any(".MIFA." in key for key in state_dict):
        family = "mambamic"
    elif any(".conv33conv33conv11." in key for key in state_dict):
        family = "medmamba"
    else:
        return None
    blocks = {key.split(".")[3] for key in state_dict if key.startswith("layers.2.blocks.")}
    width = state_dict["head.weight"].shape[-1] if "head.weight" in state_dict else None
    for size in "tsb":
        depths, widths = sizes_of(f"{family}-{size}")
        if len(blocks) == depths[2] and width == widths[-1]:
            return f"{family}-{size}"
    return None


def load_published(network: StagedNetwork, state_dict: Mapping[str, Tensor]) -> None:
    """Copy a published state dict into a network from `build_network`.

    Also turns on the published behaviour of MambaMIC's filter.  A key that does not belong there,
    or is missing, is a `NetworkError` that names it.
    """
    own = network.state_dict()
    renamed = {}
    for key, tensor in state_dict.items():
        if isinstance(network, MambaMIC) and _UNUSED.search(key):
            continue
        name = key
        for published, here in _MAMBAMIC if isinstance(network, MambaMIC) else _MEDMAMBA:
            name = re.sub(published, here, name)
        if name not in own or own[name].numel() != tensor.numel():
            raise NetworkError(
                f"The published weights have {key!r} with shape {tuple(tensor.shape)}, which this "
                f"network has no place for. Check that the file belongs to the network."
            )
        renamed[name] = tensor.reshape(own[name].shape)
    missing = sorted(own.keys() - renamed.keys())
    if missing:
        raise NetworkError(
            f"The published weights lack {len(missing)} of the network's {len(own)} tensors, "
            f"{missing[0]!r} first. Check that the file belongs to the network."
        )
    network.load_state_dict(renamed)
    if isinstance(network, MambaMIC):
        network.published_filter = True
