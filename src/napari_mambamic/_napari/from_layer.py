"""From napari's layers to images, label images and points of the core: no pixels are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points, Shapes
from numpy.typing import NDArray

from napari_mambamic.errors import ImageError, NothingToClassify
from napari_mambamic.image import ImagePyramid, as_image


class Plane:
    """One plane of an array with more axes, sliced on demand: (y, x) or (y, x, channel)."""

    def __init__(self, data: Any, index: tuple[int, ...]) -> None:
        self._data, self._index = data, index
        self.shape = tuple(data.shape[len(index) :])
        self.dtype = data.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> Any:
        return self._data[(*self._index, *(key if isinstance(key, tuple) else (key,)))]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self._data[self._index], dtype=dtype)


@dataclass(frozen=True)
class LayerPlane:
    """The plane of a layer that is in view.

    Parameters
    ----------
    layer : Image
    image : ImagePyramid
        The plane alone.
    index : tuple of int
        Where it lies along the layer's leading axes; () for a layer of two axes.
    """

    layer: Image
    image: ImagePyramid
    index: tuple[int, ...]

    @property
    def note(self) -> str:
        """What to tell the user about the plane, or nothing."""
        if not self.index:
            return ""
        names = self.layer.axis_labels[: len(self.index)]
        where = ", ".join(f"{name} = {i}" for name, i in zip(names, self.index, strict=True))
        return (
            f"Layer {self.layer.name!r} has {self.layer.ndim} axes: the plane in view ({where}) "
            f"is classified."
        )


def plane_of_layer(viewer: ViewerModel, layer: Layer | None) -> LayerPlane:
    """Take the plane of an image layer that the viewer shows.

    Raises
    ------
    ImageError
        There is no image layer, it is empty, or it is seen from the side.
    """
    if not isinstance(layer, Image):
        what = "no layer is chosen" if layer is None else f"{layer.name!r} is no image layer"
        raise ImageError(
            f"There is no image to classify: {what}. Open an image (File > Open Sample > "
            f"Mambamic has some) and choose it."
        )
    arrays = list(layer.data) if layer.multiscale else [layer.data]
    if 0 in arrays[0].shape:
        raise ImageError(
            f"Image {layer.name!r} is empty: its shape is {tuple(arrays[0].shape)}. Choose another."
        )
    index = _leading_index(viewer, layer)
    planes = [Plane(a, _index_in(a, index, layer)) if index else a for a in arrays]
    image = as_image(
        planes if layer.multiscale else planes[0],
        channel_axis=2 if layer.rgb else None,
        pixel_size_um=_pixel_size_um(layer),
        name=layer.name,
    )
    return LayerPlane(layer, image, index)


def region_in_view(plane: LayerPlane, *, most_pixels: int) -> tuple[int, int, int, int]:
    """The part (y, x, height, width) of a plane that is in view, in px of the image.

    Of a layer that is turned, the upright box around it.  The whole plane when it is small or
    was never drawn; the middle of the view where the view holds more than `most_pixels`.
    """
    shape = np.array(plane.image.plane_shape)
    low, high = np.zeros(2), shape.astype(float)
    if shape.prod() > most_pixels:
        corners = np.asarray(plane.layer.corner_pixels, dtype=np.float64)[:, -2:]
        if plane.layer.multiscale:
            corners = corners * plane.layer.downsample_factors[plane.layer.data_level][-2:]
        if (corners[1] > corners[0]).all():
            low, high = np.clip(corners, 0, shape)
    middle, sides = (low + high) / 2, np.maximum(high - low, 1)
    if sides.prod() > most_pixels:
        longest = most_pixels**0.5
        # A side that is short leaves its pixels to the other one.
        sides = np.minimum(sides, np.maximum(longest, most_pixels / sides[::-1]))
    size = np.minimum(np.maximum(sides.astype(int), 1), shape)
    start = np.clip((middle - size / 2).astype(int), 0, shape - size)
    return int(start[0]), int(start[1]), int(size[0]), int(size[1])


def labels_of_layer(plane: LayerPlane, layer: Layer | None) -> Any:
    """The label image (y, x) that belongs to an image plane.

    Raises
    ------
    ImageError
        There is no Labels layer, or it lies elsewhere than the image.
    """
    if not isinstance(layer, Labels):
        raise ImageError(
            "There are no objects: no Labels layer is chosen. Segment the image first, or cut "
            "it into tiles."
        )
    data = layer.data[0] if layer.multiscale else layer.data
    if data.ndim != len(plane.index) + 2 or tuple(data.shape[-2:]) != plane.image.plane_shape:
        raise ImageError(
            f"Labels layer {layer.name!r} has shape {tuple(data.shape)} and the plane of "
            f"{plane.layer.name!r} is {plane.image.plane_shape[0]} x {plane.image.plane_shape[1]} "
            f"px. Choose labels of this image."
        )
    corners = _plane_corners(plane)
    if not np.allclose(
        _to_world(layer, corners), _to_world(plane.layer, corners), rtol=1e-6, atol=1e-9
    ):
        raise ImageError(
            f"Labels layer {layer.name!r} does not lie on image {plane.layer.name!r}: their scale, "
            f"translation or rotation differ. Give both the same."
        )
    return Plane(data, plane.index) if plane.index else data


def points_of_layer(
    plane: LayerPlane, layer: Layer | None
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Points (n, 2) of (y, x) in px of an image plane, and their numbers in the layer.

    The points go through the world, so the two layers may have different transforms; those of
    other planes are left out.

    Raises
    ------
    ImageError
        There is no Points layer.
    NothingToClassify
        It has no point on the plane.
    """
    if not isinstance(layer, Points):
        raise ImageError(
            "There are no points: no Points layer is chosen. Add one and click on the cells."
        )
    data, on_plane = _on_plane(plane, layer, np.asarray(layer.data).reshape(-1, layer.ndim))
    numbers = np.flatnonzero(on_plane)
    if not len(numbers):
        raise NothingToClassify(
            f"Points layer {layer.name!r} has no points on this plane. Add points on the cells to "
            f"classify."
        )
    return data[numbers], numbers


def vertices_of_layer(plane: LayerPlane, layer: Shapes) -> list[NDArray[np.float64]]:
    """Vertices (n, 2) of (y, x) in px of an image plane, of each shape of a layer.

    Shapes of other planes have no vertices.
    """
    found = []
    for shape in layer.data:
        data, on_plane = _on_plane(plane, layer, np.asarray(shape))
        found.append(data if on_plane.all() else data[:0])
    return found


def _on_plane(
    plane: LayerPlane, layer: Layer, places: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Places (n, 2) in px of the image, and which of them lie on its plane."""
    ndim = plane.layer.ndim
    if layer.ndim > ndim:
        raise ImageError(
            f"Layer {layer.name!r} has {layer.ndim} axes and image {plane.layer.name!r} has "
            f"{ndim}. Choose annotations of this image."
        )
    world = _to_world(layer, places)
    padded = np.zeros((len(world), ndim))
    padded[:, ndim - layer.ndim :] = world
    data = _from_world(plane.layer, padded)
    leading = layer.ndim - 2
    on_plane = np.ones(len(data), bool)
    if leading:
        index = np.array(plane.index[len(plane.index) - leading :])
        on_plane = (np.round(data[:, ndim - 2 - leading : -2]) == index).all(axis=1)
    return data[:, -2:], on_plane


def _leading_index(viewer: ViewerModel, layer: Image) -> tuple[int, ...]:
    leading = layer.ndim - 2
    if not leading:
        return ()
    if tuple(viewer.dims.order[-2:]) != tuple(range(viewer.dims.ndim))[-2:]:
        raise ImageError(
            f"Layer {layer.name!r} is seen from the side: axes {viewer.dims.order} are rolled. "
            f"Reset the order of the axes (the 'roll' button) so that y and x are shown."
        )
    at = layer.world_to_data(np.asarray(viewer.dims.point)[-layer.ndim :])
    shape = (layer.data[0] if layer.multiscale else layer.data).shape
    return tuple(int(np.clip(np.round(at[i]), 0, max(shape[i] - 1, 0))) for i in range(leading))


def _index_in(array: Any, index: tuple[int, ...], layer: Image) -> tuple[int, ...]:
    """The same plane in an array of a pyramid, whose leading axes may be shorter."""
    finest = (layer.data[0] if layer.multiscale else layer.data).shape
    return tuple(i * array.shape[k] // max(finest[k], 1) for k, i in enumerate(index))


def _plane_corners(plane: LayerPlane) -> NDArray[np.float64]:
    height, width = plane.image.plane_shape
    corners = [(0, 0), (0, width), (height, 0), (height, width)]
    return np.array([(*plane.index, *corner) for corner in corners], dtype=np.float64)


def _to_world(layer: Layer, points: NDArray[Any]) -> NDArray[np.float64]:
    """World coordinates (n, ndim) of many points of a layer at once."""
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)))
    steps = np.array([layer.data_to_world(step) for step in np.eye(layer.ndim)]) - origin
    return np.asarray(points, dtype=np.float64) @ steps + origin


def _from_world(layer: Layer, points: NDArray[Any]) -> NDArray[np.float64]:
    """Coordinates (n, ndim) in a layer of many points of the world at once."""
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)))
    steps = np.array([layer.data_to_world(step) for step in np.eye(layer.ndim)]) - origin
    return (points - origin) @ np.linalg.inv(steps)


def _pixel_size_um(layer: Image) -> tuple[float, float] | None:
    """Lengths of a step of one pixel along y and x in the world, where its units are lengths."""
    sizes = []
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)))
    for axis in (-2, -1):
        unit = layer.units[axis]
        if not unit.is_compatible_with("um"):
            return None
        step = np.asarray(layer.data_to_world(np.eye(layer.ndim)[axis])) - origin
        sizes.append(float((np.linalg.norm(step[-2:]) * unit).to("um").magnitude))
    return (sizes[0], sizes[1]) if min(sizes) > 0 else None
