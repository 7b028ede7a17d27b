"""The order of review, going through it, and the head that learns from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mambamic.errors import TrainingError
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import plan_tiles
from napari_mambamic.training.corrections import Corrections, Sidecar
from napari_mambamic.training.queue import HOWS, disagreement, entropy, review_order
from napari_mambamic.training.review import FEWEST_CHECKS, SPOT_CHECK, Review


def some(n=60, classes=3, d=5, seed=0):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(classes), n).astype(np.float32)
    return shares, rng.normal(size=(n, d)).astype(np.float32)


def a_review(n=40, seed=0):
    tiles = plan_tiles((10, 10 * n), tile_size=10)
    shares, embeddings = some(n, seed=seed)
    results = TileResults(("a", "b", "c"), tiles, shares, embeddings, {})
    sidecar = Sidecar({"name": "x", "plane_shape": [10, 10 * n]})
    return Review(results, Corrections(sidecar))


# ---- order --------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 80),
    classes=st.integers(1, 4),
    how=st.sampled_from(HOWS),
    batch=st.integers(1, 30),
    data=st.data(),
)
def test_each_tile_without_a_label_comes_once(n, classes, how, batch, data):
    shares, embeddings = some(n, classes)
    gaps = data.draw(st.sets(st.integers(0, n - 1)))
    labelled = data.draw(st.sets(st.integers(0, n - 1)))
    shares[list(gaps)] = np.nan
    embeddings[list(gaps)] = np.nan
    views = np.stack([shares, shares]) if how == "disagreement" else shares
    order = review_order(views, embeddings, labelled=list(labelled), how=how, batch=batch)
    assert sorted(order.tolist()) == sorted(set(range(n)) - gaps - labelled)


def test_a_mask_says_the_same_as_numbers():
    shares, embeddings = some()
    mask = np.zeros(60, bool)
    mask[[3, 7]] = True
    by_mask = review_order(shares, embeddings, labelled=mask)
    assert by_mask.tolist() == review_order(shares, embeddings, labelled=[3, 7]).tolist()


def test_small_margins_come_first():
    shares = np.array([[0.9, 0.1, 0], [0.5, 0.45, 0.05], [0.6, 0.2, 0.2]])
    assert review_order(shares, how="margin").tolist() == [1, 2, 0]


def test_large_entropies_come_first():
    shares = np.array([[0.5, 0.5, 0], [0.4, 0.3, 0.3], [1, 0, 0]])
    assert review_order(shares, how="entropy").tolist() == [1, 0, 2]


def test_views_that_disagree_come_before_views_that_are_unsure():
    unsure, disagreeing = [0.5, 0.5], [[0.99, 0.01], [0.01, 0.99]]
    views = np.array([[unsure, disagreeing[0]], [unsure, disagreeing[1]]])
    assert disagreement(views).tolist() == pytest.approx([0, np.log(2)], abs=0.06)
    assert review_order(views, how="disagreement").tolist() == [1, 0]
    assert entropy(views[0])[0] == pytest.approx(np.log(2))


@pytest.mark.parametrize("how", ["margin+diversity", "badge", "k-centre"])
def test_copies_do_not_come_one_after_the_other(how):
    """Forty equal doubtful tiles and three other kinds of them: four tiles show all kinds."""
    kinds = np.array([0] * 40 + [1, 2, 3])
    embeddings = (np.eye(4)[kinds] * 10).astype(np.float32)
    shares = np.full((43, 2), 0.5, np.float32)
    shares[:40] += [0.001, -0.001]
    order = review_order(shares, embeddings, how=how, batch=4)
    assert set(kinds[order[:4]].tolist()) == {0, 1, 2, 3}
    by_margin = review_order(shares, embeddings, how="margin")
    assert by_margin[:3].tolist() == [40, 41, 42]


def test_tiles_like_labelled_ones_wait():
    embeddings = (np.eye(3)[[0, 0, 1, 2]] * 10).astype(np.float32)
    shares = np.full((4, 2), 0.5, np.float32)
    order = review_order(shares, embeddings, labelled=[0], how="k-centre", batch=2)
    assert set(order[:2].tolist()) == {2, 3}


@pytest.mark.parametrize(
    ("arguments", "keywords", "sentence"),
    [
        ((np.ones((3, 2)),), {"how": "magic"}, "no order 'magic'"),
        ((np.ones(3),), {}, "shape"),
        ((np.ones((3, 2)),), {"how": "disagreement"}, "several views"),
        ((np.ones((3, 2)), np.ones((4, 5))), {}, "3 tiles and embeddings of shape"),
    ],
)
def test_what_does_not_fit_is_a_sentence(arguments, keywords, sentence):
    with pytest.raises(TrainingError, match=sentence):
        review_order(*arguments, **keywords)


# ---- review -------------------------------------------------------------------------------------


def test_each_fifth_tile_is_drawn_at_random_whatever_the_order():
    one, other = a_review(n=400, seed=0), a_review(n=400, seed=1)
    seen = [[review.forward() for _ in range(20)] for review in (one, other)]
    checks = [tiles[SPOT_CHECK - 1 :: SPOT_CHECK] for tiles in seen]
    # The same permutation, except where the order had brought a tile of it before.
    common = set(checks[0]) & set(checks[1])
    assert len(common) >= 3
    assert seen[0] != seen[1]


def test_the_error_rate_is_that_of_the_tiles_drawn_at_random():
    """The queue brings wrong tiles first; an estimate from all labels would say 50 %."""
    review = a_review(n=400)
    wrong = set(review.order[:40].tolist())  # a tenth of all, the least certain ones
    for _ in range(80):
        number = review.forward()
        told = review.told(number)
        review.label(number, ("b" if told == "a" else "a") if number in wrong else told)
    assert review.n_corrected == 40
    rate = review.error_rate()
    assert rate.n_checked >= 16
    assert rate.low <= 0.1 <= rate.high
    assert rate.n_wrong / rate.n_checked < 0.3


def test_no_error_rate_from_a_few_tiles():
    review = a_review()
    for _ in range(SPOT_CHECK * (FEWEST_CHECKS - 1) - 1):
        review.label(review.forward(), "a")
        if review.error_rate() is not None:
            assert review.error_rate().n_checked >= FEWEST_CHECKS


def test_every_tile_comes_and_then_none():
    review = a_review(n=23)
    seen = []
    while (number := review.forward()) is not None:
        seen.append(number)
        review.label(number, "a")
    assert sorted(seen) == list(range(23))


def test_skipped_tiles_come_again_at_the_end():
    review = a_review(n=10)
    first = review.forward()
    review.skip(first)
    rest = []
    while len(rest) < 9:
        rest.append(review.forward())
        review.label(rest[-1], "b")
    assert first not in rest
    assert review.forward() == first


def test_back_and_forward_go_along_what_was_seen():
    review = a_review()
    seen = [review.forward() for _ in range(3)]
    assert [review.back(), review.back(), review.back()] == [seen[1], seen[0], seen[0]]
    assert [review.forward(), review.forward()] == seen[1:]


# ---- head ---------------------------------------------------------------------------------------
