"""What the labels so far teach, shown on the whole plane while more are given.

The embeddings of all tiles are computed once; after each label only a head is fitted to them, which
takes a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray
from scipy.special import softmax

from napari_mambamic._napari.annotate import Annotator
from napari_mambamic._napari.classify_layer import classifier_for
from napari_mambamic._napari.latest import Latest
from napari_mambamic._napari.to_layers import ResultLayers
from napari_mambamic._napari.workers import create_worker, iter_or_sentence
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults


class LivePreview:
    """A layer of classes under the annotations, coloured anew after each label.

    Parameters
    ----------
    viewer : napari.Viewer
    annotator : Annotator
        Of a grid of tiles.
    weights, device : str
        What embeds the tiles.
    say : callable
        Takes sentences for the user.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        annotator: Annotator,
        *,
        weights: str,
        device: str,
        say: Callable[[str], object],
    ) -> None:
        self._viewer, self.annotator, self._say = viewer, annotator, say
        self._layers: ResultLayers | None = None
        self._fitting = Latest(_fit, self._show)
        self.results: TileResults | None = None
        self._embedding = create_worker(
            iter_or_sentence,
            _iter_embedded,
            annotator.plane.image,
            annotator.tile_size,
            weights,
            device,
        )
        self._embedding.yielded.connect(self._show_progress)
        self._embedding.returned.connect(self._take_embeddings)
        self._embedding.start()

    @property
    def is_busy(self) -> bool:
        """Whether tiles are embedded or a head is fitted now."""
        return self._embedding is not None or self._fitting.is_busy

    def close(self) -> None:
        """Stop, and remove the layer."""
        if self._embedding is not None:
            self._embedding.quit()
        self._fitting.forget()
        if self._layers is not None and self._layers.are_shown:
            self._viewer.layers.remove(self._layers.main)
        self._layers, self.results = None, None

    def refresh(self) -> None:
        """Fit a head to the labels of now; while one is being fitted, again after it."""
        if self.results is None:
            return
        annotations = self.annotator.annotations
        places = {tile: i for i, tile in enumerate(self.results.tiles)}
        known = [
            (places[t], c)
            for t, c in zip(annotations.tiles, annotations.classes, strict=True)
            if t in places
        ]
        if len({name for _, name in known}) < 2:
            return
        numbers = np.array([i for i, _ in known])
        names = [name for _, name in known]
        self._fitting.ask(self.results, numbers, names)

    def _show_progress(self, progress: Progress) -> None:
        if progress.total:
            self._say(f"Live: looking at the tiles, {progress.fraction:.0%}")

    def _take_embeddings(self, results: TileResults | str) -> None:
        self._embedding = None
        if isinstance(results, str):
            self._say(f"⚠ {results}")
            return
        # As of other results of the plane, so that a run of Classify hides them.
        plane = {"name": self.annotator.image.name, "plane": list(self.annotator.plane.index)}
        results.provenance["layer"] = plane
        self.results = results
        self._say("Live: label tiles of two classes or more, and see what they teach.")
        self.refresh()

    def _show(self, results: TileResults) -> None:
        if self._layers is not None and (
            self._layers.class_names != results.class_names or not self._layers.are_shown
        ):
            if self._layers.are_shown:
                self._viewer.layers.remove(self._layers.main)
            self._layers = None
        if self._layers is None:
            self._layers = ResultLayers(
                self._viewer,
                [self.annotator.plane],
                results,
                name=f"{self.annotator.image.name} live",
            )
            order = self._viewer.layers
            if self.annotator.layer in order:
                order.selection.active = self.annotator.layer
                order.move(order.index(self._layers.main), order.index(self.annotator.layer))
        else:
            self._layers.update(results)


def _iter_embedded(
    image: Any, tile_size: int, weights: str, device: str
) -> Generator[Progress, None, TileResults]:
    from napari_mambamic.classify import iter_classify

    classifier = classifier_for(weights, device)
    steps = iter_classify(image, classifier, tile_size=tile_size, with_embeddings=True)
    return (yield from steps)


def _fit(results: TileResults, numbers: NDArray[np.intp], names: list[str]) -> TileResults:
    from napari_mambamic.training.head import fit_linear

    class_names = tuple(dict.fromkeys(sorted(names)))
    labels = np.array([class_names.index(name) for name in names])
    embeddings = results.embeddings
    weight, bias = fit_linear(embeddings[numbers], labels)
    return TileResults(
        class_names,
        results.tiles,
        softmax(embeddings @ weight.T + bias, axis=1).astype(np.float32),
        embeddings,
        # What the weights know about their own classes says nothing about these.
        {k: v for k, v in results.provenance.items() if k != "warnings"}
        | {"live": {"labels": len(labels)}}
        | {"weights": results.provenance["weights"] | {"trust": {}}},
    )
