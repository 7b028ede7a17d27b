"""Micrometres per pixel, from what files say about themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from tifffile import TiffFile, TiffPage, TiffPageSeries

PixelSize = tuple[float, float]

_UM_PER = {
    "pm": 1e-6,
    "picometer": 1e-6,
    "å": 1e-4,
    "angstrom": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "µm": 1.0,  # micro sign
    "μm": 1.0,
    "\\u00b5m": 1.0,  # as ImageJ writes it
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "in": 25400.0,
    "inch": 25400.0,
}
# 1,016 dpi: coarser resolutions (72, 96, 300 ... dpi) are for printers, not from a microscope.
_COARSEST_UM = 25.0


def checked(y: float, x: float) -> PixelSize | None:
    """A pixel size of positive numbers, or None."""
    return (y, x) if all(math.isfinite(s) and s > 0 for s in (y, x)) else None


def um_per(unit: str) -> float | None:
    """Micrometres per unit of length; None for pixels and other units."""
    return _UM_PER.get(unit.strip().lower())


def pixel_size_of_tiff(tiff: TiffFile, series: TiffPageSeries, number: int) -> PixelSize | None:
    """Pixel size of an image of a TIFF file: OME-XML, Aperio, ImageJ, then the TIFF tags."""
    if tiff.is_ome and tiff.ome_metadata:
        size = pixel_size_of_ome(tiff.ome_metadata, number)
        if size is not None:
            return size
    page = series.keyframe
    if series.kind == "svs":
        found = re.search(r"\bMPP\s*=\s*([\d.eE+-]+)", page.description) if number == 0 else None
        if found:
            return checked(_number(found[1]), _number(found[1]))
    per_unit = _pixels_per_unit(page)
    if per_unit is None:
        return None
    if tiff.is_imagej:
        scale = um_per(str((tiff.imagej_metadata or {}).get("unit", "")))
        if scale is not None:
            return checked(scale / per_unit[0], scale / per_unit[1])
    scale = {2: 25400.0, 3: 1e4}.get(int(page.resolutionunit))
    size = None if scale is None else checked(scale / per_unit[0], scale / per_unit[1])
    return None if size is None or max(size) > _COARSEST_UM else size


def pixel_size_of_ome(xml: str, number: int) -> PixelSize | None:
    """Pixel size of the image of that number in OME-XML."""
    try:
        images = ElementTree.fromstring(xml).findall("{*}Image/{*}Pixels")
    except ElementTree.ParseError:
        return None
    if number >= len(images):
        return None
    sizes = []
    for axis in "YX":
        scale = um_per(images[number].get(f"PhysicalSize{axis}Unit", "µm"))
        length = images[number].get(f"PhysicalSize{axis}")
        if scale is None or length is None:
            return None
        sizes.append(_number(length) * scale)
    return checked(*sizes)


def pixel_size_of_ngff(
    axes: Sequence[Mapping[str, Any]], transforms: Sequence[Mapping[str, Any]]
) -> PixelSize | None:
    """Pixel size of an OME-Zarr image from its axes and all scales that apply to level 0."""
    names = [str(axis.get("name")) for axis in axes]
    sizes = []
    for name in "yx":
        i = names.index(name)
        size = um_per(str(axes[i].get("unit", "")))
        scales = [t["scale"] for t in transforms if t.get("type") == "scale" and "scale" in t]
        if size is None or not scales:
            return None
        for scale in scales:
            size *= float(scale[i])
        sizes.append(size)
    return checked(*sizes)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _pixels_per_unit(page: TiffPage) -> PixelSize | None:
    """TIFF resolution (y, x) without its unit."""
    values = []
    for code in (283, 282):
        value = page.tags.valueof(code)
        try:
            values.append(value[0] / value[1])
        except (TypeError, IndexError, ZeroDivisionError):  # absent, or not a rational number
            return None
    return checked(*values)
