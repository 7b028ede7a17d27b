"""Maps of embeddings, and what is similar."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from napari_mambamic.errors import EmbeddingError
from napari_mambamic.explain.embedding_map import (
    METHODS,
    embedding_map,
    find_similar,
    iter_embedding_map,
    iter_find_similar,
)


def clusters(n_each=60, d=32, seed=0):
    """Three groups around far middles, shuffled: embeddings and the group of each."""
    rng = np.random.default_rng(seed)
    of = rng.permutation(np.repeat(np.arange(3), n_each))
    middles = 8 * rng.normal(size=(3, d))
    return (middles[of] + rng.normal(size=(len(of), d))).astype(np.float32), of


def returned(steps):
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


@pytest.mark.parametrize("method", METHODS)
def test_a_map_keeps_clusters_apart(method):
    embeddings, of = clusters()
    places = embedding_map(embeddings, method=method)
    assert places.shape == (180, 2)
    assert places.dtype == np.float32
    assert KNeighborsClassifier(2).fit(places, of).score(places, of) == 1.0


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_map(method):
    embeddings, _ = clusters()
    one, other = (embedding_map(embeddings, method=method, seed=3, most=100) for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("method", ["t-sne", "umap"])
def test_tiles_beyond_the_most_lie_among_their_kind_and_the_map_says_so(method):
    embeddings, of = clusters()
    mapped = returned(iter_embedding_map(embeddings, method=method, most=60))
    own = mapped.laid_out
    assert own.sum() == 60
    kind = KNeighborsClassifier(1).fit(mapped.coordinates[own], of[own])
    assert kind.score(mapped.coordinates[~own], of[~own]) == 1.0
    assert "60 tiles, drawn at random" in mapped.note
    assert "other 120" in mapped.note


def test_tiles_without_an_embedding_have_no_place_and_move_no_other():
    embeddings, _ = clusters()
    holes = np.insert(embeddings, [0, 90], np.nan, axis=0)
    places = embedding_map(holes)
    assert np.isnan(places).all(axis=1).sum() == 2
    np.testing.assert_array_equal(places[np.isfinite(places[:, 0])], embedding_map(embeddings))


def test_pca_says_how_much_it_shows():
    line = np.outer(np.arange(20), [1.0, 2.0, 3.0])
    mapped = returned(iter_embedding_map(line))
    assert "100%" in mapped.note
    np.testing.assert_allclose(np.ptp(mapped.coordinates[:, 0]), 19 * np.sqrt(14), rtol=1e-5)
    np.testing.assert_allclose(mapped.coordinates[:, 1], 0, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_few_tiles_have_a_map_too(method):
    if method == "umap":
        pytest.skip("UMAP lays out 4 tiles at least")
    places = embedding_map(np.eye(3)[:2], method=method)
    assert np.isfinite(places).all()
    assert (places[0] != places[1]).any()


def test_one_tile_has_no_map():
    with pytest.raises(EmbeddingError, match="at least two tiles"):
        embedding_map([[1.0, 2.0], [np.nan, 0.0]])


def test_what_cannot_be_mapped_is_told():
    with pytest.raises(EmbeddingError, match="no map 'isomap'"):
        embedding_map(np.eye(4), method="isomap")
    with pytest.raises(EmbeddingError, match="shape"):
        embedding_map(np.arange(4.0))


def test_a_missing_umap_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(EmbeddingError, match=r"napari-mambamic\[umap\]"):
        embedding_map(np.eye(4), method="umap")


def distance(a, b, metric):
    if metric == "euclidean":
        return np.sqrt(((a - b) ** 2).sum())
    return 1 - (a @ b) / np.sqrt((a @ a) * (b @ b))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("n_queries", [1, 3])
def test_what_is_similar_is_what_every_pair_says(metric, n_queries):
    rng = np.random.default_rng(5)
    embeddings = rng.normal(size=(10_000, 6)).astype(np.float32)  # more than a chunk
    embeddings[[17, 9_000]] = np.nan
    queries = embeddings[[3, 8_500, 9_999][:n_queries]]
    wide = embeddings.astype(np.float64)
    every = np.array([min(distance(row, q, metric) for q in queries.astype(float)) for row in wide])
    expected = np.argsort(np.nan_to_num(every, nan=np.inf), kind="stable")[:40]
    indices, distances = find_similar(embeddings, queries, 40, metric=metric)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, every[expected], atol=1e-9)
    assert set(indices[:n_queries]) == {3, 8_500, 9_999} & set(indices[:n_queries])


def test_no_more_is_found_than_there_is():
    embeddings = np.array([[1.0, 0], [np.nan, 0], [0, 1.0]])
    indices, distances = find_similar(embeddings, [1.0, 0], 10)
    assert indices.tolist() == [0, 2]
    assert distances.tolist() == [0, 1]


def test_a_long_search_tells_its_progress_and_can_be_stopped():
    steps = iter_find_similar(np.ones((20_000, 2)), [1.0, 0], 5)
    assert [next(steps).done for _ in range(3)] == [0, 8_192, 16_384]
    steps.close()


def test_queries_that_do_not_fit_are_told():
    with pytest.raises(EmbeddingError, match="same d"):
        find_similar(np.eye(3), [1.0, 0], 1)
    with pytest.raises(EmbeddingError, match="not classified"):
        find_similar(np.eye(3), [np.nan, 0, 0], 1)
    with pytest.raises(EmbeddingError, match="no distance 'city'"):
        find_similar(np.eye(3), [1.0, 0, 0], 1, metric="city")
