"""Labels given by hand, one tile at a time: with undo, and written down as they are given."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from platformdirs import user_data_path

from napari_mambamic.errors import ExportError
from napari_mambamic.tiling import Tile


class Annotations:
    """Which tile has which class.

    Every change is appended to a journal at once, so that a crash loses nothing; a new object with
    the same journal goes on from there.

    Parameters
    ----------
    journal : path, optional
        A file of JSON lines.
    """

    def __init__(self, journal: str | os.PathLike[str] | None = None) -> None:
        self.journal = None if journal is None else Path(journal)
        self._classes: dict[Tile, str] = {}
        self._undone: list[tuple[Tile, str | None]] = []
        if self.journal is not None and self.journal.exists():
            self._replay(self.journal)

    def __len__(self) -> int:
        return len(self._classes)

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """Tiles that have a class, in the order in which they first got one."""
        return tuple(self._classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of `tiles`."""
        return tuple(self._classes.values())

    @property
    def counts(self) -> dict[str, int]:
        """Tiles of each class."""
        return dict(Counter(self._classes.values()))

    def class_of(self, tile: Tile) -> str | None:
        """Class of a tile, or None."""
        return self._classes.get(tile)

    def label(self, tile: Tile, name: str | None) -> None:
        """Give a tile a class, or take it away with None."""
        before = self._classes.get(tile)
        if before == name:
            return
        self._undone.append((tile, before))
        self._set(tile, name)

    def rename(self, names: Mapping[str, str]) -> None:
        """Call classes otherwise, from old names to new; `undo` takes back what was before."""
        self._undone = [
            (tile, None if name is None else names.get(name, name)) for tile, name in self._undone
        ]
        renamed = {t: names[name] for t, name in self._classes.items() if name in names}
        self._classes |= renamed
        for tile, name in renamed.items():
            self._keep(tile, name)

    def undo(self) -> Tile | None:
        """Take the last change back; returns its tile, or None when there was none."""
        if not self._undone:
            return None
        tile, before = self._undone.pop()
        self._set(tile, before)
        return tile

    def _set(self, tile: Tile, name: str | None) -> None:
        if name is None:
            self._classes.pop(tile, None)
        else:
            self._classes[tile] = name
        self._keep(tile, name)

    def _keep(self, tile: Tile, name: str | None) -> None:
        """Write a change down."""
        if self.journal is None:
            return
        line = json.dumps({"tile": [tile.y, tile.x, tile.size], "class": name}) + "\n"
        try:
            self.journal.parent.mkdir(parents=True, exist_ok=True)
            with open(self.journal, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise ExportError(
                f"The labels cannot be kept in {self.journal} ({error.strerror or error}). They "
                f"are still in this window: free space, or save the layer."
            ) from error

    def _replay(self, journal: Path) -> None:
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                tile = Tile(*(int(n) for n in entry["tile"]))
                name = entry["class"]
            except (ValueError, KeyError, TypeError):
                continue  # the line that a crash cut off
            if name is None:
                self._classes.pop(tile, None)
            else:
                self._classes[tile] = str(name)


def path_in_user_data(folder: str, name: str, key: str, suffix: str) -> Path:
    """Where something is kept in the user's data folder.

    The file is called by its `name` as far as file systems take it, and by a digest of its `key`.
    """
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    readable = "".join(c if c.isalnum() else "-" for c in name)[:40]
    return user_data_path("napari-mambamic") / folder / f"{readable}-{digest}{suffix}"
