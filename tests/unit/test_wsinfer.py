"""Exported weights give other programs the same classes as here, with plain torch alone."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import distribution

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from napari_mambamic.classifier import load_classifier
from napari_mambamic.cli import main
from napari_mambamic.errors import (
    ChannelMismatch,
    ExportError,
    NetworkError,
    PixelSizeMissing,
    WeightsError,
)
from napari_mambamic.exports.wsinfer import config_of, export_wsinfer
from napari_mambamic.networks import build_network
from napari_mambamic.networks.selective_scan import script_scan, selective_scan
from napari_mambamic.networks.torchscript import as_torchscript
from napari_mambamic.patches import PatchSpec, prepare_patches
from napari_mambamic.weights.checkpoint import logits_of, save_weights
from napari_mambamic.weights.manifest import Manifest
from napari_mambamic.weights.store import fetch_weights, read_manifest

RGB = PatchSpec(80, 64, ("red", "green", "blue"), (0.7, 0.6, 0.5), (0.2, 0.3, 0.4), 0.25)
NAMES = ("no", "yes", "a third")

# What another program does: it cannot import this package, nor what only this package needs.
STRANGER = """
import sys
sys.modules.update(dict.fromkeys(["napari_mambamic", "numba", "triton", "safetensors"]))
import numpy, torch
folder = sys.argv[1]
model = torch.jit.load(folder + "/torchscript_model.pt", map_location="cpu")
patches = torch.from_numpy(numpy.load(folder + "/patches.npy"))
with torch.no_grad():
    returned = [model(patches[:n]).numpy() for n in (1, 3, 8)]
numpy.savez(folder + "/returned.npz", *returned)
"""


def save_fresh(folder, network, *, spec=RGB, published_filter=False):
    """Weights that were never trained, with three classes and a temperature."""
    torch.manual_seed(0)
    built = build_network(network, n_classes=3, in_channels=len(spec.channels)).eval()
    built.requires_grad_(False)
    if published_filter:
        built.published_filter = True
    manifest = Manifest(
        "fresh",
        "Three classes",
        network,
        NAMES,
        spec,
        "",
        licence="CC0",
        credit="nobody",
        published_filter=published_filter,
        temperature=2.5,
    )
    patch = np.full((spec.tile_size, spec.tile_size, len(spec.channels)), 99, np.uint8)
    logits = logits_of(built, prepare_patches(patch[np.newaxis], spec))[0]
    path = folder / "fresh.safetensors"
    save_weights(built, path, manifest, self_test=(patch, logits), dtype="float32")
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The bundled weights as a model of WSInfer, for images of 0.2 um per px."""
    return export_wsinfer("default", tmp_path_factory.mktemp("user") / "cells", pixel_size_um=0.2)


@pytest.mark.parametrize(
    ("network", "published_filter"),
    [("mambamic-t", False), ("mambamic-t", True), ("medmamba-t", False)],
)
def test_plain_torch_gets_the_logits_of_the_classifier(tmp_path, network, published_filter):
    weights = save_fresh(tmp_path, network, published_filter=published_filter)
    folder = export_wsinfer(weights, tmp_path / "model")
    patches = np.random.default_rng(0).normal(size=(8, 3, 64, 64)).astype(np.float32)
    np.save(folder / "patches.npy", patches)
    subprocess.run([sys.executable, "-c", STRANGER, str(folder)], check=True, cwd=tmp_path)
    classifier = load_classifier(weights, device="cpu")
    with np.load(folder / "returned.npz") as returned:
        for n, name in zip((1, 3, 8), returned.files, strict=True):
            expected = classifier.predict_prepared(patches[:n])
            np.testing.assert_allclose(2.5 * returned[name], expected.logits, atol=1e-4)
            # WSInfer and QuPath apply a softmax: the temperature must be in what is returned.
            probabilities = torch.from_numpy(returned[name]).softmax(dim=1).numpy()
            np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-5)


def test_tiles_that_are_transformed_as_the_config_says_get_the_same_classes(
    exported, classifier, cells
):
    config = json.loads((exported / "config.json").read_text())
    resize, to_tensor, normalize = config["transform"]
    size = resize["arguments"]["size"]
    assert (resize["name"], to_tensor["name"], normalize["name"]) == (
        "Resize",
        "ToTensor",
        "Normalize",
    )
    tiles = cells[:, :3].reshape(-1, *cells.shape[2:])
    assert tiles.shape[1] == config["patch_size_pixels"]
    resized = [Image.fromarray(t).resize((size, size), Image.Resampling.BILINEAR) for t in tiles]
    mean, std = normalize["arguments"]["mean"], normalize["arguments"]["std"]
    patches = ((np.stack(resized) / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    model = torch.jit.load(exported / "torchscript_model.pt")
    with torch.no_grad():
        probabilities = model(torch.from_numpy(patches)).softmax(dim=1).numpy()
    expected = classifier.predict(tiles)
    assert probabilities.argmax(1).tolist() == expected.probabilities.argmax(1).tolist()
    # Pillow rounds the resized tile to whole grey values.
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=0.03)
    assert config["class_names"] == list(classifier.class_names)


def test_the_config_fits_the_published_schema(exported):
    # Read as a file: importing wsinfer_zoo makes a folder in the home of whoever tests.
    schema = distribution("wsinfer-zoo").locate_file("wsinfer_zoo/schemas/model-config.schema.json")
    config = json.loads((exported / "config.json").read_text())
    jsonschema.validate(config, json.loads(schema.read_text()))
    assert config["num_classes"] == len(config["class_names"]) == 8
    # A tile is 96 px of the training images, and WSInfer cuts patch_size_pixels * spacing_um_px.
    assert (config["patch_size_pixels"], config["spacing_um_px"]) == (96, 0.2)
    del config["spacing_um_px"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, json.loads(schema.read_text()))


def test_the_card_names_licence_credit_classes_and_source(exported):
    card = (exported / "README.md").read_text(encoding="utf-8")
    manifest = read_manifest("default")
    for fact in (manifest.title, manifest.licence, manifest.credit, manifest.sha256, "platelet"):
        assert fact in card
    assert card.startswith("# ")  # else QuPath writes a title of its own above


def test_patches_of_another_size_are_resampled(exported):
    model = torch.jit.load(exported / "torchscript_model.pt")
    large = torch.rand(2, 3, 96, 100)
    small = nn.functional.interpolate(large, size=(80, 80), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(model(large), model(small))


def test_the_model_holds_no_device_and_no_tensor_that_would_stay_behind(exported):
    # Parameters move with the model; what the tracer wrote as a constant would not.
    model = torch.jit.load(exported / "torchscript_model.pt")
    graph = model.inlined_graph
    constants = [node.output() for node in graph.findAllNodes("prim::Constant")]
    kinds = {constant.type().kind() for constant in constants}
    assert "TensorType" in kinds  # the numbers that shapes are computed with
    assert "DeviceObjType" not in kinds
    values = [constant.toIValue() for constant in constants]
    assert not any(value.dim() for value in values if isinstance(value, torch.Tensor))


@pytest.mark.gpu
def test_a_gpu_gets_the_logits_of_the_cpu(exported):
    model = torch.jit.load(exported / "torchscript_model.pt")
    patches = torch.randn(5, 3, 64, 64)
    with torch.no_grad():
        expected = model(patches)
        torch.testing.assert_close(
            model.cuda()(patches.cuda()).cpu(), expected, atol=1e-2, rtol=1e-2
        )


def test_the_pixel_size_is_that_of_the_weights_unless_another_is_given(tmp_path):
    manifest = Manifest.read(save_fresh(tmp_path, "mambamic-t").with_suffix(".json"))
    assert config_of(manifest)["spacing_um_px"] == 0.25
    assert config_of(manifest, 0.5)["spacing_um_px"] == 0.5


def test_a_missing_pixel_size_is_asked_for_and_nothing_is_written(tmp_path, capsys):
    arguments = ["weights", "export-wsinfer", "blood-cells-t", "--out", str(tmp_path / "model")]
    with pytest.raises(PixelSizeMissing, match="'blood-cells-t' do not say the pixel size"):
        export_wsinfer("blood-cells-t", tmp_path / "model")
    assert main(arguments) == 1
    assert "--pixel-size" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
    assert main([*arguments, "--pixel-size", "0.2"]) == 0
    assert {p.name for p in (tmp_path / "model").iterdir()} == {
        "README.md",
        "config.json",
        "torchscript_model.pt",
    }


@pytest.mark.parametrize("pixel_size", [0, -0.5, float("nan"), float("inf")])
def test_a_pixel_size_is_positive(pixel_size):
    with pytest.raises(ExportError, match="Give a positive number"):
        config_of(read_manifest("default"), pixel_size)


@pytest.mark.parametrize("channels", [("grey",), ("DAPI", "FITC", "TRITC")])
def test_weights_for_other_channels_are_refused(channels):
    spec = replace(RGB, channels=channels)
    manifest = replace(read_manifest("default"), patch=spec)
    with pytest.raises(ChannelMismatch, match=f"are for {', '.join(channels)}"):
        config_of(manifest)


def test_what_is_damaged_or_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "none" / "model", tmp_path / "file"):
        with pytest.raises(ExportError, match="cannot be made"):
            export_wsinfer("default", folder, pixel_size_um=0.2)
    shutil.copy(fetch_weights("default").with_suffix(".json"), tmp_path / "mine.json")
    (tmp_path / "mine.safetensors").write_bytes(b"half")
    with pytest.raises(WeightsError, match="cannot be read"):
        export_wsinfer(tmp_path / "mine.safetensors", tmp_path / "model", pixel_size_um=0.2)


class KnowsItsBatch(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3)) + torch.zeros(len(x), 1)


class KnowsItsPixels(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3)) + float(x.std()) * 100


@pytest.mark.parametrize(
    ("network", "words"),
    [(KnowsItsBatch(), "must match the size"), (KnowsItsPixels(), "computes something else")],
)
def test_a_network_whose_trace_is_another_one_is_refused(network, words):
    with pytest.raises(NetworkError, match=words):
        as_torchscript(network, in_channels=3, patch_size=32)


def test_a_network_of_ones_own_can_be_exported():
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    model = torch.jit.load(io.BytesIO(as_torchscript(own, in_channels=3, patch_size=16)))
    patches = torch.randn(5, 3, 16, 16)
    torch.testing.assert_close(model(patches), own(patches))


# 131,072 states are a block on a CPU: one position of the last map, eight of the one before.
@pytest.mark.parametrize(
    "size", [(2, 1, 1, 6), (2, 5, 3, 6), (2, 9, 6, 6), (8, 5, 4, 32), (64, 3, 3, 32)]
)
def test_the_scan_is_the_references_whatever_the_blocks(size):
    n, height, width, d = size
    generator = torch.Generator().manual_seed(0)
    shapes = (
        (n, height, width, d),
        (n, height, width, 4, 34),
        (4, d, 2),
        (4, d),
        (4, d, 16),
        (4, d),
    )
    values = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    expected = selective_scan(*values, back_end="reference")
    torch.testing.assert_close(script_scan.scan(*values), expected, rtol=1e-10, atol=1e-11)
