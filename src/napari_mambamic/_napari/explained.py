"""From a layer of classes back to what was classified, and from a heatmap to a layer over it."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils import Colormap
from numpy.typing import NDArray

from napari_mambamic._napari.classify_layer import classifier_for
from napari_mambamic._napari.from_layer import (
    ChannelSource,
    LayerPlane,
    plane_of_layer,
)
from napari_mambamic._napari.settings import weights_source
from napari_mambamic._napari.to_layers import placed_on, results_of
from napari_mambamic.errors import ImageError, NothingToClassify, WeightsError
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import ObjectTiles, tile_at
from napari_mambamic.weights.store import is_here, iter_fetch, list_weights, read_manifest

if TYPE_CHECKING:
    from napari_mambamic.explain.heatmap import Heatmap
    from napari_mambamic.explain.maps import Method

# Clear where nothing speaks for the class, so that the picture is seen on any background.
HEAT = Colormap(
    [[0.4, 0, 0.6, 0], [0.8, 0.1, 0.3, 0.25], [1, 0.55, 0, 0.5], [1, 1, 0.2, 0.75]],
    name="what speaks for the class",
)


@dataclass(frozen=True)
class Explained:
    """What a layer of classes shows on the plane in view.

    Parameters
    ----------
    layer : Labels or Points
        Of classes.
    plane : LayerPlane
        What was classified.
    results : TileResults
    weights : str
        A registered name or a path.
    channel_axis : int or None
        An axis of the image's layer that holds channels.
    """

    layer: Layer
    plane: LayerPlane
    results: TileResults
    weights: str
    channel_axis: int | None = None

    def tile_under(self, world: Any) -> int | None:
        """Number of the tile that holds a place of the world: the object's under it, if any."""
        image = self.plane.layer
        place = np.asarray(image.world_to_data(np.asarray(world)[-image.ndim :]))[-2:]
        if isinstance(self.results.tiles, ObjectTiles) and isinstance(self.layer, Labels):
            found = self.layer.get_value(np.asarray(world)[-self.layer.ndim :], world=True)
            number = self.tile_of(int(found or 0))
            if number is not None:
                return number
        return tile_at(self.results.tiles, (float(place[0]), float(place[1])))

    def tile_of(self, shown: int) -> int | None:
        """Number of a tile, from 0 on, from the one that people see: see `shown_number`."""
        ids = self.results.object_ids
        if ids is None:
            return shown - 1 if 1 <= shown <= len(self.results) else None
        found = np.flatnonzero(ids == shown)
        return int(found[0]) if len(found) else None

    def shown_number(self, tile: int) -> int:
        """What people see: of a grid the tile's label, of objects and points their number."""
        ids = self.results.object_ids
        return tile + 1 if ids is None else int(ids[tile])


def explained_of(viewer: ViewerModel, layer: Layer | None) -> Explained:
    """Find the image, the plane in view, the results and the weights of a layer of classes.

    Raises
    ------
    NothingToClassify
        There is no such layer, or the plane in view was not classified.
    ImageError
        The image, or one of its channels, is closed.
    WeightsError
        The weights are not known here.
    """
    several = [] if layer is None else results_of(layer)
    if not several:
        raise NothingToClassify(
            "There are no results to explain. Press Classify in the panel 'Classify tiles and "
            "cells' first."
        )
    image = next((i for i in viewer.layers if i.unique_id == layer.metadata.get("image")), None)
    if not isinstance(image, Image):
        raise ImageError(
            f"The image that layer {layer.name!r} was made of is closed. Open and classify it "
            f"again."
        )
    about = several[0].provenance.get("layer") or {}
    axis = about.get("channel_axis")
    sources = _sources(viewer, image, about.get("channels"), axis)
    index = plane_of_layer(viewer, image).index
    if len(several) > 1 or not index:
        results = next((r for r in several if _same_plane(r, index, axis)), None)
    else:
        results, index = several[0], _plane_of(several[0]) or index
    if results is None:
        raise NothingToClassify(
            f"The plane in view is none of those that layer {layer.name!r} shows. Move the slider "
            f"to one of them."
        )
    plane = plane_of_layer(viewer, image, channels=sources, index=index)
    return Explained(layer, plane, results, _weights_of(results), axis)


def iter_explained(
    explained: Explained,
    *,
    numbers: list[int] | None,
    target: str | None,
    method: Method,
) -> Generator[Progress, None, Heatmap]:
    """Run `iter_explain`, on any thread; the first to need torch."""
    weights = explained.weights
    if weights in list_weights() and not is_here(weights):
        yield from iter_fetch(weights, source=weights_source())
    yield Progress(0, 0, message="Loading the weights")
    from napari_mambamic.explain.tiles import iter_explain

    return (
        yield from iter_explain(
            explained.plane.image,
            classifier_for(weights, "auto"),
            explained.results,
            numbers=numbers,
            target=target,
            method=method,
        )
    )


def heat_layer(explained: Explained, heatmap: Heatmap, name: str) -> Image:
    """A layer that shows a heatmap exactly over its tiles; the picture shines through."""
    return Image(
        _pixels(explained, heatmap),
        name=name,
        colormap=HEAT,
        contrast_limits=(0, 1),
        blending="translucent",
        interpolation2d="linear",
        metadata=_metadata(explained, heatmap),
        **_place(explained, heatmap),
    )


def update_heat_layer(layer: Image, explained: Explained, heatmap: Heatmap, name: str) -> None:
    """Show another heatmap of the same image in a layer; how it is drawn stays as it is."""
    layer.data = _pixels(explained, heatmap)
    for keyword, value in _place(explained, heatmap).items():
        setattr(layer, keyword, value)
    layer.metadata = _metadata(explained, heatmap)
    layer.name = name


def _place(explained: Explained, heatmap: Heatmap) -> dict[str, Any]:
    plane, axis = explained.plane, explained.channel_axis
    if axis is not None:
        index = (*plane.index[:axis], 0, *plane.index[axis + 1 :])
        plane = replace(plane, index=index)
    return placed_on(plane, heatmap.origin, heatmap.step)


def _pixels(explained: Explained, heatmap: Heatmap) -> NDArray[np.float32]:
    """The heatmap one plane deep; the same pixels for every channel."""
    plane, axis = explained.plane, explained.channel_axis
    depths = [1] * len(plane.index)
    if axis is not None:
        image = plane.layer
        depths[axis] = (image.data[0] if image.multiscale else image.data).shape[axis]
    return np.broadcast_to(heatmap.pixels, (*depths, *heatmap.pixels.shape))


def _metadata(explained: Explained, heatmap: Heatmap) -> dict[str, Any]:
    return {"mambamic": heatmap.provenance, "image": explained.plane.layer.unique_id}


def _plane_of(results: TileResults) -> tuple[int, ...]:
    return tuple((results.provenance.get("layer") or {}).get("plane") or ())


def _same_plane(results: TileResults, index: tuple[int, ...], axis: int | None) -> bool:
    pairs = zip(_plane_of(results), index, strict=True)
    return all(one == other or k == axis for k, (one, other) in enumerate(pairs))


def _sources(
    viewer: ViewerModel, image: Image, names: list[str] | None, axis: int | None
) -> list[ChannelSource] | None:
    """The channels of a run, from what `ChannelSource.name` called them."""
    if not names:
        return None
    sources = []
    for name in names:
        number = re.search(r", channel (\d+)$", name)
        if name in viewer.layers:
            sources.append(ChannelSource(viewer.layers[name]))
        elif number is not None and axis is not None:
            sources.append(ChannelSource(image, axis, int(number[1])))
        else:
            raise ImageError(
                f"The results were made of layer {name!r}, which is closed or has another name "
                f"now. Open it, or classify again."
            )
    return sources


def _weights_of(results: TileResults) -> str:
    known = results.provenance.get("weights", {})
    chosen = (results.provenance.get("layer") or {}).get("weights")
    if chosen:
        return str(chosen)
    for name in list_weights():
        if read_manifest(name).sha256 == known.get("sha256"):
            return name
    raise WeightsError(
        f"The results were made with weights {known.get('name')!r}, which are not known here. "
        f"Classify again, then explain."
    )
