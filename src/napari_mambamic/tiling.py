"""Where tiles lie: integers, no pixels.

tile    a square place (y, x, size) on the plane; it may stick out of it
stride  tile size - overlap: the distance between neighbours

0         stride               the last tile of a row is moved back inside:
|-----------|-----------|--       it shares more than the overlap
[ tile 0       ]
[ tile 1       ]
[ tile 2       ]  <- plane ends here
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.measure import points_in_poly

from napari_mambamic.errors import ImageError, NothingToClassify

# A plane may be smaller than a tile: so many px, or so many times its longer side.
_LARGEST_PADDED, _MOST_PADDING = 1024, 4


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A square of the plane: its first pixel (y, x) and its side, in px of level 0."""

    y: int
    x: int
    size: int


@dataclass(frozen=True)
class TileGrid(Sequence[Tile]):
    """The tiles of a regular grid, row by row.

    Parameters
    ----------
    tile_size, overlap : int
        In pixels.
    rows, columns : tuple of int
        First pixel of the tiles of each row along y, of each column along x.
    region : (int, int, int, int)
        What is covered: its first pixel (y, x), its height and its width.
    """

    tile_size: int
    overlap: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    region: tuple[int, int, int, int]

    @property
    def stride(self) -> int:
        """Distance between neighbouring tiles in pixels."""
        return self.tile_size - self.overlap

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        return len(self.rows), len(self.columns)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @overload
    def __getitem__(self, index: int) -> Tile: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Tile, ...]: ...
    def __getitem__(self, index: int | slice) -> Tile | tuple[Tile, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row, column = divmod(index % len(self), len(self.columns))
        return Tile(self.rows[row], self.columns[column], self.tile_size)

    def __iter__(self) -> Iterator[Tile]:
        return (Tile(y, x, self.tile_size) for y in self.rows for x in self.columns)


@dataclass(frozen=True)
class ObjectTiles(Sequence[Tile]):
    """One tile around each object.

    Parameters
    ----------
    tiles : tuple of Tile
    object_ids : ndarray
        (n,) the number of each object in the label image, or of each point in its list.
    centres : ndarray
        (n, 2) the (y, x) that each tile was laid around.
    """

    tiles: tuple[Tile, ...]
    object_ids: NDArray[np.int64]
    centres: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.tiles)

    @overload
    def __getitem__(self, index: int) -> Tile: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Tile, ...]: ...
    def __getitem__(self, index: int | slice) -> Tile | tuple[Tile, ...]:
        return self.tiles[index]


def places_of(tiles: Sequence[Tile]) -> NDArray[np.int64]:
    """(n, 3) of (y, x, size) of tiles, without making each of a grid.

    >>> places_of(plan_tiles((4, 8), tile_size=4)).tolist()
    [[0, 0, 4], [0, 4, 4]]
    """
    if isinstance(tiles, TileGrid):
        y, x = np.meshgrid(tiles.rows, tiles.columns, indexing="ij")
        size = np.full(len(tiles), tiles.tile_size)
        return np.stack([y.ravel(), x.ravel(), size], axis=1).astype(np.int64)
    return np.array([(t.y, t.x, t.size) for t in tiles], np.int64).reshape(-1, 3)


def plan_tiles(
    plane_shape: tuple[int, int],
    *,
    tile_size: int,
    overlap: int = 0,
    region: tuple[int, int, int, int] | None = None,
) -> TileGrid:
    """Lay square tiles over a plane so that every pixel is in at least one.

    Tiles start every ``tile_size - overlap`` pixels.  The last one of a row is moved back
    inside the plane, so it may share more than `overlap` with its neighbour.  A plane that is
    smaller than a tile gets one tile at 0, whose rest is padded when it is read.  With a `region`
    (y, x, height, width), the same is done with that part of the plane.

    >>> plan_tiles((8, 20), tile_size=8, overlap=2).columns
    (0, 6, 12)
    """
    tile_size = _whole_tile_size(tile_size, plane_shape)
    if not 0 <= overlap < tile_size:
        raise ImageError(
            f"The overlap is {overlap} px and the tile size {tile_size} px. Choose an overlap "
            f"from 0 to {tile_size - 1} px."
        )
    height, width = (int(n) for n in plane_shape)
    if height < 1 or width < 1:
        raise ImageError(f"The plane is {height} x {width} px: there is nothing to cut.")
    y, x, region_height, region_width = region or (0, 0, height, width)
    if not (0 <= y < y + region_height <= height and 0 <= x < x + region_width <= width):
        raise ImageError(
            f"The region (y, x, height, width) = {region} does not lie inside the plane, which is "
            f"{height} x {width} px."
        )
    stride = tile_size - overlap

    def starts(first: int, length: int) -> tuple[int, ...]:
        last = first + max(length - tile_size, 0)
        return (*range(first, last, stride), last)

    rows, columns = starts(y, region_height), starts(x, region_width)
    covered = (y, x, region_height, region_width)
    return TileGrid(int(tile_size), int(overlap), rows, columns, covered)


def tiles_at_points(
    points: ArrayLike, *, tile_size: int, plane_shape: tuple[int, int] | None = None
) -> ObjectTiles:
    """Lay one tile around each point.

    Parameters
    ----------
    points : array-like
        (n, 2) of (y, x) in pixels; pixel i reaches from i - 0.5 to i + 0.5, as in napari.
    tile_size : int
        Side of the tiles.  With an odd size, the pixel of the point is the tile's middle pixel;
        with an even size, the point lies within half a pixel of the tile's centre.
    plane_shape : (int, int), optional
        When given, points outside of the plane are refused.

    Examples
    --------
    >>> tiles_at_points([(10, 20)], tile_size=5)[0]
    Tile(y=8, x=18, size=5)
    """
    tile_size = _whole_tile_size(tile_size, plane_shape)
    centres = np.asarray(points, dtype=np.float64)
    if centres.size == 0:
        raise NothingToClassify("There are no points. Add points on the cells to classify.")
    if centres.ndim != 2 or centres.shape[1] != 2:
        raise ImageError(f"The points have shape {centres.shape}; give (n, 2) numbers (y, x).")
    if not np.isfinite(centres).all():
        which = int(np.flatnonzero(~np.isfinite(centres).all(axis=1))[0])
        raise ImageError(f"Point {which} is {tuple(centres[which].tolist())}. Give finite numbers.")
    if plane_shape is not None:
        limits = np.asarray(plane_shape) - 0.5
        outside = np.flatnonzero(((centres < -0.5) | (centres > limits)).any(axis=1))
        if len(outside):
            y, x = centres[outside[0]]
            raise ImageError(
                f"{len(outside)} of {len(centres)} points lie outside of the image, which is "
                f"{plane_shape[0]} x {plane_shape[1]} px; the first is point {outside[0]} at "
                f"(y, x) = ({y:.1f}, {x:.1f}). Move or delete them."
            )
    starts = _starts_around(centres, np.full(len(centres), tile_size))
    tiles = tuple(Tile(int(y), int(x), int(tile_size)) for y, x in starts)
    return ObjectTiles(tiles, np.arange(len(tiles)), centres)


def tiles_of_objects(
    labels: Any, *, tile_size: int | None = None, scale: float | None = None
) -> ObjectTiles:
    """Lay one tile around each object of a label image, in the order of the labels.

    Parameters
    ----------
    labels : array-like
        (y, x) integers; 0 is background.
    tile_size : int, optional
        Side of all tiles, around the centre of each object's bounding box.
    scale : float, optional
        Instead of `tile_size`: each side is `scale` times the longer side of the bounding box.
    """
    if (tile_size is None) == (scale is None):
        raise ImageError("Give either a tile size or a scale for the objects, not both or none.")
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise ImageError(f"The scale of the objects is {scale}. Give a positive number.")
    array = np.asarray(labels)
    if array.ndim != 2:
        raise ImageError(f"The label image has shape {array.shape}; give one plane (y, x).")
    if tile_size is not None:
        tile_size = _whole_tile_size(tile_size, array.shape)
    if array.dtype == bool:
        array, _ = ndimage.label(array)
    if not np.issubdtype(array.dtype, np.integer):
        raise ImageError(
            f"The label image has pixels of type {array.dtype}; labels are whole numbers."
        )
    ids, compact = np.unique(array, return_inverse=True)
    if not (ids > 0).any():
        raise NothingToClassify(
            "The label image has no objects: no pixel is above 0. Segment or paint objects "
            "first, or cut the image into tiles."
        )
    boxes = ndimage.find_objects(compact.reshape(array.shape) + 1)
    found = [(i, box) for i, box in zip(ids.tolist(), boxes, strict=True) if i > 0]
    first = np.array([[s.start for s in box] for _, box in found], dtype=np.float64)
    stop = np.array([[s.stop for s in box] for _, box in found], dtype=np.float64)
    centres = (first + stop - 1) / 2
    if tile_size is not None:
        sizes = np.full(len(found), tile_size)
    else:
        longer = (stop - first).max(axis=1)
        sizes = np.ceil(float(scale or 1) * longer).astype(np.int64)
    starts = _starts_around(centres, sizes)
    tiles = tuple(
        Tile(int(y), int(x), int(size)) for (y, x), size in zip(starts, sizes, strict=True)
    )
    return ObjectTiles(tiles, np.array([i for i, _ in found], dtype=np.int64), centres)


def tile_at(tiles: Sequence[Tile], place: tuple[float, float]) -> int | None:
    """Number of the tile that holds a place (y, x); of several the one with the nearest middle.

    >>> tile_at(plan_tiles((4, 8), tile_size=4), (2, 3.7))
    1
    """
    if not len(tiles):
        return None
    places = places_of(tiles)
    away = np.abs(middles_of(tiles) - place).max(axis=1)
    holds = np.flatnonzero(away <= places[:, 2] / 2)
    return int(holds[away[holds].argmin()]) if len(holds) else None


def tiles_within(tiles: Sequence[Tile], within: Any) -> NDArray[np.bool_]:
    """(n_tiles,) whether the middle of each tile lies in one of some polygons, or on a mask.

    Parameters
    ----------
    tiles : sequence of Tile
    within : sequence of array-like, or array-like
        Polygons, each (k, 2) of (y, x) in px of the image; or a mask (y, x) of the image's plane:
        bool, or labels, of which 0 is outside.
    """
    return points_within(middles_of(tiles), within)


def middles_of(tiles: Sequence[Tile]) -> NDArray[np.float64]:
    """(n, 2) of (y, x) of the middles of tiles; pixel i reaches from i - 0.5 to i + 0.5.

    >>> middles_of(plan_tiles((4, 8), tile_size=4)).tolist()
    [[1.5, 1.5], [1.5, 5.5]]
    """
    places = places_of(tiles)
    return places[:, :2] + (places[:, 2:] - 1) / 2


def points_within(points: NDArray[np.float64], within: Any) -> NDArray[np.bool_]:
    """(n,) whether each point (y, x) lies in one of some polygons, or on a mask; see above."""
    if isinstance(within, (list, tuple)):
        inside = np.zeros(len(points), bool)
        for polygon in within:
            corners = np.asarray(polygon, float)
            near = ((points >= corners.min(axis=0)) & (points <= corners.max(axis=0))).all(axis=1)
            # points_in_poly lets no other thread run; a part of them takes some 10 ms.
            n_parts = near.sum() * len(corners) // 1_000_000 + 1
            for part in np.array_split(np.flatnonzero(near), n_parts):
                inside[part] |= points_in_poly(points[part], corners)
        return inside
    return values_at(points, within) > 0


def values_at(points: NDArray[np.float64], pixels: Any) -> NDArray[Any]:
    """(n,) pixels of a plane (y, x) at points; of points outside of it, the nearest pixels."""
    shape = np.shape(pixels)
    if len(shape) != 2:
        raise ImageError(f"The mask has shape {shape}; give one plane (y, x), or polygons.")
    rows, columns = (np.round(points[:, i]).astype(int).clip(0, shape[i] - 1) for i in range(2))
    return np.asarray(np.asarray(pixels)[rows, columns])


def _starts_around(
    centres: NDArray[np.float64], sizes: NDArray[np.integer[Any]]
) -> NDArray[np.int64]:
    """First pixels of tiles whose middle is as near to the centres as whole pixels allow."""
    return np.floor(centres - (sizes[:, np.newaxis] - 1) / 2 + 0.5).astype(np.int64)


def _whole_tile_size(tile_size: float, plane_shape: tuple[int, int] | None) -> int:
    """A tile size as an integer, if it is one that a plane can have."""
    try:
        whole = int(tile_size)
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if whole != tile_size or whole < 1:
        raise ImageError(f"The tile size is {tile_size} px. Choose a whole number of at least 1.")
    if plane_shape is not None:
        most = max(_LARGEST_PADDED, _MOST_PADDING * max(plane_shape))
        if whole > most:
            raise ImageError(
                f"The tile size is {whole} px, and the plane is {plane_shape[0]} x "
                f"{plane_shape[1]} px. Choose at most {most} px."
            )
    return whole
