"""The weights that are offered for download are those in the repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_mambamic.classifier import load_classifier
from napari_mambamic.weights.checkpoint import sha256_of
from napari_mambamic.weights.manifest import Manifest
from napari_mambamic.weights.store import base_url, list_weights, read_manifest

ROOT = Path(__file__).parents[2]
REGISTRY = json.loads(
    (ROOT / "src/napari_mambamic/weights/registry.json").read_text(encoding="utf-8")
)
NAMES = sorted(REGISTRY["weights"])


@pytest.mark.parametrize("name", NAMES)
def test_registered_weights_are_in_the_repository_and_work(name):
    entry = REGISTRY["weights"][name]
    path = ROOT / "weights" / entry["file"]
    assert path.stat().st_size == entry["size"]
    assert sha256_of(path) == entry["sha256"] == read_manifest(name).sha256
    assert Manifest.read(path.with_suffix(".json")) == read_manifest(name)
    if not read_manifest(name).network.startswith("medmamba"):
        assert entry["size"] < 16e6
    classifier = load_classifier(path, device="cpu")  # runs the self-test
    manifest = classifier.manifest
    assert manifest.licence
    assert manifest.credit
    assert manifest.training_data
    assert 0 < manifest.metrics["validation"]["overall_accuracy"] <= 1
    assert f"## {name}\n" in (ROOT / "docs/weights.md").read_text(encoding="utf-8")


def test_all_of_them_are_listed():
    assert set(NAMES) <= set(list_weights())
    assert base_url().startswith("https://")
    assert base_url().endswith("/weights/")
