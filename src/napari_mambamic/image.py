"""Pixels that are read on demand, with their axes and their pixel size.

An image is anything that napari can show: numpy, dask, zarr, or a list of such arrays, finest
first.  Nothing is read before `ImagePyramid.read`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.chunks import ChunkCache, ChunkedArray
from napari_mambamic.errors import ImageError

_LARGEST_KEPT = 2**26  # bytes of a block


@dataclass(frozen=True)
class ImageLevel:
    """One resolution of an image.

    Parameters
    ----------
    data : array-like
        Has ``shape``, ``dtype`` and slicing; (y, x), (y, x, channel) or (channel, y, x).
    downsample : (float, float)
        Pixels of level 0 per pixel of this level, along (y, x).
    """

    data: Any
    downsample: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class ImagePyramid:
    """A plane of pixels at one or more resolutions.

    Parameters
    ----------
    levels : tuple of ImageLevel
        Finest first; all with the same axes.
    channel_axis : 0, 2 or None
        Where the channels are; None is a grey plane (y, x).
    pixel_size_um : (float, float) or None
        Micrometres per pixel of level 0 along (y, x); None when unknown.
    name : str
        Used in messages and in the provenance of results.
    chosen_channels : tuple of int or None
        The channels that are read, in this order; None: all.
    note : str
        What is to be told about the image, in sentences: which plane of a stack it is, what is
        missing in its file.
    path : str
        Absolute path of the file or folder that it was opened from; empty for pixels in memory.
    opened_with : mapping
        The keywords of `open_image` that it was opened with, but for those left at their defaults.
    stack : mapping
        Of a plane of a stack, by axis ("z", "t") in the order of the file: which plane it is, and
        of how many.
    colours_first : bool
        Channels in front of the plane are known to be RGB or RGBA: a planar TIFF.
    """

    levels: tuple[ImageLevel, ...]
    channel_axis: Literal[0, 2] | None = None
    pixel_size_um: tuple[float, float] | None = None
    name: str = "image"
    chosen_channels: tuple[int, ...] | None = None
    note: str = ""
    path: str = ""
    opened_with: Mapping[str, Any] = field(default_factory=dict)
    stack: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    colours_first: bool = False

    @property
    def plane_shape(self) -> tuple[int, int]:
        """(height, width) of level 0 in pixels."""
        return self.shape_of(0)

    def shape_of(self, level: int) -> tuple[int, int]:
        """(height, width) of a level in its own pixels."""
        shape = [int(n) for n in self.levels[level].data.shape]
        if self.channel_axis is not None:
            del shape[self.channel_axis]
        return shape[0], shape[1]

    @property
    def n_channels(self) -> int:
        """Channels of every pixel that is read; 1 for a grey plane."""
        if self.chosen_channels is not None:
            return len(self.chosen_channels)
        if self.channel_axis is None:
            return 1
        return int(self.levels[0].data.shape[self.channel_axis])

    @property
    def has_colours(self) -> bool:
        """Whether the channels are RGB or RGBA: 3 or 4 known to be colours, none chosen.

        Those at the end of each pixel are; those in front of the plane where the file says so.
        """
        are_colours = self.channel_axis == 2 or self.colours_first
        return are_colours and self.n_channels in (3, 4) and not self.chosen_channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        dtype: np.dtype[Any] = np.dtype(self.levels[0].data.dtype)
        return dtype

    def read(self, y: int, x: int, height: int, width: int, *, level: int = 0) -> NDArray[Any]:
        """Read the window that starts at (y, x) of a level, which must lie inside it.

        Returns
        -------
        ndarray
            (height, width, channel) in the image's own dtype.
        """
        return self._pixels(level, slice(y, y + height), slice(x, x + width))

    def overview(self, step: int) -> NDArray[Any]:
        """Every `step`-th pixel of level 0 along both axes: (rows, columns, channel).

        Of a pyramid, the pixels of the coarsest level that has as many are taken.
        """
        level, strides = self._overview(step)
        return self._pixels(level, *(slice(None, None, stride) for stride in strides))

    def overview_spacing(self, step: int) -> tuple[float, float]:
        """Px of level 0 between the pixels of an overview, along (y, x)."""
        level, strides = self._overview(step)
        down = self.levels[level].downsample
        return strides[0] * down[0], strides[1] * down[1]

    def _overview(self, step: int) -> tuple[int, tuple[int, int]]:
        level = self.level_for(step)
        down = self.levels[level].downsample
        return level, (max(1, round(step / down[0])), max(1, round(step / down[1])))

    def level_for(self, downsample: float) -> int:
        """The coarsest level with at most `downsample` px of level 0 per px."""
        fit = [
            i for i, level in enumerate(self.levels) if max(level.downsample) <= downsample + 0.01
        ]
        return max(fit, default=0)

    def chunk_shape(self, level: int = 0) -> tuple[int, int] | None:
        """(height, width) of the blocks that a level is stored in; None where it lies in memory."""
        chunks = getattr(self.levels[level].data, "chunks", None)
        if chunks is None:
            return None
        axes = [axis for axis in range(len(chunks)) if axis != self.channel_axis]
        # Dask tells the sizes of all blocks along an axis, zarr that of one.
        height, width = (np.max(chunks[axis]) for axis in axes[:2])
        return int(height), int(width)

    def with_channels(self, channels: Sequence[int]) -> ImagePyramid:
        """The same image with some of its channels, counted from 0, in a given order.

        Raises
        ------
        ImageError
            There is no such channel.
        """
        everything = replace(self, chosen_channels=None)
        wrong = [c for c in channels if not 0 <= c < everything.n_channels]
        if wrong or not channels:
            raise ImageError(
                f"Image {self.name!r} has {everything.n_channels} channels, counted from 0, and "
                f"{list(channels)} were chosen. Choose among them."
            )
        return replace(self, chosen_channels=tuple(int(c) for c in channels))

    def with_levels(self, n: int) -> ImagePyramid:
        """The same image with its `n` finest levels alone."""
        return replace(self, levels=self.levels[:n])

    def with_chunk_cache(self) -> ImagePyramid:
        """The same image, with the blocks of dask and zarr arrays kept that were read last."""
        cache = ChunkCache()
        levels = tuple(
            replace(level, data=_cached(level.data, cache, self.channel_axis, self.name))
            for level in self.levels
        )
        return replace(self, levels=levels)

    def _pixels(self, level: int, rows: slice, columns: slice) -> NDArray[Any]:
        data, chosen = self.levels[level].data, self.chosen_channels
        if self.channel_axis == 0:
            if chosen is None:
                return np.moveaxis(np.asarray(data[:, rows, columns]), 0, 2)
            planes = {c: np.asarray(data[c : c + 1, rows, columns])[0] for c in set(chosen)}
            return np.stack([planes[c] for c in chosen], axis=2)
        window = np.asarray(data[rows, columns])
        if self.channel_axis is None:
            window = window[:, :, np.newaxis]
        return window if chosen is None else window[:, :, list(chosen)]


def as_image(
    image: Any,
    *,
    channel_axis: Literal["auto", 0, 2] | None = "auto",
    pixel_size_um: float | tuple[float, float] | None = None,
    name: str = "image",
) -> ImagePyramid:
    """Make an `ImagePyramid` of an array, or of a list of arrays (multiscale, finest first).

    Parameters
    ----------
    image : array-like, sequence of array-like or ImagePyramid
        A plane (y, x), (y, x, channel) or (channel, y, x).  It is not copied.
    channel_axis : "auto", 0, 2 or None
        "auto": a third axis of length 3 or 4 at the end is RGB or RGBA; any other third axis must
        be named.
    pixel_size_um : float or (float, float), optional
        Micrometres per pixel.
    name : str
        Used in messages.

    Raises
    ------
    ImageError
        The image is empty, a single pixel, or has axes that cannot be told apart.
    """
    if isinstance(image, ImagePyramid):
        return image
    is_multiscale = isinstance(image, (list, tuple)) or type(image).__name__ == "MultiScaleData"
    arrays = list(image) if is_multiscale else [image]
    arrays = [a if hasattr(a, "shape") and hasattr(a, "dtype") else np.asarray(a) for a in arrays]
    if not arrays:
        raise ImageError(f"Image {name!r} is an empty list. Give at least one array.")
    shape = tuple(int(n) for n in arrays[0].shape)
    if len(shape) not in (2, 3):
        raise ImageError(
            f"Image {name!r} has {len(shape)} axes, shape {shape}. Give one plane: (y, x), "
            f"(y, x, channel) or (channel, y, x)."
        )
    axis = _channel_axis_of(shape, channel_axis, name)
    if isinstance(pixel_size_um, (int, float)):
        pixel_size_um = (float(pixel_size_um), float(pixel_size_um))
    if pixel_size_um is not None and not all(np.isfinite(s) and s > 0 for s in pixel_size_um):
        raise ImageError(
            f"The pixel size of image {name!r} is {pixel_size_um} um. Give positive numbers."
        )
    pyramid = ImagePyramid(
        _levels(arrays, axis), channel_axis=axis, pixel_size_um=pixel_size_um, name=name
    )
    height, width = pyramid.plane_shape
    if not height * width * pyramid.n_channels:
        raise ImageError(f"Image {name!r} is empty: its shape is {shape}. Open another image.")
    if height * width == 1:
        raise ImageError(
            f"Image {name!r} is a single pixel: its shape is {shape}. There is nothing to see in "
            f"it; open another image."
        )
    return pyramid


def _channel_axis_of(
    shape: tuple[int, ...], wanted: Literal["auto", 0, 2] | None, name: str
) -> Literal[0, 2] | None:
    """The axis of the channels of a plane; "auto" as in `as_image`."""
    if wanted != "auto":
        if (wanted is None) != (len(shape) == 2):
            raise ImageError(
                f"Image {name!r} has shape {shape}, which does not fit channel_axis={wanted}."
            )
        return wanted
    if len(shape) == 2:
        return None
    if shape[2] in (3, 4):
        return 2
    raise ImageError(
        f"Image {name!r} has shape {shape}: it is not clear which axis holds the channels. "
        f"Give one plane, or channel_axis=0 or channel_axis=2."
    )


def join_channels(images: Sequence[ImagePyramid]) -> ImagePyramid:
    """Make one image of the channels of several, such as a file for each stain.

    They are read when the image is, and of their levels those that all have.  The pixel size is
    that of the first.

    Raises
    ------
    ImageError
        There is no image, or they differ in size, levels or type.
    """
    if not images:
        raise ImageError("There are no images to take channels from. Give at least one.")
    n_levels = min(len(image.levels) for image in images)
    shapes = [[image.shape_of(level) for level in range(n_levels)] for image in images]
    for image, shape in zip(images, shapes, strict=True):
        if shape != shapes[0] or image.dtype != images[0].dtype:
            told = [
                f"{each.name!r} ({each.plane_shape[0]} x {each.plane_shape[1]} px, {each.dtype})"
                for each in (images[0], image)
            ]
            raise ImageError(
                f"Images {' and '.join(told)} cannot be channels of one: they differ in size, "
                f"levels or type. Give images of the same pixels."
            )
    levels = tuple(
        replace(level, data=_Joined(tuple(images), number))
        for number, level in enumerate(images[0].levels[:n_levels])
    )
    return ImagePyramid(
        levels,
        channel_axis=0,
        pixel_size_um=images[0].pixel_size_um,
        name=" + ".join(dict.fromkeys(image.name for image in images)),
    )


class _Joined:
    """The channels of several images at one level, (channel, y, x), read on demand."""

    def __init__(self, images: tuple[ImagePyramid, ...], level: int) -> None:
        self._level = level
        self._channels = [(image, c) for image in images for c in range(image.n_channels)]
        self.shape = (len(self._channels), *images[0].shape_of(level))
        self.dtype = images[0].dtype
        self.ndim = 3

    @property
    def chunks(self) -> tuple[int, int, int] | None:
        """Sizes of the blocks along each axis, or None."""
        chunk = self._channels[0][0].chunk_shape(self._level)
        return None if chunk is None else (self.shape[0], *chunk)

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[Any]:
        channels, rows, columns = key
        chosen = self._channels[channels]
        read = {id(image): image._pixels(self._level, rows, columns) for image, _ in chosen}
        return np.stack([read[id(image)][..., c] for image, c in chosen])


def _cached(data: Any, cache: ChunkCache, channel_axis: Literal[0, 2] | None, name: str) -> Any:
    chunks = getattr(data, "chunks", None)
    if chunks is None or isinstance(data, ChunkedArray):
        return data
    if any(len(set(sizes[:-1])) > 1 for sizes in chunks if isinstance(sizes, tuple)):
        return data  # blocks of several sizes
    sides = tuple(int(np.max(sizes)) for sizes in chunks)
    if np.prod(sides, dtype=float) * np.dtype(data.dtype).itemsize > _LARGEST_KEPT:
        return data

    def read(index: tuple[int, ...]) -> NDArray[Any]:
        block = [slice(i * n, (i + 1) * n) for i, n in zip(index, sides, strict=True)]
        return np.asarray(data[tuple(block)])

    shape = tuple(data.shape)
    return ChunkedArray(
        shape, sides, data.dtype, read, cache=cache, channel_axis=channel_axis, name=name
    )


def _levels(arrays: Sequence[Any], axis: int | None) -> tuple[ImageLevel, ...]:
    planes = [tuple(n for i, n in enumerate(a.shape) if i != axis) for a in arrays]
    return tuple(
        ImageLevel(array, (planes[0][0] / max(p[0], 1), planes[0][1] / max(p[1], 1)))
        for array, p in zip(arrays, planes, strict=True)
    )
