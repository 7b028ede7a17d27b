"""The plugin's preferences (napari: File > Preferences)."""

from __future__ import annotations

from napari.settings import get_plugin_settings


def weights_source() -> str | None:
    """Where weights are downloaded from, when the user prefers another place than the usual."""
    source = str(get_plugin_settings("napari-mambamic").weights.address).strip()
    return source or None
