"""Which channels of the image are those of the weights, and what the network then sees."""

from __future__ import annotations

from collections.abc import Sequence

from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QFormLayout, QWidget

from napari_mambamic._napari.eliding_box import ElidingBox
from napari_mambamic._napari.from_layer import ChannelSource, finest_of
from napari_mambamic.weights.manifest import Manifest

_CHANNEL_LABELS = ("c", "ch", "channel", "channels")


class ChannelsBox(QWidget):
    """A row for each channel of the weights; hidden where an image can be taken as it is."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._image: Image | None = None
        self._manifest: Manifest | None = None
        self._candidates: list[ChannelSource] = []
        self.axis = ElidingBox()
        self.axis.setAccessibleName("Channel axis")
        self.axis.setToolTip("The axis of the layer along which its channels lie")
        self.axis.currentIndexChanged.connect(self._fill_rows)
        self.rows: list[ElidingBox] = []
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._form.addRow("Channel axis", self.axis)

    @property
    def channel_axis(self) -> int | None:
        """The axis of the image's layer that holds channels."""
        return self.axis.currentData() if self._image is not None else None

    @property
    def sources(self) -> list[ChannelSource] | None:
        """What each channel of the weights is; None: the image as it is."""
        if not self.rows:
            return None
        return [self._candidates[row.currentIndex()] for row in self.rows]

    def show_choices(self, image: Image | None, manifest: Manifest | None) -> None:
        """Offer what this image and the other layers have for these weights."""
        self._image, self._manifest = image, manifest
        with QSignalBlocker(self.axis):
            self.axis.clear()
            self.axis.addItem("none", None)
            if image is not None and not image.rgb:
                for axis, name in enumerate(image.axis_labels[:-2]):
                    length = finest_of(image).shape[axis]
                    self.axis.addItem(f"{name} ({length})", axis)
                    if str(name).lower() in _CHANNEL_LABELS or self._fits(length):
                        self.axis.setCurrentIndex(self.axis.count() - 1)
        self._fill_rows()

    def _fits(self, length: int) -> bool:
        """Whether an axis has just the channels that weights of other than RGB images want."""
        patch = self._manifest.patch if self._manifest else None
        return patch is not None and not patch.is_rgb and 1 < len(patch.channels) == length

    def _fill_rows(self) -> None:
        while self._form.rowCount() > 1:
            self._form.removeRow(1)
        self.rows = []
        image, manifest = self._image, self._manifest
        wanted: Sequence[str] = manifest.patch.channels if manifest else ()
        several = len(wanted) > 1 and manifest is not None and not manifest.patch.is_rgb
        grey = image is not None and not image.rgb
        axis = self.axis.currentData()
        if grey and (axis is not None or several):
            self._candidates = self._sources_of(image, axis)
            for number, name in enumerate(wanted):
                row = ElidingBox()
                row.addItems([source.name for source in self._candidates])
                row.setCurrentIndex(min(number, len(self._candidates) - 1))
                row.setAccessibleName(name)
                row.setToolTip(f"What the weights take for their channel {name!r}")
                self.rows.append(row)
                self._form.addRow(name, row)
        self._form.setRowVisible(self.axis, self.axis.count() > 1)
        self.setVisible(bool(self.rows) or self.axis.count() > 1)

    def _sources_of(self, image: Image, axis: int | None) -> list[ChannelSource]:
        """Places along the axis first, then the grey layers of the same size."""
        shape = finest_of(image).shape
        own = [] if axis is None else [ChannelSource(image, axis, i) for i in range(shape[axis])]
        others = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image)
            and not layer.rgb
            and "mambamic" not in layer.metadata
            and finest_of(layer).shape[-2:] == shape[-2:]
            and (axis is None or layer is not image)
        ]
        # The layers that the user selected are meant; they come in their order.
        others.sort(key=lambda layer: layer not in self._viewer.layers.selection)
        return own + [ChannelSource(layer) for layer in others]
