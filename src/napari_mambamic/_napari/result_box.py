"""A list of the viewer's layers of classes, and the way back from one to what was classified."""

from __future__ import annotations

from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points

from napari_mambamic._napari.from_layer import ChannelSource, plane_of_layer
from napari_mambamic._napari.layer_box import LayerBox
from napari_mambamic._napari.to_layers import results_of
from napari_mambamic.errors import ImageError
from napari_mambamic.image import ImagePyramid
from napari_mambamic.results import TileResults


class ResultBox(LayerBox):
    """The layers of classes that Classify added.

    Parameters
    ----------
    viewer : napari.Viewer
    what : str
        Its accessible name.
    """

    def __init__(self, viewer: ViewerModel, what: str) -> None:
        super().__init__(viewer, (Labels, Points), what)
        self.setPlaceholderText("no layer of classes")

    def _offers(self, layer: Layer) -> bool:
        return bool(results_of(layer))

    def follow(self, layer: Layer | None) -> None:
        """Choose a layer, if it is one of classes."""
        if layer in self._shown:
            self.choose(layer)


def image_layer_of(viewer: ViewerModel, layer: Layer) -> Image:
    """The image layer that was classified.

    Raises
    ------
    ImageError
        It was closed.
    """
    found = next((i for i in viewer.layers if i.unique_id == layer.metadata.get("image")), None)
    if not isinstance(found, Image):
        raise ImageError(
            f"The image that layer {layer.name!r} shows the classes of is closed. Open it and "
            f"classify it again."
        )
    return found


def classified_image(viewer: ViewerModel, layer: Layer, results: TileResults) -> ImagePyramid:
    """The plane, with its channels, that results of a layer of classes were made from."""
    image = image_layer_of(viewer, layer)
    noted = results.provenance.get("layer", {})
    channels = [_source(viewer, image, name) for name in noted.get("channels") or ()]
    plane = plane_of_layer(
        viewer, image, channels=channels or None, index=tuple(noted.get("plane", ()))
    )
    numbers = results.provenance.get("settings", {}).get("channels")
    return plane.image.with_channels(numbers) if numbers else plane.image


def _source(viewer: ViewerModel, image: Image, name: str) -> ChannelSource:
    """Where a channel came from, by the name that the provenance has; see `ChannelSource.name`."""
    if name in viewer.layers and isinstance(viewer.layers[name], Image):
        return ChannelSource(viewer.layers[name])
    number = name.removeprefix(f"{image.name}, channel ")
    if number == name or image.ndim != 3:
        raise ImageError(
            f"There is no channel {name!r} any more. Open its layer, or classify the image again."
        )
    return ChannelSource(image, 0, int(number))
