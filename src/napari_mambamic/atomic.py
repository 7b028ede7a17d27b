"""Files and folders that are never half-written: made beside their place, then renamed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_mambamic.errors import ExportError


@contextmanager
def written_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; move it to `path` when all went well.

    Raises
    ------
    ExportError
        The disk is full, the folder is missing or read-only.  What was at `path` is untouched.
    """
    path = Path(path)
    check_folder_of(path)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int = 2) -> None:
    """Write plain values as JSON; errors as in `written_atomically`."""
    with written_atomically(path) as temporary:
        temporary.write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")


@contextmanager
def folder_written_atomically(
    path: str | os.PathLike[str], *, may_replace: Callable[[Path], bool]
) -> Iterator[Path]:
    """Give an empty temporary folder to fill; move it to `path` when all went well.

    Raises
    ------
    ExportError
        There is something at `path` that `may_replace` says no to, or as in `written_atomically`.
    """
    path = Path(path)
    check_folder_of(path)
    if path.exists() and not may_replace(path):
        raise ExportError(
            f"{path} is there already and was not saved by napari-mambamic. Choose another name, "
            f"or remove it first."
        )
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
            new, old = Path(temporary, "new"), Path(temporary, "old")
            new.mkdir()
            yield new
            if path.exists():
                path.rename(old)
            try:
                new.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
    except OSError as error:
        raise _not_written(path, error) from error


def check_folder_of(path: Path) -> None:
    """Refuse a place whose folder is missing: before the work, where the work takes long."""
    if not path.parent.is_dir():
        raise ExportError(f"There is no folder {path.parent}. Create it or choose another.")


def _not_written(path: Path, error: OSError) -> ExportError:
    return ExportError(
        f"{path} could not be written: {error.strerror or error}. Nothing was changed there; "
        f"free space or choose another folder, and save again."
    )
