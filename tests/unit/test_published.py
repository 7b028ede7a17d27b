"""Files that were published with the papers become networks and weights."""

from __future__ import annotations

import json
from collections import OrderedDict

import pytest
import torch
from test_networks import GOLDEN, golden_tensor

from napari_mambamic import import_published, list_weights, load_classifier
from napari_mambamic.cli import main
from napari_mambamic.errors import WeightsError
from napari_mambamic.networks import build_network
from napari_mambamic.networks.mambamic import MambaMIC


def published_state_dict(name):
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    tensors = {k: golden_tensor(k, s) for k, s in golden["state_dict"].items()}
    return {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}, golden


@pytest.fixture(params=["mambamic-t", "medmamba-t"])
def published(request, tmp_path):
    """A file as it was released, with the name of its network and its logits."""
    tensors, golden = published_state_dict(request.param)
    torch.save(tensors, tmp_path / "best.pth")
    return tmp_path / "best.pth", request.param, torch.tensor(golden["logits"])


def logits(network):
    import numpy as np

    patches = np.random.default_rng(7).standard_normal((2, 3, 64, 64))
    with torch.no_grad():
        return network(torch.from_numpy(patches).float())


def test_a_published_file_computes_what_was_published(published):
    path, name, expected = published
    network = import_published(path, network=name)
    assert not network.training
    assert (logits(network) - expected).abs().max() < 1e-4
    assert not isinstance(network, MambaMIC) or network.published_filter


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_wrappings_are_taken_off(published, wrapper):
    path, name, expected = published
    tensors = torch.load(path, weights_only=True)
    wrapped = OrderedDict((f"module.{key}", tensor) for key, tensor in tensors.items())
    torch.save({wrapper: wrapped, "epoch": 3}, path)
    assert (logits(import_published(path, network=name)) - expected).abs().max() < 1e-4


def test_a_file_of_another_network_is_told_by_its_name(published):
    path, name, _ = published
    other = "medmamba-b" if name == "mambamic-t" else "microscopic-mamba-s"
    with pytest.raises(WeightsError, match=f"looks like those of '{name}'"):
        import_published(path, network=other)


def test_a_file_of_no_network_is_refused(tmp_path):
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="no network that is known here"):
        import_published(tmp_path / "a.pth", network="mambamic-t")


@pytest.mark.parametrize("content", [b"hi", b"", b"\x00" * 40, b"{}", b"some words\n"])
def test_what_is_no_weights_file_is_a_sentence(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.pth (cannot be read|holds more than tensors)"):
        import_published(tmp_path / "a.pth", network="mambamic-t")


def test_import_registers_weights_that_classify(published, tmp_path, monkeypatch, capsys, cells):
    path, name, _ = published
    monkeypatch.setenv("MAMBAMIC_WEIGHTS_DIR", str(tmp_path / "mine"))
    arguments = ["weights", "import", str(path), "--network", name, "--patch-size", "64"]
    eight = [f"class {i}" for i in range(8)]
    assert main([*arguments, "--name", "first", "--classes", *eight]) == 0
    assert "Registered 'first'" in capsys.readouterr().out
    assert list_weights()[0] == "blood-cells-t"
    assert "first" in list_weights()
    classifier = load_classifier("first", device="cpu")
    assert classifier.class_names == tuple(eight)
    assert classifier.predict(cells[:2, 0]).probabilities.shape == (2, 8)
    assert not isinstance(classifier.network, MambaMIC) or classifier.network.published_filter
    assert main([*arguments, "--name", "first", "--classes", *eight]) == 1
    assert "already" in capsys.readouterr().err
    path = path.rename(path.with_name("best.epoch 3.pth"))
    arguments[2] = str(path)
    assert main([*arguments, "--classes", *eight]) == 0
    assert "best-epoch-3" in list_weights()
    assert main([*arguments, "--name", "second", "--classes", *eight[:7]]) == 1
    assert "has 8 classes, and 7 names were given" in capsys.readouterr().err
    assert "second" not in list_weights()


def test_alias_names_build_the_same_networks():
    for alias, name in (("microscopic-mamba-t", "mambamic-t"), ("medmamba-x", "medmamba-t")):
        built = [build_network(n, n_classes=2).state_dict() for n in (alias, name)]
        assert {k: t.shape for k, t in built[0].items()} == {
            k: t.shape for k, t in built[1].items()
        }
