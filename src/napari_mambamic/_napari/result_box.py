"""A list of the viewer's layers of classes."""

from __future__ import annotations

from napari.components import ViewerModel
from napari.layers import Labels, Layer, Points

from napari_mambamic._napari.layer_box import LayerBox
from napari_mambamic._napari.to_layers import results_of


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
