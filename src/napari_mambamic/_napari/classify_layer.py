"""What the Classify button does, in two halves.

`request_of` reads the layers and belongs on the thread of the window; `iter_request` computes,
on any thread, and is the first to need torch.  `classify_layer` is both, for scripts.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer, Points
from numpy.typing import NDArray

from napari_mambamic._napari.from_layer import (
    ChannelSource,
    LayerPlane,
    areas_of_planes,
    finest_of,
    labels_of_layer,
    plane_of_layer,
    points_of_layer,
    view_of_plane,
)
from napari_mambamic._napari.settings import weights_source
from napari_mambamic._napari.to_layers import ResultLayers, compile_colormaps, maps_of
from napari_mambamic.errors import ImageError, NothingToClassify, WeightsError
from napari_mambamic.kept_runs import KeptRuns, kept_runs_folder
from napari_mambamic.progress import Progress, drained
from napari_mambamic.results import TileResults
from napari_mambamic.schedule import View
from napari_mambamic.weights.store import (
    is_here,
    iter_fetch,
    list_weights,
    locate_weights,
    read_manifest,
)

if TYPE_CHECKING:
    from napari_mambamic.classifier import TileClassifier


Planes = Literal["current", "all"] | dict[int, tuple[int, int]]


@dataclass(frozen=True)
class Request:
    """Everything that a run needs, read from the layers and the form."""

    planes: tuple[LayerPlane, ...]
    objects_layer: Layer | None
    objects: tuple[Any, ...]
    point_numbers: tuple[NDArray[np.intp], ...]
    weights: str
    device: str
    heatmaps: tuple[str, ...]
    channel_axis: int | None
    blend: str
    channels: tuple[ChannelSource, ...]
    within: Layer | None
    areas: dict[tuple[int, ...], Any]  # by the index of the plane; none without `within`
    view: Callable[[], View | None] | None
    with_embeddings: bool
    options: dict[str, Any]
    note: str = ""
    files: tuple[str, ...] = ()

    @property
    def cut(self) -> str:
        """What is classified, in a word: tiles, objects or points."""
        if self.objects_layer is None:
            return "tiles"
        return "points" if isinstance(self.objects_layer, Points) else "objects"

    def number_of(self, results: TileResults) -> int:
        """Which of the planes results are of: planes without objects have none."""
        index = tuple(results.provenance["layer"]["plane"])
        return [plane.index for plane in self.planes].index(index)


def request_of(
    viewer: ViewerModel,
    layer: Layer | None,
    *,
    weights: str = "default",
    objects: Layer | None = None,
    device: str = "auto",
    heatmaps: Sequence[str] = (),
    channels: Sequence[ChannelSource | Image | int] | None = None,
    channel_axis: int | None = None,
    planes: Planes = "current",
    within: Layer | None = None,
    blend: str = "none",
    view_first: bool = True,
    with_embeddings: bool = False,
    keeps_long_runs: bool = False,
    **options: Any,
) -> Request:
    """Check layers and form, and read what a run needs; see `classify_layer`.

    With `keeps_long_runs`, those on image files are kept until they are complete, as `KeptRuns`.
    """
    sources = _sources(layer, channels, channel_axis)
    in_view = plane_of_layer(viewer, layer, channels=sources)
    chosen = [
        plane_of_layer(viewer, layer, channels=sources, index=index)
        for index in _indices(in_view, planes, channel_axis)
    ]
    manifest = read_manifest(weights)
    names, maps = manifest.class_names, maps_of(manifest.trust)
    unknown = [name for name in heatmaps if name not in (*names, *maps)]
    if unknown:
        raise WeightsError(
            f"Weights {weights!r} have no class {unknown[0]!r} for a heatmap. Their classes are "
            f"{', '.join(names)}; there are also {', '.join(maps)}."
        )
    notes = []
    areas: dict[tuple[int, ...], Any] = {}
    if within is not None:
        areas, n_planes = areas_of_planes(chosen, within, channel_axis=channel_axis), len(chosen)
        chosen = [plane for plane in chosen if plane.index in areas]
        if len(chosen) < n_planes:
            notes.append(f"{within.name!r} has shapes on {len(chosen)} of the {n_planes} planes.")
    places: list[Any] = [None] * len(chosen)
    numbers: list[NDArray[np.intp]] = []
    if isinstance(objects, Points):
        chosen, places, numbers = _points_on(chosen, objects, channel_axis)
        found, n_points = len(np.unique(np.concatenate(numbers))), len(objects.data)
        if found < n_points:
            notes.append(f"{found:,} of the {n_points:,} points of {objects.name!r} lie there.")
    elif objects is not None:
        places = [labels_of_layer(plane, objects) for plane in chosen]
    keeps = keeps_long_runs and not with_embeddings
    view = partial(view_of_plane, in_view) if view_first and len(chosen) == 1 else None
    return Request(
        tuple(chosen),
        objects,
        tuple(places),
        tuple(numbers),
        weights,
        device,
        tuple(heatmaps),
        channel_axis,
        blend,
        tuple(sources or ()),
        within,
        areas,
        view,
        with_embeddings,
        options,
        " ".join(notes),
        _files_of([in_view.layer, *(source.layer for source in sources or ())]) if keeps else (),
    )


def _files_of(layers: Sequence[Layer]) -> tuple[str, ...]:
    """The files that layers were opened from; none where one has no file."""
    paths = [layer.source.path for layer in layers]
    if not all(path and os.path.exists(path) for path in paths):
        return ()
    return tuple(dict.fromkeys(os.path.abspath(path) for path in paths))


def _points_on(
    planes: Sequence[LayerPlane], layer: Points, channel_axis: int | None
) -> tuple[list[LayerPlane], list[NDArray[np.float64]], list[NDArray[np.intp]]]:
    """Those of some planes that have points; their points (n, 2), and their numbers in the layer.

    Raises
    ------
    NothingToClassify
        None has any.
    """
    found = []
    for plane in planes:
        try:
            found.append((plane, *points_of_layer(plane, layer, channel_axis=channel_axis)))
        except NothingToClassify:
            if len(planes) == 1:
                raise
    if not found:
        raise NothingToClassify(
            f"Points layer {layer.name!r} has no points on any of the {len(planes)} planes. Add "
            f"points on the cells to classify, or choose other planes."
        )
    with_points, places, numbers = zip(*found, strict=True)
    return list(with_points), list(places), list(numbers)


def iter_request(request: Request) -> Generator[Progress, None, list[TileResults]]:
    """Run a request, one plane after the other; see `iter_classify`.

    Returns the results of each plane; of several planes, those on which there is nothing to
    classify have none.  A `Progress` counts the tiles of all planes, and its results are those of
    the plane at work.
    """
    compiling = threading.Thread(target=compile_colormaps, daemon=True)
    compiling.start()
    classifier = yield from iter_classifier(request.weights, request.device)
    compiling.join()  # or the window would wait for it
    from napari_mambamic.classify import iter_classify

    options = dict(request.options)
    layers = _layer_settings(request)
    everything: list[TileResults] = []
    empty: NothingToClassify | None = None
    begin, before, there = time.perf_counter(), 0, 0
    for number, plane in enumerate(request.planes):
        results = None
        if request.files:
            options["keep_in"] = KeptRuns(kept_runs_folder(), request.files, plane.index)
        steps = iter_classify(
            plane.image,
            classifier,
            objects=request.objects[number],
            within=request.areas.get(plane.index),
            with_embeddings=request.with_embeddings,
            view=request.view,
            **options,
        )
        try:
            with closing(steps):
                for progress in steps:
                    if results is None:
                        results = progress.results
                        _add_layer_settings(results, request, number, layers)
                    yield replace(
                        progress,
                        done=before + progress.done,
                        total=before + progress.total + _still_to_come(request, number, progress),
                        seconds=time.perf_counter() - begin,
                        before=there + progress.before,
                    )
        except NothingToClassify as error:
            # A plane without cells, such as the last ones of a z stack, does not stop the others.
            empty = error
            continue
        before, there = before + progress.done, there + progress.before
        everything.append(results.blended(request.blend))
    if empty is not None and not everything:
        raise empty
    return everything


def _still_to_come(request: Request, number: int, progress: Progress) -> int:
    """Tiles of the planes after one; where that is not known, as many as it has."""
    if request.point_numbers:
        return sum(map(len, request.point_numbers[number + 1 :]))
    return progress.total * (len(request.planes) - number - 1)


def classify_layer(
    viewer: ViewerModel,
    layer: Layer,
    *,
    weights: str = "default",
    objects: Layer | None = None,
    device: str = "auto",
    heatmaps: Sequence[str] = (),
    channels: Sequence[ChannelSource | Image | int] | None = None,
    channel_axis: int | None = None,
    planes: Planes = "current",
    within: Layer | None = None,
    blend: str = "none",
    with_embeddings: bool = False,
    **options: Any,
) -> list[Layer]:
    """Classify an image layer, and add the result to the viewer.

    Parameters
    ----------
    viewer : napari.Viewer
    layer : Image
        Grey or RGB(A); multiscale or not.
    weights : str
        A registered name or the path of a ``.safetensors`` file.
    objects : Labels or Points, optional
        Classify one patch per object or point instead of a grid of tiles; of several planes, each
        object and point in its own.
    device : str
        "auto", "cuda", "mps" or "cpu".
    heatmaps : sequence of str
        Classes whose probability is shown as an image layer each, and "entropy", "margin",
        "distance" or "set size" (tiles only).
    channels : sequence of int, Image or ChannelSource, optional
        What the channels of the weights are, in their order: places along `channel_axis`, or grey
        layers that lie on this one.
    channel_axis : int, optional
        The axis of the layer that holds channels.
    planes : "current", "all" or dict
        Of a stack: the plane in view, all, or along some axes a range, {axis: (start, stop)}.
    within : Shapes or Labels, optional
        Classify the tiles whose middle lies in a shape, or on a label.  Of a stack, shapes limit
        the plane that they were drawn on, and planes without any are passed over; shapes and labels
        (y, x) limit all planes.
    blend : str
        Where tiles overlap: "none", "mean" or "gaussian"; see `TileResults.blended`.
    with_embeddings : bool
        Keep the embeddings in the results, for the Embedding map panel.
    **options
        ``tile_size``, ``object_scale``, ``overlap``, ``region``, ``skip_background``,
        ``use_pixels``, ``keep_in``, ``batch_size``, ``unsure_below``, ``count_unsure`` and
        ``coverage`` of `iter_classify`.

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
        viewer,
        layer,
        weights=weights,
        objects=objects,
        device=device,
        heatmaps=heatmaps,
        channels=channels,
        channel_axis=channel_axis,
        planes=planes,
        within=within,
        blend=blend,
        with_embeddings=with_embeddings,
        view_first=False,
        **options,
    )
    everything = drained(iter_request(request))
    shown = result_layers_of(viewer, request, everything[0])
    for results in everything:
        shown.finish(results, plane=request.number_of(results))
    return shown.layers


def result_layers_of(
    viewer: ViewerModel,
    request: Request,
    results: TileResults,
    *,
    tiles: NDArray[np.intp] | None = None,
) -> ResultLayers:
    """Add the layers of a run to the viewer; see `ResultLayers`."""
    return ResultLayers(
        viewer,
        request.planes,
        results,
        objects=request.objects_layer,
        within=request.within,
        heatmaps=request.heatmaps,
        channel_axis=request.channel_axis,
        points=list(zip(request.objects, request.point_numbers, strict=False)),
        first=request.number_of(results),
        tiles=tiles,
    )


def iter_classifier(weights: str, device: str) -> Generator[Progress, None, TileClassifier]:
    """Fetch weights that are not here yet, and load them, on any thread."""
    if weights in list_weights() and not is_here(weights):
        yield from iter_fetch(weights, source=weights_source())
    yield Progress(0, 0, message="Loading the weights")
    return classifier_for(weights, device)


def classifier_for(weights: str, device: str) -> TileClassifier:
    """A classifier that is kept for the next run, as long as its file does not change."""
    path = locate_weights(weights)
    return _loaded(path, path.stat().st_mtime_ns, device)


@lru_cache(maxsize=2)
def _loaded(path: Path, changed: int, device: str) -> TileClassifier:
    from napari_mambamic.classifier import load_classifier

    return load_classifier(path, device=device)


def _sources(
    layer: Layer | None,
    channels: Sequence[ChannelSource | Image | int] | None,
    channel_axis: int | None,
) -> list[ChannelSource] | None:
    if channels is None:
        return None
    sources = []
    for channel in channels:
        if isinstance(channel, Image):
            channel = ChannelSource(channel)
        elif isinstance(channel, (int, np.integer)):
            if not isinstance(layer, Image) or channel_axis is None:
                raise ImageError("Channels are given by number: say which axis holds the channels.")
            channel = ChannelSource(layer, channel_axis, int(channel))
        sources.append(channel)
    return sources


def _indices(
    in_view: LayerPlane, planes: Planes, channel_axis: int | None
) -> Iterator[tuple[int, ...]]:
    """Where the planes to classify lie along the leading axes of their layer."""
    layer = in_view.layer
    lengths = finest_of(layer).shape[: len(in_view.index)]
    ranges = []
    for axis, (here, length) in enumerate(zip(in_view.index, lengths, strict=True)):
        start, stop = here, here + 1
        if planes == "all" and axis != channel_axis:
            start, stop = 0, length
        elif isinstance(planes, dict) and axis in planes:
            start, stop = planes[axis]
            if not 0 <= start < stop <= length:
                raise ImageError(
                    f"The planes {start} to {stop} do not lie on axis {axis} of layer "
                    f"{layer.name!r}, which has {length}. Choose others."
                )
        ranges.append(range(start, stop))
    return product(*ranges)


def _layer_settings(request: Request) -> dict[str, Any]:
    """What the provenance says of the layers of a run, whichever of its planes it is of."""
    settings: dict[str, Any] = {
        "name": request.planes[0].layer.name,
        "planes": [list(plane.index) for plane in request.planes],
        "objects": request.objects_layer and request.objects_layer.name,
        "points": bool(request.point_numbers),
        "channels": [source.name for source in request.channels] or None,
        "channel_axis": request.channel_axis,
        "within": request.within and request.within.name,
        "weights": request.weights,
    }
    if request.channels:
        settings["channel_sources"] = [
            {
                "layer": source.layer.name,
                "path": source.layer.source.path,
                "leading_axes": source.layer.ndim - 2,
                "axis": source.axis,
                "number": source.number,
            }
            for source in request.channels
        ]
    areas = [request.areas.get(plane.index) for plane in request.planes]
    if isinstance(areas[0], list) and any(area is not areas[0] for area in areas):
        # A script goes through all planes, from the provenance of any of them.
        settings["areas"] = [
            [list(plane.index), [polygon.tolist() for polygon in area]]
            for plane, area in zip(request.planes, areas, strict=True)
        ]
    return settings


def _add_layer_settings(
    results: TileResults, request: Request, number: int, layers: dict[str, Any]
) -> None:
    """Note in the provenance which layer and plane it was; number points as their layer does."""
    plane = request.planes[number]
    results.provenance["layer"] = {**layers, "plane": list(plane.index)}
    path = plane.layer.source.path
    # An address, and a file of which other layers hold other channels, are not the image.
    if path and os.path.exists(path) and not request.channels:
        results.provenance["image"]["path"] = os.path.abspath(path)
    if request.point_numbers:
        results.tiles.object_ids[:] = request.point_numbers[number]
