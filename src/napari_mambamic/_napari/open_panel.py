"""One panel leads to another."""

from __future__ import annotations

from napari.components import ViewerModel
from qtpy.QtWidgets import QWidget


def open_panel(viewer: ViewerModel, name: str) -> QWidget:
    """Open a panel of the plugin in front of the others, and give it back.

    napari hands out a panel that is open already as it is: behind another tab, or closed.
    """
    dock, panel = viewer.window.add_plugin_dock_widget("napari-mambamic", name, tabify=True)
    dock.show()
    dock.raise_()
    return panel
