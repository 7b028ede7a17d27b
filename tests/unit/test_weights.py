"""Weights files are data, fit their manifests, and are tested on load."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_mambamic.classifier import load_classifier
from napari_mambamic.errors import DeviceError, WeightsError
from napari_mambamic.weights.checkpoint import sha256_of
from napari_mambamic.weights.manifest import Manifest
from napari_mambamic.weights.store import fetch_weights, list_weights, read_manifest


@pytest.fixture
def weights(tmp_path):
    """A copy of the bundled weights that a test may damage."""
    path = tmp_path / "mine.safetensors"
    shutil.copy(fetch_weights("default"), path)
    shutil.copy(fetch_weights("default").with_suffix(".json"), path.with_suffix(".json"))
    return path


def edit_manifest(path, edit):
    manifest = json.loads(path.with_suffix(".json").read_text())
    edit(manifest)
    path.with_suffix(".json").write_text(json.dumps(manifest))


def replace_tensors(path, edit):
    """Change tensors and give the manifest the new hash."""
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    edit_manifest(path, lambda manifest: manifest.update(sha256=sha256_of(path)))


def test_the_bundled_weights_say_what_they_are():
    assert list_weights()[0] == "blood-cells-t"
    manifest = read_manifest("default")
    assert len(manifest.class_names) == 8
    assert manifest.licence == "CC BY 4.0"
    assert "Acevedo" in manifest.credit
    assert manifest.metrics["validation_accuracy"] >= 0.97
    assert fetch_weights("default").stat().st_size < 16e6


def test_a_copy_elsewhere_predicts_the_same(weights, classifier, cells):
    copy = load_classifier(weights, device="cpu")
    np.testing.assert_array_equal(
        copy.predict(cells[:, 0]).logits, classifier.predict(cells[:, 0]).logits
    )


def test_a_manifest_reads_back_as_it_was_written(tmp_path):
    manifest = read_manifest("default")
    manifest.write(tmp_path / "copy.json")
    assert Manifest.read(tmp_path / "copy.json") == manifest


def test_a_truncated_file_is_refused(weights):
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="truncated or not a weights file"):
        load_classifier(weights, device="cpu")


def test_a_file_with_another_hash_is_refused(weights):
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(WeightsError, match="SHA-256 begins with"):
        load_classifier(weights, device="cpu")


def test_a_pickle_with_code_is_refused_and_not_run(weights, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").touch, ())

    bomb = weights.with_suffix(".pth")
    bomb.write_bytes(pickle.dumps({"head.weight": Bomb()}))
    with pytest.raises(WeightsError, match=r"perhaps code.*not opened"):
        load_classifier(bomb, device="cpu")
    torch.save({"head.weight": Bomb()}, bomb)
    with pytest.raises(WeightsError, match=r"perhaps code.*not opened"):
        load_classifier(bomb, device="cpu")
    assert not (tmp_path / "exploded").exists()


def test_a_plain_state_dict_is_read(weights, cells, classifier):
    plain = weights.with_suffix(".pth")
    tensors = {k: v for k, v in load_file(weights).items() if not k.startswith("self_test")}
    torch.save(tensors, plain)
    edit_manifest(plain, lambda manifest: manifest.update(sha256=sha256_of(plain)))
    got = load_classifier(plain, device="cpu").predict(cells[:2, 0]).logits
    np.testing.assert_array_equal(got, classifier.predict(cells[:2, 0]).logits)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda m: m["class_names"].pop(), "names 7 classes, and the weights have 8"),
        (lambda m: m["class_names"].append("basophil"), "not distinct"),
        (lambda m: m["patch"]["channels"].pop(), "2 channels with 3 means"),
        (
            lambda m: m["patch"].update(channels=["grey"], mean=[0], std=[1]),
            "names 1 channels, and the weights have 3",
        ),
        (lambda m: m["patch"].update(std=[1, 1, 0]), "not all positive"),
        (lambda m: m["patch"].update(patch_size=0), "below 1 px"),
        (lambda m: m.update(network="mambamic-b"), "'mambamic-b'"),
        (lambda m: m.pop("patch"), "'patch'"),
        (lambda m: m.update(colour="red"), "colour"),
        (lambda m: m.update(format=2), "another format"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(weights, edit, words):
    edit_manifest(weights, edit)
    with pytest.raises(WeightsError, match=words):
        load_classifier(weights, device="cpu")


def test_a_missing_or_broken_manifest_is_refused(weights):
    weights.with_suffix(".json").write_text("{")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_classifier(weights, device="cpu")
    weights.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match="no manifest"):
        load_classifier(weights, device="cpu")


def test_weights_that_compute_something_else_fail_their_self_test(weights):
    replace_tensors(weights, lambda tensors: tensors["head.bias"].add_(0.1))
    with pytest.raises(WeightsError, match=r"self-test.*logits differ by 0\.1"):
        load_classifier(weights, device="cpu")


def test_a_missing_tensor_is_named(weights):
    replace_tensors(weights, lambda tensors: tensors.pop("merges.0.reduction"))
    with pytest.raises(WeightsError, match=r"'merges\.0\.reduction' it has nothing"):
        load_classifier(weights, device="cpu")


@pytest.mark.parametrize(
    ("name", "words"), [("blood", "no weights 'blood'"), ("a/b.safetensors", "no weights file")]
)
def test_unknown_weights_are_refused(name, words):
    with pytest.raises(WeightsError, match=words):
        load_classifier(name, device="cpu")


def test_a_device_that_is_not_there_is_no_silent_fall_back():
    with pytest.raises(DeviceError, match="no device 'tpu'"):
        load_classifier(device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="A CUDA GPU was asked for, but"):
            load_classifier(device="cuda")
    with pytest.raises(DeviceError, match="precision 'int3'"):
        load_classifier(precision="int3")
