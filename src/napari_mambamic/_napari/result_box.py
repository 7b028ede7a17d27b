"""The viewer's layers of classes: choosing one, and following the one that is selected."""

from __future__ import annotations

from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points

from napari_mambamic._napari.layer_box import LayerBox
from napari_mambamic._napari.to_layers import results_of

NO_RESULTS = "there are no results; classify an image first"  # why a button is disabled
_IN_CLASSIFY = "ress Classify in the panel 'Classify tiles and cells'."


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


def no_results(viewer: ViewerModel) -> str:
    """What to do where there is no layer of classes."""
    if any(isinstance(layer, Image) for layer in viewer.layers):
        return f"No results yet. P{_IN_CLASSIFY}"
    return f"No results yet. Open an image and p{_IN_CLASSIFY}"


def followed_layer(viewer: ViewerModel, last: Layer | None) -> Layer | None:
    """The selected layer of classes, else the last one that was followed, else the topmost."""
    layers = viewer.layers
    candidates = [layers.selection.active, last, *reversed(layers)]
    return next((c for c in candidates if c is not None and c in layers and results_of(c)), None)
