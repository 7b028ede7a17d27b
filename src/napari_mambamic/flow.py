"""From tiles to predictions: some batches are read while one is with the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.blas import one_blas_thread
from napari_mambamic.foreground import Foreground
from napari_mambamic.image import ImagePyramid
from napari_mambamic.patches import PatchSpec, read_patches, read_tiles
from napari_mambamic.read_ahead import read_ahead
from napari_mambamic.schedule import Schedule, View
from napari_mambamic.tiling import Tile

if TYPE_CHECKING:
    from napari_mambamic.classifier import TileClassifier

Rows = NDArray[np.float32] | None
Predicted = tuple[NDArray[np.intp], NDArray[np.float32], Rows, Rows]


class Predicting(Protocol):
    """Turns tiles into predictions, in this process (`Flow`) or elsewhere."""

    def predictions(self, wanted: NDArray[np.intp], size: int) -> Generator[Predicted]:
        """As `Flow.predictions`."""


class Flow:
    """Predicts in this process."""

    def __init__(
        self,
        image: ImagePyramid,
        tiles: Sequence[Tile],
        classifier: TileClassifier,
        foreground: Foreground | None,
        view: Callable[[], View | None] | None,
    ) -> None:
        self.image, self.tiles, self.classifier = image, tiles, classifier
        self.foreground, self.view = foreground, view
        self.level = _level_of(image, tiles, classifier.manifest.patch)
        self.on_gpu = classifier.device.device.type != "cpu"

    def predictions(self, wanted: NDArray[np.intp], size: int) -> Generator[Predicted]:
        """Numbers of the tiles of each batch, their probabilities, embeddings and distances.

        Distances are None where the weights have no statistics of their training set, and so are
        they and embeddings where all tiles turn out to be background.  Tiles that do get NaN.
        """
        schedule = schedule_of(self.image, self.tiles, wanted, self.classifier.manifest.patch)
        block = self.image.chunk_shape(self.level)
        # In memory, pixels come faster than threads could bring them; a GPU waits for neither.
        threads = 4 if self.on_gpu else int(block is not None)
        waiting: deque[tuple[NDArray[np.intp], NDArray[np.bool_], Any]] = deque()
        reading = read_ahead(
            self._batches(schedule, size), self._read, threads=threads, ahead=threads
        )
        with one_blas_thread(), closing(reading) as batches:
            for batch, (held, patches) in batches:
                begun = self.classifier.begin(patches) if len(patches) else None
                waiting.append((batch, held, begun))
                if len(waiting) > self.on_gpu:  # while it computes, the next one is sent
                    yield self._finished(*waiting.popleft())
            while waiting:
                yield self._finished(*waiting.popleft())

    def _batches(self, schedule: Schedule, size: int) -> Iterator[NDArray[np.intp]]:
        while len(schedule):
            if self.view is not None:
                schedule.look_at(self.view())
            yield schedule.take(size)

    def _read(self, batch: NDArray[np.intp]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        tiles = [self.tiles[i] for i in batch]
        held = np.ones(len(batch), bool)
        if self.foreground is not None:
            for i, tile in enumerate(tiles):
                pixels = read_tiles(self.image, [tile], level=self.level)
                held[i] = self.foreground.of_patches(pixels)[0]
        kept = [tile for tile, holds in zip(tiles, held, strict=True) if holds]
        return held, read_patches(self.image, kept, self.classifier.manifest.patch)

    def _finished(self, batch: NDArray[np.intp], held: NDArray[np.bool_], begun: Any) -> Predicted:
        shape = len(batch), len(self.classifier.class_names)
        probabilities = np.full(shape, np.nan, np.float32)
        if begun is None:
            return batch, probabilities, None, None
        predicted = self.classifier.finish(begun)
        probabilities[held] = predicted.probabilities
        embeddings = np.full((len(batch), predicted.embeddings.shape[1]), np.nan, np.float32)
        embeddings[held] = predicted.embeddings
        distances = None
        if predicted.distances is not None:
            distances = np.full(len(batch), np.nan, np.float32)
            distances[held] = predicted.distances
        return batch, probabilities, embeddings, distances


def with_rows(whole: Rows, n: int, numbers: NDArray[np.integer[Any]], rows: Rows) -> Rows:
    """Put the rows of some tiles into the array of all n, which is made for the first of them."""
    if rows is None:
        return whole
    if whole is None:
        whole = np.full((n, *rows.shape[1:]), np.nan, np.float32)
    whole[numbers] = rows
    return whole


def schedule_of(
    image: ImagePyramid, tiles: Sequence[Tile], wanted: NDArray[np.intp], spec: PatchSpec
) -> Schedule:
    """The order in which tiles are read: block by block of the level that they are read from."""
    block = image.chunk_shape(_level_of(image, tiles, spec))
    return Schedule(tiles, wanted, block=block)


def _level_of(image: ImagePyramid, tiles: Sequence[Tile], spec: PatchSpec) -> int:
    return image.level_for(tiles[0].size / spec.patch_size)
