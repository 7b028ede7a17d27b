"""What a run has done so far, on disk, so that it can go on after it was interrupted.

A zarr group with two arrays in the order in which tiles were done: their numbers, and their
probabilities.  Whole blocks are written, and counted after they are; what was not counted is done
again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.errors import ExportError
from napari_mambamic.image import ImagePyramid

_BLOCK = 2048  # tiles


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
    """

    def __init__(self, folder: Path, key: str, n_tiles: int, n_classes: int) -> None:
        import zarr

        self.path = folder / f"{key[:24]}.zarr"
        self._pending: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        try:
            self._group: Any = zarr.open_group(self.path, mode="a")
            if self._group.attrs.get("key") != key or "done" not in self._group.attrs:
                self._create(key, n_tiles, n_classes)
            done: Any = self._group.attrs["done"]
            self._count = int(done)
        except OSError as error:
            raise self._not_kept(error) from error

    def _create(self, key: str, n_tiles: int, n_classes: int) -> None:
        block = min(_BLOCK, max(n_tiles, 1))
        for name, shape, dtype in (
            ("tiles", (n_tiles,), "int64"),
            ("probabilities", (n_tiles, n_classes), "float32"),
        ):
            self._group.create_array(
                name, shape=shape, chunks=(block, *shape[1:]), dtype=dtype, overwrite=True
            )
        self._group.attrs.update({"key": key, "done": 0})

    def done(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Numbers (k,) of the tiles that are done, and their probabilities (k, n_classes)."""
        tiles, probabilities = (
            self._group[name][: self._count] for name in ("tiles", "probabilities")
        )
        return np.asarray(tiles), np.asarray(probabilities)

    def add(self, tiles: NDArray[np.int64], probabilities: NDArray[np.float32]) -> None:
        """Keep some more; they are written when they fill a block."""
        self._pending.append((tiles, probabilities))
        if sum(len(numbers) for numbers, _ in self._pending) >= _BLOCK:
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
        tiles = np.concatenate([numbers for numbers, _ in self._pending])
        probabilities = np.concatenate([rows for _, rows in self._pending])
        stop = self._count + len(tiles)
        try:
            self._group["tiles"][self._count : stop] = tiles
            self._group["probabilities"][self._count : stop] = probabilities
            self._group.attrs["done"] = stop
        except OSError as error:
            raise self._not_kept(error) from error
        self._count, self._pending = stop, []

    def remove(self) -> None:
        """Delete the state, when the run is complete and its results are safe."""
        shutil.rmtree(self.path, ignore_errors=True)

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
