"""The strips and tiles of one page of a TIFF file: reading, checking, decoding, colours.

tifffile knows how pixels are stored and imagecodecs decodes them.  The bytes are read here, so that
threads can share a file, damaged ones cannot exhaust the memory, and a large uncompressed strip is
read in bands of rows.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import TIFF, TiffFrame, TiffPage

from napari_mambamic.chunks import LARGEST_CHUNK_BYTES
from napari_mambamic.errors import ImageError

Pixels = NDArray[Any]

_BAND_BYTES = 2**20  # of rows that are read at once from uncompressed strips
_JPEG = (7, 33007, 34892)
_APERIO_YCBCR = 33003  # JPEG 2000 that does not say that it holds luma and chroma
_JPEG_2000 = (_APERIO_YCBCR, 33004, 33005, 34712)
_PNG = 34933
_WHITE_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6
_PHOTOMETRIC = {_WHITE_IS_ZERO, 1, _RGB, _PALETTE, 4, _YCBCR}  # black is zero, mask
# Frame headers whose length fits their number of components: others end in an error of libjpeg.
_JPEG_FRAME = re.compile(
    rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]"
    rb"(?=\x00(?:\x0b.{5}\x01|\x0e.{5}\x02|\x11.{5}\x03|\x14.{5}\x04))...(.{4})",
    re.DOTALL,
)


class SharedFile:
    """A file that threads read from; it is closed when nobody refers to it any more."""

    def __init__(self, path: str | Path) -> None:
        file = open(path, "rb")  # noqa: SIM115 - open as long as this object lives
        self.close = weakref.finalize(self, file.close)
        self.name = str(path)
        self._file, self._lock = file, threading.Lock()
        self._state = self._state_now()
        self.size = self._state[0]

    def read(self, offset: int, count: int) -> bytes:
        """Bytes from `offset` on; OSError when there are fewer, or the file has changed."""
        with self._lock:
            if self._state_now() != self._state:
                raise OSError("it has changed since it was opened")
            self._file.seek(offset)
            data = self._file.read(count)
        if len(data) != count:
            raise OSError(f"it is cut short: it ends before {offset + count:,} bytes")
        return data

    def _state_now(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class PageReader:
    """Reads the strips or tiles of a page.

    Parameters
    ----------
    page : TiffPage
        How pixels are stored; pages of a stack share one.
    file : SharedFile
        Where they are.
    offsets, counts : ndarray
        (n,) int64: first byte and number of bytes of each strip or tile; 0 where there is none.
    decode : callable
        From bytes and the number of a strip or tile to pixels, and where they lie.
    jpeg : dict
        Tables and header that the JPEG tiles of the page share.
    in_bands : bool
        The page is uncompressed and in one piece, so that any rows can be read.
    """

    page: TiffPage
    file: SharedFile
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    decode: Callable[..., Any]
    jpeg: dict[str, Any]
    in_bands: bool

    @classmethod
    def of_page(
        cls, page: TiffPage | TiffFrame, file: SharedFile, *, shift: int, in_bands: bool
    ) -> PageReader:
        """Read a page whose bytes are `shift` bytes behind where it says.

        Raises
        ------
        ImageError
            The page is cut short, or of a kind that cannot be read.
        """
        how = page.keyframe
        if how is None:
            raise ImageError(f"{file.name} is damaged: a page is missing. Get another copy of it.")
        offsets = np.array(page.dataoffsets, np.int64)[: len(page.databytecounts)]
        counts = np.array(page.databytecounts, np.int64)[: len(offsets)]
        offsets = np.where((offsets > 0) & (counts > 0), offsets + shift, 0)
        jpeg = {}
        if how.compression in (6, *_JPEG):
            jpeg = {"jpegtables": page.jpegtables, "jpegheader": how.jpegheader}
        reader = cls(how, file, offsets, counts, how.decode, jpeg, in_bands)
        reader._check_kind()
        reader._check_extent()
        return reader

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels in the file, in the byte order of this machine."""
        return np.dtype(self.page.dtype)

    @property
    def chunk(self) -> tuple[int, int]:
        """(height, width) in px of what is read at once."""
        page = self.page
        if self.in_bands:
            rows = max(1, _BAND_BYTES // (page.imagewidth * _samples(page) * self.dtype.itemsize))
            return min(rows, page.imagelength), page.imagewidth
        if page.is_tiled:
            return page.tilelength, page.tilewidth
        return page.rowsperstrip, page.imagewidth

    @property
    def grid(self) -> tuple[int, int]:
        """Chunks along (y, x)."""
        height, width = self.chunk
        return -(-self.page.imagelength // height), -(-self.page.imagewidth // width)

    @property
    def n_blank(self) -> int:
        """Strips or tiles that are not in the file."""
        if self.in_bands:
            return 0
        return self._n_needed - int(np.count_nonzero(self.offsets[: self._n_needed]))

    def read(self, row: int, column: int, sample: int) -> Pixels:
        """Read a chunk of the grid: (y, x, sample), of one sample where they are separate."""
        if self.in_bands:
            return self._read_band(row, sample)
        n_rows, n_columns = self.grid
        number = (sample * n_rows + row) * n_columns + column
        if number >= len(self.offsets) or not self.offsets[number]:
            return blank(self.page, self.chunk)
        data = self.file.read(int(self.offsets[number]), int(self.counts[number]))
        self._check_encoded(data)
        pixels: Pixels = self.decode(data, number, **self.jpeg)[0][0]  # a volume of one plane
        return pixels

    def _read_band(self, row: int, sample: int) -> Pixels:
        page, height = self.page, self.chunk[0]
        first, n = row * height, min(height, page.imagelength - row * height)
        width = page.imagewidth * _samples(page)
        dtype = self.dtype.newbyteorder(page.parent.byteorder)
        before = (sample * page.imagelength + first) * width * dtype.itemsize
        data = self.file.read(int(self.offsets[0]) + before, n * width * dtype.itemsize)
        pixels = np.frombuffer(data, dtype).reshape(n, page.imagewidth, _samples(page))
        return pixels.astype(self.dtype)

    @property
    def _n_needed(self) -> int:
        n_rows, n_columns = self.grid
        return n_rows * n_columns * (self.page.samplesperpixel if is_separate(self.page) else 1)

    def _check_kind(self) -> None:
        page = self.page
        if page.dtype is None or page.dtype.kind not in "buif":
            raise ImageError(
                f"The pixels of {self.file.name} are of a type that cannot be read "
                f"({page.bitspersample} bits). Save them as 8 or 16 bit integers, or as floats."
            )
        if page.compression != 1 and page.compression not in TIFF.DECOMPRESSORS:
            raise ImageError(
                f"{self.file.name} is compressed in a way that cannot be read (TIFF compression "
                f"{int(page.compression)}). Save it with deflate, LZW or JPEG."
            )
        if page.imagedepth != 1 or page.photometric not in _PHOTOMETRIC:
            raise ImageError(
                f"{self.file.name} is stored as volumes or in colours that cannot be read (TIFF "
                f"photometric interpretation {int(page.photometric)}). Save it as RGB or grey."
            )
        if page.photometric == _YCBCR and page.compression not in TIFF.IMAGE_COMPRESSIONS:
            raise ImageError(
                f"{self.file.name} is stored as luma and chroma without JPEG. Save it as RGB."
            )

    def _check_extent(self) -> None:
        page, what = self.page, "tiles" if self.page.is_tiled else "strips"
        if min(page.imagelength, page.imagewidth, *self.chunk) < 1:
            raise ImageError(f"{self.file.name} is empty or damaged. Get another copy of the file.")
        if self.in_bands:
            if int(self.offsets[0]) + page.nbytes > self.file.size:
                raise self._cut_short("its last rows")
            return
        missing = self._n_needed - len(self.offsets)
        if missing > self.grid[1]:  # some scanners leave out the last row of tiles
            raise ImageError(
                f"{self.file.name} is damaged: it lists {len(self.offsets):,} {what} and needs "
                f"{self._n_needed:,} for {page.imagelength:,} x {page.imagewidth:,} px. Get "
                f"another copy of the file."
            )
        if self.counts.max(initial=0) > LARGEST_CHUNK_BYTES:
            raise ImageError(
                f"{self.file.name} is damaged or stored in too large pieces: one of its {what} "
                f"takes {self.counts.max() / 2**30:.1f} GB. Save it in tiles."
            )
        outside = int((self.offsets + self.counts > self.file.size).sum())
        if outside or (self.offsets < 0).any():
            raise self._cut_short(f"{outside:,} of {len(self.offsets):,} {what}")

    def _cut_short(self, what: str) -> ImageError:
        return ImageError(
            f"{self.file.name} is cut short: {what} lie beyond its end. Get another copy of the "
            f"file."
        )

    def _check_encoded(self, data: bytes) -> None:
        """Refuse what would be decoded to grey for want of bytes, or to gigabytes."""
        compression, limit = self.page.compression, 4 * self.chunk[0] * self.chunk[1]
        is_whole = compression in _JPEG and not self.jpeg["jpegheader"]
        if (is_whole or compression in _JPEG_2000) and b"\xff\xd9" not in data[-64:]:
            raise ValueError("its JPEG data has no end")
        for height, width in _announced_sizes(data, int(compression)):
            if height * width > limit:
                raise ValueError(f"its JPEG data says that it is {height:,} x {width:,} px")


def is_separate(page: TiffPage) -> bool:
    """Whether red, green and blue are in tiles of their own."""
    return bool(page.planarconfig == 2 and page.samplesperpixel > 1)


def has_colours(page: TiffPage) -> bool:
    """Whether the samples of a pixel are red, green and blue, and maybe alpha."""
    return page.photometric in (_RGB, _YCBCR)


def is_in_one_piece(page: TiffPage | TiffFrame) -> bool:
    """Whether the page is uncompressed and its strips lie behind each other."""
    how = page.keyframe
    if (
        how is None
        or not how.is_final
        or how.is_tiled
        or not page.dataoffsets
        or page.dataoffsets[0] <= 0
    ):
        return False
    ends = np.add(page.dataoffsets, page.databytecounts, dtype=np.int64)[:-1]
    return bool((ends == np.array(page.dataoffsets[1:], np.int64)).all())


def blank(page: TiffPage, chunk: tuple[int, int]) -> Pixels:
    """A chunk (y, x, sample) that is not in the file."""
    return np.full((*chunk, _samples(page)), page.nodata, page.dtype)


def true_colours(page: TiffPage, *, palette: bool) -> Callable[[Pixels], Pixels]:
    """What turns decoded pixels (y, x, sample) into those that are shown.

    Parameters
    ----------
    page : TiffPage
    palette : bool
        Look the colours up where the pixels are the numbers of colours.
    """
    if palette and page.photometric == _PALETTE and page.colormap is not None:
        table = np.ascontiguousarray((np.asarray(page.colormap) >> 8).astype(np.uint8).T)
        return lambda pixels: table[pixels[..., 0]]
    if page.photometric == _WHITE_IS_ZERO and page.dtype is not None and page.dtype.kind in "bu":
        return np.invert
    if page.compression == _APERIO_YCBCR and page.samplesperpixel == 3 and not is_separate(page):
        return _rgb_of_ycbcr
    return lambda pixels: pixels


def _samples(page: TiffPage) -> int:
    return 1 if is_separate(page) else int(page.samplesperpixel)


def _rgb_of_ycbcr(pixels: Pixels) -> Pixels:
    luma, blue, red = np.moveaxis(pixels.astype(np.float32), -1, 0) - [[[0]], [[128]], [[128]]]
    rgb = [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue]
    return np.stack(rgb, axis=-1).round().clip(0, 255).astype(np.uint8)


def _announced_sizes(data: bytes, compression: int) -> list[tuple[int, int]]:
    """(height, width) that compressed data says it has, wherever it says so."""
    if compression in (6, *_JPEG):
        return [struct.unpack(">HH", found[1]) for found in _JPEG_FRAME.finditer(data)]
    if compression in _JPEG_2000:
        start = data.find(b"\xff\x4f\xff\x51")
        if 0 <= start <= len(data) - 24:
            right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
            return [(bottom - top, right - left)]
    if compression == _PNG and len(data) >= 24:
        width, height = struct.unpack_from(">2I", data, 16)
        return [(height, width)]
    return []
