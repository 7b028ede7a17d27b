"""Precisions, and batches that do not fit into memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mambamic.classifier import load_classifier
from napari_mambamic.devices import choose_precision
from napari_mambamic.errors import DeviceError


def test_bfloat16_gives_the_labels_of_float32(classifier, cells):
    patches = cells.reshape(96, 96, 96, 3)
    lowered = load_classifier(device="cpu", precision="bfloat16")
    assert (classifier.precision, lowered.precision) == ("float32", "bfloat16")
    expected, got = classifier.predict(patches), lowered.predict(patches)
    difference = np.abs(got.logits - expected.logits).max()
    assert 1e-4 < difference < 0.2  # it is another precision, and a good one
    assert np.array_equal(got.logits.argmax(axis=1), expected.logits.argmax(axis=1))
    for values in (got.logits, got.probabilities, got.embeddings):
        assert values.dtype == np.float32


def test_a_cpu_computes_in_float32_unless_asked():
    assert load_classifier(device="cpu").precision == "float32"
    assert choose_precision("auto", torch.device("cpu")) == "float32"
    with pytest.raises(DeviceError, match=r"no precision 'half'. Choose auto or float32 or"):
        choose_precision("half", torch.device("cpu"))


@pytest.fixture
def short_of_memory(monkeypatch):
    """A classifier whose device has room for so many patches."""

    def made(room):
        classifier = load_classifier(device="cpu")
        embed = classifier.network.embed
        sizes = []

        def embed_if_there_is_room(batch):
            sizes.append(len(batch))
            if len(batch) > room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return embed(batch)

        monkeypatch.setattr(classifier.network, "embed", embed_if_there_is_room)
        return classifier, sizes

    return made


def test_a_batch_too_large_for_the_memory_is_halved_and_so_are_those_after(
    short_of_memory, classifier, cells
):
    patches = cells.reshape(96, 96, 96, 3)[:11]
    limited, sizes = short_of_memory(3)
    got, expected = limited.predict(patches), classifier.predict(patches)
    assert sizes == [11, 5, 2, 2, 2, 2, 2, 1]
    limited.predict(patches[:5])
    assert sizes[8:] == [2, 2, 1]
    assert np.allclose(got.logits, expected.logits, atol=1e-5)
    assert np.allclose(got.probabilities, expected.probabilities, atol=1e-6)
    assert np.allclose(got.embeddings, expected.embeddings, atol=1e-5)


def test_no_memory_for_one_patch_is_a_sentence(short_of_memory, cells):
    limited, _ = short_of_memory(0)
    with pytest.raises(DeviceError, match=r"does not suffice for one patch of 80 px\. Close"):
        limited.predict(cells.reshape(96, 96, 96, 3)[:4])
