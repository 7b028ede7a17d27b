"""OME-Zarr images and plain zarr arrays -> ImagePyramid, without reading pixels."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import zarr

from napari_mambamic.chunks import (
    LARGEST_CHUNK_BYTES,
    ChunkCache,
    ChunkedArray,
    Index,
    check_chunk_size,
    said_by,
)
from napari_mambamic.errors import ImageError
from napari_mambamic.image import ImagePyramid, as_image
from napari_mambamic.image_files.pixel_size import PixelSize, pixel_size_of_ngff
from napari_mambamic.image_files.stack import PlaneOfStack, plane_of_stack

_MOST_CHUNKS_COUNTED = 200_000  # files that are looked for when the image is opened: a second


def open_zarr(
    path: Path,
    *,
    series: int = 0,
    z: int | None = None,
    t: int | None = None,
    channel_axis: Literal["auto", 0, 2] = "auto",
    pixel_size_um: float | PixelSize | None = None,
    cache: ChunkCache,
) -> ImagePyramid:
    """Open one image of a zarr folder (versions 2 and 3); see `image_files.open_image`."""
    name = str(path)
    try:
        node = zarr.open(str(path), mode="r")
        arrays, axes, found, notes = (
            ([node], _axes_of_array(node, channel_axis, name), None, [])
            if isinstance(node, zarr.Array)
            else _multiscale(node, series, path)
        )
        plane = plane_of_stack(axes, arrays[0].shape, z=z, t=t, name=name)
        notes += [plane.note, _note_on_missing_chunks(arrays[0], name)]
        levels = [_level(array, plane, cache, path) for array in arrays]
    except (ImageError, OSError):
        raise
    except Exception as error:  # zarr raises anything on damaged metadata
        raise ImageError(
            f"{path} cannot be read as an image: {said_by(error)}. The folder is damaged or no "
            f"zarr image; get another copy of it."
        ) from error
    image = as_image(
        levels,
        channel_axis=plane.channel_axis,
        pixel_size_um=found if pixel_size_um is None else pixel_size_um,
        name=path.name,
    )
    return replace(image, note=" ".join(filter(None, notes)), stack=plane.places)


def _multiscale(
    group: zarr.Group, series: int, path: Path
) -> tuple[list[zarr.Array[Any]], list[str], PixelSize | None, list[str]]:
    """The levels of an OME-Zarr image, its axes, its pixel size, and what is to be told."""
    about = _about(group)
    if "bioformats2raw.layout" in about:
        inner = group.get(str(series))
        if not isinstance(inner, zarr.Group):
            raise ImageError(f"{path} holds no image series={series}. Choose a lower number.")
        group, about, series = inner, _about(inner), 0
    images = about.get("multiscales")
    if not images:
        what = "a plate" if "plate" in about else "a well" if "well" in about else "a folder"
        raise ImageError(
            f"{path} is {what} of images or arrays, not an image itself. Open one of those in it: "
            f"{', '.join(sorted(group.keys())[:6]) or '(it is empty)'}."
        )
    if not 0 <= series < len(images):
        raise ImageError(
            f"{path} holds {len(images)} images, and series={series} was asked for. Choose "
            f"one of 0 to {len(images) - 1}."
        )
    image = images[series]
    axes = image.get("axes") or [{"name": name} for name in "tczyx"]  # before version 0.3
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in axes]
    names = [str(axis["name"]).upper() for axis in axes]
    arrays: list[zarr.Array[Any]] = []
    notes = []
    for i, dataset in enumerate(image["datasets"]):
        try:
            array = group[dataset["path"]]
        except KeyError:
            array = None
        if isinstance(array, zarr.Array) and (not i or _is_coarser(array, arrays[-1], names)):
            arrays.append(array)
        elif not i:
            raise ImageError(
                f"{path} has no level 0: {dataset['path']!r} is missing. Get another copy of "
                f"the folder."
            )
        else:
            notes.append(f"Level {i} of {path} is missing or damaged, and left out.")
    if len(axes) != arrays[0].ndim:
        raise ImageError(
            f"{path} is damaged: it has {arrays[0].ndim} axes and names {len(axes)}. Get "
            f"another copy of the folder."
        )
    transforms = [
        *image["datasets"][0].get("coordinateTransformations", []),
        *image.get("coordinateTransformations", []),
    ]
    return arrays, names, pixel_size_of_ngff(axes, transforms), notes


def _about(group: zarr.Group) -> dict[str, Any]:
    attributes = dict(group.attrs)
    about = attributes.get("ome", attributes)  # from version 0.5 on, all is under "ome"
    return about if isinstance(about, dict) else {}


def _is_coarser(array: zarr.Array[Any], finer: zarr.Array[Any], axes: Sequence[str]) -> bool:
    """Whether a level is one of the same stack: smaller along y and x alone."""
    return (
        array.ndim == finer.ndim == len(axes)
        and array.dtype == finer.dtype
        and all(
            0 < n <= m if axis in ("Y", "X") else n == m
            for axis, n, m in zip(axes, array.shape, finer.shape, strict=True)
        )
    )


def _axes_of_array(
    array: zarr.Array[Any], channel_axis: Literal["auto", 0, 2], name: str
) -> list[str]:
    """The axes of a plain array: as it names them, else as its shape lets guess."""
    names = getattr(array.metadata, "dimension_names", None)
    names = names or array.attrs.get("_ARRAY_DIMENSIONS")
    if isinstance(names, Sequence) and {"y", "x"} <= {str(n).lower() for n in names}:
        return [str(n).upper() for n in names]
    if array.ndim == 2:
        return ["Y", "X"]
    if array.ndim == 3 and (
        channel_axis == 2 or (channel_axis == "auto" and array.shape[2] in (3, 4))
    ):
        return ["Y", "X", "C"]
    if array.ndim == 3 and channel_axis == 0:
        return ["C", "Y", "X"]
    raise ImageError(
        f"{name} has shape {array.shape} and does not name its axes. Save it as OME-Zarr; or, of "
        f"three axes, give channel_axis=0 or channel_axis=2."
    )


def _level(
    array: zarr.Array[Any], plane: PlaneOfStack, cache: ChunkCache, path: Path
) -> ChunkedArray:
    if array.dtype.kind not in "buif":
        raise ImageError(f"The pixels of {path} are of type {array.dtype}. Save them as numbers.")
    whole = [i for i, place in enumerate(plane.index) if place is None]
    chunk = tuple(array.chunks[i] for i in whole)
    # The whole chunk is decoded, also where it holds more planes than the one that is read.
    check_chunk_size(math.prod(array.chunks) * array.dtype.itemsize, str(path))
    has_blosc = not array.shards and "Blosc" in str(array.compressors)
    opened = _stamp(path / array.path)

    def read_chunk(index: Index) -> Any:
        if _stamp(path / array.path) != opened:
            raise ValueError("it was replaced or deleted since it was opened")
        key: list[int | slice] = [place or 0 for place in plane.index]
        numbers = [(place or 0) // n for place, n in zip(plane.index, array.chunks, strict=True)]
        for axis, number, size in zip(whole, index, chunk, strict=True):
            key[axis] = slice(number * size, (number + 1) * size)
            numbers[axis] = number
        if has_blosc:
            _check_blosc(path / array.path / array.metadata.encode_chunk_key(tuple(numbers)))
        return array[tuple(key)]

    return ChunkedArray(
        tuple(array.shape[i] for i in whole),
        chunk,
        array.dtype.newbyteorder("="),
        read_chunk,
        cache=cache,
        channel_axis=plane.channel_axis,
        name=str(path),
    )


def _stamp(folder: Path) -> tuple[int, int] | None:
    """What changes when an array is written anew: inode and time of the file that describes it."""
    for name in ("zarr.json", ".zarray"):
        with suppress(FileNotFoundError):
            about = os.stat(folder / name)
            return about.st_ino, about.st_mtime_ns
    return None


def _check_blosc(file: Path) -> None:
    """Refuse a chunk that is shorter than it says: numcodecs would read on behind its end.

    https://github.com/zarr-developers/numcodecs/issues/228
    """
    try:
        with open(file, "rb") as opened:
            header = opened.read(16)
    except FileNotFoundError:
        return  # the chunk is of the fill value
    if len(header) == 16:
        n_decoded, _, n_encoded = struct.unpack("<3I", header[4:])
        if n_encoded <= file.stat().st_size and n_decoded <= LARGEST_CHUNK_BYTES:
            return
    raise ValueError("its Blosc data is cut short")


def _note_on_missing_chunks(array: zarr.Array[Any], name: str) -> str:
    if array.nchunks > _MOST_CHUNKS_COUNTED:
        return ""
    missing = array.nchunks - array.nchunks_initialized
    if not missing:
        return ""
    return (
        f"{missing:,} of {array.nchunks:,} chunks of {name} are not in the folder: they read as "
        f"{array.fill_value}."
    )
