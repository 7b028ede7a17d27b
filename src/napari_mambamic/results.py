"""One prediction per tile, and where it came from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.tiling import ObjectTiles, Tile, TileGrid


@dataclass
class TileResults:
    """Predictions of a run, in the order of its tiles.

    Parameters
    ----------
    class_names : tuple of str
    tiles : sequence of Tile
        A `TileGrid` or `ObjectTiles`.
    probabilities : ndarray
        (n_tiles, n_classes) float32; a row of NaN is a tile that was not classified.
    embeddings : ndarray or None
        (n_tiles, d) float32, when they were asked for.
    provenance : dict
        Versions, weights and their hash, settings, device: plain values, ready for JSON.
    complete : bool
        False while a run goes on, and for ever when it was cancelled.
    """

    class_names: tuple[str, ...]
    tiles: Sequence[Tile]
    probabilities: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None
    provenance: dict[str, Any]
    complete: bool = True

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def is_done(self) -> NDArray[np.bool_]:
        """(n_tiles,) whether each tile was classified."""
        return np.isfinite(self.probabilities[:, 0])

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n_tiles,) index of the most probable class; -1 where a tile was not classified."""
        return self.labels_of(slice(None))

    def labels_of(self, tiles: NDArray[np.intp] | slice) -> NDArray[np.int64]:
        """As `labels`, of some tiles."""
        rows = self.probabilities[tiles]
        best = np.nan_to_num(rows, nan=-1.0).argmax(axis=1)
        return np.where(np.isfinite(rows[:, 0]), best, -1)

    @property
    def object_ids(self) -> NDArray[np.int64] | None:
        """(n_tiles,) number of the object or point of each tile; None for a grid."""
        return self.tiles.object_ids if isinstance(self.tiles, ObjectTiles) else None

    @property
    def counts(self) -> dict[str, int]:
        """Tiles per class, every class named."""
        labels = self.labels
        found = np.bincount(labels[labels >= 0], minlength=len(self.class_names))
        return dict(zip(self.class_names, found.tolist(), strict=True))

    def blended(self, how: str) -> TileResults:
        """The same results with the probabilities of overlapping tiles blended.

        Each tile speaks for the part of the plane that its label pixel covers; there, all tiles
        that overlap are averaged.  See `stitching.blended`; objects are not blended.
        """
        from napari_mambamic.stitching import blended

        if not isinstance(self.tiles, TileGrid):
            return self
        probabilities = blended(self.tiles, self.probabilities, how)
        settings = {**self.provenance.get("settings", {}), "blend": how}
        provenance = self.provenance | {"settings": settings}
        return replace(self, probabilities=probabilities, provenance=provenance)

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write one row per tile: number, y, x and size in px, class, probabilities.

        Objects also get their number.  The provenance goes beside it, to
        ``<name>.provenance.json``.  Neither file is ever half-written.

        Returns
        -------
        Path
            Of the CSV file.

        Raises
        ------
        ExportError
            The file could not be written; what was there is untouched.
        """
        from napari_mambamic.exports.table import write_csv

        return write_csv(self, path)

    def to_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Write a Parquet file with the columns of `to_csv`; probabilities are kept exactly.

        The provenance is in the metadata of the schema.  Needs pyarrow, of the extra ``exports``.

        Returns
        -------
        Path
            Of the file.

        Raises
        ------
        ExportError
            pyarrow is not installed, or as in `to_csv`.
        """
        from napari_mambamic.exports.table import write_parquet

        return write_parquet(self, path)

    def to_geojson(self, path: str | os.PathLike[str], *, labels: Any = None) -> Path:
        """Write GeoJSON that QuPath opens, with a polygon per tile or object that was classified.

        Each has its class, the class's colour and the probabilities of all classes as measurements.

        Parameters
        ----------
        path : path-like
            Compressed where it ends in ``.gz``.
        labels : array-like, optional
            The label image (y, x) that objects were cut by, for their outlines; without it, objects
            and points are shown as their tiles.

        Returns
        -------
        Path
            Of the file.

        Raises
        ------
        ExportError
            The label image does not fit, or as in `to_csv`.
        """
        from napari_mambamic.exports.geojson import write_geojson

        return write_geojson(self, path, labels=labels)

    def to_ome_zarr(self, path: str | os.PathLike[str], *, labels: Any = None) -> Path:
        """Write OME-Zarr 0.4: probabilities as an image, classes as its labels, at several sizes.

        A grid has one pixel per tile, placed where the tile is; in um where the pixel size is
        known.

        Parameters
        ----------
        path : path-like
            Of the folder, such as ``classes.ome.zarr``.  One that was saved by this package is
            replaced.
        labels : array-like, optional
            The label image (y, x) that objects were cut by; needed for objects.

        Returns
        -------
        Path
            Of the folder.

        Raises
        ------
        ExportError
            There is another folder or file at `path`; the results are of points; zarr is not
            installed; or as in `to_csv`.
        """
        from napari_mambamic.exports.ome_zarr import write_ome_zarr

        return write_ome_zarr(self, path, labels=labels)

    def to_thumbnail(
        self,
        path: str | os.PathLike[str],
        image: Any,
        *,
        labels: Any = None,
        longest_side: int = 1500,
    ) -> Path:
        """Write a PNG of the image with its classes in colour, and a legend with counts.

        Parameters
        ----------
        path : path-like
        image : array-like, list of array-like or ImagePyramid
            What was classified.  Of a pyramid a coarse level is read, of a single array every
            so-manieth pixel.
        labels : array-like, optional
            The label image (y, x) that objects were cut by; without it, objects and points are
            shown as the outlines of their tiles.
        longest_side : int
            Of the image in the picture, in px.

        Returns
        -------
        Path
            Of the file.

        Raises
        ------
        ExportError
            The image or the label image does not fit, or as in `to_csv`.
        """
        from napari_mambamic.exports.thumbnail import write_thumbnail

        return write_thumbnail(self, path, image, labels=labels, longest_side=longest_side)
