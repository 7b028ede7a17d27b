"""The lean copy computes what the network does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_mambamic.networks import build_network, list_networks
from napari_mambamic.networks.lean import lean_copy


@pytest.mark.parametrize("name", list_networks())
@torch.no_grad()
def test_the_lean_copy_gives_the_same_logits(name):
    torch.manual_seed(0)
    network = build_network(name, n_classes=5).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # fresh ones change nothing
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.normal_()
            module.bias.normal_()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    lean = lean_copy(network)
    patches = torch.randn(2, 3, 40, 40, dtype=torch.float64)
    assert torch.allclose(lean(patches), network(patches), rtol=1e-9, atol=1e-9)
    left = sum(isinstance(module, nn.BatchNorm2d) for module in lean.modules())
    assert left == sum(len(stage) for stage in lean.stages)  # the first of each block
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())
