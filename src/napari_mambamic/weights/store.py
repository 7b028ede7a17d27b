"""Where weights are: in the package, and in the user's own folder."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from platformdirs import user_data_path

from napari_mambamic.errors import WeightsError
from napari_mambamic.weights.manifest import Manifest

DEFAULT = "blood-cells-t"


def bundled_folder() -> Path:
    """Folder of the weights that come with the package."""
    return Path(str(files("napari_mambamic"))) / "weights" / "bundled"


def own_folder() -> Path:
    """Folder of the weights that the user registered; ``MAMBAMIC_WEIGHTS_DIR`` names another."""
    named = os.environ.get("MAMBAMIC_WEIGHTS_DIR")
    return Path(named) if named else user_data_path("napari-mambamic") / "weights"


def _registered() -> dict[str, Path]:
    """Paths by name; the package's own come first and cannot be replaced."""
    own = {path.stem: path for path in sorted(own_folder().glob("*.safetensors"))}
    bundled = {path.stem: path for path in sorted(bundled_folder().glob("*.safetensors"))}
    return {DEFAULT: bundled[DEFAULT]} | own | bundled


def list_weights() -> tuple[str, ...]:
    """Registered names, the default first.

    >>> list_weights()[0]
    'blood-cells-t'
    """
    return tuple(_registered())


def fetch_weights(name: str) -> Path:
    """Path of registered weights; "default" is the first of `list_weights`.

    Raises
    ------
    WeightsError
        There are no weights of this name.
    """
    registered = _registered()
    known = DEFAULT if name == "default" else name
    if known not in registered:
        raise WeightsError(
            f"There are no weights {name!r}. Registered are {', '.join(registered)}; for your "
            f"own, give the path of the .safetensors file."
        )
    return registered[known]


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
