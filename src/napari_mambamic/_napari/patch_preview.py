"""What the network sees: some patches from the middle of the view, prepared as for a run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QWidget

from napari_mambamic._napari.classify_layer import Request
from napari_mambamic._napari.tile_pictures import pixmap_of
from napari_mambamic.patches import PatchSpec, read_patches
from napari_mambamic.tiling import places_of

_COUNT, _HEIGHT = 4, 72  # patches, and their height on the screen in px


class PatchPreview(QLabel):
    """A row of patches; of weights with other channels than RGB, a row for each channel."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("What the network sees")
        self.setToolTip("Patches from the middle of the view, as the network gets them")
        self.hide()

    def show_patches(self, picture: NDArray[np.uint8]) -> None:
        """Show what `preview_of` made."""
        height, width, _ = picture.shape
        rows = height // (width // _COUNT)
        pixmap = pixmap_of(picture).scaledToHeight(
            _HEIGHT * rows, Qt.TransformationMode.SmoothTransformation
        )
        self.setPixmap(pixmap)
        self.show()


def preview_of(request: Request, spec: PatchSpec) -> NDArray[np.uint8]:
    """Picture (y, x, 3) of the patches that are nearest to the middle of the view."""
    from napari_mambamic.classify import plan

    plane = request.planes[0]
    cut = ("tile_size", "object_scale", "overlap", "region", "use_pixels")
    settings = {k: v for k, v in request.options.items() if k in cut}
    tiles = plan(plane.image, spec, objects=request.objects[0], **settings)
    view = request.view() if request.view is not None else None
    y, x, height, width = view or (0, 0, *plane.image.plane_shape)
    places = places_of(tiles)
    middles = places[:, :2] + places[:, 2:] / 2
    nearest = np.square(middles - (y + height / 2, x + width / 2)).sum(axis=1).argsort()[:_COUNT]
    patches = read_patches(plane.image, [tiles[i] for i in nearest], spec)
    return picture_of(patches, spec)


def picture_of(patches: NDArray[np.float32], spec: PatchSpec) -> NDArray[np.uint8]:
    """Patches (n, channel, y, x) side by side, in colour, or channel below channel."""
    mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (spec.mean, spec.std))
    shown: Any = np.zeros((_COUNT, *patches.shape[1:]), np.float32)
    shown[: len(patches)] = patches * std + mean
    if spec.is_rgb:
        picture = np.concatenate(list(shown.transpose(0, 2, 3, 1)), axis=1)
    else:
        # Dark channels, such as 12 bits in 16, are stretched so that something is to be seen.
        brightest = np.maximum(shown.max(axis=(0, 2, 3), keepdims=True), 1e-6)
        rows = np.concatenate(list(shown / brightest), axis=2)
        picture = np.repeat(np.concatenate(list(rows), axis=0)[..., np.newaxis], 3, axis=2)
    return (picture.clip(0, 1) * 255).astype(np.uint8)
