"""From a layer of classes back to what was classified: image, plane, channels, tiles, weights."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points
from numpy.typing import NDArray

from napari_mambamic._napari.classify_layer import iter_classifier
from napari_mambamic._napari.from_layer import ChannelSource, LayerPlane, plane_of_layer
from napari_mambamic._napari.to_layers import results_of
from napari_mambamic.errors import ImageError, MambamicError, NothingToClassify, WeightsError
from napari_mambamic.image import ImagePyramid
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import ObjectTiles, tile_at
from napari_mambamic.weights.store import list_weights, read_manifest

if TYPE_CHECKING:
    from napari_mambamic.classifier import TileClassifier


@dataclass(frozen=True)
class Classified:
    """What a layer of classes shows on one plane.

    Parameters
    ----------
    layer : Labels or Points
        Of classes.
    results : TileResults
    plane : LayerPlane
        What was classified, with the channels of the run.
    objects : Layer or None
        What the tiles were laid around.
    channel_axis : int or None
        An axis of the image's layer that holds channels.
    """

    layer: Layer
    results: TileResults
    plane: LayerPlane
    objects: Layer | None = None
    channel_axis: int | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """What the channels were put together from, for people; () for those of the layer."""
        return tuple(_noted(self.results).get("channels") or ())

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


def classified_of(viewer: ViewerModel, layer: Layer | None) -> Classified:
    """Find what a layer of classes shows; of several planes, see `results_in_view`.

    Raises
    ------
    NothingToClassify
        There is no layer of classes.
    ImageError
        The image, or one of its channels, is closed.
    """
    results = results_in_view(viewer, layer)
    plane = plane_of(viewer, image_layer_of(viewer, layer), results)
    objects = layer_with(viewer, layer.metadata.get("objects"))
    return Classified(layer, results, plane, objects, _noted(results).get("channel_axis"))


def results_in_view(viewer: ViewerModel, layer: Layer | None) -> TileResults:
    """The results that a layer of classes shows; of several planes, the nearest to the one in view.

    Raises
    ------
    NothingToClassify
        There is no layer of classes.
    """
    several = [] if layer is None else results_of(layer)
    if not several:
        raise NothingToClassify(
            "There is no layer of classes. Press Classify in the panel 'Classify tiles and cells' "
            "first."
        )
    if len(several) == 1:
        return several[0]
    planes = np.array([index_of(each) for each in several])
    point = np.asarray(viewer.dims.point)
    image = layer_with(viewer, layer.metadata.get("image"))
    if isinstance(layer, Points):  # which may have a place of their own
        frame, first = image or layer, np.zeros(planes.shape[1])
    else:  # The layer begins with the first of its planes, as `ResultLayers` makes it.
        frame, first = layer, planes.min(axis=0)
    here = np.asarray(frame.world_to_data(point[-frame.ndim :])[:-2])
    apart = np.abs(planes - first - here)
    if (axis := _noted(several[0]).get("channel_axis")) is not None:
        apart[:, axis] = 0
    return several[int(apart.sum(axis=1).argmin())]


def image_layer_of(viewer: ViewerModel, layer: Layer) -> Image:
    """The image layer that was classified.

    Raises
    ------
    ImageError
        It was closed.
    """
    found = layer_with(viewer, layer.metadata.get("image"))
    if not isinstance(found, Image):
        raise ImageError(
            f"The image that layer {layer.name!r} was made of is closed. Open and classify it "
            f"again."
        )
    return found


def plane_of(viewer: ViewerModel, image: Image, results: TileResults) -> LayerPlane:
    """The plane of an image layer, with its channels, that results were made from.

    Raises
    ------
    ImageError
        A channel is closed.
    """
    sources = channel_sources_of(viewer, image, results)
    plane = plane_of_layer(viewer, image, channels=sources, index=index_of(results))
    numbers = results.provenance.get("settings", {}).get("channels")
    return replace(plane, image=plane.image.with_channels(numbers)) if numbers else plane


def channel_sources_of(
    viewer: ViewerModel, image: Image, results: TileResults
) -> list[ChannelSource]:
    """Where the channels came from that results were made from; none where none were chosen.

    Raises
    ------
    ImageError
        A channel is closed.
    """
    noted = _noted(results)
    return [_source(viewer, image, name, noted) for name in noted.get("channels") or ()]


def index_of(results: TileResults) -> tuple[int, ...]:
    """Where the plane that was classified lies along the leading axes of its layer."""
    return tuple(_noted(results).get("plane") or ())


def layer_with(viewer: ViewerModel, unique_id: object) -> Layer | None:
    """The layer that metadata name, if the viewer still has it."""
    return next((each for each in viewer.layers if each.unique_id == unique_id), None)


def _noted(results: TileResults) -> dict[str, Any]:
    """What the provenance says of the layer."""
    noted: dict[str, Any] = results.provenance.get("layer") or {}
    return noted


def _source(viewer: ViewerModel, image: Image, name: str, noted: dict[str, Any]) -> ChannelSource:
    """Where a channel came from, by the name that the provenance has; see `ChannelSource.name`."""
    before = noted.get("name", image.name)  # the image may have another name by now
    number = name.removeprefix(f"{before}, channel ")
    axis = noted.get("channel_axis")
    if axis is not None and number != name and number.isdecimal():
        return ChannelSource(image, axis, int(number))
    found = image if name == before else None
    if found is None and name in viewer.layers:
        found = viewer.layers[name]
    if not isinstance(found, Image):
        raise ImageError(
            f"The results were made of layer {name!r}, which is closed or has another name now. "
            f"Open it, or classify again."
        )
    return ChannelSource(found)


# ---- in threads ----------------------------------------------------------------------------------


def weights_of(results: TileResults) -> str:
    """The weights that made results: a registered name, or the path of a file.

    Raises
    ------
    WeightsError
        They are not known here, or have changed.
    """
    if "live" in results.provenance:
        raise WeightsError(
            "These classes follow the labels that are set in the Train panel; no weights stand "
            "behind them. Train, press 'Use for Classify', and classify."
        )
    about = results.provenance.get("weights", {})
    name, sha256 = about.get("name"), about.get("sha256")
    first = [each for each in (_noted(results).get("weights"), name) if each]
    found = {each: _sha256_of(each) for each in (*first, *list_weights())}
    for each, known in found.items():
        if known is not None and known == (sha256 or known):
            return str(each)
    what = "have changed since" if any(found[each] for each in first) else "are not known here"
    raise WeightsError(
        f"The results were made with weights {name!r}, which {what}. Classify the image again."
    )


def _sha256_of(weights: str) -> str | None:
    try:
        return read_manifest(weights).sha256
    except MambamicError:
        return None


def iter_classifier_of(results: TileResults) -> Generator[Progress, None, TileClassifier]:
    """Load, and fetch where need be, the weights that made results."""
    return (yield from iter_classifier(weights_of(results), "auto"))


def iter_embeddings_of(
    image: ImagePyramid, results: TileResults
) -> Generator[Progress, None, NDArray[np.float32]]:
    """The embeddings of results, computed again where they were not kept; see `iter_embeddings`."""
    kept = results.embeddings
    if kept is not None and np.isfinite(kept[results.is_done, :1]).all():
        return kept
    classifier = yield from iter_classifier_of(results)
    from napari_mambamic.embeddings import iter_embeddings

    return (yield from iter_embeddings(image, classifier, results))
