"""One prediction per tile, and where it came from."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.atomic import written_atomically
from napari_mambamic.errors import ExportError
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
        path = Path(path)
        if not path.parent.is_dir():
            raise ExportError(f"There is no folder {path.parent}. Create it or choose another.")
        ids, labels = self.object_ids, self.labels
        header = ["tile", "y", "x", "size", *(["object"] if ids is not None else [])]
        header += ["class", "probability", *(f"p_{name}" for name in self.class_names)]
        with (
            written_atomically(path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(header)
            for number, (tile, label) in enumerate(zip(self.tiles, labels.tolist(), strict=True)):
                row: list[Any] = [number, tile.y, tile.x, tile.size]
                row += [int(ids[number])] if ids is not None else []
                if label < 0:
                    row += [""] * (2 + len(self.class_names))
                else:
                    shares = self.probabilities[number]
                    row += [self.class_names[label], f"{shares[label]:.6g}"]
                    row += [f"{share:.6g}" for share in shares]
                writer.writerow(row)
        with written_atomically(path.with_suffix(".provenance.json")) as temporary:
            provenance = self.provenance | {"complete": self.complete}
            temporary.write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
        return path
