"""How a file that another program opened as an array can be read plane by plane by `open_image`.

Other programs do not say which axis of an array is which, or that they left levels out; so the
pixels decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any, Literal

import numpy as np

from napari_mambamic.errors import ImageError
from napari_mambamic.image import ImagePyramid
from napari_mambamic.image_files import open_image

_COMPARED_SIDE = 512  # px
_KEYWORDS: tuple[dict[str, Literal[0]], ...] = ({}, {"channel_axis": 0})


@dataclass(frozen=True)
class Opening:
    """How planes of an array are read from its file.

    Parameters
    ----------
    path : str
    keywords : mapping
        Of `open_image`, for all planes.
    axes : mapping
        Which of the leading axes of the array are z, t and c (a channel a plane).
    channels : tuple of int or None
        Those of the file that the planes have; None: all, or that of axis c.
    n_levels : int or None
        How many of the file's levels the array has, the finest ones; None: all.
    """

    path: str
    keywords: Mapping[str, Any] = field(default_factory=dict)
    axes: Mapping[str, int] = field(default_factory=dict)
    channels: tuple[int, ...] | None = None
    n_levels: int | None = None

    def open(self, plane: Sequence[int]) -> ImagePyramid:
        """Open the plane at a place along the leading axes of the array."""
        places: dict[str, Any] = {key: plane[axis] for key, axis in self.axes.items()}
        channels = [places.pop("c")] if "c" in places else self.channels
        image = open_image(self.path, **self.keywords, **places)
        if channels is not None:
            image = image.with_channels(channels)
        return image if self.n_levels is None else image.with_levels(self.n_levels)


def opening_of(
    path: str, lengths: Mapping[int, int], planes: Mapping[tuple[int, ...], ImagePyramid]
) -> Opening | None:
    """Find how a file gives the planes of an array, to the pixel; None where it does not.

    Of each level, the pixels in its middle are compared.

    Parameters
    ----------
    path : str
    lengths : mapping
        Of the leading axes of the array, but for one that holds the channels of the planes.
    planes : mapping
        Those to compare, by where they lie along the leading axes: as many as tell them apart.
    """
    for candidate in _candidates(path, lengths):
        opening = _fitted(candidate, planes)
        if opening is not None and all(_is_same(opening.open(at), planes[at]) for at in planes):
            return opening
    return None


def _candidates(path: str, lengths: Mapping[int, int]) -> Iterator[Opening]:
    """Which axis may be which, by their lengths; those in the order of the file come first."""
    long = {axis: n for axis, n in lengths.items() if n > 1}
    for keywords in _KEYWORDS:
        try:
            image = open_image(path, **keywords)
        except ImageError:
            continue
        found = {key: n for key, (_, n) in image.stack.items()}
        if len(long) == len(found) + 1:
            found["c"] = image.n_channels
        for axes in permutations(long, len(found)):
            if [long[axis] for axis in axes] == list(found.values()) and len(axes) == len(long):
                yield Opening(path, keywords, dict(zip(found, axes, strict=True)))


def _fitted(opening: Opening, planes: Mapping[tuple[int, ...], ImagePyramid]) -> Opening | None:
    """With those of the file's levels and channels that the planes have."""
    images = {at: opening.open(at) for at in planes}
    image, wanted = next(iter(images.values())), next(iter(planes.values()))
    n_levels = len(wanted.levels)
    if n_levels > len(image.levels) or image.plane_shape != wanted.plane_shape:
        return None
    if n_levels < len(image.levels):
        opening = replace(opening, n_levels=n_levels)
    pixels = [(_middle(images[at], 0), _middle(planes[at], 0)) for at in planes]
    if image.has_colours == wanted.has_colours and all(_equal(*pair) for pair in pixels):
        return opening
    numbers = []
    for channel in range(wanted.n_channels):
        alike = [
            number
            for number in range(image.n_channels)
            if all(_equal(file[..., number], array[..., channel]) for file, array in pixels)
        ]
        if not alike:
            return None
        numbers.append(alike[0])
    return replace(opening, channels=tuple(numbers))


def _is_same(one: ImagePyramid, other: ImagePyramid) -> bool:
    """Whether two images would be classified alike, as far as shapes and some pixels tell."""
    shapes = [[each.shape_of(i) for i in range(len(each.levels))] for each in (one, other)]
    return (
        shapes[0] == shapes[1]
        and (one.n_channels, one.has_colours) == (other.n_channels, other.has_colours)
        and (one.dtype.kind, one.dtype.itemsize) == (other.dtype.kind, other.dtype.itemsize)
        and all(_equal(_middle(one, i), _middle(other, i)) for i in range(len(shapes[0])))
    )


def _middle(image: ImagePyramid, level: int) -> Any:
    height, width = image.shape_of(level)
    rows, columns = min(height, _COMPARED_SIDE), min(width, _COMPARED_SIDE)
    return image.read((height - rows) // 2, (width - columns) // 2, rows, columns, level=level)


def _equal(one: Any, other: Any) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
