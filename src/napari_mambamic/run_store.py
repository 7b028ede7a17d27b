"""What a run has done so far, on disk, so that it can go on after it was interrupted.

A zarr group with three arrays in the order in which tiles were done: their numbers, their
probabilities, and their distances from the training set (NaN where they have none).  Blocks are
written, and counted after they are; what was not counted is done again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.errors import ExportError
from napari_mambamic.image import ImagePyramid

_BLOCK, _LONGEST_S = 2048, 60.0  # tiles; time after which fewer are written
_ARRAYS = ("tiles", "probabilities", "distances")


class RunStore:
    """The state of one run.

    Parameters
    ----------
    folder : path
        Of the runs; each has a zarr group of its own there.
    key : str
        Digest of everything that decides the outcome.
    n_tiles, n_classes : int
        Tiles that are to be done, and probabilities of each.
    late : bool
        Make the group when there is something to write, not before.
    """

    def __init__(
        self, folder: Path, key: str, n_tiles: int, n_classes: int, *, late: bool = False
    ) -> None:
        self.path = folder / f"{key[:24]}.zarr"
        self._key, self._n_tiles, self._n_classes = key, n_tiles, n_classes
        self._pending: list[tuple[NDArray[Any], ...]] = []
        self._group: Any = None
        self._count, self._written = 0, time.monotonic()
        if not late or self.path.exists():
            self._open()

    def _open(self) -> None:
        import zarr

        try:
            self._group = zarr.open_group(self.path, mode="a")
            known = self._group.attrs.get("key") == self._key and "done" in self._group.attrs
            if not known or _ARRAYS[-1] not in self._group:
                self._create(self._key, self._n_tiles, self._n_classes)
            done: Any = self._group.attrs["done"]
            self._count = int(done)
        except OSError as error:
            raise self._not_kept(error) from error

    def _create(self, key: str, n_tiles: int, n_classes: int) -> None:
        block = min(_BLOCK, max(n_tiles, 1))
        for name, shape, dtype in (
            ("tiles", (n_tiles,), "int64"),
            ("probabilities", (n_tiles, n_classes), "float32"),
            ("distances", (n_tiles,), "float32"),
        ):
            self._group.create_array(
                name, shape=shape, chunks=(block, *shape[1:]), dtype=dtype, overwrite=True
            )
        self._group.attrs.update({"key": key, "done": 0})

    def done(self) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32] | None]:
        """What is done: numbers (k,), probabilities (k, n_classes), distances (k,) if there are."""
        if self._group is None:
            return np.empty(0, np.int64), np.empty((0, self._n_classes), np.float32), None
        tiles, probabilities, distances = (
            np.asarray(self._group[name][: self._count]) for name in _ARRAYS
        )
        return tiles, probabilities, distances if np.isfinite(distances).any() else None

    def add(
        self,
        tiles: NDArray[np.int64],
        probabilities: NDArray[np.float32],
        distances: NDArray[np.float32] | None = None,
    ) -> None:
        """Keep some more; they are written when they fill a block, or after a minute."""
        if distances is None:
            distances = np.full(len(tiles), np.nan, np.float32)
        self._pending.append((tiles, probabilities, distances))
        is_block = sum(len(part[0]) for part in self._pending) >= _BLOCK
        if is_block or time.monotonic() - self._written >= _LONGEST_S:
            self.write()

    def write(self) -> None:
        """Write what is pending.

        Raises
        ------
        ExportError
            The disk is full or gone; what was written before is kept.
        """
        if not self._pending:
            return
        if self._group is None:
            self._open()
        columns = [np.concatenate(parts) for parts in zip(*self._pending, strict=True)]
        stop = self._count + len(columns[0])
        try:
            for name, column in zip(_ARRAYS, columns, strict=True):
                self._group[name][self._count : stop] = column
            self._group.attrs["done"] = stop
        except OSError as error:
            raise self._not_kept(error) from error
        self._count, self._pending = stop, []
        self._written = time.monotonic()

    def end(self, *, complete: bool) -> None:
        """Write what is pending when the run ends, complete or not."""
        self.write()

    def remove(self) -> None:
        """Delete the state, when the run is complete and its results are safe."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._group, self._count = None, 0

    def _not_kept(self, error: OSError) -> ExportError:
        return ExportError(
            f"The state of the run cannot be kept in {self.path.parent}: {error}. Make room there, "
            f"or choose another folder."
        )


def key_of(image: ImagePyramid, decisive: dict[str, Any]) -> str:
    """Digest of an image, by some of its pixels, and of whatever else decides the outcome."""
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode())
    height, width = image.plane_shape
    digest.update(f"{image.name} {height} {width} {image.n_channels} {image.dtype}".encode())
    side = min(64, height, width)
    rng = np.random.default_rng(0)
    for y, x in rng.integers(0, (height - side + 1, width - side + 1), (16, 2)).tolist():
        digest.update(image.read(y, x, side, side).tobytes())
    return digest.hexdigest()
