"""What the Classify button does, in two halves.

`request_of` reads the layers and belongs on the thread of the window; `iter_request` computes,
on any thread, and is the first to need torch.  `classify_layer` is both, for scripts.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer, Points

from napari_mambamic._napari.from_layer import (
    LayerPlane,
    labels_of_layer,
    plane_of_layer,
    points_of_layer,
)
from napari_mambamic._napari.settings import weights_source
from napari_mambamic._napari.to_layers import ResultLayers
from napari_mambamic.errors import WeightsError
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults
from napari_mambamic.weights.store import (
    is_here,
    iter_fetch,
    list_weights,
    locate_weights,
    read_manifest,
)

if TYPE_CHECKING:
    from napari_mambamic.classifier import TileClassifier


@dataclass(frozen=True)
class Request:
    """Everything that a run needs, read from the layers and the form."""

    plane: LayerPlane
    objects_layer: Layer | None
    objects: Any
    object_numbers: Any
    weights: str
    device: str
    heatmaps: tuple[str, ...]
    options: dict[str, Any]


def request_of(
    viewer: ViewerModel,
    layer: Layer | None,
    *,
    weights: str = "default",
    objects: Layer | None = None,
    device: str = "auto",
    heatmaps: Sequence[str] = (),
    **options: Any,
) -> Request:
    """Check layers and form, and read what a run needs; see `classify_layer`."""
    plane = plane_of_layer(viewer, layer)
    names = read_manifest(weights).class_names
    unknown = [name for name in heatmaps if name not in names]
    if unknown:
        raise WeightsError(
            f"Weights {weights!r} have no class {unknown[0]!r} for a heatmap. Their classes are "
            f"{', '.join(names)}."
        )
    places, numbers = None, None
    if isinstance(objects, Points):
        places, numbers = points_of_layer(plane, objects)
    elif objects is not None:
        places = labels_of_layer(plane, objects)
    return Request(plane, objects, places, numbers, weights, device, tuple(heatmaps), options)


def iter_request(request: Request) -> Generator[Progress, None, TileResults]:
    """Run a request; see `iter_classify`."""
    if request.weights in list_weights() and not is_here(request.weights):
        yield from iter_fetch(request.weights, source=weights_source())
    yield Progress(0, 0, message="Loading the weights")
    from napari_mambamic.classify import iter_classify

    classifier = classifier_for(request.weights, request.device)
    steps = iter_classify(
        request.plane.image,
        classifier,
        objects=request.objects,
        with_embeddings=False,
        **request.options,
    )
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            results: TileResults = stop.value
            return results
        if progress.done == 0 and progress.results is not None:
            _add_layer_settings(progress.results, request)
        yield progress


def classify_layer(
    viewer: ViewerModel,
    layer: Layer,
    *,
    weights: str = "default",
    objects: Layer | None = None,
    device: str = "auto",
    heatmaps: Sequence[str] = (),
    **options: Any,
) -> list[Layer]:
    """Classify the plane of an image layer that is in view, and add the result to the viewer.

    Parameters
    ----------
    viewer : napari.Viewer
    layer : Image
        Grey or RGB(A); of a volume, the plane in view.
    weights : str
        A registered name or the path of a ``.safetensors`` file.
    objects : Labels or Points, optional
        Classify one patch per object or point instead of a grid of tiles.
    device : str
        "auto", "cuda", "mps" or "cpu".
    heatmaps : sequence of str
        Classes whose probability is shown as an image layer each (tiles only).
    **options
        ``tile_size``, ``object_scale``, ``overlap``, ``region``, ``skip_background`` and
        ``batch_size`` of `iter_classify`.

    Returns
    -------
    list of Layer
        The heatmaps, then the layer of classes; they were added to the viewer.

    Raises
    ------
    MambamicError
        One of its kinds; the sentence says what is wrong and what to do.
    """
    request = request_of(
        viewer, layer, weights=weights, objects=objects, device=device, heatmaps=heatmaps, **options
    )
    results = None
    for progress in iter_request(request):
        results = progress.results or results
    return result_layers_of(viewer, request, results).layers


def result_layers_of(viewer: ViewerModel, request: Request, results: TileResults) -> ResultLayers:
    """Add the layers of a run to the viewer."""
    return ResultLayers(
        viewer, request.plane, results, objects=request.objects_layer, heatmaps=request.heatmaps
    )


def classifier_for(weights: str, device: str) -> TileClassifier:
    """A classifier that is kept for the next run, as long as its file does not change."""
    path = locate_weights(weights)
    return _loaded(path, path.stat().st_mtime_ns, device)


@lru_cache(maxsize=2)
def _loaded(path: Path, changed: int, device: str) -> TileClassifier:
    from napari_mambamic.classifier import load_classifier

    return load_classifier(path, device=device)


def _add_layer_settings(results: TileResults, request: Request) -> None:
    """Note in the provenance which layer and plane it was; number points as their layer does."""
    results.provenance["layer"] = {
        "name": request.plane.layer.name,
        "plane": list(request.plane.index),
        "objects": request.objects_layer and request.objects_layer.name,
    }
    if request.object_numbers is not None:
        results.tiles.object_ids[:] = np.asarray(request.object_numbers)
