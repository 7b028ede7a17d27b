"""TIFF, OME-TIFF, SVS, NDPI and their relatives -> ImagePyramid, without reading pixels."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
from tifffile import TiffFile, TiffPageSeries

from napari_mambamic.chunks import ChunkCache, ChunkedArray, Index, said_by
from napari_mambamic.errors import ImageError
from napari_mambamic.image import ImagePyramid, as_image
from napari_mambamic.image_files.pixel_size import PixelSize, pixel_size_of_tiff
from napari_mambamic.image_files.stack import PlaneOfStack, plane_of_stack
from napari_mambamic.image_files.tiff_page import (
    PageReader,
    Pixels,
    SharedFile,
    blank,
    has_colours,
    is_in_one_piece,
    is_separate,
    true_colours,
)

_MOST_PAGES = 10**7
_MOST_CHANNELS = 10**4


def open_tiff(
    path: Path,
    *,
    series: int = 0,
    z: int | None = None,
    t: int | None = None,
    pages_are_channels: bool = False,
    pixel_size_um: float | PixelSize | None = None,
    cache: ChunkCache,
) -> ImagePyramid:
    """Open one image of a TIFF file; see `image_files.open_image`.

    `pages_are_channels` tells what the pages are of which the file says nothing.
    """
    name = str(path)
    try:
        file = SharedFile(path)
        _check_chain_of_pages(file, is_ndpi=path.suffix.lower() == ".ndpi")
        with TiffFile(path) as tiff:
            _check_ome_sizes(tiff, name)
            if not tiff.series:
                raise ImageError(f"{name} holds no image. Get another copy of the file.")
            if not 0 <= series < len(tiff.series):
                raise ImageError(
                    f"{name} holds {len(tiff.series)} images, and series={series} was asked for. "
                    f"Choose one of 0 to {len(tiff.series) - 1}."
                )
            chosen = tiff.series[series]
            axes = _axes(chosen, pages_are_channels)
            plane = plane_of_stack(axes, chosen.get_shape(squeeze=False), z=z, t=t, name=name)
            levels, notes = _levels(chosen, axes, plane, {tiff.filehandle.path: file}, cache, name)
            are_colours = _has_separate_colours(chosen, axes, plane, name)
            notes += [plane.note, _note_on_larger(tiff, series, name)]
            if pixel_size_um is None:
                pixel_size_um = pixel_size_of_tiff(tiff, chosen, series)
    except (ImageError, OSError):
        raise
    except Exception as error:  # tifffile raises anything on damaged files
        raise ImageError(
            f"{path} cannot be read as an image: {said_by(error)}. The file is damaged or of an "
            f"unknown kind; get another copy, or save it as OME-TIFF."
        ) from error
    image = as_image(
        levels, channel_axis=levels[0].channel_axis, pixel_size_um=pixel_size_um, name=path.name
    )
    note = " ".join(filter(None, notes))
    return replace(image, note=note, stack=plane.places, colours_first=are_colours)


def _axes(series: TiffPageSeries, pages_are_channels: bool) -> str:
    axes, shape = series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    if pages_are_channels and "C" not in axes:
        for i, (axis, length) in enumerate(zip(axes, shape, strict=True)):
            if length > 1 and axis not in "TZYXS":
                return f"{axes[:i]}C{axes[i + 1 :]}"
    return axes


def _levels(
    series: TiffPageSeries,
    axes: str,
    plane: PlaneOfStack,
    files: dict[str, SharedFile],
    cache: ChunkCache,
    name: str,
) -> tuple[list[ChunkedArray], list[str]]:
    """The levels that can be read, finest first, and what is to be told about them."""
    levels: list[ChunkedArray] = []
    notes = []
    for i, level in enumerate(series.levels):
        try:
            array, note = _level(level, axes, plane, files, cache, name)
            if levels and not _is_coarser(array, levels[-1]):
                raise ImageError("It does not go with the finer ones")
        except Exception as error:  # as above; the coarser levels can be done without
            if not levels:
                raise
            notes.append(f"Level {i} of {name} is left out: {said_by(error)}.")
            continue
        if not levels:
            notes.append(note)
        levels.append(array)
    return levels, notes


def _level(
    series: TiffPageSeries,
    axes: str,
    plane: PlaneOfStack,
    files: dict[str, SharedFile],
    cache: ChunkCache,
    name: str,
) -> tuple[ChunkedArray, str]:
    how = series.keyframe
    places = _places_of_planes(series, axes, plane, name)
    readers = _readers(series, list(dict.fromkeys(page for page, _ in places)), files)
    first = next((reader for reader in readers.values() if reader is not None), None)
    if first is None:
        raise ImageError(f"The plane that was asked for is not in {name}.")
    planes = [(readers[page], sample) for page, sample in places]
    convert = true_colours(how, palette=plane.channel_axis is None and series.kind != "imagej")
    example = convert(blank(how, (1, 1)))
    channel_axis = 2 if example.shape[2] > 1 else plane.channel_axis
    shape: tuple[int, ...] = (how.imagelength, how.imagewidth)
    chunk: tuple[int, ...] = first.chunk
    if channel_axis == 0:
        shape, chunk = (len(planes), *shape), (1, *chunk)
    elif channel_axis == 2:
        shape, chunk = (*shape, example.shape[2]), (*chunk, example.shape[2])

    def read_chunk(index: Index) -> Pixels:
        number, row, column = index if channel_axis == 0 else (0, *index[:2])
        reader, sample = planes[number]
        if reader is None:
            pixels = convert(blank(how, first.chunk))
        else:
            pixels = convert(reader.read(row, column, sample))
        if channel_axis == 2:
            return pixels
        return pixels[np.newaxis, :, :, 0] if channel_axis == 0 else pixels[..., 0]

    array = ChunkedArray(
        shape, chunk, example.dtype, read_chunk, cache=cache, channel_axis=channel_axis, name=name
    )
    return array, _note_on_blanks(list(readers.values()), name)


def _places_of_planes(
    series: TiffPageSeries, axes: str, plane: PlaneOfStack, name: str
) -> list[tuple[int, int]]:
    """Where the plane is stored, or each of its channels: (page of the series, sample).

    The samples of a pixel that are stored apart need not be its colours: a grey z stack of 3 or 4
    planes may be written so.  Those that are stored side by side are no places of their own.
    """
    shape, how = series.get_shape(squeeze=False), series.keyframe
    n_samples = how.samplesperpixel if is_separate(how) else 1
    size = how.size // n_samples
    n_leading = len(shape)
    while n_leading and math.prod(shape[n_leading:]) != size:
        n_leading -= 1
    within = [axes[i] for i in range(n_leading, len(shape)) if shape[i] > 1]
    whole = [axes[i] for i in range(n_leading, len(shape)) if plane.index[i] is None]
    n_planes = math.prod(shape[:n_leading])
    fits = math.prod(shape[n_leading:]) == size and n_planes % n_samples == 0
    if not fits or not set(within) <= set(whole):
        raise ImageError(
            f"{name} is damaged, or its planes are stored in a way that cannot be read: its pages "
            f"are {how.shape} and it is said to be {shape} ({axes}). Save it as OME-TIFF, with y "
            f"and x as the last axes."
        )
    leading = list(zip(plane.index, shape, strict=True))[:n_leading]
    n_channels = math.prod(n for place, n in leading if place is None)
    if n_channels > _MOST_CHANNELS:
        raise ImageError(f"{name} is damaged: it speaks of {n_channels:,} channels.")
    numbers = [0]
    for place, n in leading:
        numbers = [n * k + i for k in numbers for i in (range(n) if place is None else [place])]
    return [divmod(number, n_samples) for number in numbers]


def _has_separate_colours(
    series: TiffPageSeries, axes: str, plane: PlaneOfStack, name: str
) -> bool:
    """Whether the channels of the plane are the colours of a page, stored apart."""
    samples = {sample for _, sample in _places_of_planes(series, axes, plane, name)}
    return len(samples) > 1 and has_colours(series.keyframe)


def _readers(
    series: TiffPageSeries, numbers: list[int], files: dict[str, SharedFile]
) -> dict[int, PageReader | None]:
    """The pages of those numbers; None for one that the file does not have."""
    pages = [
        # Of a stack that lies in one piece behind its first page, the others may not be listed.
        (series[0], number * series.keyframe.nbytes)
        if series.dataoffset is not None
        else (series[number], 0)
        for number in numbers
    ]
    in_bands = all(page is None or is_in_one_piece(page) for page, _ in pages)
    readers: dict[int, PageReader | None] = {}
    for number, (page, shift) in zip(numbers, pages, strict=True):
        if page is None:
            readers[number] = None
            continue
        path = page.parent.filehandle.path
        if path not in files:  # an OME-TIFF of several files
            files[path] = SharedFile(path)
        readers[number] = PageReader.of_page(page, files[path], shift=shift, in_bands=in_bands)
    return readers


def _is_coarser(array: ChunkedArray, finer: ChunkedArray) -> bool:
    return (
        array.channel_axis == finer.channel_axis
        and array.dtype == finer.dtype
        and all(
            n == m if i == array.channel_axis else n <= m
            for i, (n, m) in enumerate(zip(array.shape, finer.shape, strict=True))
        )
    )


def _note_on_blanks(readers: list[PageReader | None], name: str) -> str:
    n_planes = readers.count(None)
    n_tiles = sum(reader.n_blank for reader in readers if reader is not None)
    if not n_planes and not n_tiles:
        return ""
    what = f"{n_planes} channels" if n_planes else f"{n_tiles:,} tiles"
    return f"{what} of {name} are not in the file: they read as blank."


def _note_on_larger(tiff: TiffFile, number: int, name: str) -> str:
    areas = [series.keyframe.imagelength * series.keyframe.imagewidth for series in tiff.series]
    largest = int(np.argmax(areas))
    if areas[largest] == areas[number]:
        return ""
    return f"{name} holds a larger image, which series={largest} chooses."


def _check_chain_of_pages(file: SharedFile, *, is_ndpi: bool) -> None:
    """Refuse files whose pages follow each other in a circle: tifffile would follow them."""
    header = file.read(0, min(file.size, 16))
    order = "<" if header[:2] == b"II" else ">"
    is_big = header[2:4] in (b"\x2b\0", b"\0\x2b")
    offset_format = f"{order}{'Q' if is_big or (is_ndpi and order == '<') else 'I'}"
    count_format, tag_size = (f"{order}Q", 20) if is_big else (f"{order}H", 12)
    count_size, offset_size = struct.calcsize(count_format), struct.calcsize(offset_format)
    position, seen = 8 if is_big else 4, set[int]()
    while position + offset_size <= file.size:
        (page,) = struct.unpack(offset_format, file.read(position, offset_size))
        if page in seen or len(seen) > _MOST_PAGES:
            raise ImageError(
                f"{file.name} is damaged: its pages follow each other without an end. Get another "
                f"copy of the file."
            )
        if not page or page + count_size > file.size:
            return
        seen.add(page)
        (n_tags,) = struct.unpack(count_format, file.read(page, count_size))
        position = page + count_size + n_tags * tag_size


def _check_ome_sizes(tiff: TiffFile, name: str) -> None:
    """Refuse OME-XML that speaks of more planes than memory could list."""
    if not tiff.is_ome or not tiff.ome_metadata:
        return
    for tag in re.findall(r"<(?:\w+:)?(?:Pixels|TiffData)\b[^>]*>", tiff.ome_metadata):
        sizes = [int(n) for n in re.findall(r'\bSize[XYZCT]="(\d+)"', tag)]
        others = [int(n) for n in re.findall(r'\b(?:First\w|IFD|\w+Count|NumPlanes)="(\d+)"', tag)]
        n_planes = math.prod(sizes) // max(tiff.pages.first.size, 1) if sizes else 0
        if max(n_planes, *others, 0) > _MOST_PAGES:
            raise ImageError(
                f"{name} is damaged: its OME-XML speaks of {max(n_planes, *others, 0):,} "
                f"planes. Get another copy of the file."
            )
