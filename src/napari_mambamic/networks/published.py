"""Reading the state dicts that were published with the papers.

The published MambaMIC file holds two linear maps per block that its forward pass never uses;
they are dropped by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from napari_mambamic.errors import NetworkError
from napari_mambamic.networks.mambamic import MambaMIC

_UNUSED = re.compile(r"\.(pvm_layer\.mamba\.out_proj|pvm_layer\.proj)\.")
_RENAMED = (  # (published, here), applied in this order
    (r"^patch_embed\.0\.c\.", "stem.0."),
    (r"^patch_embed\.0\.bn\.", "stem.1."),
    (r"^patch_embed\.2\.c\.", "stem.3."),
    (r"^patch_embed\.2\.bn\.", "stem.4."),
    (r"^layers\.(\d+)\.blocks\.", r"stages.\1."),
    (r"^layers\.(\d+)\.downsample\.reduction\.weight", r"merges.\1.reduction"),
    (r"^layers\.(\d+)\.downsample\.", r"merges.\1."),
    (r"\.MIFA\.DWConv\.", ".fusion.depthwise."),
    (r"\.MIFA\.attention\.conv\.weight", ".fusion.attention"),
    (r"\.Conv_branch\.", ".local_branch."),
    (r"\.pvm_layer\.mamba\.PSFFN\.conv_0\.", ".scan_branch.filter.pointwise."),
    (r"\.pvm_layer\.mamba\.PSFFN\.conv_1\.", ".scan_branch.filter.depthwise."),
    (r"\.pvm_layer\.mamba\.", ".scan_branch.ss2d."),
    (r"\.pvm_layer\.", ".scan_branch."),
    (r"\.x_proj_weight$", ".x_proj"),
    (r"\.dt_projs_weight$", ".dt_weight"),
    (r"\.dt_projs_bias$", ".dt_bias"),
    (r"\.A_logs$", ".a_log"),
    (r"\.Ds$", ".skip"),
    (r"\.in_proj\.weight$", ".in_proj"),
    (r"\.conv2d\.", ".conv."),
    (r"\.out_norm\.", ".norm."),
)


def load_published(network: MambaMIC, state_dict: Mapping[str, Tensor]) -> None:
    """Copy a published MambaMIC state dict into a network from `build_network`.

    Also turns on the published behaviour of the filter.  A key that does not belong there, or is
    missing, is a `NetworkError` that names it.
    """
    own = network.state_dict()
    renamed = {}
    for key, tensor in state_dict.items():
        if _UNUSED.search(key):
            continue
        name = key
        for published, here in _RENAMED:
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
    network.published_filter = True
