"""Heatmaps of what was classified: computing them, and laying them over its tiles."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer
from napari.utils import Colormap
from numpy.typing import NDArray

from napari_mambamic._napari.classified import Classified, classified_of, iter_classifier_of
from napari_mambamic._napari.from_layer import finest_of, plane_of_layer
from napari_mambamic._napari.to_layers import placed_on, results_of
from napari_mambamic.errors import NothingToClassify
from napari_mambamic.progress import Progress

if TYPE_CHECKING:
    from napari_mambamic.explain.heatmap import Heatmap
    from napari_mambamic.explain.maps import Method

# Clear where nothing speaks for the class, so that the picture is seen on any background.
HEAT = Colormap(
    [[0.4, 0, 0.6, 0], [0.8, 0.1, 0.3, 0.25], [1, 0.55, 0, 0.5], [1, 1, 0.2, 0.75]],
    name="what speaks for the class",
)


def explained_of(viewer: ViewerModel, layer: Layer | None) -> Classified:
    """Find what is to be explained: `classified_of`, in view.

    Raises
    ------
    NothingToClassify
        Of several planes that the layer shows, none is the one in view.
    MambamicError
        As `classified_of`.
    """
    found = classified_of(viewer, layer)
    axis = found.channel_axis
    in_view = plane_of_layer(viewer, found.plane.layer).at_first_channel(axis)
    if len(results_of(layer)) > 1 and in_view.index != found.plane.at_first_channel(axis).index:
        raise NothingToClassify(
            f"The plane in view is none of those that layer {layer.name!r} shows. Move the slider "
            f"to one of them."
        )
    return found


def iter_explained(
    explained: Classified,
    numbers: list[int] | None,
    target: str | None,
    method: Method,
) -> Generator[Progress, None, Heatmap]:
    """Run `iter_explain`, on any thread; the first to need torch."""
    classifier = yield from iter_classifier_of(explained.results)
    from napari_mambamic.explain.tiles import iter_explain

    return (
        yield from iter_explain(
            explained.plane.image,
            classifier,
            explained.results,
            numbers=numbers,
            target=target,
            method=method,
        )
    )


def heat_layer(explained: Classified, heatmap: Heatmap, name: str) -> Image:
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


def update_heat_layer(layer: Image, explained: Classified, heatmap: Heatmap, name: str) -> None:
    """Show another heatmap of the same image in a layer; how it is drawn stays as it is."""
    layer.data = _pixels(explained, heatmap)
    for keyword, value in _place(explained, heatmap).items():
        setattr(layer, keyword, value)
    layer.metadata = _metadata(explained, heatmap)
    layer.name = name


def _place(explained: Classified, heatmap: Heatmap) -> dict[str, Any]:
    plane = explained.plane.at_first_channel(explained.channel_axis)
    return placed_on(plane, heatmap.origin, heatmap.step)


def _pixels(explained: Classified, heatmap: Heatmap) -> NDArray[np.float32]:
    """The heatmap one plane deep; the same pixels for every channel."""
    plane, axis = explained.plane, explained.channel_axis
    depths = [1] * len(plane.index)
    if axis is not None:
        image = plane.layer
        depths[axis] = finest_of(image).shape[axis]
    return np.broadcast_to(heatmap.pixels, (*depths, *heatmap.pixels.shape))


def _metadata(explained: Classified, heatmap: Heatmap) -> dict[str, Any]:
    return {"mambamic": heatmap.provenance, "image": explained.plane.layer.unique_id}
