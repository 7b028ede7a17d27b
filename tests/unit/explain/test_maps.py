"""Maps of patches: what Grad-CAM and occlusion show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy import SIZE, Corner, classifier_of

from napari_mambamic import build_network, explain_patches, list_networks
from napari_mambamic.errors import ImageError, MambamicError, NetworkError, WeightsError
from napari_mambamic.explain.grad_cam import DEFAULT_STAGE, MappedNetwork, grad_cam
from napari_mambamic.explain.maps import Explainer
from napari_mambamic.networks.ss2d import SS2D
from napari_mambamic.networks.yardsticks import ResNet18
from napari_mambamic.patches import prepare_patches
from napari_mambamic.weights.checkpoint import load_network
from napari_mambamic.weights.store import fetch_weights

RGB = {"channels": ("red", "green", "blue"), "mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.fixture(scope="module")
def four(cells):
    return cells[[0, 1, 4, 6], 3]


@pytest.fixture(scope="module")
def prepared(four, classifier):
    return prepare_patches(four, classifier.manifest.patch)


@pytest.mark.parametrize("method", ["grad-cam", "occlusion"])
def test_each_patch_gets_a_map_of_its_shape_from_0_to_1(classifier, four, method):
    patches = four[:2, :90]
    maps = explain_patches(classifier, patches, method=method)
    assert maps.shape == (2, 90, 96)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max(axis=(1, 2)) == pytest.approx(1, abs=0.1)  # the highest lies between pixels
    assert maps.std(axis=(1, 2)).min() > 0.05


@pytest.mark.parametrize("name", [*list_networks(), "resnet-18"])
def test_every_network_has_maps(name):
    torch.manual_seed(0)
    network = (ResNet18(2) if name == "resnet-18" else build_network(name, n_classes=2)).eval()
    classifier = classifier_of(network, tile_size=64, patch_size=64, **RGB)
    patches = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype(np.uint8)
    maps = [explain_patches(classifier, patches, target=k) for k in (0, 1)]
    assert np.isfinite(maps).all()
    assert np.ptp(maps) > 0.5, "nothing speaks for either class"
    assert not np.array_equal(*maps)


def test_grad_cam_is_what_its_definition_says(classifier, prepared):
    # On the network before its batch norms were folded, without captum.
    network, _, _ = load_network(fetch_weights("default"))
    network.eval()
    patches, targets = torch.from_numpy(prepared), torch.tensor([0, 1, 4, 2])
    tokens = network.tokens(patches)
    for index, stage in enumerate(network.stages):
        tokens = stage(tokens)
        if index == DEFAULT_STAGE:
            seen = tokens = tokens.detach().requires_grad_()
        if index < len(network.merges):
            tokens = network.merges[index](tokens)
    logits = network.head(tokens.mean(dim=(1, 2)))
    logits[torch.arange(4), targets].sum().backward()
    weights = seen.grad.mean(dim=(1, 2), keepdim=True)
    expected = (weights * seen).sum(dim=3).clamp(min=0).detach()
    mapped = MappedNetwork(classifier.network, DEFAULT_STAGE, patches[:1])
    found = grad_cam(mapped, patches, targets)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))


@pytest.mark.parametrize("back_end", ["torch", "reference"])
def test_every_scan_on_the_cpu_gives_the_same_maps(classifier, prepared, back_end):
    expected = Explainer(classifier, "grad-cam").maps(prepared[:2], None)
    scans = [m for m in classifier.network.modules() if isinstance(m, SS2D)]
    try:
        for scan in scans:
            scan.back_end = back_end
        found = Explainer(classifier, "grad-cam").maps(prepared[:2], None)
    finally:
        for scan in scans:
            scan.back_end = "auto"
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_explaining_leaves_the_classifier_as_it_is(classifier, four):
    before = classifier.predict(four).logits
    explain_patches(classifier, four)
    assert not any(p.requires_grad for p in classifier.network.parameters())
    assert not any(m._forward_hooks for m in classifier.network.modules())
    np.testing.assert_array_equal(classifier.predict(four).logits, before)


def test_a_mapped_network_takes_no_memory_of_its_own(classifier, prepared):
    mapped = MappedNetwork(classifier.network, 1, torch.from_numpy(prepared[:1]))
    ours = {p.data_ptr() for p in classifier.network.parameters()}
    assert {p.data_ptr() for p in mapped.parameters()} == ours


def test_the_predicted_class_is_explained_by_default(classifier, four):
    labels = classifier.predict(four).logits.argmax(axis=1)
    maps = explain_patches(classifier, four)
    np.testing.assert_array_equal(maps, explain_patches(classifier, four, target=labels))
    assert not np.array_equal(maps, explain_patches(classifier, four, target=(labels + 1) % 8))


def test_a_class_can_be_named(classifier, four):
    by_name = explain_patches(classifier, four[:1], target="monocyte")
    by_number = explain_patches(classifier, four[:1], target=5)
    np.testing.assert_array_equal(by_name, by_number)


def test_batches_do_not_change_maps(classifier, cells):
    patches = np.concatenate([cells[:, 0]] * 5)  # 40: more than a batch
    maps = explain_patches(classifier, patches)
    np.testing.assert_allclose(maps[32:], explain_patches(classifier, patches[32:]), atol=1e-4)


@pytest.mark.parametrize("method", ["grad-cam", "occlusion"])
def test_what_alone_counts_is_found(method):
    # Both halves of the upper left quarter are bright; so is a corner that does not count.
    patch = np.full((1, SIZE, SIZE), 60, np.uint8)
    patch[0, 4:10, 4:10] = 255
    patch[0, 20:30, 20:30] = 255
    found = explain_patches(classifier_of(Corner()), patch, target="bright", method=method)[0]
    assert found[5:9, 5:9].min() > 0.3
    if method == "occlusion":  # which sees that the other corner does not count
        assert found[SIZE // 2 + 4 :, SIZE // 2 + 4 :].max() == 0


def test_where_nothing_speaks_for_a_class_the_map_is_zero():
    patch = np.full((1, SIZE, SIZE), 60, np.uint8)
    found = explain_patches(classifier_of(Corner()), patch, target="bright", method="occlusion")
    np.testing.assert_array_equal(found, np.zeros((1, SIZE, SIZE)))


@pytest.mark.parametrize(
    ("wrong", "kind", "sentence"),
    [
        ({"target": "blast"}, WeightsError, "no class 'blast' to explain. Their classes are baso"),
        ({"target": 8}, WeightsError, "no class 8 to explain. Their 8 classes are counted from 0"),
        ({"target": -1}, WeightsError, "no class -1"),
        ({"target": [1, 2]}, WeightsError, "4 patches and classes to explain of shape"),
        ({"method": "lime"}, NetworkError, "Choose grad-cam or occlusion"),
    ],
)
def test_a_wrong_request_is_a_sentence(classifier, four, wrong, kind, sentence):
    with pytest.raises(kind, match=sentence):
        explain_patches(classifier, four, **wrong)


def test_no_patches_and_wrong_channels_are_sentences(classifier, four):
    with pytest.raises(ImageError, match="no patches"):
        explain_patches(classifier, four[:0])
    with pytest.raises(MambamicError, match="2 channels"):
        explain_patches(classifier, four[..., :2])


def test_a_network_without_maps_is_told_to_use_occlusion():
    class Flat(Corner):
        def embed(self, x):
            return x.mean(dim=(1, 2, 3))[:, None]

    patch = np.full((1, SIZE, SIZE), 60, np.uint8)
    with pytest.raises(NetworkError, match="Choose the method 'occlusion'"):
        explain_patches(classifier_of(Flat()), patch)
