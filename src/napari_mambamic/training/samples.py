"""Labelled patches: what training learns from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from napari_mambamic.errors import SamplesError
from napari_mambamic.image import ImagePyramid
from napari_mambamic.patches import laid_on_white, read_tiles, to_unit_range
from napari_mambamic.tiling import Tile

_ENOUGH_FOR_REGIONS = 20  # tiles

TRAINING, VALIDATION, TEST = "training", "validation", "test"


@dataclass(frozen=True)
class Samples:
    """n patches of one size with a class each.

    Parameters
    ----------
    pixels : ndarray
        (n, y, x, channel) in the images' own dtype.
    labels : ndarray
        (n,) numbers of classes.
    class_names : tuple of str
    channels : tuple of str
    groups : ndarray of str, or None
        (n,) what may not be torn apart between training and validation: patient, slide, image.
    parts : ndarray of str, or None
        (n,) a split that comes with the data: "training", "validation" or "test".
    names : ndarray of str, or None
        (n,) where each sample is from, for messages and reports.
    pixel_size_um : float or None
        Where known.
    note : str
        What users should know about how the samples were made.
    """

    pixels: NDArray[Any]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    channels: tuple[str, ...]
    groups: NDArray[np.str_] | None = None
    parts: NDArray[np.str_] | None = None
    names: NDArray[np.str_] | None = None
    pixel_size_um: float | None = None
    note: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def tile_size(self) -> int:
        """Side of the patches in px."""
        return int(self.pixels.shape[1])

    @property
    def counts(self) -> dict[str, int]:
        """Samples of each class."""
        counted = np.bincount(self.labels, minlength=len(self.class_names)).tolist()
        return dict(zip(self.class_names, counted, strict=True))

    def name_of(self, index: int) -> str:
        """Where a sample is from."""
        return f"sample {index}" if self.names is None else str(self.names[index])


def samples_from_arrays(
    images: ArrayLike,
    labels: ArrayLike,
    *,
    class_names: Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    parts: ArrayLike | None = None,
    names: ArrayLike | None = None,
    pixel_size_um: float | None = None,
    note: str = "",
) -> Samples:
    """Samples from patches in memory.

    Parameters
    ----------
    images : array-like
        (n, y, x) or (n, y, x, channel); unsigned integers, or floats from 0 to 1.
    labels : array-like
        (n,) names of classes, or numbers from 0 on, for which `class_names` gives the names.
    class_names, channels : sequence of str, optional
        By default the labels in sorted order; and red, green, blue for three channels.
    groups, parts, names : array-like, optional
        See `Samples`.
    pixel_size_um : float, optional
    note : str

    Raises
    ------
    SamplesError
        The shapes do not fit together, or a label has no name.
    """
    pixels = np.asarray(images)
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim != 4 or pixels.shape[1] != pixels.shape[2]:
        raise SamplesError(
            f"The images have shape {np.shape(images)}; give square patches (n, y, x, channel) or "
            f"(n, y, x)."
        )
    given = np.asarray(labels)
    if given.shape != (len(pixels),):
        raise SamplesError(f"There are {len(pixels)} images and labels of shape {given.shape}.")
    numbers, known = _numbered(given, class_names)
    for what, values in (("groups", groups), ("parts", parts), ("names", names)):
        if values is not None and np.shape(values) != (len(pixels),):
            raise SamplesError(f"There are {len(pixels)} images and {np.shape(values)} {what}.")
    if channels is None:
        count = pixels.shape[-1]
        numbered = tuple(f"channel {i}" for i in range(1, count + 1))
        channels = {1: ("grey",), 3: ("red", "green", "blue")}.get(count, numbered)
    if len(channels) != pixels.shape[-1]:
        raise SamplesError(f"The images have {pixels.shape[-1]} channels, named are {channels}.")
    return Samples(
        pixels,
        numbers,
        known,
        tuple(channels),
        groups=_words(groups),
        parts=_words(parts),
        names=_words(names),
        pixel_size_um=pixel_size_um,
        note=note,
    )


def samples_from_image(
    image: ImagePyramid, tiles: Sequence[Tile], labels: ArrayLike, *, class_names: Sequence[str]
) -> Samples:
    """Samples from tiles of an image, cut as the classifier cuts them.

    Parameters
    ----------
    image : ImagePyramid
    tiles : sequence of Tile
        All of one size.
    labels : array-like
        (n,) numbers of classes.
    class_names : sequence of str

    Returns
    -------
    Samples
        Tiles that overlap are in one group, so that they stay on one side of a split.  Where most
        of them hang together, the image is divided into four regions instead, and tiles that
        overlap tiles of another region are left out, as few as possible; ``note`` tells how many.
    """
    if not len(tiles):
        raise SamplesError(f"No tile of image {image.name!r} is labelled. Label some first.")
    tiles = list(tiles)
    if len({tile.size for tile in tiles}) > 1:
        raise SamplesError("The tiles are of several sizes; training needs one tile size.")
    given = np.asarray(labels)
    parts, note = overlapping(tiles), ""
    if len(tiles) >= _ENOUGH_FOR_REGIONS and np.bincount(parts).max() > len(tiles) / 2:
        regions = _regions(tiles)
        kept = np.flatnonzero(~_across(tiles, regions))
        enough = set(given[kept].tolist()) == set(given.tolist())
        if enough and len(set(regions[kept].tolist())) > 1:
            note = (
                f"{len(tiles) - len(kept)} of {len(tiles)} tiles of image {image.name!r} are left "
                f"out: they overlap tiles of another region of the image."
            )
            tiles, given, parts = [tiles[i] for i in kept], given[kept], regions[kept]
    sizes = image.pixel_size_um
    return samples_from_arrays(
        read_samples(image, tiles),
        given,
        class_names=class_names,
        groups=[f"{image.name}, part {part}" for part in parts],
        note=note,
        names=[f"{image.name} at (y, x) = ({t.y}, {t.x})" for t in tiles],
        pixel_size_um=sizes[0] if sizes and sizes[0] == sizes[1] else None,
    )


def read_samples(image: ImagePyramid, tiles: Sequence[Tile]) -> NDArray[Any]:
    """Pixels (n, size, size, channel) of tiles; RGBA is laid on white, as for classifying."""
    pixels = read_tiles(image, tiles)
    if not (image.has_colours and image.n_channels == 4):
        return pixels
    laid: NDArray[Any] = laid_on_white(to_unit_range(pixels))
    if pixels.dtype.kind in "ui":
        laid = (laid * np.iinfo(pixels.dtype).max).round()
    return laid.astype(pixels.dtype)


def join_samples(parts: Sequence[Samples]) -> Samples:
    """Samples of several sources as one; classes are matched by their names.

    Raises
    ------
    SamplesError
        They differ in channels, pixel type or tile size.
    """
    if not parts:
        raise SamplesError("There are no samples. Label some tiles or objects first.")
    first = parts[0]
    for other in parts[1:]:
        for what, ours, theirs in (
            ("channels", first.channels, other.channels),
            ("a pixel type", first.pixels.dtype, other.pixels.dtype),
            ("a tile size", first.tile_size, other.tile_size),
        ):
            if ours != theirs:
                raise SamplesError(
                    f"The sources have different kinds of samples: {what} of {ours} and of "
                    f"{theirs}. Train on one kind at a time."
                )
    class_names = tuple(dict.fromkeys(name for part in parts for name in part.class_names))
    labels = [np.array([class_names.index(n) for n in p.class_names])[p.labels] for p in parts]

    def joined(what: str, otherwise: str) -> NDArray[np.str_] | None:
        values = [getattr(part, what) for part in parts]
        if all(value is None for value in values):
            return None
        filled = [
            np.array([f"{otherwise} {number}.{i}" for i in range(len(part))])
            if value is None
            else value
            for number, (part, value) in enumerate(zip(parts, values, strict=True))
        ]
        return np.concatenate(filled)

    if any((p.parts is None) != (first.parts is None) for p in parts):
        raise SamplesError(
            "Some sources bring their own split into training and validation, others do not. Train "
            "on one kind at a time."
        )
    return replace(
        first,
        pixels=np.concatenate([part.pixels for part in parts]),
        labels=np.concatenate(labels),
        class_names=class_names,
        groups=joined("groups", "source"),
        parts=joined("parts", ""),
        names=joined("names", "sample"),
        note=" ".join(part.note for part in parts if part.note),
    )


def without_copies(samples: Samples) -> Samples:
    """Samples without those that have the same pixels as an earlier one; ``note`` names them.

    Raises
    ------
    SamplesError
        Two samples with the same pixels have different classes.
    """
    first: dict[bytes, int] = {}
    kept: list[int] = []
    copies: list[int] = []
    for i, pixels in enumerate(samples.pixels):
        original = first.setdefault(hash_of(pixels), i)
        (kept if original == i else copies).append(i)
        if samples.labels[original] != samples.labels[i]:
            one, other = (samples.class_names[samples.labels[k]] for k in (original, i))
            raise SamplesError(
                f"{samples.name_of(original)} is {one} and {samples.name_of(i)}, with the same "
                f"pixels, is {other}. Correct one of them."
            )
    if not copies:
        return samples
    some = ", ".join(samples.name_of(i) for i in copies[:5])
    note = f"{len(copies)} copies of other samples are left out: {some}"
    note += ", ..." if len(copies) > 5 else "."
    groups, parts, names = (
        None if column is None else column[kept]
        for column in (samples.groups, samples.parts, samples.names)
    )
    return replace(
        samples,
        pixels=samples.pixels[kept],
        labels=samples.labels[kept],
        groups=groups,
        parts=parts,
        names=names,
        note=" ".join(filter(None, [samples.note, note])),
    )


def hash_of(pixels: NDArray[np.generic]) -> bytes:
    """Digest of a patch: equal pixels have equal digests."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=16).digest()


def overlapping(tiles: Sequence[Tile]) -> NDArray[np.int64]:
    """Numbers (n,) of connected clusters: tiles that share a pixel have the same number.

    >>> overlapping([Tile(0, 0, 4), Tile(0, 3, 4), Tile(8, 8, 4)]).tolist()
    [0, 0, 1]
    """
    pairs = _overlapping_pairs(tiles)
    shape = (len(tiles), len(tiles))
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=shape)
    clusters: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return clusters


def _overlapping_pairs(tiles: Sequence[Tile]) -> NDArray[np.int64]:
    places = np.array([(tile.y, tile.x) for tile in tiles], dtype=float)
    # Squares of one size share a pixel when both distances are smaller than that size.
    reach = tiles[0].size - 0.5
    pairs: NDArray[np.int64] = KDTree(places).query_pairs(reach, p=np.inf, output_type="ndarray")
    return pairs


def _regions(tiles: Sequence[Tile]) -> NDArray[np.int64]:
    """Numbers 0 to 3 of regions with equally many tiles: halves along the longer side, twice."""
    places = np.array([(tile.y, tile.x) for tile in tiles], dtype=float)
    regions = np.zeros(len(tiles), np.int64)
    for level in range(2):
        for region in np.unique(regions):
            members = np.flatnonzero(regions == region)
            longer = int(np.ptp(places[members], axis=0).argmax())
            order = members[np.argsort(places[members, longer], kind="stable")]
            regions[order[len(order) // 2 :]] += 2**level
    return regions


def _across(tiles: Sequence[Tile], regions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mask of tiles without which no two regions overlap: the one with most overlaps first."""
    left_out = np.zeros(len(tiles), bool)
    pairs = _overlapping_pairs(tiles)
    pairs = pairs[regions[pairs[:, 0]] != regions[pairs[:, 1]]]
    while len(pairs):
        worst = int(np.bincount(pairs.ravel()).argmax())
        left_out[worst] = True
        pairs = pairs[(pairs != worst).all(axis=1)]
    return left_out


def _words(values: ArrayLike | None) -> NDArray[np.str_] | None:
    return None if values is None else np.asarray(values).astype(str)


def _numbered(
    given: NDArray[Any], class_names: Sequence[str] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if np.issubdtype(given.dtype, np.integer):
        if class_names is None:
            raise SamplesError("The labels are numbers: give the names of the classes too.")
        if given.size and not 0 <= given.min() <= given.max() < len(class_names):
            raise SamplesError(
                f"The labels go from {given.min()} to {given.max()} and there are "
                f"{len(class_names)} class names; labels count from 0."
            )
        return given.astype(np.int64), tuple(class_names)
    words = given.astype(str)
    known = tuple(class_names) if class_names is not None else tuple(sorted(set(words.tolist())))
    unknown = sorted(set(words.tolist()) - set(known))
    if unknown:
        raise SamplesError(f"There are labels without a class name: {', '.join(unknown)}.")
    return np.array([known.index(word) for word in words], dtype=np.int64), known
