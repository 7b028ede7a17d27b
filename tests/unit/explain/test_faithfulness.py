"""Whether the maps of the bundled weights tell what the network looks at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy import SIZE, Corner, classifier_of

from napari_mambamic import deletion_score, explain_patches, insertion_score
from napari_mambamic.errors import ImageError
from napari_mambamic.explain.faithfulness import randomised_cascade, rank_correlation


@pytest.fixture(scope="module")
def some(cells):
    """Two cells of each class."""
    return np.concatenate([cells[:, 2], cells[:, 7]])


@pytest.fixture(scope="module")
def maps(some, classifier):
    return explain_patches(classifier, some)


def test_scores_are_those_of_the_curve():
    # Bright, and on it alone depends the class: the first quarter of the pixels takes it away.
    patch = np.zeros((1, SIZE, SIZE), np.uint8)
    patch[0, : SIZE // 2, : SIZE // 2] = 255
    toy = classifier_of(Corner())
    right = (patch > 0).astype(np.float32)
    # Probability 1 before, and sigmoid(-10 * 0.5) when the quarter has the mean of -0.5.
    steps = deletion_score(toy, patch, right, target="bright", steps=4)
    assert steps == pytest.approx([(0.5 + 3.5 / (1 + np.exp(5))) / 4], abs=1e-3)
    wrong = deletion_score(toy, patch, 1 - right, target="bright", steps=4)
    assert wrong == pytest.approx([(3.5 + 0.5 / (1 + np.exp(5))) / 4], abs=1e-3)
    assert insertion_score(toy, patch, right, target="bright") > insertion_score(
        toy, patch, 1 - right, target="bright"
    )


def test_what_grad_cam_points_at_is_what_counts(some, maps, classifier):
    opposite = 1 - maps
    assert deletion_score(classifier, some, maps).mean() < (
        deletion_score(classifier, some, opposite).mean() - 0.1
    )
    assert insertion_score(classifier, some, maps).mean() > (
        insertion_score(classifier, some, opposite).mean() + 0.1
    )


def test_maps_change_when_the_weights_are_randomised_from_the_head_down(some, maps, classifier):
    labels = classifier.predict(some).logits.argmax(axis=1)
    correlations = {
        part: rank_correlation(maps, explain_patches(other, some, target=labels))
        for part, other in randomised_cascade(classifier)
    }
    assert (next(iter(correlations)), next(reversed(correlations))) == ("head", "stem")
    assert correlations["head"] < 0.7
    assert abs(correlations["stem"]) < 0.4


def test_a_cascade_begins_with_the_head_alone_and_ends_with_every_weight(classifier):
    before = dict(classifier.network.named_parameters())

    def changed(other):
        now = other.network.named_parameters()
        return {name for name, value in now if not torch.equal(value, before[name])}

    parts = {part: changed(other) for part, other in randomised_cascade(classifier)}
    assert parts["head"] == {"head.weight", "head.bias"}
    assert parts["stem"] >= {name for name, value in before.items() if value.ndim > 1}
    sizes = [len(names) for names in parts.values()]
    assert sizes == sorted(sizes)


def test_maps_that_do_not_fit_are_refused(some, maps, classifier):
    with pytest.raises(ImageError, match="16 patches and maps of shape"):
        deletion_score(classifier, some, maps[:3])
