"""The files that a script reads which repeats a run: its image, its objects, and its mask.

Layers of objects and masks may never have been files, or may have been edited since; what is
written are their labels, or their points in px of the image, as the layers have them now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points

from napari_mambamic._napari.classified import (
    channel_sources_of,
    image_layer_of,
    index_of,
    layer_with,
    plane_of,
)
from napari_mambamic._napari.from_layer import (
    ChannelSource,
    LayerPlane,
    finest_of,
    index_in_labels,
    labels_of_layer,
    plane_at,
    points_in_image,
    points_of_layer,
)
from napari_mambamic._napari.to_layers import results_of
from napari_mambamic.as_script import RunFiles
from napari_mambamic.atomic import folder_written_atomically, written_atomically
from napari_mambamic.errors import MambamicError
from napari_mambamic.image import ImagePyramid
from napari_mambamic.image_files.opening import Opening, opening_of
from napari_mambamic.results import TileResults
from napari_mambamic.training.annotations import path_in_user_data

_CHUNK = 4096  # px
_COMPARED = 8  # planes


def run_files_of(viewer: ViewerModel, layer: Layer) -> Callable[[], RunFiles] | None:
    """What finds and writes the files of the run of a layer of classes, on any thread.

    None where there is nothing to find: pixels that were never a file, no objects, or layers that
    are closed.  The script has a gap there, which tells what belongs in it.
    """
    several = results_of(layer)
    if not several:
        return None
    some = [*several[:: -(-len(several) // _COMPARED)], several[-1]]
    try:
        image = image_layer_of(viewer, layer)
        planes = {index_of(results): plane_of(viewer, image, results) for results in some}
    except MambamicError:
        return None
    finding = {
        "opening": _finding(image, planes, several[-1]),
        "channels": _finding_channels(channel_sources_of(viewer, image, several[-1]), planes),
    }
    for name, of in (("objects", "objects"), ("mask", "within")):
        found = layer_with(viewer, layer.metadata.get(of))
        finding[name] = found and _writing(image, found, several[-1].provenance)
    todo = {name: find for name, find in finding.items() if find is not None}
    return (lambda: RunFiles(**{name: find() for name, find in todo.items()})) if todo else None


def _finding(
    image: Image, planes: Mapping[tuple[int, ...], LayerPlane], results: TileResults
) -> Callable[[], Opening | None] | None:
    """What finds how the image is read from its file; None where it has none, or several."""
    noted = results.provenance["layer"]
    sources = noted.get("channel_sources") or [{"path": image.source.path}]
    paths = {source["path"] for source in sources}
    path = paths.pop()
    if paths or not path or results.provenance["settings"].get("channels"):
        return None
    shape = finest_of(image).shape
    lengths = dict(enumerate(shape[: len(next(iter(planes)))]))
    if noted.get("channels"):
        lengths.pop(noted.get("channel_axis"), None)
    of_planes = {index: plane.image for index, plane in planes.items()}
    return partial(opening_of, path, lengths, of_planes)


def _finding_channels(
    sources: Sequence[ChannelSource], planes: Iterable[tuple[int, ...]]
) -> Callable[[], tuple[Opening, ...]] | None:
    """What finds how each channel is read from its file; None where one has none, or all one."""
    paths = [source.layer.source.path for source in sources]
    if len(set(paths)) < 2 or not all(paths):
        return None
    of_channels = [_planes_of_channel(source, planes) for source in sources]

    def find() -> tuple[Opening, ...]:
        found = []
        for path, (lengths, images) in zip(paths, of_channels, strict=True):
            opening = opening_of(path, lengths, images)
            if opening is None:
                return ()
            found.append(opening)
        return tuple(found)

    return find


def _planes_of_channel(
    source: ChannelSource, planes: Iterable[tuple[int, ...]]
) -> tuple[dict[int, int], dict[tuple[int, ...], ImagePyramid]]:
    """Lengths of the leading axes of a channel's layer, and its pixels on some planes by place."""
    layer = source.layer
    n_axes = layer.ndim - 2  # it may lack the first axes of the image
    shape = finest_of(layer).shape
    lengths = dict(enumerate(shape[:n_axes]))
    images = {}
    for plane in planes:
        at = plane[len(plane) - n_axes :]
        if source.axis is not None:
            at = (*at[: source.axis], source.number, *at[source.axis + 1 :])
            lengths.pop(source.axis, None)
        images[at] = plane_at(layer, at).image
    return lengths, images


def _writing(
    image: Image, layer: Layer, provenance: Mapping[str, Any]
) -> Callable[[], Path] | None:
    """What writes the labels or points of a layer that belong to the planes of a run."""
    noted = provenance["layer"]
    first, *others = (tuple(index) for index in noted.get("planes") or [noted["plane"]])
    plane = plane_at(image, first)
    key = f"{provenance['created']}|{first}|{len(others)}|{layer.name}"
    path_with = partial(path_in_user_data, "objects", f"{image.name} {layer.name}", key)
    try:
        if isinstance(layer, Points) and others:
            return partial(_write_points, points_in_image(image, layer), path_with(".csv"))
        if isinstance(layer, Points):
            points, _ = points_of_layer(plane, layer, channel_axis=noted.get("channel_axis"))
            return partial(_write_points, points, path_with(".csv"))
        if not isinstance(layer, Labels):
            return None  # shapes, which the provenance has
        labels = labels_of_layer(plane, layer)
    except MambamicError:  # it was moved, or has other axes by now
        return None
    if not others:
        return partial(_write_labels, labels, path_with(".tif"))
    data = finest_of(layer)
    planes = (plane, *(replace(plane, index=index) for index in others))
    places = dict.fromkeys(index_in_labels(each, data) for each in planes)
    return partial(_write_stack, data, list(places), path_with(".zarr"))


def _write_points(points: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary:
        np.savetxt(temporary, points, delimiter=",", fmt="%.17g")
    return path


def _write_labels(labels: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary:
        tifffile.imwrite(temporary, np.asarray(labels), compression="zlib")
    return path


def _write_stack(labels: Any, places: list[tuple[int, ...]], path: Path) -> Path:
    """An array with the axes of a stack of labels, of which the planes at some places are there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sides = [min(n, _CHUNK) for n in labels.shape[-2:]]
    with folder_written_atomically(path, may_replace=lambda _: True) as folder:
        array = zarr.create_array(
            folder,
            shape=labels.shape,
            chunks=(*[1] * (labels.ndim - 2), *sides),
            dtype=labels.dtype,
        )
        for place in places:
            array[place] = np.asarray(labels[place])
    return path
