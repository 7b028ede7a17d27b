"""Files that are never half-written: a temporary file beside the place, then a rename."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise ExportError(
            f"{path} could not be written: {error.strerror or error}. Nothing was changed there; "
            f"free space or choose another folder, and save again."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
