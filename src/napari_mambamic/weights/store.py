"""Where weights are: in the package, in the user's own folder, and on a server.

The package lists the weights that can be downloaded in ``registry.json``: file, size, SHA-256 and
manifest.  They are fetched when they are first used, checked, and kept in a cache folder.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from platformdirs import user_cache_path, user_data_path

from napari_mambamic.atomic import write_json, written_atomically
from napari_mambamic.errors import ExportError, WeightsError
from napari_mambamic.progress import Progress
from napari_mambamic.weights.download import ResumingDownload
from napari_mambamic.weights.manifest import Manifest

DEFAULT = "blood-cells-t"


def bundled_folder() -> Path:
    """Folder of the weights that come with the package."""
    return Path(str(files("napari_mambamic"))) / "weights" / "bundled"


def own_folder() -> Path:
    """Folder of the weights that the user registered; ``MAMBAMIC_WEIGHTS_DIR`` names another."""
    named = os.environ.get("MAMBAMIC_WEIGHTS_DIR")
    return Path(named) if named else user_data_path("napari-mambamic") / "weights"


def own_path(name: str) -> Path:
    """Where weights that the user names are kept; their folder is there then.

    Raises
    ------
    WeightsError
        The name is not one of letters and digits, or is that of weights of the package; or the
        folder cannot be made.
    """
    if not name or not all(c.isalnum() or c in "-_" for c in name):
        raise WeightsError("Name the weights with letters, digits, - and _.")
    path = own_folder() / f"{name}.safetensors"
    if name == "default" or _is_bundled(name) or name in _registry()["weights"]:
        raise WeightsError(f"{name!r} are weights of the package. Choose another name.")
    _make(path.parent)
    return path


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(
            f"No weights can be kept in {folder}: {error.strerror or error}. Make it writable, or "
            f"name another folder in MAMBAMIC_WEIGHTS_DIR."
        ) from error


def cache_folder() -> Path:
    """Folder of the weights that were downloaded; ``MAMBAMIC_CACHE_DIR`` names another."""
    named = os.environ.get("MAMBAMIC_CACHE_DIR")
    return Path(named) if named else user_cache_path("napari-mambamic") / "weights"


def base_url() -> str:
    """Where weights are downloaded from: ``MAMBAMIC_WEIGHTS_URL``, or the project's own address.

    An address (http, https or file) or a folder that the whole lab can read.
    """
    named = os.environ.get("MAMBAMIC_WEIGHTS_URL")
    if named:
        return named
    try:
        release = version("napari-mambamic")
    except PackageNotFoundError:
        release = "0"
    return str(_registry()["base_url"]).format(version=release)


def list_weights() -> tuple[str, ...]:
    """Registered names, the default first: the package's own, the user's, and those to download.

    >>> list_weights()[0]
    'blood-cells-t'
    """
    return tuple(dict.fromkeys([*_on_disk(), *_registry()["weights"]]))


def is_here(name: str) -> bool:
    """Whether registered weights can be used without a download."""
    return name == "default" or name in _on_disk() or _cached(name).is_file()


def fetch_weights(
    name: str,
    *,
    on_progress: Callable[[Progress], object] | None = None,
    source: str | None = None,
    pause_s: float = 1.0,
) -> Path:
    """Path of registered weights; they are downloaded when they are not here yet.

    Parameters
    ----------
    name : str
        One of `list_weights`, or "default" for the first of them.
    on_progress : callable, optional
        Called with a `Progress` in bytes while a download goes on; what it raises ends it.
    source : str, optional
        Instead of `base_url`.
    pause_s : float
        Before a broken download is tried again; twice as long before each further try.

    Raises
    ------
    WeightsError
        There are no weights of this name, or they cannot be downloaded, or what came is not what
        was registered.
    """
    known = DEFAULT if name == "default" else name
    on_disk = _on_disk()
    if known in on_disk:
        return on_disk[known]
    if known not in _registry()["weights"]:
        raise WeightsError(
            f"There are no weights {name!r}. Registered are {', '.join(list_weights())}; for your "
            f"own, give the path of the .safetensors file."
        )
    path = _cached(known)
    if not path.is_file():
        _download(known, path, source or base_url(), on_progress, pause_s)
    return path


def iter_fetch(name: str, **keywords: Any) -> Generator[Progress, None, Path]:
    """Fetch as `fetch_weights` does, and tell ten times a second: what panels run in a thread.

    Closing the generator ends the download; what has arrived is kept.
    """
    latest: list[Progress] = []
    stopped = threading.Event()

    def note(progress: Progress) -> None:
        latest[:] = [progress]
        if stopped.is_set():
            raise _Stopped

    with ThreadPoolExecutor(1) as pool:
        fetched = pool.submit(fetch_weights, name, on_progress=note, **keywords)
        try:
            while not fetched.done():
                wait([fetched], timeout=0.1)
                yield from latest
        finally:
            stopped.set()
    return fetched.result()


class _Stopped(Exception):
    """Nobody waits for the download any more."""


def add_weights(path: str | Path) -> tuple[str, ...]:
    """Register the weights of a folder, or one file, by copying them: for machines without network.

    Returns
    -------
    tuple of str
        Their names.

    Raises
    ------
    WeightsError
        There are none, a manifest is missing, or a name is taken.
    """
    from napari_mambamic.weights.checkpoint import load_network

    source = Path(path)
    found = [source] if source.is_file() else sorted(source.glob("*.safetensors"))
    if not found:
        raise WeightsError(f"{source} holds no .safetensors files.")
    for file in found:
        load_network(file)  # refuses what is damaged or does not fit
        if file.stem == "default" or file.stem in _on_disk():
            raise WeightsError(f"There are weights {file.stem!r} already. Rename {file.name}.")
    folder = own_folder()
    _make(folder)
    for file in found:
        for part in (file.with_suffix(".json"), file):
            with written_atomically(folder / part.name) as temporary:
                shutil.copyfile(part, temporary)
    return tuple(file.stem for file in found)


def may_be_removed(name: str) -> bool:
    """Whether `remove_weights` would find something: added here, or downloaded."""
    return not _is_bundled(name) and bool(_files_of(name))


def remove_weights(name: str) -> int:
    """Remove weights from this computer: those that were added or trained, or a download.

    Weights that were downloaded stay registered, and are fetched again when they are used.

    Parameters
    ----------
    name : str
        One of `list_weights`.

    Returns
    -------
    int
        Bytes that were freed.

    Raises
    ------
    WeightsError
        There are none of this name here, they come with the package, or they cannot be removed.
    """
    if _is_bundled(name):
        raise WeightsError(
            f"Weights {name!r} come with the package and cannot be removed. Those that were added, "
            f"trained or downloaded can."
        )
    found = _files_of(name)
    if not found:
        removable = ", ".join(known for known in list_weights() if may_be_removed(known))
        raise WeightsError(
            f"There are no weights {name!r} on this computer. Those that can be removed: "
            f"{removable or 'none'}."
        )
    freed = sum(path.stat().st_size for path in found)
    try:
        for path in found:
            path.unlink()
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be removed: {error.strerror or error}. Close what uses it, or ask who "
            f"owns the folder."
        ) from error
    for folder in {path.parent for path in found} - {own_folder()}:
        with suppress(OSError):  # something else is in it
            folder.rmdir()
    return freed


def read_manifest(weights: str) -> Manifest:
    """Manifest of registered weights or of a weights file, without reading or fetching weights."""
    if weights not in _on_disk() and weights in _registry()["weights"]:
        return Manifest.from_fields(_registry()["weights"][weights]["manifest"], "the registry")
    return Manifest.read(locate_weights(weights).with_suffix(".json"))


def locate_weights(
    weights: str | Path, *, on_progress: Callable[[Progress], object] | None = None
) -> Path:
    """Path of a weights file from a registered name, which may be downloaded, or a path.

    Raises
    ------
    WeightsError
        It is neither.
    """
    path = Path(weights)
    if str(weights) not in _on_disk() and (path.suffix or path.exists()):
        if not path.is_file():
            raise WeightsError(f"There is no weights file {path}. Check the path.")
        return path
    return fetch_weights(str(weights), on_progress=on_progress)


@cache
def _registry() -> dict[str, Any]:
    registry: dict[str, Any] = json.loads(
        (files("napari_mambamic") / "weights" / "registry.json").read_text(encoding="utf-8")
    )
    return registry


def _on_disk() -> dict[str, Path]:
    """Paths by name; the package's own come first and cannot be replaced."""
    own = {path.stem: path for path in sorted(own_folder().glob("*.safetensors"))}
    bundled = {path.stem: path for path in sorted(bundled_folder().glob("*.safetensors"))}
    return {DEFAULT: bundled[DEFAULT]} | own | bundled


def _is_bundled(name: str) -> bool:
    return name in ("default", *(path.stem for path in bundled_folder().glob("*.safetensors")))


def _files_of(name: str) -> list[Path]:
    """What stands for weights on this computer beside the package: the user's own, or downloads.

    Older versions of a download are among them, and one that is half done.
    """
    own = own_folder() / f"{name}.safetensors"
    if name in _on_disk():
        return [path for path in (own, own.with_suffix(".json")) if path.is_file()]
    if name not in _registry()["weights"]:
        return []
    endings = (".safetensors", ".json", ".partial")
    folders = cache_folder().glob("[0-9a-f]" * 12)  # as `_cached` names them
    places = [folder / f"{name}{ending}" for folder in folders for ending in endings]
    return [path for path in places if path.is_file()]


def _cached(name: str) -> Path:
    # The hash is in the name, so that a new version of the weights is another file.
    entry = _registry()["weights"].get(name, {"sha256": ""})
    digest: str = entry["sha256"][:12]
    return cache_folder() / digest / f"{name}.safetensors"


def _download(
    name: str,
    path: Path,
    source: str,
    on_progress: Callable[[Progress], object] | None,
    pause_s: float,
) -> None:
    import pooch

    pooch.get_logger().setLevel("WARNING")
    entry = _registry()["weights"][name]
    size = int(entry["size"])

    def say(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(Progress(done, total or size, message=f"Downloading {name}"))

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = _as_folder(source)
        if folder is not None:
            downloader: Any = _copier(folder / entry["file"])
            url = (folder / entry["file"]).as_uri()
        else:
            partial = path.with_suffix(".partial")
            downloader = ResumingDownload(partial, on_bytes=say, pause_s=pause_s)
            url = f"{source.rstrip('/')}/{entry['file']}"
        pooch.retrieve(
            url,
            known_hash=f"sha256:{entry['sha256']}",
            fname=path.name,
            path=path.parent,
            downloader=downloader,
        )
        fields = entry["manifest"] | {"sha256": entry["sha256"]}
        write_json(path.with_suffix(".json"), fields)
    except ValueError as error:
        if isinstance(error, (WeightsError, ExportError)):
            raise
        raise WeightsError(
            f"What came from {source} for weights {name!r} is not what was registered: its SHA-256 "
            f"is another. It was thrown away. Try again, or check the address."
        ) from error
    except OSError as error:
        raise WeightsError(
            f"The cache folder {path.parent} cannot be written ({error.strerror or error}). Free "
            f"space, or name another folder with MAMBAMIC_CACHE_DIR."
        ) from error


def _as_folder(source: str) -> Path | None:
    parsed = urlparse(source)
    if parsed.scheme in ("http", "https"):
        return None
    folder = Path(url2pathname(parsed.path)) if parsed.scheme == "file" else Path(source)
    if not folder.is_dir():
        raise WeightsError(
            f"The weights are looked for in {source}, which is no folder and no http address. "
            f"Check the address of the weights."
        )
    return folder


def _copier(file: Path) -> Callable[[str, Any, Any], None]:
    def copy(url: str, output_file: Any, pooch: Any) -> None:
        if not file.is_file():
            raise WeightsError(f"There is no file {file}. Check the address of the weights.")
        shutil.copyfile(file, output_file)

    return copy
