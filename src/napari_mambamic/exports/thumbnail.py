"""A picture of the image with its classes in colour, and a legend: for reports and a quick look.

The image is read at the level that is just large enough; of a finer one only every so-manieth pixel
is.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from napari_mambamic.atomic import written_atomically
from napari_mambamic.colours import UNSURE, Colours, colours_beside
from napari_mambamic.errors import ExportError
from napari_mambamic.exports.description import KEY, describe
from napari_mambamic.exports.outlines import label_plane
from napari_mambamic.image import ImagePyramid, as_image
from napari_mambamic.results import TileResults
from napari_mambamic.stitching import label_geometry, tile_numbers
from napari_mambamic.tiling import TileGrid, places_of

_OPACITY, _OPACITY_OF_OUTLINES = 0.4, 0.9
_LEAST_FOR_OUTLINES = 12  # px of the picture: outlines of smaller tiles would hide the image
_MARGIN, _FOOT, _ROW, _SWATCH, _FONT = 24, 20, 30, 18, 17  # px
_INK, _FAINT, _PAPER = "#1a1a1a", "#6b6b6b", "#ffffff"


def write_thumbnail(
    results: TileResults,
    path: str | os.PathLike[str],
    image: Any,
    *,
    labels: Any = None,
    colours: Colours | None = None,
    longest_side: int = 1500,
) -> Path:
    """Write a PNG; see `TileResults.to_thumbnail`."""
    if Path(path).suffix.lower() != ".png":
        raise ExportError(f"The picture is a PNG file, and {path} is not named so. Name it .png.")
    pyramid = as_image(image)
    shape = results.provenance.get("image", {}).get("plane_shape")
    if shape and tuple(shape) != pyramid.plane_shape:
        raise ExportError(
            f"Image {pyramid.name!r} is {pyramid.plane_shape[0]} x {pyramid.plane_shape[1]} px and "
            f"the results are of one of {shape[0]} x {shape[1]} px. Give the image that was "
            f"classified."
        )
    rgb = _rgb(results, colours or {})
    picture = _small_picture(pyramid, longest_side)
    zoom = picture.height / pyramid.plane_shape[0], picture.width / pyramid.plane_shape[1]
    if labels is not None:
        numbers = _numbers_of_objects(results, labels, picture, zoom)
        shown = _with_classes(picture, results, numbers, rgb, outlined=True)
    elif isinstance(results.tiles, TileGrid):
        numbers = _numbers_of_grid(results.tiles, picture, zoom)
        large = results.tiles.stride * min(zoom) >= _LEAST_FOR_OUTLINES
        shown = _with_classes(picture, results, numbers, rgb, outlined=large)
    else:
        shown = _with_squares(picture, results, zoom, rgb)
    page = _page(shown, results, pyramid, zoom[1], rgb)
    info = PngInfo()
    info.add_text(KEY, json.dumps(describe(results)))  # in ASCII, as tEXt wants
    with written_atomically(Path(path)) as temporary:
        page.save(temporary, format="PNG", pnginfo=info)
    return Path(path)


def _small_picture(image: ImagePyramid, longest_side: int) -> Image.Image:
    """The plane in RGB, at most `longest_side` long; small planes are enlarged by whole numbers."""
    height, width = image.plane_shape
    longest = max(height, width)
    factor = min(longest_side / longest, max(1, longest_side // (2 * longest)))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    step = max(1, longest // longest_side)
    if image.level_for(step) == 0:
        step = max(1, step // 2)  # twice as fine as needed, so as to be smoothed
    pixels = _as_rgb(image.overview(step), image.has_colours)
    how = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    return Image.fromarray(pixels).resize(size, how)


def _as_rgb(pixels: NDArray[Any], has_colours: bool) -> NDArray[np.uint8]:
    """8-bit colours; pixels of other types are stretched between their darkest and brightest."""
    colours: NDArray[Any] = pixels.astype(np.float32)
    if pixels.dtype != np.uint8:
        known = colours[np.isfinite(colours)]
        low, high = np.percentile(known, [0.2, 99.8]) if known.size else (0.0, 1.0)
        colours = np.nan_to_num((colours - low) / max(high - low, 1e-12)).clip(0, 1) * 255
    if colours.shape[2] == 4 and has_colours:
        alpha = colours[..., 3:] / 255
        colours = colours[..., :3] * alpha + 255 * (1 - alpha)
    if colours.shape[2] != 3:
        colours = np.repeat(colours.max(axis=2, keepdims=True), 3, axis=2)
    rgb: NDArray[np.uint8] = colours.round().astype(np.uint8)
    return rgb


def _numbers_of_grid(
    grid: TileGrid, picture: Image.Image, zoom: tuple[float, float]
) -> NDArray[Any]:
    """Number of the tile + 1 at each pixel of the picture; 0 outside of the grid."""
    origin, stride = label_geometry(grid)
    indices, inside = [], []
    for axis, length in enumerate((picture.height, picture.width)):
        first, extent = grid.region[axis], grid.region[axis + 2]
        place = (np.arange(length) + 0.5) / zoom[axis] - 0.5
        index = np.floor((place - origin[axis]) / stride + 0.5).astype(int)
        indices.append(index.clip(0, grid.shape[axis] - 1))
        inside.append((place >= first - 0.5) & (place < first + extent - 0.5))
    numbers = indices[0][:, np.newaxis] * grid.shape[1] + indices[1] + 1
    covered = inside[0][:, np.newaxis] & inside[1]
    return np.where(covered, numbers, 0)


def _numbers_of_objects(
    results: TileResults, labels: Any, picture: Image.Image, zoom: tuple[float, float]
) -> NDArray[Any]:
    plane = label_plane(results, labels)
    rows, columns = (
        ((np.arange(length) + 0.5) / z).astype(int)
        for length, z in zip((picture.height, picture.width), zoom, strict=True)
    )
    return tile_numbers(plane[rows][:, columns], np.asarray(results.object_ids))


def _with_classes(
    picture: Image.Image,
    results: TileResults,
    numbers: NDArray[Any],
    rgb: NDArray[np.int64],
    *,
    outlined: bool,
) -> Image.Image:
    """The picture under a film of the classes' colours, denser along the edges of tiles."""
    opacity = np.full(numbers.shape, _OPACITY)
    if outlined:
        opacity[_edges(numbers)] = _OPACITY_OF_OUTLINES
    colours = np.vstack([rgb, [0, 0, 0]])  # the last for what was not classified
    label = np.append(-1, _rows_of(results))[numbers]
    opacity[label < 0] = 0
    mixed = np.asarray(picture) * (1 - opacity[..., None]) + colours[label] * opacity[..., None]
    return Image.fromarray(mixed.round().astype(np.uint8))


def _edges(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels beside or above one of another number."""
    edges = np.zeros(numbers.shape, bool)
    for along, pixels in ((edges, numbers), (edges.T, numbers.T)):
        differ = pixels[1:] != pixels[:-1]
        along[1:] |= differ
        along[:-1] |= differ
    return edges


def _with_squares(
    picture: Image.Image,
    results: TileResults,
    zoom: tuple[float, float],
    rgb: NDArray[np.int64],
) -> Image.Image:
    """The picture with a square per object or point, as these overlap."""
    film = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(film)
    colours = [tuple(colour) for colour in rgb.tolist()]
    thick = max(2, round(max(picture.size) / 500))
    places = places_of(results.tiles)
    corners = np.hstack([places[:, :2], places[:, :2] + places[:, 2:]]) * (*zoom, *zoom)
    for (top, left, bottom, right), label in zip(
        corners.tolist(), _rows_of(results).tolist(), strict=True
    ):
        if label >= 0:
            box = (left, top, max(right - 1, left), max(bottom - 1, top))
            draw.rectangle(box, outline=(255, 255, 255, 160), width=thick + 2)
            draw.rectangle(box, outline=(*colours[label], 255), width=thick)
    return Image.alpha_composite(picture.convert("RGBA"), film).convert("RGB")


def _page(
    picture: Image.Image,
    results: TileResults,
    image: ImagePyramid,
    zoom: float,
    rgb: NDArray[np.int64],
) -> Image.Image:
    """The picture, a bar for its scale under it, title and legend beside it."""
    legend = _legend(results, image.name, rgb)
    foot = 0 if image.pixel_size_um is None else _FOOT
    height = max(picture.height + foot, legend.height) + 2 * _MARGIN
    page = Image.new("RGB", (picture.width + legend.width + 3 * _MARGIN, height), _PAPER)
    page.paste(picture, (_MARGIN, _MARGIN))
    page.paste(legend, (picture.width + 2 * _MARGIN, _MARGIN))
    if image.pixel_size_um is not None:
        um_per_px = image.pixel_size_um[1] / zoom
        length = _round_length(picture.width / 4 * um_per_px)
        top, draw = _MARGIN + picture.height + 12, ImageDraw.Draw(page)
        end = _MARGIN + length / um_per_px
        draw.rectangle((_MARGIN, top, end, top + 5), fill=_INK)
        text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
        draw.text((end + 10, top + 2), text, font=_font(_FONT - 2), fill=_INK, anchor="lm")
    return page


def _legend(results: TileResults, image_name: str, rgb: NDArray[np.int64]) -> Image.Image:
    """Weights, image, and a row per class, then the unsure: colour, name, count and share."""
    counts = [*results.counts.items()]
    if results.unsure_below > 0:
        counts.append(("unsure", int(results.is_unsure.sum())))
    total = int(results.is_done.sum())
    left = len(results) - total
    title = _one_line(str(results.provenance.get("weights", {}).get("name", "Classes")))
    name = results.provenance.get("image", {}).get("name", image_name)
    lines = [_one_line(name), f"{total:,} classified" + (f", {left:,} not" if left else "")]
    rows = [(_one_line(name), f"{n:,}", f"{n / total:.1%}" if total else "") for name, n in counts]
    large, plain, small = _font(_FONT + 7), _font(_FONT), _font(_FONT - 2)
    widths = [max(plain.getlength(row[i]) for row in rows) for i in range(3)]
    # Where the names start, and where counts and shares end.
    x_name = _SWATCH + 10
    x_count = x_name + widths[0] + 24 + widths[1]
    x_share = x_count + 18 + widths[2]
    width = max(x_share, large.getlength(title), *(small.getlength(line) for line in lines))
    top = 40 + 24 * len(lines) + 18
    legend = Image.new("RGB", (int(np.ceil(width)), top + _ROW * len(rows)), _PAPER)
    draw = ImageDraw.Draw(legend)
    draw.text((0, 0), title, font=large, fill=_INK)
    for n, line in enumerate(lines):
        draw.text((0, 40 + 24 * n), line, font=small, fill=_FAINT)
    for n, (row, colour) in enumerate(zip(rows, rgb.tolist(), strict=False)):
        middle = top + _ROW * n + _ROW // 2
        swatch = (0, middle - _SWATCH // 2, _SWATCH, middle + _SWATCH // 2)
        draw.rectangle(swatch, fill=tuple(colour))
        for x, anchor, text in zip(
            (x_name, x_count, x_share), ("lm", "rm", "rm"), row, strict=True
        ):
            draw.text((x, middle), text, font=plain, fill=_INK, anchor=anchor)
    return legend


def _round_length(most: float) -> float:
    """The longest of 1, 2, 5, 10, 20 ... that is not over `most`.

    >>> _round_length(0.7), _round_length(49)
    (0.5, 20.0)
    """
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most))


def _rgb(results: TileResults, known: Colours) -> NDArray[np.int64]:
    """Colours (n_classes + 1, 3) of the classes and of the unsure, 0 to 255."""
    colours = np.vstack([colours_beside(results.class_names, known), UNSURE])
    return (colours[:, :3] * 255).round().astype(np.int64)


def _rows_of(results: TileResults) -> NDArray[np.int64]:
    """(n_tiles,) row of `_rgb` that each tile is shown in; -1 where it was not classified."""
    return np.where(results.is_unsure, len(results.class_names), results.labels)


def _one_line(text: str, longest: int = 48) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


@cache
def _font(size: int) -> Any:
    """A font of the system that knows many scripts, or Pillow's own, which knows Latin."""
    for name in ("DejaVuSans.ttf", "segoeui.ttf", "Arial Unicode.ttf", "Arial.ttf"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
