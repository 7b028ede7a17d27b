"""Files and folders -> ImagePyramid."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

from napari_mambamic.chunks import CACHE_BYTES, ChunkCache, said_by
from napari_mambamic.errors import ImageError
from napari_mambamic.image import ImagePyramid, as_image

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the latter two are BigTIFF


def open_image(
    path: str | Path,
    *,
    series: int = 0,
    z: int | None = None,
    t: int | None = None,
    channel_axis: Literal["auto", 0, 2] = "auto",
    pixel_size_um: float | tuple[float, float] | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> ImagePyramid:
    """Open an image file, or a zarr folder, without reading its pixels.

    TIFF (OME-TIFF, SVS, NDPI, BigTIFF ...), OME-Zarr and zarr are read by the tile or chunk when a
    region is asked for, by any number of threads; other files (PNG, JPEG, BMP ...) are read whole,
    now.  A file is closed when nothing refers to the image any more.

    Parameters
    ----------
    path : path
    series : int
        Which image, of a file that holds several.
    z, t : int, optional
        Which plane of a stack; by default the middle one along z, and the first along t.
    channel_axis : "auto", 0 or 2
        For files that do not say: 0 if pages, or the first axis of an array, are channels.
    pixel_size_um : float or (float, float), optional
        Micrometres per pixel; by default what the file says.
    cache_bytes : int
        Decoded tiles or chunks that are kept for the patches to come.

    Returns
    -------
    ImagePyramid
        Its ``note`` says what is not plain about the file: which plane was chosen, what is missing.

    Raises
    ------
    ImageError
        The file is not there, damaged, or of a kind that cannot be read.  Reading a region raises
        it as well when that region is damaged.
    """
    path = Path(path)
    image = _open(
        path,
        series=series,
        z=z,
        t=t,
        channel_axis=channel_axis,
        pixel_size_um=pixel_size_um,
        cache=ChunkCache(cache_bytes),
    )
    chosen = {
        "series": series or None,
        "z": z,
        "t": t,
        "channel_axis": None if channel_axis == "auto" else channel_axis,
        "pixel_size_um": pixel_size_um,
    }
    return replace(
        image,
        path=os.path.abspath(path),
        opened_with={name: value for name, value in chosen.items() if value is not None},
    )


def _open(
    path: Path,
    *,
    series: int,
    z: int | None,
    t: int | None,
    channel_axis: Literal["auto", 0, 2],
    pixel_size_um: float | tuple[float, float] | None,
    cache: ChunkCache,
) -> ImagePyramid:
    try:
        if path.is_dir():
            from napari_mambamic.image_files.ome_zarr import open_zarr

            return open_zarr(
                path,
                series=series,
                z=z,
                t=t,
                channel_axis=channel_axis,
                pixel_size_um=pixel_size_um,
                cache=cache,
            )
        if path.exists() and not path.is_file():
            raise ImageError(
                f"{path} cannot be read as an image: it is neither a file nor a folder."
            )
        with open(path, "rb") as file:
            start = file.read(4)
        if start in _TIFF_STARTS:
            from napari_mambamic.image_files.tiff import open_tiff

            return open_tiff(
                path,
                series=series,
                z=z,
                t=t,
                pages_are_channels=channel_axis == 0,
                pixel_size_um=pixel_size_um,
                cache=cache,
            )
        return _open_picture(path, pixel_size_um)
    except OSError as error:
        raise ImageError(
            f"{path} cannot be read as an image: {said_by(error)}. Check the path and the disk, or "
            f"get another copy."
        ) from error


def _open_picture(path: Path, pixel_size_um: float | tuple[float, float] | None) -> ImagePyramid:
    """A file that can only be read whole: (y, x), (y, x, 3) or (y, x, 4)."""
    from skimage.io import imread

    try:
        pixels = imread(path)
    except Exception as error:  # each format has errors of its own
        of_the_system = isinstance(error, OSError) and error.errno
        reason = said_by(error) if of_the_system else "it is damaged or of an unknown kind"
        raise ImageError(
            f"{path} cannot be read as an image: {reason}. Get another copy, or save it as TIFF or "
            f"PNG."
        ) from error
    is_plane = pixels.ndim == 3 and pixels.shape[2] <= 4
    return as_image(
        pixels,
        channel_axis=2 if is_plane else None if pixels.ndim == 2 else "auto",
        pixel_size_um=pixel_size_um,
        name=path.name,
    )
