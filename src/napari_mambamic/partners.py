"""Files that lie beside images: label images, points, and polygons that tell where to classify.

A partner is named by a pattern such as ``{stem}_labels.tif`` or ``masks/{stem}.tif``, by a folder
that holds files with the stems of the images, or, for a single image, by its path.  Relative ones
are looked for beside the image, then in the working folder.  The stem of ``slide.ome.tif`` is
``slide.ome`` or ``slide``.  In a folder, label images may also be called as programs save them:
``slide_labels.tif``, ``slide_cp_masks.png``.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.errors import ImageError, NothingToClassify
from napari_mambamic.image import ImagePyramid
from napari_mambamic.image_files import open_image
from napari_mambamic.tables import table_rows

_PICTURES = (".tif", ".tiff", ".btf", ".png", ".bmp", ".zarr")
_GEOJSON = (".geojson", ".json", ".geojson.gz")
_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "objects": _PICTURES,
    "points": (".csv", *_GEOJSON),
    "within": _GEOJSON,
}
KINDS = tuple(_ENDINGS)
_NAMES = {"objects": "label image", "points": "file of points", "within": "file of polygons"}
# What names of label images have after the stem; the last one is Cellpose's.
_MARKS = ("_labels", "_label", "_masks", "_mask", "_cp_masks")
_MOST_NAMED = 3


@dataclass(frozen=True)
class Beside:
    """What lies beside an image, as `iter_classify` takes it.

    Parameters
    ----------
    objects : ndarray or None
        A label image (y, x), or points (n, 2).
    within : list of ndarray or None
        Polygons (k, 2) of (y, x) in px.
    numbers : ndarray or None
        Of points, their numbers in the file, which may hold some of other planes.
    note : str
        What is to be told about them.
    """

    objects: NDArray[Any] | None = None
    within: list[NDArray[np.float64]] | None = None
    numbers: NDArray[np.intp] | None = None
    note: str = ""

    @property
    def labels(self) -> NDArray[Any] | None:
        """The label image, for the outlines of its objects."""
        is_points = self.objects is None or self.objects.dtype == np.float64
        return None if is_points else self.objects


def read_partners(image: ImagePyramid, path: Path, patterns: Mapping[str, str]) -> Beside:
    """Read what lies beside an image; beside a plane of a stack, what belongs to that plane.

    Parameters
    ----------
    image : ImagePyramid
    path : path
        Of the image.
    patterns : mapping
        Some of "objects", "points" and "within"; see the top of this file.

    Raises
    ------
    ImageError
        A file is not there, of another kind, or does not fit the image.
    NothingToClassify
        It is empty.
    """
    files = {kind: partner_of(path, kind, patterns[kind]) for kind in KINDS if kind in patterns}
    within = _polygons(files["within"], image) if "within" in files else None
    if "objects" in files:
        return Beside(_labels(files["objects"], image), within)
    if "points" not in files:
        return Beside(within=within)
    points, numbers, n_points = _points(files["points"], image)
    note = ""
    if len(points) < n_points:
        note = f"{len(points):,} of the {n_points:,} points of {files['points'].name} lie there."
    return Beside(points, within, numbers, note)


def partner_of(path: Path, kind: str, pattern: str) -> Path:
    """The file beside an image.

    Raises
    ------
    ImageError
        There is none, or more than one.
    """
    what = _NAMES[kind]
    places = _places(path, pattern)
    for place in places:
        if place.is_dir() and place.suffix != ".zarr":
            found = _in_folder(place, path, kind)
            if len(found) > 1:
                raise ImageError(
                    f"Image {path} has more than one {what} in {place}: "
                    f"{', '.join(file.name for file in found)}. Remove all but one, or name it by "
                    f"a pattern such as '{{stem}}{found[0].suffix}'."
                )
            if found:
                return found[0]
            continue
        if place.exists() and not _is_same(place, path):
            return place
    folders = [place for place in places if place.is_dir() and place.suffix != ".zarr"]
    if folders:
        wanted = f"{_stems(path)[-1]}{_ENDINGS[kind][0]}"
        raise ImageError(
            f"Image {path} has no {what}: {folders[0]} holds no {wanted} or the like (the name of "
            f"the image, and {', '.join(_ENDINGS[kind])}). Add it, or leave the image out."
        )
    raise ImageError(
        f"Image {path} has no {what}: there is no {places[0]}. Add it, leave the image out, or "
        f"name the files otherwise, such as '{{stem}}_labels.tif', where {{stem}} is the name of "
        f"the image without its ending."
    )


def partners_of(path: Path, patterns: Mapping[str, str]) -> dict[str, Path]:
    """The files beside an image that are there, by what they are."""
    found = {}
    for kind, pattern in patterns.items():
        try:
            found[kind] = partner_of(path, kind, pattern)
        except ImageError:  # which reading them will say
            continue
    return found


def without_partners(
    paths: Iterable[str | Path], patterns: Mapping[str, str]
) -> tuple[list[Path], list[Path]]:
    """Part image files into those to classify and the partners of these, such as label images.

    Raises
    ------
    ImageError
        Of two, each could be the partner of the other.
    """
    files = [Path(path) for path in paths]
    partners = {
        os.path.abspath(file): {os.path.abspath(p) for p in partners_of(file, patterns).values()}
        for file in files
    }
    for file in files:
        for other in partners[os.path.abspath(file)] & partners.keys():
            if os.path.abspath(file) in partners[other]:
                raise ImageError(
                    f"{file} and {Path(other).name} have the same name, and which of them is the "
                    f"label image cannot be told. Name the label images by a pattern, such as "
                    f"'{{stem}}{Path(other).suffix}', or keep them in a folder of their own."
                )
    taken = set[str]().union(*partners.values())
    images = [file for file in files if os.path.abspath(file) not in taken]
    return images, [file for file in files if os.path.abspath(file) in taken]


def told_of_left_out(left_out: Sequence[Path]) -> str:
    """Which files are left out because they are label images of others; or nothing.

    >>> told_of_left_out([Path("a_labels.tif")])
    'Left out, as the label images of others: a_labels.tif.'
    """
    return f"Left out, as the label images of others: {_some(left_out)}." if left_out else ""


def told_of_lookalikes(images: Sequence[Path]) -> str:
    """Which images to classify have the names of label images of others; or nothing.

    >>> told_of_lookalikes([Path("a.tif"), Path("a_cp_masks.png")])[:62]
    'Classified as images, though named like label images of others'
    """
    marked = {
        (file.parent, stem + mark) for file in images for stem in _stems(file) for mark in _MARKS
    }
    alike = [file for file in images if any((file.parent, stem) in marked for stem in _stems(file))]
    if not alike:
        return ""
    return (
        f"Classified as images, though named like label images of others: {_some(alike)}. To "
        f"classify objects, say where the label images are (--objects)."
    )


def _some(files: Sequence[Path]) -> str:
    more = len(files) - _MOST_NAMED
    names = ", ".join(file.name for file in files[:_MOST_NAMED])
    return f"{names} and {more:,} more" if more > 0 else names


def _in_folder(folder: Path, path: Path, kind: str) -> list[Path]:
    """The files of a folder that may be the partner of an image.

    In another folder than the image's, its very name goes before names with marks.
    """
    stems, endings = _stems(path), _ENDINGS[kind]
    # Names first: a folder may hold thousands of files, and is looked through for each image.
    names = [name for name in sorted(os.listdir(folder)) if name.startswith(stems)]
    files = [folder / name for name in names if name.lower().endswith(endings)]
    others = {f: f.name.removesuffix(_ending(f, endings)) for f in files if not _is_same(f, path)}
    alike = [file for file, stem in others.items() if stem in stems]
    if kind != "objects" or (alike and not _is_same(folder, path.parent)):
        return alike
    marked = {stem + mark for stem in stems for mark in _MARKS}
    return alike + [file for file, stem in others.items() if stem in marked]


def _places(path: Path, pattern: str) -> list[Path]:
    names = [Path(pattern.replace("{stem}", stem)).expanduser() for stem in _stems(path)]
    return list(dict.fromkeys([path.parent / name for name in names] + names))


def _stems(path: Path) -> tuple[str, ...]:
    return tuple(dict.fromkeys([path.stem, path.stem.removesuffix(".ome")]))


def _ending(file: Path, endings: Sequence[str]) -> str:
    """The ending of a file, as it is written there."""
    longest = max((e for e in endings if file.name.lower().endswith(e)), key=len)
    return file.name[-len(longest) :]


def _is_same(one: Path, other: Path) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)


def _labels(path: Path, image: ImagePyramid) -> NDArray[Any]:
    labels = open_image(path)
    if labels.stack:
        place = _same_plane(path, labels.stack, image)
        labels = open_image(path, z=place.get("z"), t=place.get("t"))
    elif labels.channel_axis == 0 and [labels.n_channels] == [n for _, n in image.stack.values()]:
        # Stacks of three or four planes are often saved as if they were colours.
        labels = labels.with_channels([at for at, _ in image.stack.values()])
    if labels.n_channels != 1:
        raise ImageError(
            f"{path} is no label image: it has {labels.n_channels} channels. A label image has "
            f"one, with the number of an object in each of its pixels and 0 elsewhere."
        )
    if labels.plane_shape != image.plane_shape:
        raise ImageError(
            f"The label image {path} is {_in_px(labels)} and image {image.name!r} is "
            f"{_in_px(image)}. Give labels of this image, as large as it is."
        )
    pixels = labels.read(0, 0, *labels.plane_shape)[..., 0]
    if pixels.dtype.kind not in "bui":
        raise ImageError(
            f"{path} is no label image: its pixels are of type {pixels.dtype}, and labels are "
            f"whole numbers. Save it as integers."
        )
    if not (pixels > 0).any():
        where = f" on the plane {_place_of(labels)}" if labels.stack else ""
        raise NothingToClassify(
            f"The label image {path} has no objects{where}: no pixel is above 0."
        )
    return pixels


def _same_plane(
    path: Path, stack: Mapping[str, tuple[int, int]], image: ImagePyramid
) -> dict[str, int]:
    """Where the plane of an image lies in a stack of labels, which may lack the first axes."""
    ours = list(stack)
    theirs = ours if set(ours) <= set(image.stack) else list(image.stack)[-len(ours) :]
    lengths = [image.stack[axis][1] for axis in theirs]
    if [n for _, n in stack.values()] != lengths:
        raise ImageError(
            f"The label image {path} is a stack of {_in_planes(stack)}, and image {image.name!r} "
            f"{'has ' + _in_planes(image.stack) if image.stack else 'is a single plane'}. Give "
            f"labels of this image, with as many planes, or one plane for all."
        )
    return {axis: image.stack[their][0] for axis, their in zip(ours, theirs, strict=True)}


def _in_planes(stack: Mapping[str, tuple[int, int]]) -> str:
    return " and ".join(f"{n} planes along {axis}" for axis, (_, n) in stack.items())


def _points(path: Path, image: ImagePyramid) -> tuple[NDArray[np.float64], NDArray[np.intp], int]:
    """Points (n, 2) on the plane of an image, their numbers in the file, and how many it has."""
    is_table = path.suffix.lower() == ".csv"
    rows = list(_points_of_table(path, image) if is_table else _points_of_geojson(path))
    if not rows:
        raise NothingToClassify(f"{path} holds no points.")
    points = np.array([place for place, _ in rows], np.float64)
    height, width = image.plane_shape
    inside = ((points >= -0.5) & (points <= np.array((height, width)) - 0.5)).all(axis=1)
    if not inside.all():
        y, x = points[int(np.flatnonzero(~inside)[0])]
        raise ImageError(
            f"{np.count_nonzero(~inside)} of the {len(points)} points of {path} lie outside of "
            f"image {image.name!r}, which is {_in_px(image)}; the first is at (y, x) = ({y:.1f}, "
            f"{x:.1f}). Points are in px, y and x in this order."
        )
    numbers = np.flatnonzero(_on_plane(path, [planes for _, planes in rows], image))
    if not len(numbers):
        raise NothingToClassify(
            f"{path} holds no points on the plane {_place_of(image)}, but {len(points)} on others."
        )
    return points[numbers], numbers, len(points)


def _on_plane(
    path: Path, planes: Sequence[Mapping[str, float]], image: ImagePyramid
) -> NDArray[np.bool_]:
    """Which of some places of a file lie on the plane of an image; those of no plane lie on all.

    An image that is no stack may be a projection, on which everything lies.
    """
    there = np.ones(len(planes), bool)
    for axis, (place, n_planes) in image.stack.items():
        places = np.round([each.get(axis, place) for each in planes])
        outside = places[~((places >= 0) & (places < n_planes))]
        if len(outside):
            raise ImageError(
                f"{path} speaks of {axis} = {outside[0]:g}, and image {image.name!r} has "
                f"{n_planes} planes along {axis}, 0 to {n_planes - 1}. Planes are counted from 0."
            )
        there &= places == place
    return there


def _place_of(image: ImagePyramid) -> str:
    return ", ".join(f"{axis} = {place}" for axis, (place, _) in image.stack.items())


def _points_of_table(
    path: Path, image: ImagePyramid
) -> Iterator[tuple[tuple[float, float], dict[str, float]]]:
    """Each point (y, x), and its planes by axis."""
    with table_rows(path, ImageError) as (columns, rows):
        used = _columns_of_table(path, columns, image)
        for line, row in rows:
            try:
                values = {axis: float(row[column]) for axis, column in used.items()}
            except ValueError:
                raise ImageError(
                    f"{path} has no numbers for {_and(used)} in line {line}. Correct or remove it."
                ) from None
            yield (values.pop("y"), values.pop("x")), values


def _columns_of_table(path: Path, columns: Sequence[str], image: ImagePyramid) -> dict[str, str]:
    """Which columns hold y, x, and z and t where the table has them.

    napari names them by number, the last two of which are y and x.
    """
    if {"y", "x"} <= set(columns):
        return {axis: axis for axis in ("y", "x", *image.stack) if axis in columns}
    numbered: list[str] = []
    while (name := f"axis-{len(numbered)}") in columns:
        numbered.append(name)
    leading = len(numbered) - 2
    if leading < 0:
        raise ImageError(
            f"{path} has the columns {', '.join(columns) or 'none'}; y and x are needed, or axis-0 "
            f"and axis-1 as napari saves points, and before those z and t of a stack. The values "
            f"are px of the image."
        )
    if leading > len(image.stack):
        has = _in_planes(image.stack) if image.stack else "a single plane"
        raise ImageError(
            f"{path} has the columns axis-0 to axis-{len(numbered) - 1}, the last two of which are "
            f"y and x, and image {image.name!r} has {has}. Name the columns y and x, and of a "
            f"stack z and t."
        )
    named = list(image.stack)[len(image.stack) - leading :]
    return dict(zip([*named, "y", "x"], numbered, strict=True))


def _and(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"


def _points_of_geojson(path: Path) -> Iterator[tuple[tuple[float, float], dict[str, float]]]:
    """Each point (y, x), and its planes by axis."""
    others = set()
    n = 0
    for geometry, planes in _geometries(path):
        kind, coordinates = geometry["type"], geometry.get("coordinates", ())
        if kind not in ("Point", "MultiPoint"):
            others.add(str(kind))
            continue
        for place in np.atleast_2d(_numbers(coordinates, path))[:, :2]:
            n += 1
            yield (float(place[1]) - 0.5, float(place[0]) - 0.5), planes
    if not n and others:
        raise ImageError(
            f"{path} holds no points, but {', '.join(sorted(others))}. Polygons tell where to "
            f"classify (--within, within=)."
        )


def _polygons(path: Path, image: ImagePyramid) -> list[NDArray[np.float64]]:
    """Polygons on the plane of an image, each with its holes cut out by a line of no width."""
    polygons, planes = [], []
    for geometry, planes_of_geometry in _geometries(path):
        parts = geometry.get("coordinates", ())
        if geometry["type"] not in ("Polygon", "MultiPolygon"):
            continue
        for rings in [parts] if geometry["type"] == "Polygon" else parts:
            around = [_numbers(ring, path)[:, 1::-1] - 0.5 for ring in rings]
            if around and len(around[0]) > 2:
                start = around[0][:1]
                holes = [part for hole in around[1:] for part in (hole, start)]
                polygons.append(np.vstack([around[0], *holes]))
                planes.append(planes_of_geometry)
    if not polygons:
        raise NothingToClassify(
            f"{path} holds no polygons. Draw around what is to be classified, and export it as "
            f"GeoJSON."
        )
    there = np.flatnonzero(_on_plane(path, planes, image))
    if not len(there):
        raise NothingToClassify(
            f"{path} holds no polygons on the plane {_place_of(image)}, but {len(polygons)} on "
            f"others."
        )
    return [polygons[i] for i in there]


def _numbers(coordinates: Any, path: Path) -> NDArray[np.float64]:
    """(n, 2 or 3) of (x, y) as GeoJSON has them, from the corner of the first pixel."""
    try:
        numbers = np.atleast_2d(np.array(coordinates, np.float64))
    except (TypeError, ValueError):
        numbers = np.empty((0, 0))
    if numbers.ndim != 2 or numbers.shape[1] not in (2, 3) or not np.isfinite(numbers).all():
        raise ImageError(f"{path} is damaged: it has coordinates that are not x and y.")
    return numbers


def _geometries(path: Path) -> list[tuple[dict[str, Any], dict[str, float]]]:
    """Of a FeatureCollection, a list of features, a feature or a geometry, as QuPath exports.

    Each with its planes by axis.  QuPath leaves the first plane of a stack out; where no geometry
    of a file has a plane, they are of none.
    """
    try:
        opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig") as file:
            found = json.load(file)
        if isinstance(found, dict):
            found = found.get("features", [found])
        geometries = [each.get("geometry", each) for each in found]
        known = [geometry for geometry in geometries if geometry is not None]
        if not all("type" in geometry for geometry in known):
            raise ValueError("it has no features")
        if not any("plane" in geometry for geometry in known):
            return [(geometry, {}) for geometry in known]
        planes = [geometry.get("plane") or {} for geometry in known]
        places = [{axis: float(each.get(axis, 0)) for axis in ("z", "t")} for each in planes]
        return list(zip(known, places, strict=True))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ImageError(
            f"{path} cannot be read as GeoJSON: {error}. Export it from QuPath by File > Export "
            f"objects as GeoJSON."
        ) from error


def _in_px(image: ImagePyramid) -> str:
    height, width = image.plane_shape
    return f"{height} x {width} px"
