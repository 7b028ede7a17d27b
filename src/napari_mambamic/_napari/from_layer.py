"""From napari's layers to images, label images and points of the core: hardly a pixel is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
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

    @property
    def chunks(self) -> Any:
        """Sizes of the blocks along each axis, as the array tells them, or None."""
        chunks = getattr(self._data, "chunks", None)
        return None if chunks is None else chunks[len(self._index) :]

    def __getitem__(self, key: Any) -> Any:
        return self._data[(*self._index, *(key if isinstance(key, tuple) else (key,)))]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self._data[self._index], dtype=dtype)


class Channels:
    """Planes of one shape and type as the channels of one array (channel, y, x)."""

    def __init__(self, planes: Sequence[Any]) -> None:
        self._planes = planes
        self.shape = (len(planes), *planes[0].shape)
        self.dtype = planes[0].dtype
        self.ndim = 3

    @property
    def chunks(self) -> Any:
        """Sizes of the blocks along each axis, or None."""
        chunks = getattr(self._planes[0], "chunks", None)
        return None if chunks is None else (len(self._planes), *chunks)

    def __getitem__(self, key: Any) -> Any:
        channels, *place = key if isinstance(key, tuple) else (key,)
        if isinstance(channels, (int, np.integer)):
            return np.asarray(self._planes[channels][tuple(place)])
        return np.stack([np.asarray(p[tuple(place)]) for p in self._planes[channels]])


@dataclass(frozen=True)
class ChannelSource:
    """Where a channel comes from: a grey layer, or one place along an axis of a layer."""

    layer: Image
    axis: int | None = None
    number: int = 0

    @property
    def name(self) -> str:
        """For people."""
        return self.layer.name if self.axis is None else f"{self.layer.name}, channel {self.number}"


@dataclass(frozen=True)
class LayerPlane:
    """A plane of a layer, such as the one in view.

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
        # Axes that nobody named are "-3" and so on, which reads like a place.
        named = [f"axis {i}" if name.startswith("-") else name for i, name in enumerate(names)]
        where = ", ".join(f"{name} = {i}" for name, i in zip(named, self.index, strict=True))
        return (
            f"Layer {self.layer.name!r} has {self.layer.ndim} axes: the plane at {where} is "
            f"classified."
        )

    def at_first_channel(self, channel_axis: int | None) -> LayerPlane:
        """The same plane, however far along an axis of channels its layer is looked at."""
        if channel_axis is None:
            return self
        index = (*self.index[:channel_axis], 0, *self.index[channel_axis + 1 :])
        return replace(self, index=index)


def plane_of_layer(
    viewer: ViewerModel,
    layer: Layer | None,
    *,
    channels: Sequence[ChannelSource] | None = None,
    index: tuple[int, ...] | None = None,
) -> LayerPlane:
    """Take the plane of an image layer that the viewer shows.

    Parameters
    ----------
    viewer : napari.Viewer
    layer : Image
    channels : sequence of ChannelSource, optional
        What the channels of the image are, in the order of the weights; by default those of the
        layer.
    index : tuple of int, optional
        The plane along the leading axes; by default the one in view.

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
    index = _leading_index(viewer, layer) if index is None else index
    if channels:
        return _of_channels(layer, index, channels)
    return plane_at(layer, index)


def plane_at(layer: Image, index: tuple[int, ...]) -> LayerPlane:
    """The plane of an image layer at a place along its leading axes."""
    arrays = list(layer.data) if layer.multiscale else [layer.data]
    planes = [Plane(a, _index_in(a, index, layer)) if index else a for a in arrays]
    image = as_image(
        planes if layer.multiscale else planes[0],
        channel_axis=2 if layer.rgb else None,
        pixel_size_um=_pixel_size_um(layer),
        name=layer.name,
    )
    return LayerPlane(layer, image, index)


def _of_channels(
    layer: Image, index: tuple[int, ...], channels: Sequence[ChannelSource]
) -> LayerPlane:
    """A plane whose channels come from several layers, or from an axis of one."""
    height_width = _shape(layer)[-2:]
    kinds = {np.dtype(source.layer.dtype) for source in channels}
    if len(kinds) > 1:
        raise ImageError(
            f"The channels have different pixel types: "
            f"{', '.join(f'{s.name} {s.layer.dtype}' for s in channels)}. Convert them to one type."
        )
    plane = LayerPlane(layer, as_image(np.broadcast_to(np.uint8(0), height_width)), index)
    for source in channels:
        other = source.layer
        if _shape(other)[-2:] != height_width or other.rgb or not _lies_on(other, plane):
            raise ImageError(
                f"Layer {other.name!r} cannot be a channel of {layer.name!r}: it has another "
                f"shape, place or kind. Choose grey layers that lie on each other."
            )
    n_levels = min(len(s.layer.data) if s.layer.multiscale else 1 for s in channels)
    levels = []
    for level in range(n_levels):
        planes = []
        for source in channels:
            other = source.layer
            data = other.data[level] if other.multiscale else other.data
            at = index if other.ndim == layer.ndim else index[len(index) - (other.ndim - 2) :]
            at = _index_in(data, at, other)
            if source.axis is not None:
                at = (*at[: source.axis], source.number, *at[source.axis + 1 :])
            planes.append(Plane(data, at))
        levels.append(Channels(planes))
    image = as_image(
        levels if n_levels > 1 else levels[0],
        channel_axis=0,
        pixel_size_um=_pixel_size_um(layer),
        name=" + ".join(dict.fromkeys(source.layer.name for source in channels)),
    )
    return LayerPlane(layer, image, index)


def finest_of(layer: Layer) -> Any:
    """The pixels of a layer at level 0."""
    return layer.data[0] if layer.multiscale else layer.data


def _shape(layer: Layer) -> tuple[int, ...]:
    return tuple(finest_of(layer).shape)


def _lies_on(layer: Layer, plane: LayerPlane) -> bool:
    """Whether the pixels of a layer are at the same places of the world as those of a plane."""
    corners = _plane_corners(plane)
    ours, theirs = (
        _to_world(each, corners[:, -each.ndim :])[:, -2:] for each in (layer, plane.layer)
    )
    return bool(np.allclose(ours, theirs, rtol=1e-6, atol=1e-9))


def view_of_plane(plane: LayerPlane) -> tuple[float, float, float, float] | None:
    """The part (y, x, height, width) of an image plane that the viewer shows, in its px.

    Of a turned layer, the box around it; None where nothing of it is in view.
    """
    corners = plane.layer.corner_pixels[:, -2:].astype(float)
    if plane.layer.multiscale:
        corners *= plane.layer.downsample_factors[plane.layer.data_level][-2:]
    first, stop = corners
    shape = np.array(plane.image.plane_shape)
    first, stop = first.clip(0, shape), (stop + 1).clip(0, shape)
    if (stop <= first).any() or ((first <= 0).all() and (stop >= shape).all()):
        return None
    height, width = stop - first
    return float(first[0]), float(first[1]), float(height), float(width)


def region_in_view(plane: LayerPlane, *, most_pixels: int) -> tuple[int, int, int, int]:
    """The part (y, x, height, width) of a plane that is in view, in px of the image.

    Of a layer that is turned, the upright box around it.  The whole plane when it is small or
    was never drawn; the middle of the view where the view holds more than `most_pixels`.
    """
    shape = np.array(plane.image.plane_shape)
    low, high = np.zeros(2), shape.astype(float)
    if shape.prod() > most_pixels:
        view = view_of_plane(plane)
        if view is not None:
            low, high = np.array(view[:2]), np.add(view[:2], view[2:])
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
    data = finest_of(layer)
    index = index_in_labels(plane, data)
    if len(index) != data.ndim - 2 or tuple(data.shape[-2:]) != plane.image.plane_shape:
        raise ImageError(
            f"Labels layer {layer.name!r} has shape {tuple(data.shape)} and the plane of "
            f"{plane.layer.name!r} is {plane.image.plane_shape[0]} x {plane.image.plane_shape[1]} "
            f"px. Choose labels of this image."
        )
    pixels = finest_of(plane.layer)
    lengths = pixels.shape[len(plane.index) - len(index) : len(plane.index)]
    fits = all(n in (1, m) for n, m in zip(data.shape, lengths, strict=False))
    if not fits or any(i >= n for i, n in zip(index, data.shape, strict=False)):
        raise ImageError(
            f"Labels layer {layer.name!r} has shape {tuple(data.shape)}, and napari lays its first "
            f"axes on those of image {plane.layer.name!r} with {' x '.join(map(str, lengths))} "
            f"planes. Choose labels of this image; along an axis of channels, repeat them."
        )
    if not _lies_on(layer, plane):
        raise ImageError(
            f"Labels layer {layer.name!r} does not lie on image {plane.layer.name!r}: their scale, "
            f"translation or rotation differ. Give both the same."
        )
    return Plane(data, index) if index else data


def index_in_labels(plane: LayerPlane, data: Any) -> tuple[int, ...]:
    """Where a plane lies along the leading axes of labels, which may lack the first ones.

    Labels (y, x) of an image (channel, y, x) belong to all of its channels.
    """
    count = data.ndim - 2
    return plane.index[len(plane.index) - count :] if 0 < count <= len(plane.index) else ()


def points_of_layer(
    plane: LayerPlane, layer: Layer | None, *, channel_axis: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Points (n, 2) of (y, x) in px of an image plane, and their numbers in the layer.

    The points go through the world, so the two layers may have different transforms; those of
    other planes are left out, but not those of other channels along `channel_axis`.

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
    places = np.asarray(layer.data).reshape(-1, layer.ndim)
    data, on_plane = _on_plane(plane, layer, places, channel_axis)
    numbers = np.flatnonzero(on_plane)
    if not len(numbers):
        raise NothingToClassify(
            f"Points layer {layer.name!r} has no points on this plane. Add points on the cells to "
            f"classify."
        )
    return data[numbers], numbers


def points_in_image(image: Image, layer: Points) -> NDArray[np.float64]:
    """All points of a layer in px of an image: (n, axes), the last of the image's axes."""
    return _places_in_image(image, layer, np.asarray(layer.data).reshape(-1, layer.ndim))


def vertices_of_layer(plane: LayerPlane, layer: Shapes) -> list[NDArray[np.float64]]:
    """Vertices (n, 2) of (y, x) in px of an image plane, of each shape of a layer.

    Shapes of other planes have no vertices.
    """
    place = plane.index[_first_axis(plane.layer, layer) :]
    found = []
    for vertices in _vertices_in_image(plane.layer, layer):
        on_plane = (np.round(vertices[:, :-2]) == place).all()
        found.append(vertices[:, -2:] if on_plane else vertices[:0, -2:])
    return found


def areas_of_planes(
    planes: Sequence[LayerPlane], layer: Layer, *, channel_axis: int | None = None
) -> dict[tuple[int, ...], Any]:
    """What limits each of some planes of an image, by where they lie.

    The polygons of a Shapes layer, or the mask of a Labels layer.  A shape that was drawn on a
    plane limits that one alone, at whichever channel along `channel_axis` it was drawn; shapes and
    masks (y, x) limit all.  Planes on which there is no shape are left out.

    Raises
    ------
    ImageError
        The layer is of another kind, or lies elsewhere.
    NothingToClassify
        There is no shape on any of the planes.
    """
    if isinstance(layer, Labels):
        return {plane.index: labels_of_layer(plane, layer) for plane in planes}
    if not isinstance(layer, Shapes):
        raise ImageError(
            f"Layer {layer.name!r} does not tell where to classify. Choose a Shapes or Labels "
            f"layer."
        )
    image = planes[0].layer
    axes = range(_first_axis(image, layer), image.ndim - 2)
    columns = [column for column, axis in enumerate(axes) if axis != channel_axis]
    polygons: dict[tuple[int, ...], list[NDArray[np.float64]]] = {}
    for vertices, kind in zip(_vertices_in_image(image, layer), layer.shape_type, strict=True):
        places = np.round(vertices[:, columns]).astype(int)
        if (places == places[0]).all() and _has_area(vertices, kind):
            place = tuple(places[0].tolist())
            polygons.setdefault(place, []).append(polygon_of(vertices[:, -2:], kind))
    found = {}
    for plane in planes:
        place = tuple(plane.index[axes[column]] for column in columns)
        if place in polygons:
            found[plane.index] = polygons[place]
    if not found:
        where = "this plane" if len(planes) == 1 else f"any of the {len(planes)} planes"
        raise NothingToClassify(
            f"Shapes layer {layer.name!r} has no area on {where}. Draw around what is meant."
        )
    return found


def regions_of_shapes(plane: LayerPlane, layer: Shapes) -> dict[str, list[NDArray[np.float64]]]:
    """Polygons (k, 2) of (y, x) in px of an image plane, by name; shapes of one name are a region.

    The name is what the shape has in the first column of text of the layer's features, else its
    number, "shape 1" being the first.

    Raises
    ------
    NothingToClassify
        There is no shape that has an area on the plane.
    """
    names = _texts(layer)
    regions: dict[str, list[NDArray[np.float64]]] = {}
    for name, vertices, kind in zip(
        names, vertices_of_layer(plane, layer), layer.shape_type, strict=True
    ):
        if _has_area(vertices, kind):
            regions.setdefault(name, []).append(polygon_of(vertices, kind))
    if not regions:
        raise NothingToClassify(
            f"Shapes layer {layer.name!r} has no area on this plane. Draw around what is meant."
        )
    return regions


def _texts(layer: Shapes) -> list[str]:
    """What each shape is called."""
    for _, column in layer.features.items():
        known = [str(v).strip() if isinstance(v, str) else "" for v in column]
        if any(known):
            return [text or f"shape {i}" for i, text in enumerate(known, start=1)]
    return [f"shape {i}" for i in range(1, len(layer.data) + 1)]


def _has_area(vertices: NDArray[np.float64], kind: str) -> bool:
    return len(vertices) > 2 and kind not in ("line", "path")


def polygon_of(vertices: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """Polygon (k, 2) of a shape; an ellipse is given by the corners of its box."""
    return _ellipse(vertices) if kind == "ellipse" else vertices


def _ellipse(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Polygon (64, 2) of the ellipse in a box, which is given by its four corners."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)[:, np.newaxis]
    one, other = (box[1] - box[0]) / 2, (box[3] - box[0]) / 2
    polygon: NDArray[np.float64] = box.mean(axis=0) + np.cos(angle) * one + np.sin(angle) * other
    return polygon


def _vertices_in_image(image: Image, layer: Shapes) -> list[NDArray[np.float64]]:
    """Vertices (n, axes of the layer) of each shape, in px of an image; see `_places_in_image`."""
    shapes = [np.asarray(shape, float) for shape in layer.data]
    if not shapes:
        return []
    ends = np.cumsum([len(shape) for shape in shapes])[:-1]
    return np.split(_places_in_image(image, layer, np.concatenate(shapes)), ends)


def _on_plane(
    plane: LayerPlane, layer: Layer, places: NDArray[Any], channel_axis: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Places (n, 2) in px of the image, and which of them lie on its plane."""
    data = _places_in_image(plane.layer, layer, places)
    first = _first_axis(plane.layer, layer)
    axes = [axis for axis in range(first, len(plane.index)) if axis != channel_axis]
    there = np.round(data[:, [axis - first for axis in axes]])
    return data[:, -2:], (there == np.array(plane.index)[axes]).all(axis=1)


def _places_in_image(image: Image, layer: Layer, places: NDArray[Any]) -> NDArray[np.float64]:
    """Places (n, axes of the layer) in px of an image, which may have more axes before those."""
    first = _first_axis(image, layer)
    world = _to_world(layer, places)
    padded = np.zeros((len(world), image.ndim))
    padded[:, first:] = world
    return _from_world(image, padded)[:, first:]


def _first_axis(image: Image, layer: Layer) -> int:
    """The axis of an image that the first one of a layer belongs to."""
    if layer.ndim > image.ndim:
        raise ImageError(
            f"Layer {layer.name!r} has {layer.ndim} axes and image {image.name!r} has "
            f"{image.ndim}. Choose annotations of this image."
        )
    return image.ndim - layer.ndim


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
    shape = _shape(layer)
    return tuple(int(np.clip(np.round(at[i]), 0, max(shape[i] - 1, 0))) for i in range(leading))


def _index_in(array: Any, index: tuple[int, ...], layer: Image) -> tuple[int, ...]:
    """The same plane in an array of a pyramid, whose leading axes may be shorter."""
    finest = _shape(layer)
    return tuple(i * array.shape[k] // max(finest[k], 1) for k, i in enumerate(index))


def _plane_corners(plane: LayerPlane) -> NDArray[np.float64]:
    height, width = plane.image.plane_shape
    corners = [(0, 0), (0, width), (height, 0), (height, width)]
    return np.array([(*plane.index, *corner) for corner in corners], dtype=np.float64)


def _to_world(layer: Layer, points: NDArray[Any]) -> NDArray[np.float64]:
    """World coordinates (n, ndim) of many points of a layer at once."""
    origin, steps = _origin_and_steps(layer)
    return np.asarray(points, dtype=np.float64) @ steps + origin


def _from_world(layer: Layer, points: NDArray[Any]) -> NDArray[np.float64]:
    """Coordinates (n, ndim) in a layer of many points of the world at once."""
    origin, steps = _origin_and_steps(layer)
    return (points - origin) @ np.linalg.inv(steps)


def _origin_and_steps(layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """In the world, where a layer's first pixel is, and the steps (ndim, ndim) of one pixel."""
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)))
    steps = np.array([layer.data_to_world(step) for step in np.eye(layer.ndim)]) - origin
    return origin, steps


def _pixel_size_um(layer: Image) -> tuple[float, float] | None:
    """Lengths of a step of one pixel along y and x in the world, where its units are lengths."""
    sizes = []
    _, steps = _origin_and_steps(layer)
    for axis in (-2, -1):
        unit = layer.units[axis]
        if not unit.is_compatible_with("um"):
            return None
        sizes.append(float((np.linalg.norm(steps[axis, -2:]) * unit).to("um").magnitude))
    return (sizes[0], sizes[1]) if min(sizes) > 0 else None


def some_pixels_of(layer: Image) -> str:
    """A digest that tells images in memory apart that have the same name and size.

    Of an image that is a file, or that is read piece by piece, it is empty: its path or name has
    to do.
    """
    data = finest_of(layer)
    if layer.source.path is not None or not isinstance(data, np.ndarray):
        return ""
    some = data[tuple(slice(None, None, max(1, length // 64)) for length in data.shape)]
    return hashlib.sha256(np.ascontiguousarray(some).tobytes()).hexdigest()
