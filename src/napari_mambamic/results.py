"""One prediction per tile, and where it came from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.colours import Colours
from napari_mambamic.errors import ImageError, WeightsError
from napari_mambamic.tiling import ObjectTiles, Tile, TileGrid
from napari_mambamic.trust.conformal import sets_of

DISTANCE = "distance"  # the column of `TileResults.distances` in tables


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
    distances : ndarray or None
        (n_tiles,) float32, how far the embedding of each tile lies from those of the training set;
        None where the weights have no statistics of it.
    """

    class_names: tuple[str, ...]
    tiles: Sequence[Tile]
    probabilities: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None
    provenance: dict[str, Any]
    complete: bool = True
    distances: NDArray[np.float32] | None = None

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
        return np.where(np.isfinite(rows[:, 0]), rows.argmax(axis=1), -1)

    @property
    def object_ids(self) -> NDArray[np.int64] | None:
        """(n_tiles,) number of the object or point of each tile; None for a grid."""
        return self.tiles.object_ids if isinstance(self.tiles, ObjectTiles) else None

    @property
    def counts(self) -> dict[str, int]:
        """Tiles per class, every class named; without the unsure where they are not counted."""
        labels = self.labels[self.is_counted]
        found = np.bincount(labels[labels >= 0], minlength=len(self.class_names))
        return dict(zip(self.class_names, found.tolist(), strict=True))

    # ---- how far they can be trusted ----------------------------------------------------------

    @property
    def unsure_below(self) -> float:
        """The probability below which the run calls a tile unsure; 0: none is."""
        return float(self._settings.get("unsure_below") or 0.0)

    @property
    def is_unsure(self) -> NDArray[np.bool_]:
        """(n_tiles,) whether each tile is unsure by the threshold of the run."""
        return self.unsure(self.unsure_below)

    @property
    def counts_unsure(self) -> bool:
        """Whether unsure tiles count for the class that is most probable."""
        return bool(self._settings.get("count_unsure", True))

    @property
    def is_counted(self) -> NDArray[np.bool_]:
        """(n_tiles,) whether each tile counts for its class, once it is classified."""
        return np.ones(len(self), bool) if self.counts_unsure else ~self.is_unsure

    def unsure(
        self, threshold: float, tiles: NDArray[np.intp] | slice = slice(None)
    ) -> NDArray[np.bool_]:
        """(n_tiles,) whether the most probable class is less probable than `threshold`.

        ``labels`` stay as they are.  A tile that was not classified is not unsure.
        """
        _check_unsure(threshold)
        rows = self.probabilities[tiles]
        if not threshold:  # a million tiles would take a tenth of a second to say so
            return np.zeros(len(rows), bool)
        # Of few classes, `rows.max(axis=1)` takes three to ten times as long.
        unsure: NDArray[np.bool_] = np.ascontiguousarray(rows.T).max(axis=0) < threshold
        return unsure

    @property
    def is_unlike_training(self) -> NDArray[np.bool_] | None:
        """(n_tiles,) whether each tile is farther from the training set than 99 % of its likes.

        None where the weights have no statistics of their training set.  A tile that was not
        classified is not unlike it.
        """
        limit = self.distance_threshold
        if self.distances is None or limit is None:
            return None
        unlike: NDArray[np.bool_] = self.distances > limit
        return unlike

    @property
    def distance_threshold(self) -> float | None:
        """The distance above which tiles are unlike the training set, where the weights have it."""
        limit = self._trust.get("distance", {}).get("threshold")
        return None if limit is None else float(limit)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what makes these results doubtful; see `trust.warnings`."""
        return tuple(self.provenance.get("warnings", ()))

    def prediction_sets(self, coverage: float = 0.95) -> NDArray[np.bool_]:
        """Which classes may be the right one, tile by tile.

        On tiles like the training images at least `coverage` of the sets hold the right class; the
        surer the network is, the smaller they are.  See `trust.conformal`.

        Parameters
        ----------
        coverage : float
            Between 0 and 1.

        Returns
        -------
        ndarray
            (n_tiles, n_classes) bool; of tiles that were not classified, all False.

        Raises
        ------
        WeightsError
            The weights have no scores of samples that were held back.
        """
        if "conformal" not in self._trust:
            raise WeightsError(
                "The weights of these results have no scores of held-back samples, which sets of "
                "classes are made by. Train them anew with this version, or get them again."
            )
        return sets_of(self.probabilities, self._trust["conformal"], coverage)

    @property
    def coverage(self) -> float | None:
        """The coverage of the sets that tables tell the size of, if any."""
        return self._settings.get("coverage") or None

    def with_coverage(self, coverage: float | None) -> TileResults:
        """The same results with sizes of sets in tables, or without."""
        if coverage:
            self.prediction_sets(coverage)  # refuses what cannot be
        return self._with_settings(coverage=coverage or None)

    def with_unsure(self, threshold: float, *, counted: bool = True) -> TileResults:
        """The same results with another threshold.

        Parameters
        ----------
        threshold : float
            0 to 1: the probability below which tiles are unsure.
        counted : bool
            Whether the unsure count for the class that is most probable.
        """
        _check_unsure(threshold)
        return self._with_settings(unsure_below=threshold, count_unsure=counted)

    @property
    def entropy(self) -> NDArray[np.float32]:
        """(n_tiles,) of the probabilities: 0 = sure, 1 = all classes alike; NaN = not classified.

        Shannon's, divided by the logarithm of the number of classes.
        """
        return entropy_of(self.probabilities)

    @property
    def margin(self) -> NDArray[np.float32]:
        """(n_tiles,) probability of the first class minus that of the second; NaN as above."""
        return margin_of(self.probabilities)

    def trust_columns(self) -> dict[str, NDArray[Any]]:
        """What tables say of each tile beside its probabilities; columns (n_tiles,) by name."""
        columns: dict[str, NDArray[Any]] = {}
        if self.unsure_below > 0:
            columns["unsure"] = self.is_unsure
        if self.distances is not None:
            columns[DISTANCE] = self.distances
        unlike = self.is_unlike_training
        if unlike is not None:
            columns["unlike_training"] = unlike
        if self.coverage:
            columns["set_size"] = self.prediction_sets(self.coverage).sum(axis=1)
        return columns

    @property
    def _trust(self) -> dict[str, Any]:
        trust: dict[str, Any] = self.provenance.get("weights", {}).get("trust", {})
        return trust

    @property
    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = self.provenance.get("settings", {})
        return settings

    def _with_settings(self, **changed: Any) -> TileResults:
        settings = self._settings | changed
        return replace(self, provenance=self.provenance | {"settings": settings})

    def blended(self, how: str) -> TileResults:
        """The same results with the probabilities of overlapping tiles blended.

        Each tile speaks for the part of the plane that its label pixel covers; there, all tiles
        that overlap are averaged.  See `stitching.blended`; objects are not blended.
        """
        from napari_mambamic.stitching import blended

        if not isinstance(self.tiles, TileGrid):
            return self
        probabilities = blended(self.tiles, self.probabilities, how)
        return replace(self._with_settings(blend=how), probabilities=probabilities)

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

    def to_geojson(
        self, path: str | os.PathLike[str], *, labels: Any = None, colours: Colours | None = None
    ) -> Path:
        """Write GeoJSON that QuPath opens, with a polygon per tile or object that was classified.

        Each has its class, the class's colour and the probabilities of all classes as measurements.

        Parameters
        ----------
        path : path-like
            Compressed where it ends in ``.gz``.
        labels : array-like, optional
            The label image (y, x) that objects were cut by, for their outlines; without it, objects
            and points are shown as their tiles.
        colours : mapping, optional
            RGBA, 0 to 1, of classes by name, such as ``layer.metadata["colours"]`` of the layer
            that shows the results; the other classes get those of a first run.

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

        return write_geojson(self, path, labels=labels, colours=colours)

    def to_ome_zarr(
        self, path: str | os.PathLike[str], *, labels: Any = None, colours: Colours | None = None
    ) -> Path:
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
        colours : mapping, optional
            As in `to_geojson`.

        Returns
        -------
        Path
            Of the folder.

        Raises
        ------
        ExportError
            There is another folder or file at `path`; the results are of points; or as in
            `to_csv`.
        """
        from napari_mambamic.exports.ome_zarr import write_ome_zarr

        return write_ome_zarr(self, path, labels=labels, colours=colours)

    def to_thumbnail(
        self,
        path: str | os.PathLike[str],
        image: Any,
        *,
        labels: Any = None,
        colours: Colours | None = None,
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
        colours : mapping, optional
            As in `to_geojson`.
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

        return write_thumbnail(
            self, path, image, labels=labels, colours=colours, longest_side=longest_side
        )


def entropy_of(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Entropy (n,) of rows (n, n_classes), as `TileResults.entropy`.

    >>> entropy_of(np.array([[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]], np.float32)).tolist()
    [0.0, 1.0]
    """
    p = probabilities.astype(np.float64)
    sums = (p * -np.log(np.where(p == 0, 1, p))).sum(axis=1)  # NaN stays NaN
    scaled: NDArray[np.float32] = (sums / np.log(max(p.shape[1], 2))).astype(np.float32)
    return scaled


def margin_of(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Margin (n,) of rows (n, n_classes), as `TileResults.margin`."""
    if probabilities.shape[1] < 2:
        return probabilities[:, 0]
    first_two = np.partition(probabilities, -2, axis=1)[:, -2:]
    margin: NDArray[np.float32] = first_two[:, 1] - first_two[:, 0]
    return margin


def _check_unsure(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ImageError(
            f"The probability below which tiles are unsure is {threshold}. Choose 0 to 1."
        )
