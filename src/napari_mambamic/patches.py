"""From tiles to patches: reading, padding, channels, resampling, normalisation.

Everything is numpy, on whole batches at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.errors import ChannelMismatch, ImageError
from napari_mambamic.image import ImagePyramid
from napari_mambamic.tiling import Tile

_LUMINANCE = np.array([0.2125, 0.7154, 0.0721], dtype=np.float32)  # as skimage.color.rgb2gray


@dataclass(frozen=True)
class PatchSpec:
    """What a network wants to be fed.

    Parameters
    ----------
    tile_size : int
        Side of the tiles that it was trained on, in px of the training images.
    patch_size : int
        Side that tiles are resampled to, in px.
    channels : tuple of str
        ("red", "green", "blue"), ("grey",) or other names.
    mean, std : tuple of float
        Per channel, for pixels that were brought to 0 ... 1.
    pixel_size_um : float or None
        Of the training images, where known.
    """

    tile_size: int
    patch_size: int
    channels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_size_um: float | None = None

    @property
    def is_rgb(self) -> bool:
        """Whether the channels are red, green and blue, so that a grey image can stand in."""
        return self.channels == ("red", "green", "blue")


def read_tiles(image: ImagePyramid, tiles: Sequence[Tile], *, level: int = 0) -> NDArray[Any]:
    """Read tiles of one size; what sticks out of the plane is padded by reflection.

    Returns
    -------
    ndarray
        (n, size, size, channel) in the image's own dtype; from a coarser level, as many pixels
        fewer as it has.
    """
    if level:
        tiles = [_at_level(tile, image.levels[level].downsample) for tile in tiles]
    height, width = image.shape_of(level)
    shape = len(tiles), tiles[0].size, tiles[0].size, image.n_channels
    try:
        pixels = np.empty(shape, image.dtype)
    except MemoryError as error:
        raise ImageError(
            f"{len(tiles)} tiles of {tiles[0].size} px at a time do not fit into memory. Choose a "
            f"smaller tile size or batch size."
        ) from error
    for pixels_of_tile, tile in zip(pixels, tiles, strict=True):
        rows, columns = _reflected(tile.y, tile.size, height), _reflected(tile.x, tile.size, width)
        top, left = int(rows.min()), int(columns.min())
        window = image.read(
            top, left, int(rows.max()) + 1 - top, int(columns.max()) + 1 - left, level=level
        )
        bottom, right = tile.y + tile.size, tile.x + tile.size
        if min(tile.y, tile.x) < 0 or bottom > height or right > width:
            window = window[rows - top][:, columns - left]
        pixels_of_tile[:] = window
    return pixels


def prepare_patches(pixels: NDArray[Any], spec: PatchSpec) -> NDArray[np.float32]:
    """Bring pixels to what a network was trained on.

    Parameters
    ----------
    pixels : ndarray
        (n, y, x, channel) or (n, y, x): bool, unsigned integers (0 ... maximum of the type) or
        floats (0 ... 1).  An RGBA patch is laid on white.
    spec : PatchSpec

    Returns
    -------
    ndarray
        (n, channel, patch_size, patch_size) float32.

    Raises
    ------
    ImageError
        NaN, Inf or values out of range.
    ChannelMismatch
        The channels cannot be turned into those of `spec`.
    """
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim != 4:
        raise ImageError(
            f"The patches have shape {pixels.shape}; give (n, y, x, channel) or (n, y, x)."
        )
    scaled = _choose_channels(to_unit_range(pixels), spec)
    n, height, width, channels = scaled.shape
    size = spec.patch_size
    resampled: NDArray[Any]
    if (height, width) == (size, size):
        resampled = scaled.transpose(0, 3, 1, 2)
    else:
        rows = _resampling_weights(height, size) @ scaled.reshape(n, height, width * channels)
        maps = rows.reshape(n, size, width, channels).transpose(0, 3, 1, 2)
        resampled = maps @ _resampling_weights(width, size).T
    mean = np.array(spec.mean, np.float32).reshape(-1, 1, 1)
    std = np.array(spec.std, np.float32).reshape(-1, 1, 1)
    patches: NDArray[np.float32] = np.ascontiguousarray((resampled - mean) / std)
    return patches


def check_channels(n_channels: int, spec: PatchSpec, *, are_colours: bool = True) -> None:
    """Refuse pixels whose channels cannot be turned into those of the weights.

    Grey stands in for red, green and blue; RGB and RGBA become RGB or grey, where three or four
    channels are colours.
    """
    wanted = len(spec.channels)
    grey = spec.channels == ("grey",)
    if n_channels == wanted or (n_channels == 1 and spec.is_rgb):
        return
    if are_colours and n_channels in (3, 4) and (grey or (spec.is_rgb and n_channels == 4)):
        return
    raise ChannelMismatch(
        f"The image has {n_channels} channels and the weights expect {wanted} "
        f"({', '.join(spec.channels)}). Choose {wanted} of its channels (channels= "
        f"in a script, --channels on the command line), or other weights."
    )


def read_patches(
    image: ImagePyramid, tiles: Iterable[Tile], spec: PatchSpec
) -> NDArray[np.float32]:
    """Read tiles of any sizes and prepare them: (n, channel, patch_size, patch_size) float32.

    Of a pyramid, tiles that are shrunk are read from the coarsest level that is still as fine as
    the patches.
    """
    tiles = list(tiles)
    side = spec.patch_size
    patches = np.empty((len(tiles), len(spec.channels), side, side), np.float32)
    for size in sorted({tile.size for tile in tiles}):
        members = [i for i, tile in enumerate(tiles) if tile.size == size]
        level = image.level_for(size / side)
        pixels = read_tiles(image, [tiles[i] for i in members], level=level)
        _check_finite(pixels, image, [tiles[i] for i in members])
        patches[members] = prepare_patches(pixels, spec)
    return patches


def _at_level(tile: Tile, downsample: tuple[float, float]) -> Tile:
    down_y, down_x = downsample
    size = max(1, round(tile.size / max(downsample)))
    return Tile(round(tile.y / down_y), round(tile.x / down_x), size)


def _reflected(start: int, size: int, length: int) -> NDArray[np.intp]:
    """Indices start ... start + size - 1, reflected at the first and the last pixel."""
    if length == 1:
        return np.zeros(size, np.intp)
    around = np.arange(start, start + size) % (2 * (length - 1))
    return np.where(around < length, around, 2 * (length - 1) - around)


def _check_finite(pixels: NDArray[Any], image: ImagePyramid, tiles: Sequence[Tile]) -> None:
    if not np.issubdtype(pixels.dtype, np.floating) or np.isfinite(pixels).all():
        return
    bad = ~np.isfinite(pixels).all(axis=(1, 2, 3))
    tile = tiles[int(np.flatnonzero(bad)[0])]
    raise ImageError(
        f"Image {image.name!r} has pixels that are {_non_finite(pixels)}, the first in the tile at "
        f"(y, x) = ({tile.y}, {tile.x}). Replace them, for example with numpy.nan_to_num, or crop "
        f"the image."
    )


def _non_finite(pixels: NDArray[Any]) -> str:
    # How many is not told: patches overlap, and repeat pixels beyond the border.
    found = ((np.isnan(pixels).any(), "NaN"), (np.isinf(pixels).any(), "infinite"))
    return " or ".join(what for is_there, what in found if is_there)


def to_unit_range(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Bring pixels (n, y, x, channel) to 0 ... 1, as `prepare_patches` does before all else."""
    kind = pixels.dtype.kind
    if kind == "b":
        return pixels.astype(np.float32)
    if kind == "u":
        return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    if kind == "i":
        if pixels.size and pixels.min() < 0:
            raise ImageError(
                f"The pixels are of type {pixels.dtype} and go down to {pixels.min()}. Shift them "
                f"to start at 0 and convert them to an unsigned type, for example uint16."
            )
        return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    if kind != "f":
        raise ImageError(f"The pixels are of type {pixels.dtype}. Give integers or floats.")
    scaled = pixels.astype(np.float32)
    if not np.isfinite(scaled).all():
        which = int(np.flatnonzero(~np.isfinite(scaled).all(axis=(1, 2, 3)))[0])
        raise ImageError(
            f"The patches have pixels that are {_non_finite(scaled)}, the first in patch {which}. "
            f"Replace them, for example with numpy.nan_to_num."
        )
    low, high = (float(scaled.min()), float(scaled.max())) if scaled.size else (0.0, 0.0)
    if low < -1e-3 or high > 1 + 1e-3:
        raise ImageError(
            f"The pixels are floats from {low:.4g} to {high:.4g}; floats are read as 0 (black) to "
            f"1 (white). Rescale the image to 0 ... 1, for example with "
            f"skimage.exposure.rescale_intensity."
        )
    return scaled.clip(0, 1)


def _choose_channels(scaled: NDArray[np.float32], spec: PatchSpec) -> NDArray[np.float32]:
    got, wanted = scaled.shape[-1], len(spec.channels)
    check_channels(got, spec)
    if got == 4 and wanted != 4:
        scaled, got = laid_on_white(scaled), 3
    if got == wanted:
        return scaled
    if got == 1:
        return np.repeat(scaled, 3, axis=-1)
    return (scaled @ _LUMINANCE)[..., np.newaxis]


def laid_on_white(scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """RGB of RGBA (..., 4) with values 0 ... 1."""
    colour, alpha = scaled[..., :3], scaled[..., 3:]
    laid: NDArray[np.float32] = colour * alpha + (1 - alpha)
    return laid


@lru_cache(maxsize=64)
def _resampling_weights(length: int, size: int) -> NDArray[np.float32]:
    """Matrix (size, length) of a triangle filter, widened to `length / size` when shrinking.

    The same filter as antialiased bilinear resizing in Pillow and torch.
    """
    scale = length / size
    support = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    distance = np.abs(np.arange(length) + 0.5 - centres[:, np.newaxis]) / support
    weights = np.clip(1 - distance, 0, None)
    normalised: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype("f4")
    return normalised
