"""Where weights are: in the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from napari_mambamic.errors import WeightsError
from napari_mambamic.weights.manifest import Manifest

DEFAULT = "blood-cells-t"


def bundled_folder() -> Path:
    """Folder of the weights that come with the package."""
    return Path(str(files("napari_mambamic"))) / "weights" / "bundled"


def list_weights() -> tuple[str, ...]:
    """Registered names, the default first.

    >>> list_weights()[0]
    'blood-cells-t'
    """
    names = sorted(path.stem for path in bundled_folder().glob("*.safetensors"))
    return (DEFAULT, *(name for name in names if name != DEFAULT))


def fetch_weights(name: str) -> Path:
    """Path of registered weights; "default" is the first of `list_weights`.

    Raises
    ------
    WeightsError
        There are no weights of this name.
    """
    known = DEFAULT if name == "default" else name
    if known not in list_weights():
        raise WeightsError(
            f"There are no weights {name!r}. Registered are {', '.join(list_weights())}; for your "
            f"own, give the path of the .safetensors file."
        )
    return bundled_folder() / f"{known}.safetensors"


def read_manifest(weights: str) -> Manifest:
    """Manifest of registered weights or of a weights file, without reading the weights."""
    return Manifest.read(locate_weights(weights).with_suffix(".json"))


def locate_weights(weights: str | Path) -> Path:
    """Path of a weights file from a registered name or a path.

    Raises
    ------
    WeightsError
        It is neither.
    """
    path = Path(weights)
    if path.suffix or path.exists():
        if not path.is_file():
            raise WeightsError(f"There is no weights file {path}. Check the path.")
        return path
    return fetch_weights(str(weights))
