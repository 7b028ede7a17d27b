"""Embeddings of tiles that were classified, for results that did not keep them."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.errors import EmbeddingError
from napari_mambamic.flow import Flow, with_rows
from napari_mambamic.image import as_image
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults

if TYPE_CHECKING:
    from napari_mambamic.classifier import TileClassifier


def iter_embeddings(
    image: Any, classifier: TileClassifier, results: TileResults
) -> Generator[Progress, None, NDArray[np.float32]]:
    """Compute the embeddings of tiles that were classified, for results that did not keep them.

    Parameters
    ----------
    image : array-like, list of array-like or ImagePyramid
        That the results are of.
    classifier : TileClassifier
        With the weights that the results are of.
    results : TileResults
        They are not changed.

    Returns
    -------
    ndarray
        (n_tiles, d) float32; rows of NaN are tiles that were not classified.

    Raises
    ------
    EmbeddingError
        The weights or the image are not those of the results.
    """
    pyramid = as_image(image).with_chunk_cache()
    provenance = results.provenance
    if channels := provenance["settings"].get("channels"):
        pyramid = pyramid.with_channels(channels)
    if provenance["weights"]["sha256"] != classifier.manifest.sha256:
        raise EmbeddingError(
            f"The results are of weights {provenance['weights']['name']!r}, and those of this name "
            f"have changed since. Classify again."
        )
    before, now = provenance["image"], pyramid
    if [before["n_channels"], *before["plane_shape"]] != [now.n_channels, *now.plane_shape]:
        raise EmbeddingError(
            f"The results are of an image of {before['plane_shape']} px with "
            f"{before['n_channels']} channel(s), and {now.name!r} has {list(now.plane_shape)} px "
            f"with {now.n_channels}. Classify again, and keep the embeddings."
        )
    wanted = np.flatnonzero(results.is_done)
    embeddings = None
    flow = Flow(pyramid, results.tiles, classifier, None, None)
    begin, done = time.perf_counter(), 0
    for batch, _, found, _ in flow.predictions(wanted, classifier.batch_size()):
        embeddings = with_rows(embeddings, len(results), batch, found)
        done += len(batch)
        yield Progress(
            done, len(wanted), time.perf_counter() - begin, "Looking at the tiles", batch
        )
    return np.empty((len(results), 0), np.float32) if embeddings is None else embeddings
