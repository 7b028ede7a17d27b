"""Labels that people gave to classified tiles, kept in a file beside the image.

The file of ``slide.svs`` is ``slide.svs.mambamic.json``.  It holds the last word about each tile:
files that several windows wrote are joined by taking, of each tile, what was said last.  A label
that was taken back stays as a line without a class, or it would come back from the other window.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from napari_mambamic.atomic import write_json
from napari_mambamic.errors import ExportError, SamplesError
from napari_mambamic.image import ImagePyramid
from napari_mambamic.image_files import open_image
from napari_mambamic.tiling import Tile
from napari_mambamic.training.annotations import Annotations, path_in_user_data
from napari_mambamic.training.samples import Samples, join_samples, samples_from_image

FORMAT = 1
SUFFIX = ".mambamic.json"
_LONGEST_WAIT_S = 10  # for another window that writes
Key = tuple[tuple[int, ...], Tile]


@dataclass(frozen=True, slots=True)
class Correction:
    """What was said about a tile.

    Parameters
    ----------
    tile : Tile
        In px of level 0.
    plane : tuple of int
        Where the plane lies along the leading axes of a stack; () of an image of one plane.
    pixel_size_um : (float, float) or None
        Of level 0.
    old, new : str or None
        What the weights said, and what the person said; the same where the person agreed.  Of
        `new`, None: the label was taken back.
    weights, sha256 : str
        Which weights said so.
    time : str
        UTC, ISO 8601 to the microsecond.
    """

    tile: Tile
    plane: tuple[int, ...]
    pixel_size_um: tuple[float, float] | None
    old: str | None
    new: str | None
    weights: str
    sha256: str
    time: str

    @property
    def key(self) -> Key:
        """What there is one correction of."""
        return self.plane, self.tile

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "y": self.tile.y,
            "x": self.tile.x,
            "size": self.tile.size,
            "level": 0,
            "plane": list(self.plane),
            "pixel_size_um": self.pixel_size_um and list(self.pixel_size_um),
            "old": self.old,
            "new": self.new,
            "weights": self.weights,
            "sha256": self.sha256,
            "time": self.time,
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Correction:
        """Read what `as_json` made."""
        size_um = line["pixel_size_um"]
        return cls(
            Tile(int(line["y"]), int(line["x"]), int(line["size"])),
            tuple(int(i) for i in line["plane"]),
            (float(size_um[0]), float(size_um[1])) if size_um else None,
            None if line["old"] is None else str(line["old"]),
            None if line["new"] is None else str(line["new"]),
            *(str(line[k]) for k in ("weights", "sha256", "time")),
        )


@dataclass(frozen=True)
class Sidecar:
    """What the file beside an image holds.

    Parameters
    ----------
    image : mapping
        ``name``, ``path`` (None where unknown), ``plane_shape``, ``channels`` (None: all), ``axes``
        (names of the leading axes) and ``opened_with`` (keywords of `open_image`).
    corrections : mapping
        By plane and tile.
    """

    image: Mapping[str, Any]
    corrections: Mapping[Key, Correction] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Sidecar:
        """Read a file.

        Raises
        ------
        SamplesError
            It is missing, damaged, or of a newer format.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            number = int(content["format"])
            if number > FORMAT:
                raise SamplesError(
                    f"{path} was written by a newer napari-mambamic (format {number}, this one "
                    f"reads up to {FORMAT}). Update napari-mambamic; the file is left as it is."
                )
            lines = [Correction.from_json(line) for line in content["corrections"]]
            return cls(dict(content["image"]), {c.key: c for c in lines})
        except OSError as error:
            raise SamplesError(
                f"{path} cannot be read: {error.strerror or error}. Check the path and the disk."
            ) from error
        except SamplesError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise SamplesError(
                f"{path} is damaged, or no file of corrections ({type(error).__name__}: {error}). "
                f"Get another copy, or move it away to begin anew."
            ) from error

    def joined(self, other: Sidecar) -> Sidecar:
        """With the corrections of another file of the same image; of each tile the last word.

        Raises
        ------
        SamplesError
            It is of another image.
        """
        ours, theirs = self.image["plane_shape"], other.image["plane_shape"]
        if list(ours) != list(theirs):
            raise SamplesError(
                f"The corrections kept for {self.image['name']!r} are of an image of {theirs[0]} x "
                f"{theirs[1]} px, and this one is {ours[0]} x {ours[1]} px. Move the file of "
                f"corrections away, or open the image that it was made on."
            )
        both = dict(self.corrections)
        for key, one in other.corrections.items():
            if key not in both or _last_word(one) > _last_word(both[key]):
                both[key] = one
        return replace(self, corrections=both)

    def write(self, path: str | os.PathLike[str]) -> Sidecar:
        """Join with what the file holds by now, and write it; return what it holds then.

        Raises
        ------
        ExportError
            The file cannot be written, or another program does not let go of it.
        SamplesError
            What is there is of a newer format, damaged, or of another image; it is left alone.
        """
        path = Path(path)
        lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=_LONGEST_WAIT_S)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with lock:
                now = self.joined(Sidecar.read(path)) if path.exists() else self
                lines = sorted(now.corrections.values(), key=lambda c: c.time)
                content = {
                    "format": FORMAT,
                    "image": dict(now.image),
                    "corrections": [line.as_json() for line in lines],
                }
                write_json(path, content, indent=1)
        except Timeout as error:
            raise ExportError(
                f"{path} is held by another program for more than {_LONGEST_WAIT_S} s. The labels "
                f"are still in this window: close the other program, and label on."
            ) from error
        except OSError as error:
            raise ExportError(
                f"The corrections cannot be kept in {path} ({error.strerror or error}). They are "
                f"still in this window: free space or allow writing, and label on."
            ) from error
        return now


def _last_word(one: Correction) -> tuple[str, str]:
    return one.time, one.new or ""  # two windows may speak in the same microsecond


class Corrections(Annotations):
    """What was said about the tiles of one plane, with undo.

    `Annotations` whose changes are kept in a `Sidecar`, together with what the weights had said.
    Nothing is written before ``sidecar.write``, which may be called on any thread; `take` what it
    returns.

    Parameters
    ----------
    sidecar : Sidecar
    plane : tuple of int
    pixel_size_um : (float, float), optional
    weights, sha256 : str
        What classified the tiles.
    """

    def __init__(
        self,
        sidecar: Sidecar,
        *,
        plane: tuple[int, ...] = (),
        pixel_size_um: tuple[float, float] | None = None,
        weights: str = "",
        sha256: str = "",
    ) -> None:
        super().__init__()
        self._plane, self._pixel_size_um = plane, pixel_size_um
        self._weights, self._sha256 = weights, sha256
        self._old: dict[Tile, str | None] = {}
        self.sidecar = sidecar
        self.take(sidecar)

    def correct(self, tile: Tile, name: str | None, *, old: str | None) -> None:
        """Give a tile a class, or take it away with None; `old` is what the weights said."""
        self._old[tile] = old
        self.label(tile, name)

    def take(self, sidecar: Sidecar) -> None:
        """Take over what other windows wrote; what was said here meanwhile stays."""
        self.sidecar = self.sidecar.joined(sidecar)
        for (plane, tile), one in self.sidecar.corrections.items():
            if plane != self._plane:
                continue
            self._old.setdefault(tile, one.old)
            if one.new is None:
                self._classes.pop(tile, None)
            else:
                self._classes[tile] = one.new

    def _keep(self, tile: Tile, name: str | None) -> None:
        key = self._plane, tile
        before = self.sidecar.corrections.get(key)
        now = datetime.now(UTC)
        if before is not None:
            # A clock that is behind that of another machine must not make this the older word.
            now = max(now, datetime.fromisoformat(before.time) + timedelta(microseconds=1))
        said = Correction(
            tile,
            self._plane,
            self._pixel_size_um,
            self._old.get(tile),
            name,
            self._weights,
            self._sha256,
            now.isoformat(timespec="microseconds"),
        )
        self.sidecar = replace(self.sidecar, corrections={**self.sidecar.corrections, key: said})


def sidecar_path(
    image_path: str | os.PathLike[str] | None,
    *,
    name: str,
    plane_shape: Sequence[int],
    pixels: str = "",
) -> tuple[Path, str]:
    """Where the corrections of an image are kept, and a sentence where that is not beside it.

    Beside the image when that folder can be written to, else in the user's data folder, where
    `pixels`, a digest, tell images of one name and size apart.
    """
    key = f"{image_path or name}|{tuple(plane_shape)}|{pixels}"
    own = path_in_user_data("corrections", name, key, SUFFIX)
    if image_path is None:
        return own, f"The image is no file, so the corrections are kept in {in_words(own)}."
    beside = Path(f"{os.fspath(image_path)}{SUFFIX}")
    try:
        with tempfile.TemporaryFile(dir=beside.parent):
            return beside, ""
    except OSError:
        return own, (
            f"{in_words(beside.parent)} cannot be written to, so the corrections are kept in "
            f"{in_words(own)}."
        )


def in_words(path: Path) -> str:
    """A path as short as it can be said: the home folder is ``~``."""
    home = Path.home()
    return str(Path("~", path.relative_to(home)) if path.is_relative_to(home) else path)


def samples_from_corrections(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> Samples:
    """Samples from files of corrections: every tile that has a class, read from its image.

    Parameters
    ----------
    paths : path or sequence of path
        Such as ``slide.svs.mambamic.json``.  The image is looked for beside the file, then where it
        was when it was corrected.

    Raises
    ------
    SamplesError
        A file or its image cannot be read, or no tile has a class.
    """
    several = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    parts = []
    for path in several:
        sidecar = Sidecar.read(path)
        kept = [c for c in sidecar.corrections.values() if c.new is not None]
        for plane in dict.fromkeys(c.plane for c in kept):
            image = _image_of(Path(path), sidecar, plane)
            said = [c for c in kept if c.plane == plane]
            names = sorted({str(c.new) for c in said})
            labels = [names.index(str(c.new)) for c in said]
            parts.append(
                samples_from_image(image, [c.tile for c in said], labels, class_names=names)
            )
    return join_samples(parts)


def _image_of(path: Path, sidecar: Sidecar, plane: tuple[int, ...]) -> ImagePyramid:
    facts = sidecar.image
    beside = path.with_name(path.name.removesuffix(SUFFIX))
    source = beside if path.name.endswith(SUFFIX) and beside.exists() else facts.get("path")
    if source is None:
        raise SamplesError(
            f"{path} belongs to the image {facts.get('name')!r}, which was never a file. Open that "
            f"image and train from the panel 'Review and correct'."
        )
    options = dict(facts.get("opened_with") or {})
    axes = [str(axis).lower() for axis in facts.get("axes") or ()]
    if plane:
        if len(axes) != len(plane) or not set(axes) <= {"z", "t"}:
            raise SamplesError(
                f"{path} has corrections of plane {plane} of a stack whose axes are not named z "
                f"and t. Open the image and train from the panel 'Review and correct'."
            )
        options |= dict(zip(axes, plane, strict=True))
    image = open_image(source, **options)
    if list(image.plane_shape) != list(facts["plane_shape"]):
        raise SamplesError(
            f"{source} is {image.plane_shape[0]} x {image.plane_shape[1]} px, and the corrections "
            f"in {path} were made on {facts['plane_shape'][0]} x {facts['plane_shape'][1]} px. Put "
            f"the right image beside them."
        )
    channels = facts.get("channels")
    return image if channels is None else image.with_channels(channels)
