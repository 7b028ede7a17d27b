"""What only a CUDA GPU can show: ``pytest -m gpu``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_networks import golden_network
from test_selective_scan import inputs

from napari_mambamic import load_classifier
from napari_mambamic.networks.selective_scan import back_end_for, selective_scan

pytestmark = pytest.mark.gpu
SIZES = [(1, 1), (1, 7), (5, 1), (3, 5), (7, 7), (13, 29), (14, 14), (28, 28), (56, 56)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_triton_computes_what_the_reference_does(size, dtype, share):
    values = inputs(*size, dtype=torch.float32, d=24, states=16, rank=1)
    values = [v.detach().to(dtype).cuda().requires_grad_() for v in values]
    doubles = [v.detach().cpu().double().requires_grad_() for v in values]
    expected = selective_scan(*doubles, back_end="torch")
    got = selective_scan(*values, back_end="triton")
    assert (got.cpu() - expected).norm() < share * expected.norm()
    flow = torch.randn(expected.shape)
    wanted = torch.autograd.grad(expected, doubles, flow.double())
    gradients = torch.autograd.grad(got, values, flow.cuda().to(dtype))
    for gradient, double in zip(gradients, wanted, strict=True):
        assert (gradient.cpu() - double).norm() < 2 * share * double.norm() + 1e-6


def test_triton_is_what_runs_on_cuda():
    assert back_end_for(torch.device("cuda")) == "triton"


@pytest.mark.parametrize("name", ["mambamic-t", "mambamic-b", "medmamba-t", "medmamba-b"])
@torch.no_grad()
def test_logits_are_the_published_ones(name):
    network, patches, logits = golden_network(name)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    got = network.float().cuda()(patches.float().cuda()).cpu()
    assert (got - logits).abs().max() < 1e-4


def test_the_bundled_weights_give_the_labels_of_the_cpu(cells, classifier):
    on_gpu = load_classifier(device="cuda").predict(cells.reshape(-1, 96, 96, 3))
    on_cpu = classifier.predict(cells.reshape(-1, 96, 96, 3))
    np.testing.assert_array_equal(on_gpu.logits.argmax(1), on_cpu.logits.argmax(1))
