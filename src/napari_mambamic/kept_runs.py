"""Long runs that are kept without being asked for, until they are complete.

In the user's cache folder, each a `RunStore` of its own, and a lock beside it that ends with the
program that holds it.  A run is there once it has done a block of tiles, or gone on for a minute;
short ones leave no trace.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from platformdirs import user_cache_path

from napari_mambamic.errors import ExportError
from napari_mambamic.image import ImagePyramid
from napari_mambamic.run_store import RunStore, key_of

LEAST_TILES = 256  # of a run that can take long: some seconds, or minutes with a slow network
MOST_BYTES, MOST_DAYS = 2 * 2**30, 30  # of all runs that were not completed
_PIXELS_AT_ONCE = 2**24


def kept_runs_folder() -> Path:
    """Folder of the runs that are kept; ``MAMBAMIC_RUNS_DIR`` names another."""
    named = os.environ.get("MAMBAMIC_RUNS_DIR")
    return Path(named) if named else user_cache_path("napari-mambamic") / "runs"


@dataclass(frozen=True)
class KeptRuns:
    """Where runs on an image of some files are kept, and what tells one from another.

    Parameters
    ----------
    folder : path
    files : tuple of str
        The files that the image was opened from: when one changes, it is another run.
    plane : tuple of int
        Which plane of them it is.
    """

    folder: Path
    files: tuple[str, ...]
    plane: tuple[int, ...] = ()

    def run_of(
        self, image: ImagePyramid, decisive: dict[str, Any], n_tiles: int, n_classes: int
    ) -> KeptRun | None:
        """The run on an image with these settings, with what was done of it before.

        None for one that is too short, or that another program is at, or that cannot be kept.
        """
        if n_tiles < LEAST_TILES:
            return None
        decisive = decisive | {
            "files": [[path, stamp_of(Path(path))] for path in self.files],
            "plane": self.plane,
            "pixels": _digest_of_memory(image),
            "version": version("napari-mambamic"),
        }
        key = key_of(image, decisive)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tidy(self.folder)
            return KeptRun(self.folder, key, n_tiles, n_classes)
        except (ExportError, OSError, Timeout):
            return None


class KeptRun(RunStore):
    """A `RunStore` that comes into being late, and goes when the run is complete.

    It does without the disk when that is full.
    """

    def __init__(self, folder: Path, key: str, n_tiles: int, n_classes: int) -> None:
        self._lock = _lock_of(folder / f"{key[:24]}.zarr")
        self._lock.acquire(blocking=False)
        try:
            super().__init__(folder, key, n_tiles, n_classes, late=True)
            self.done()
        except (ValueError, KeyError, RuntimeError, OSError):  # damaged, as zarr and codecs say it
            shutil.rmtree(folder / f"{key[:24]}.zarr", ignore_errors=True)
            super().__init__(folder, key, n_tiles, n_classes, late=True)

    def add(
        self,
        tiles: NDArray[np.int64],
        probabilities: NDArray[np.float32],
        distances: NDArray[np.float32] | None = None,
    ) -> None:
        """Keep some more, if that can be."""
        try:
            super().add(tiles, probabilities, distances)
        except ExportError:
            self._pending = []
            self.remove()

    def end(self, *, complete: bool) -> None:
        """Delete the state of a run that is complete, or of one that was short."""
        try:
            if complete:
                self.remove()
            elif self.path.exists():
                self.write()
        except ExportError:
            self.remove()
        finally:
            self._lock.release()
            if not self.path.exists():
                _remove_lock(self._lock)


def tidy(folder: Path) -> None:
    """Remove runs that nobody went on with for a month, and the oldest where there are too many."""
    stamps = {path: stamp_of(path) or [0, 0] for path in folder.glob("*.zarr")}
    total = sum(size for size, _ in stamps.values())
    oldest = time.time_ns() - MOST_DAYS * 86_400 * 10**9
    for path, (size, changed) in sorted(stamps.items(), key=lambda stamp: stamp[1][1]):
        if changed >= oldest and total <= MOST_BYTES:
            return
        try:
            with _lock_of(path).acquire(blocking=False):
                shutil.rmtree(path, ignore_errors=True)
        except Timeout:  # somebody is at it
            continue
        _remove_lock(_lock_of(path))
        total -= size


def stamp_of(path: Path) -> list[int] | None:
    """Bytes and time of the last change of a file, or of all files of a folder."""
    files = [path]
    if path.is_dir():
        files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    try:
        found = [file.stat() for file in files]
    except OSError:  # opening it will say why
        return None
    return [sum(s.st_size for s in found), max((s.st_mtime_ns for s in found), default=0)]


def _lock_of(path: Path) -> FileLock:
    return FileLock(path.with_suffix(".lock"), thread_local=False)


def _remove_lock(lock: FileLock) -> None:
    with suppress(OSError):  # the folder went away, or another program has it by now
        os.unlink(lock.lock_file)


def _digest_of_memory(image: ImagePyramid) -> str | None:
    """Of all pixels that lie in memory: they may be others than those of their file by now."""
    if image.chunk_shape() is not None:
        return None
    height, width = image.plane_shape
    digest = hashlib.blake2b(digest_size=32)
    rows = max(1, _PIXELS_AT_ONCE // width)
    for y in range(0, height, rows):
        digest.update(image.read(y, 0, min(rows, height - y), width).tobytes())
    return digest.hexdigest()
