"""The networks compute what was published, with every back end."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mambamic import TrainConfig, fine_tune, load_classifier, samples_from_arrays
from napari_mambamic.errors import NetworkError
from napari_mambamic.networks import build_network, list_networks, register_network
from napari_mambamic.networks.published import load_published
from napari_mambamic.networks.ss2d import SS2D
from napari_mambamic.networks.yardsticks import ResNet18

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_tensor(key: str, shape: list[int]) -> torch.Tensor:
    """The rule for the weights that the golden outputs were made with."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    n = np.random.default_rng(seed).standard_normal(shape)
    last = key.split(".")[-1]
    if last == "num_batches_tracked":
        return torch.tensor(0)
    if last == "running_var":
        value = 1 + 0.1 * np.abs(n)
    elif last in ("running_mean", "bias"):
        value = 0.1 * n
    elif last == "A_logs":
        value = np.log(np.arange(1, shape[1] + 1)) + 0.1 * n
    elif last == "dt_projs_bias":
        value = -3 + 0.5 * n
    elif last in ("Ds", "skip_scale") or len(shape) == 1:
        value = 1 + 0.1 * n
    elif last in ("x_proj_weight", "dt_projs_weight"):
        value = n / np.sqrt(shape[2])
    else:
        value = n / np.sqrt(shape[1] * np.prod(shape[2:]))
    return torch.from_numpy(np.asarray(value))


def golden_network(name: str) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    network = build_network(name, n_classes=golden["n_classes"]).double().eval()
    load_published(network, {k: golden_tensor(k, s) for k, s in golden["state_dict"].items()})
    patches = torch.from_numpy(np.random.default_rng(7).standard_normal((2, 3, 64, 64)))
    return network, patches, torch.tensor(golden["logits"], dtype=torch.float64)


def use_back_end(network: torch.nn.Module, back_end: str) -> None:
    for module in network.modules():
        if isinstance(module, SS2D):
            module.back_end = back_end


@pytest.mark.parametrize("back_end", ["reference", "torch", "numba"])
@pytest.mark.parametrize("name", ["mambamic-t", "mambamic-b", "medmamba-t", "medmamba-b"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@torch.no_grad()
def test_logits_are_the_published_ones(name, back_end, dtype, tolerance):
    network, patches, logits = golden_network(name)
    use_back_end(network, back_end)
    difference = network.to(dtype)(patches.to(dtype)).double() - logits
    assert difference.abs().max() < tolerance


@torch.no_grad()
def test_without_the_published_filter_the_logits_differ():
    network, patches, logits = golden_network("mambamic-t")
    network.published_filter = False
    assert (network(patches) - logits).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "millions_1000", "millions_8"),
    [
        ("mambamic-t", 4.321 - 0.525, 3.558 - 0.525),
        ("mambamic-s", 4.972 - 0.692, 4.209 - 0.692),
        ("mambamic-b", 9.406 - 1.526, 8.389 - 1.526),
        ("medmamba-t", 15.222, 14.459),
        ("medmamba-s", 19.390, 18.627),
        ("medmamba-b", 40.884, 39.867),
    ],
)
def test_parameter_counts_are_the_published_ones_less_the_unused(name, millions_1000, millions_8):
    for n_classes, millions in ((1000, millions_1000), (8, millions_8)):
        network = build_network(name, n_classes=n_classes)
        count = sum(p.numel() for p in network.parameters())
        assert count / 1e6 == pytest.approx(millions, abs=0.0011)


@pytest.mark.parametrize("name", list_networks())
def test_gradient_reaches_every_parameter(name):
    torch.manual_seed(0)
    network = build_network(name, n_classes=3, in_channels=2)
    network(torch.randn(2, 2, 64, 64)).square().sum().backward()
    without = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("name", list_networks())
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 40)])
@torch.no_grad()
def test_a_batch_of_two_equals_two_of_one_at_any_size(name, size):
    torch.manual_seed(0)
    network = build_network(name, n_classes=5).double().eval()
    patches = torch.randn(2, 3, *size, dtype=torch.float64)
    together = network(patches)
    assert torch.allclose(together, torch.cat([network(p[None]) for p in patches]), atol=1e-10)


def test_bad_requests_are_refused_with_a_sentence():
    with pytest.raises(NetworkError, match="Nearest: mambamic-t"):
        build_network("mambamik-t", n_classes=2)
    with pytest.raises(NetworkError, match="n_classes is 0"):
        build_network("mambamic-t", n_classes=0)
    network = build_network("mambamic-t", n_classes=2).eval()
    with pytest.raises(NetworkError, match="at least 29"):
        network(torch.zeros(1, 3, 28, 40))
    network.published_filter = True
    with pytest.raises(NetworkError, match="square"):
        network(torch.zeros(1, 3, 32, 64))


def test_a_foreign_state_dict_is_refused_by_key():
    network = build_network("mambamic-t", n_classes=2)
    with pytest.raises(NetworkError, match=r"'layers\.9\.strange'"):
        load_published(network, {"layers.9.strange": torch.zeros(3)})
    with pytest.raises(NetworkError, match="lack"):
        load_published(network, {"head.bias": torch.zeros(2)})


def test_a_network_of_ones_own_is_built_by_its_name(monkeypatch):
    monkeypatch.setattr("napari_mambamic.networks._registered", {})
    register_network("resnet-18", ResNet18)
    assert list_networks()[-1] == "resnet-18"
    network = build_network("resnet-18", n_classes=5, in_channels=1)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 5)
    with pytest.raises(NetworkError, match="'mambamic-t' already"):
        register_network("mambamic-t", ResNet18)
    register_network("whole", lambda **sizes: torch.nn.Conv2d(3, 5, 1))
    with pytest.raises(NetworkError, match="'whole' has no embed, or no linear head"):
        build_network("whole", n_classes=5)


@pytest.mark.parametrize("prior", ["balanced", "training"])
def test_a_network_of_ones_own_is_trained_kept_and_used(monkeypatch, tmp_path, prior):
    monkeypatch.setattr("napari_mambamic.networks._registered", {})
    register_network("resnet-18", ResNet18)
    patches = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    patches[::3, :, :8] = 0
    samples = samples_from_arrays(patches, ["half", "whole", "whole"] * 8)
    config = TrainConfig(network="resnet-18", epochs=2, patch_size=32, prior=prior)
    path = fine_tune(samples, start=None, config=config).save(tmp_path / "mine.safetensors")
    predicted = load_classifier(path, device="cpu").predict(patches)
    assert predicted.probabilities.shape == (24, 2)
    assert predicted.embeddings.shape == (24, 512)
