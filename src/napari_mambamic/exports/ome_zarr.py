"""OME-Zarr 0.4: probabilities as an image with a channel per class, classes as its labels.

    a.zarr/                   (class, y, x) float32, NaN where nothing was classified
    a.zarr/labels/classes     (y, x) number of the class + 1; 0 where nothing was classified
    a.zarr/labels/objects     (y, x) the label image itself, for results of objects

A grid has one pixel per tile, placed by the scale and translation of its levels (`stitching.py`
has the drawing); objects have the pixels of their label image.  Version 0.4 and not 0.5, as more
programs read it (https://ngff.openmicroscopy.org/0.4/).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_mambamic.atomic import folder_written_atomically
from napari_mambamic.colours import Colours, colours_beside
from napari_mambamic.errors import ExportError
from napari_mambamic.exports.description import KEY, describe
from napari_mambamic.exports.outlines import label_plane
from napari_mambamic.results import TileResults
from napari_mambamic.stitching import label_geometry, tile_numbers
from napari_mambamic.tiling import TileGrid

_CHUNK, _COARSEST = 512, 256  # px
_VERSION = "0.4"


@dataclass(frozen=True)
class _Raster:
    """Which tile speaks for each pixel.

    Parameters
    ----------
    shape : (int, int)
        Pixels along (y, x).
    read : callable
        Takes a slice of rows; gives the number of each pixel's tile + 1, or 0.
    origin, side : (float, float)
        Centre of the first pixel and sides of a pixel along (y, x), in `unit`.
    unit : str or None
        "micrometer"; None is px of the image.
    """

    shape: tuple[int, int]
    read: Callable[[slice], NDArray[Any]]
    origin: tuple[float, float]
    side: tuple[float, float]
    unit: str | None


def write_ome_zarr(
    results: TileResults,
    path: str | os.PathLike[str],
    *,
    labels: Any = None,
    colours: Colours | None = None,
) -> Path:
    """Write OME-Zarr; see `TileResults.to_ome_zarr`."""
    path = Path(path)
    _refuse_inside_another(path)
    rgba = _rgba(results, colours or {})
    plane = None if labels is None else label_plane(results, labels)
    raster = _raster_of(results, plane)
    small = np.min_scalar_type(len(results.class_names))
    class_of_number = np.append(0, results.labels + 1).astype(small)
    shares_of_number = np.vstack(
        [np.full((1, len(results.class_names)), np.nan, np.float32), results.probabilities]
    ).T
    with folder_written_atomically(path, may_replace=_is_ours) as folder:
        root = zarr.open_group(folder, mode="w", zarr_format=2)
        root.attrs[KEY] = describe(results)
        root.attrs["omero"] = _channels(results, rgba)
        _write_levels(
            root,
            raster,
            lambda rows, channel: shares_of_number[channel][raster.read(rows)],
            dtype=np.float32,
            n_channels=len(results.class_names),
        )
        found = root.create_group("labels")
        classes = found.create_group("classes")
        classes.attrs["image-label"] = _legend_of_classes(results, rgba)
        _write_levels(
            classes,
            raster,
            lambda rows, _: class_of_number[raster.read(rows)],
            dtype=class_of_number.dtype,
        )
        found.attrs["labels"] = ["classes"]
        if plane is not None:
            objects = found.create_group("objects")
            objects.attrs["image-label"] = _legend_of_objects(results, rgba)
            _write_levels(objects, raster, lambda rows, _: plane[rows], dtype=plane.dtype)
            found.attrs["labels"] = ["classes", "objects"]
    return path


def _raster_of(results: TileResults, plane: NDArray[Any] | None) -> _Raster:
    size = results.provenance.get("image", {}).get("pixel_size_um")
    pixel, unit = (tuple(size), "micrometer") if size else ((1.0, 1.0), None)
    if isinstance(results.tiles, TileGrid):
        grid = results.tiles
        numbers = np.arange(1, len(grid) + 1).reshape(grid.shape)
        (y, x), stride = label_geometry(grid)
        return _Raster(
            grid.shape,
            numbers.__getitem__,
            (y * pixel[0], x * pixel[1]),
            (stride * pixel[0], stride * pixel[1]),
            unit,
        )
    ids = results.object_ids
    if plane is None or ids is None:
        raise ExportError(
            "OME-Zarr holds arrays of pixels, and these results are not of a grid. Give the label "
            "image that the objects were cut by, or save points as GeoJSON or as a table."
        )

    def read(rows: slice) -> NDArray[np.int32]:
        return tile_numbers(plane[rows], ids)

    return _Raster((plane.shape[0], plane.shape[1]), read, (0.0, 0.0), (pixel[0], pixel[1]), unit)


def _write_levels(
    group: Any,
    raster: _Raster,
    read: Callable[[slice, int], NDArray[Any]],
    *,
    dtype: Any,
    n_channels: int | None = None,
) -> None:
    """Write an array at full size and at halves of it, some rows at a time; and say where it is."""
    shape, level, datasets = raster.shape, 0, []
    array: Any = None
    while True:
        finer = array
        array = _created(group, str(level), shape, dtype, n_channels)
        for channel in range(n_channels or 1):
            where = () if n_channels is None else (channel,)
            for rows in _bands(shape[0]):
                if finer is None:
                    pixels = read(rows, channel)
                else:
                    pixels = _halved(finer[(*where, slice(2 * rows.start, 2 * rows.stop))])
                array[(*where, rows)] = pixels
        datasets.append(_dataset(raster, level, with_channels=n_channels is not None))
        if max(shape) <= _COARSEST:
            break
        shape, level = (-(-shape[0] // 2), -(-shape[1] // 2)), level + 1
    unit = {} if raster.unit is None else {"unit": raster.unit}
    axes = [{"name": name, "type": "space", **unit} for name in "yx"]
    if n_channels is not None:
        axes.insert(0, {"name": "c", "type": "channel"})
    multiscale = {"version": _VERSION, "name": "classes", "axes": axes, "datasets": datasets}
    group.attrs["multiscales"] = [multiscale]


def _created(
    group: Any, name: str, shape: tuple[int, int], dtype: Any, n_channels: int | None
) -> Any:
    channels = () if n_channels is None else (n_channels,)
    return group.create_array(
        name,
        shape=(*channels, *shape),
        chunks=(*(1 for _ in channels), *(min(side, _CHUNK) for side in shape)),
        dtype=dtype,
        fill_value=np.nan if np.issubdtype(dtype, np.floating) else 0,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )


def _bands(height: int) -> Iterator[slice]:
    return (slice(y, min(y + _CHUNK, height)) for y in range(0, height, _CHUNK))


def _halved(pixels: NDArray[Any]) -> NDArray[Any]:
    """Every other label; or the mean of two by two probabilities, of those that there are."""
    if not np.issubdtype(pixels.dtype, np.floating):
        return pixels[::2, ::2]
    height, width = pixels.shape
    even = np.pad(pixels, ((0, height % 2), (0, width % 2)), constant_values=np.nan)
    fours = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2)
    n_known = np.isfinite(fours).sum(axis=(1, 3))
    mean = np.nansum(fours, axis=(1, 3)) / np.maximum(n_known, 1)
    return np.where(n_known, mean, np.nan).astype(pixels.dtype)


def _dataset(raster: _Raster, level: int, *, with_channels: bool) -> dict[str, Any]:
    """Where a level lies: its first pixel is the middle of the pixels that it stands for."""
    factor = 2**level
    scale = [side * factor for side in raster.side]
    translation = [
        start + (factor - 1) / 2 * side
        for start, side in zip(raster.origin, raster.side, strict=True)
    ]
    if with_channels:
        scale, translation = [1.0, *scale], [0.0, *translation]
    transformations = [
        {"type": "scale", "scale": scale},
        {"type": "translation", "translation": translation},
    ]
    return {"path": str(level), "coordinateTransformations": transformations}


def _channels(results: TileResults, rgba: list[list[int]]) -> dict[str, Any]:
    """Names and colours of the channels, as viewers read them."""
    window = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    channels = [
        {"label": name, "color": f"{r:02X}{g:02X}{b:02X}", "window": window, "active": True}
        for name, (r, g, b, _) in zip(results.class_names, rgba, strict=True)
    ]
    return {"version": _VERSION, "channels": channels}


def _legend_of_classes(results: TileResults, rgba: list[list[int]]) -> dict[str, Any]:
    values = range(1, len(results.class_names) + 1)
    return _legend(
        [
            ({"label-value": value, "class": name}, colour)
            for value, name, colour in zip(values, results.class_names, rgba, strict=True)
        ]
    )


def _legend_of_objects(results: TileResults, rgba: list[list[int]]) -> dict[str, Any]:
    done = np.flatnonzero(results.is_done)
    labels = results.labels[done]
    shares = results.probabilities[done, labels].tolist()
    ids = np.asarray(results.object_ids)[done].tolist()
    return _legend(
        [
            (
                {"label-value": i, "class": results.class_names[label], "probability": share},
                rgba[label],
            )
            for i, label, share in zip(ids, labels.tolist(), shares, strict=True)
        ]
    )


def _legend(entries: list[tuple[dict[str, Any], list[int]]]) -> dict[str, Any]:
    """``image-label``: what label values mean, and their colours."""
    entries = [({"label-value": 0, "class": "not classified"}, [0, 0, 0, 0]), *entries]
    return {
        "version": _VERSION,
        "colors": [{"label-value": what["label-value"], "rgba": rgba} for what, rgba in entries],
        "properties": [what for what, _ in entries],
        "source": {"image": "../../"},
    }


def _rgba(results: TileResults, known: Colours) -> list[list[int]]:
    colours = colours_beside(results.class_names, known) * 255
    rgba: list[list[int]] = colours.round().astype(int).tolist()
    return rgba


def _refuse_inside_another(path: Path) -> None:
    """File dialogs enter a folder that is chosen, such as the one to be replaced."""
    outer = next((p for p in path.absolute().parents if p.name.lower().endswith(".zarr")), None)
    if outer is not None:
        raise ExportError(
            f"{path} lies inside of {outer.name}, which is an image of its own. Choose a place "
            f"beside it, and another name."
        )


def _is_ours(path: Path) -> bool:
    try:
        return KEY in json.loads((path / ".zattrs").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
