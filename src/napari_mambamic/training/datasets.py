"""Samples from files: folders, tables, arrays, boxes and points."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from skimage.transform import resize

from napari_mambamic.errors import ImageError, SamplesError
from napari_mambamic.image import ImagePyramid
from napari_mambamic.image_files import open_image
from napari_mambamic.tables import table_rows
from napari_mambamic.tiling import Tile, tiles_at_points
from napari_mambamic.training.corrections import SUFFIX, samples_from_corrections
from napari_mambamic.training.samples import (
    TEST,
    TRAINING,
    VALIDATION,
    Samples,
    join_samples,
    read_samples,
    samples_from_arrays,
)

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_PLACE = ("y", "x")
_LARGEST = 256  # px; larger images are samples of tissue, and networks see 224 px


def samples_from_path(
    path: str | Path, *, tile_size: int | None = None, skip_unreadable: bool = False
) -> Samples:
    """Samples from whatever a path leads to.

    Class folders, a table (.csv), an array file (.npz), boxes, or corrections (.mambamic.json).

    `skip_unreadable` is for class folders; see `samples_from_folder`.
    """
    source = Path(path)
    if source.suffix.lower() == ".csv":
        return samples_from_csv(source, tile_size=tile_size)
    if source.suffix.lower() == ".npz":
        return samples_from_npz(source)
    if source.name.endswith(SUFFIX):
        return samples_from_corrections(source)
    if not source.is_dir():
        raise SamplesError(
            f"{source} is neither a folder nor a .csv, .npz or {SUFFIX} file. Give one that is "
            f"there."
        )
    if next(source.rglob("*.xml"), None) is not None:
        return samples_from_boxes(source, tile_size=tile_size)
    return samples_from_folder(source, tile_size=tile_size, skip_unreadable=skip_unreadable)


def samples_from_folder(
    path: str | Path, *, tile_size: int | None = None, skip_unreadable: bool = False
) -> Samples:
    """Samples from a folder whose subfolders are classes, ``folder/class/*.png``.

    Parameters
    ----------
    path : path
    tile_size : int, optional
        Side that the images are resampled to; by default the median of their shorter sides, at
        most 256 px.  Of an image that is not square, the square in the middle is taken.
    skip_unreadable : bool
        Leave unreadable images out, and name them in ``note``, instead of stopping at the first.

    Raises
    ------
    SamplesError
        There are no such folders, or an image cannot be read.
    """
    folder = Path(path)
    files = [
        file
        for file in sorted(folder.glob("*/*"))
        if file.suffix.lower() in _SUFFIXES
        and not file.name.startswith(".")
        and not file.parent.name.startswith(".")  # such as .ipynb_checkpoints
    ]
    if not files:
        raise SamplesError(
            f"{folder} has no folders with images in them. Make a folder for each class, and put "
            f"its images (png, jpg, tif or bmp) there."
        )
    images, kept, skipped, notes = [], [], [], list[str]()
    for file in files:
        try:
            images.append(_square(_opened(file, notes)))
        except (ImageError, SamplesError) as error:
            if skip_unreadable:
                skipped.append(str(file.relative_to(folder)))
                continue
            raise SamplesError(
                f"{error} Or remove it, or choose to skip unreadable images."
            ) from error
        kept.append(file)
    if not images:
        raise SamplesError(f"None of the {len(files)} images in {folder} can be read.")
    if skipped:
        some = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        notes.insert(0, f"{len(skipped)} unreadable images are left out: {some}.")
    return samples_from_arrays(
        _of_one_size(images, kept, tile_size),
        [file.parent.name for file in kept],
        names=[str(file.relative_to(folder)) for file in kept],
        note=_joined(notes),
    )


def samples_from_csv(path: str | Path, *, tile_size: int | None = None) -> Samples:
    """Samples from a table with the columns path and label, and optionally group, y and x.

    Paths are relative to the table.  With y and x (in px), a tile of `tile_size` around that place
    is the sample; without them, the whole image.

    Raises
    ------
    SamplesError
        A column or a cell is missing, a place lies outside of its image, or an image cannot be
        read.
    """
    table = Path(path)
    columns: dict[str, list[str]] = {}
    with table_rows(table, SamplesError) as (found, rows):
        if not {"path", "label"} <= set(found):
            raise SamplesError(
                f"{table} has the columns {', '.join(found) or '(none)'}; it needs path and "
                f"label, and may have group, y and x."
            )
        columns = {name: [] for name in ("path", "label", "group", *_PLACE) if name in found}
        for line, row in rows:
            for name, cells in columns.items():
                _check_cell(table, line, name, row[name])
                cells.append(row[name])
    if not columns["path"]:
        raise SamplesError(f"{table} has no rows below its header. Add one for each sample.")
    groups = columns.get("group")
    files = [table.parent / name for name in columns["path"]]
    notes: list[str] = []
    if set(_PLACE) <= columns.keys():
        if tile_size is None:
            raise SamplesError(f"{table} gives places in images: choose a tile size.")
        places = np.array([columns["y"], columns["x"]], np.float64).T
        pixels = _tiles_of_files(files, places, tile_size, notes)
        groups = groups or [str(file) for file in files]
    else:
        pixels = _of_one_size([_square(_opened(f, notes)) for f in files], files, tile_size)
    return samples_from_arrays(
        pixels, columns["label"], groups=groups, names=columns["path"], note=_joined(notes)
    )


def gives_places(path: str | Path) -> bool:
    """Whether a path leads to a table whose samples are tiles around places in images."""
    table = Path(path)
    if table.suffix.lower() != ".csv":
        return False
    with table_rows(table, SamplesError) as (columns, _):
        return set(_PLACE) <= set(columns)


def _check_cell(table: Path, line: int, column: str, cell: str) -> None:
    if not cell:
        raise SamplesError(
            f"{table} has nothing for {column} in line {line}. Fill it in, or remove the line."
        )
    if column in _PLACE and not _is_number(cell):
        raise SamplesError(
            f"{table} has {column} = {cell} in line {line}, which is no number. Write numbers as "
            f"12 or 12.5."
        )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def samples_from_npz(path: str | Path) -> Samples:
    """Samples from an ``.npz`` file.

    Either with ``images`` (n, y, x) or (n, y, x, channel) or (n, channel, y, x), ``labels`` (n,),
    and optionally ``groups`` or ``patient`` (n,), ``classes`` or ``class_names``, and
    ``channels``; or as MedMNIST has it, with ``train_images``, ``val_labels`` and so on, whose
    split is kept.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise SamplesError(f"{path} cannot be read as an .npz file ({error}).") from error
    if "train_images" in arrays:
        parts = {"train": TRAINING, "val": VALIDATION, "test": TEST}
        if "test_images" not in arrays:
            del parts["test"]
        missing = {f"{key}_{what}" for key in parts for what in ("images", "labels")} - set(arrays)
        if missing:
            raise SamplesError(
                f"{path} holds {', '.join(arrays)}; it needs {', '.join(sorted(missing))} too."
            )
        images = np.concatenate([arrays[f"{key}_images"] for key in parts])
        labels = np.concatenate([arrays[f"{key}_labels"] for key in parts])
        if labels.ndim > 1 and labels.shape[1] > 1:
            raise SamplesError(f"{path} gives several labels for an image; one is needed.")
        labels = labels.reshape(-1).astype(np.int64)
        return samples_from_arrays(
            images,
            labels,
            class_names=[f"class {i}" for i in range(int(labels.max()) + 1)],
            parts=np.repeat(list(parts.values()), [len(arrays[f"{key}_images"]) for key in parts]),
        )
    if not {"images", "labels"} <= set(arrays):
        raise SamplesError(f"{path} holds {', '.join(arrays)}; it needs images and labels.")
    images, labels = arrays["images"], arrays["labels"].reshape(-1)
    if not len(images):
        raise SamplesError(f"{path} holds no images: the shape of images is {images.shape}.")
    if images.ndim == 4 and images.shape[1] != images.shape[2]:
        images = images.transpose(0, 2, 3, 1)
    names = arrays.get("classes", arrays.get("class_names"))
    if names is None and np.issubdtype(labels.dtype, np.integer):
        names = np.array([f"class {i}" for i in range(int(labels.max()) + 1)])
    channels = arrays.get("channels")
    return samples_from_arrays(
        images,
        labels,
        class_names=None if names is None else names.astype(str).tolist(),
        channels=None if channels is None else channels.astype(str).tolist(),
        groups=arrays.get("groups", arrays.get("patient")),
        names=arrays.get("names", arrays.get("name")),
    )


def samples_from_boxes(
    path: str | Path, *, tile_size: int | None = None, scale: float = 1.3
) -> Samples:
    """Samples from boxes in the XML format of PASCAL VOC: one square around each box.

    Parameters
    ----------
    path : path
        A folder that is searched for ``.xml`` files; images are looked for by the name that each
        file gives, anywhere in the folder.
    tile_size : int, optional
        Side of the squares in px, around the middle of each box.
    scale : float
        Without a tile size: the side is so many times the longer side of the box, and the squares
        are resampled to their median size.
    """
    folder = Path(path)
    images = {file.name: file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES}
    patches, labels, groups, notes = [], [], [], list[str]()
    for file in sorted(folder.rglob("*.xml")):
        try:
            root = ElementTree.parse(file).getroot()
        except ElementTree.ParseError as error:
            raise SamplesError(f"{file} cannot be read as XML ({error}).") from error
        name = root.findtext("filename", "")
        source = images.get(name) or images.get(f"{file.stem}{Path(name).suffix or '.jpg'}")
        if source is None:
            raise SamplesError(f"{file} speaks of the image {name!r}, which is not in {folder}.")
        image = _opened(source, notes)
        for item in root.iter("object"):
            corners = [float(item.findtext(f"bndbox/{k}", "nan")) for k in _CORNERS]
            x0, y0, x1, y1 = corners
            if not (np.isfinite(corners).all() and x1 > x0 and y1 > y0):
                continue  # some public sets hold boxes without an area
            side = tile_size or max(8, round(scale * max(y1 - y0, x1 - x0)))
            tiles = tiles_at_points([((y0 + y1) / 2, (x0 + x1) / 2)], tile_size=side)
            patches.append(read_samples(image, tiles)[0])
            labels.append(item.findtext("name", ""))
            groups.append(source.stem)
    if not patches:
        raise SamplesError(f"{folder} has no boxes: no .xml file with objects was found.")
    return samples_from_arrays(
        _of_one_size(patches, groups, tile_size), labels, groups=groups, note=_joined(notes)
    )


def samples_from_points(
    images: str | Path,
    points: str | Path,
    *,
    tile_size: int,
    class_names: Sequence[str] | None = None,
) -> Samples:
    """Samples around points: for each image a text file of the same name, ``x y class`` a line.

    Parameters
    ----------
    images, points : path
        Folders.
    tile_size : int
        Side of the tile around each point in px.
    class_names : sequence of str, optional
        By default the numbers in the files; names of classes that do not occur are left out.
    """
    by_stem = {f.stem: f for f in Path(images).iterdir() if f.suffix.lower() in _SUFFIXES}
    parts, notes = [], list[str]()
    for file in sorted(Path(points).glob("*.txt")):
        if file.stem not in by_stem:
            raise SamplesError(f"{file} has no image of the same name in {images}.")
        try:
            table = np.loadtxt(file, ndmin=2)
        except ValueError as error:
            raise SamplesError(f"{file} does not hold lines 'x y class' ({error}).") from error
        if not len(table):
            continue
        source = by_stem[file.stem]
        numbers = table[:, 2].astype(int)
        words = [class_names[i] if class_names else str(i) for i in numbers]
        pixels = _tiles_of_files([source] * len(table), table[:, 1::-1], tile_size, notes)
        names = [f"{source.name} at (x, y) = ({x:.0f}, {y:.0f})" for x, y in table[:, :2]]
        parts.append(
            samples_from_arrays(pixels, words, groups=[source.stem] * len(words), names=names)
        )
    if not parts:
        raise SamplesError(f"{points} has no .txt files with points.")
    joined = join_samples(parts)
    order = class_names or sorted(joined.class_names, key=lambda n: (not n.isdigit(), n.zfill(9)))
    known = [name for name in order if name in joined.class_names]
    return samples_from_arrays(
        joined.pixels,
        np.array(joined.class_names)[joined.labels],
        class_names=known,
        groups=joined.groups,
        names=joined.names,
        note=_joined(notes),
    )


_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def _opened(file: Path, notes: list[str]) -> ImagePyramid:
    """An image file; what is to be told about it is added to the notes."""
    try:
        image = open_image(file)
    except ImageError as error:
        raise SamplesError(str(error)) from error
    if image.note:
        notes.append(image.note)
    return image


def _joined(notes: list[str]) -> str:
    return " ".join(notes[:5]) + (f" And {len(notes) - 5} more of that." if notes[5:] else "")


def _square(image: ImagePyramid) -> NDArray[Any]:
    """The square in the middle, (y, x, channel)."""
    side = min(image.plane_shape)
    top, left = ((length - side) // 2 for length in image.plane_shape)
    square: NDArray[Any] = read_samples(image, [Tile(top, left, side)])[0]
    return square


def _of_one_size(
    images: Sequence[NDArray[Any]], names: Sequence[object], size: int | None
) -> NDArray[Any]:
    for what, kinds in (
        ("channels", [image.shape[-1] for image in images]),
        ("pixel types", [image.dtype for image in images]),
    ):
        first = kinds[0]
        for name, kind in zip(names, kinds, strict=True):
            if kind != first:
                raise SamplesError(
                    f"The images have different {what}: {names[0]} has {first}, {name} has {kind}. "
                    f"Convert them to one kind."
                )
    side = size or min(int(np.median([len(image) for image in images])), _LARGEST)
    return np.stack([_resampled(image, side) for image in images])


def _resampled(image: NDArray[Any], side: int) -> NDArray[Any]:
    if len(image) == side:
        return image
    scaled = resize(image, (side, side), anti_aliasing=len(image) > side, preserve_range=True)
    if np.issubdtype(image.dtype, np.integer):
        scaled = scaled.round()
    resampled: NDArray[Any] = scaled.astype(image.dtype)
    return resampled


def _tiles_of_files(
    files: Sequence[Path],
    places: Sequence[tuple[float, float]] | NDArray[Any],
    tile_size: int,
    notes: list[str],
) -> NDArray[Any]:
    patches: list[NDArray[Any]] = []
    opened: tuple[Path, Any] | None = None
    for file, place in zip(files, places, strict=True):
        if opened is None or opened[0] != file:
            opened = file, _opened(file, notes)
        image = opened[1]
        try:
            tiles = tiles_at_points([place], tile_size=tile_size, plane_shape=image.plane_shape)
        except ImageError as error:
            raise SamplesError(f"{file}: {error}") from error
        patches.append(read_samples(image, tiles)[0])
    return np.stack(patches)
