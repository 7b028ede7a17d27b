"""How panels stand in the window: one leads to another, and a new one is a tab of the others."""

from __future__ import annotations

from typing import cast

from napari.components import ViewerModel
from npe2 import PluginManager
from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtWidgets import QDockWidget, QMainWindow, QTabBar, QWidget

from napari_mambamic._napari.canvas_context import delete_in_canvas_context
from napari_mambamic._napari.focus_ring import FocusRing

_PLUGIN = "napari-mambamic"


def open_panel(viewer: ViewerModel, name: str) -> QWidget:
    """Open a panel of the plugin in front of the others, and give it back.

    A panel that is open already comes to the front, whoever opened it.  napari's
    `add_plugin_dock_widget` does not know those that were opened from a menu, which calls them
    otherwise, and would make a second one.
    """
    plugins = PluginManager.instance()
    contributions = plugins.get_manifest(_PLUGIN).contributions.widgets or []
    (panel_class,) = [each.get_callable() for each in contributions if each.display_name == name]
    docked = viewer.window.dock_widgets
    panel = next((docked[t] for t in docked if isinstance(docked[t], panel_class)), None)
    if panel is None:
        panel = panel_class(viewer)
        # Named as the menu names it, so that the menu shows and hides this one.
        title = f"{name} ({plugins.get_manifest(_PLUGIN).display_name})"
        viewer.window.add_dock_widget(panel, name=title, tabify=True)
    dock = _dock_of(panel)
    if dock is not None:
        dock.show()
        dock.raise_()
    return cast(QWidget, panel)


def on_tab(title: str) -> str:
    """What the tab of a panel says: its first word, for many tabs stand side by side.

    >>> on_tab("Train on your own classes (Mambamic)")
    'Train'
    """
    plugin = PluginManager.instance().get_manifest(_PLUGIN)
    is_ours = title.endswith((f"({plugin.display_name})", f"({plugin.name})"))
    return title.split()[0] if is_ours else title


class StandsAsTab(QObject):
    """Keeps a panel within reach: a tab of the plugin's others, in front when it is chosen.

    napari puts a panel that is opened from a menu below those that are there: of the third one, too
    little can be seen to work with.  And its menus hide a panel that is open, also behind a tab,
    where whoever chooses it wants to see it.  Where the user puts a panel later, it stays.
    """

    came_to_front = Signal(bool)  # False: it is behind another tab, or hidden
    _docked, _hidden = Signal(), Signal()

    def __init__(self, panel: QWidget) -> None:
        super().__init__(panel)
        self._panel = panel
        self._is_docked = False
        self._is_in_front = False
        # Later, if it is still there: PySide6's QTimer.singleShot calls what was deleted, too.
        self._docked.connect(self._join, Qt.ConnectionType.QueuedConnection)
        self._hidden.connect(self._bring_to_front, Qt.ConnectionType.QueuedConnection)
        panel.installEventFilter(self)
        FocusRing(panel)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """The panel is shown first, or its dock is hidden."""
        if event.type() == QEvent.Type.Show and watched is self._panel:
            self._find_dock()
        elif (
            event.type() == QEvent.Type.Hide
            and watched is not self._panel
            and not self._is_in_front
            and not event.spontaneous()
        ):
            self._hidden.emit()
        return False

    def _find_dock(self) -> None:
        dock = _dock_of(self._panel)
        if dock is None or self._is_docked:
            return
        self._is_docked = True
        dock.setWindowTitle(on_tab(dock.windowTitle()))
        dock.installEventFilter(self)
        dock.visibilityChanged.connect(self._take_visibility)
        self._docked.emit()  # napari is still about to place it

    def _take_visibility(self, is_in_front: bool) -> None:
        if self._panel.window().isMinimized():
            return  # it comes back as it was
        self._is_in_front = is_in_front
        for tabs in self._panel.window().findChildren(QTabBar):
            if tabs.parent() is self._panel.window():
                tabs.setElideMode(Qt.TextElideMode.ElideNone)  # many scroll, and can be read
        self.came_to_front.emit(is_in_front)

    def _bring_to_front(self) -> None:
        dock = _dock_of(self._panel)
        if dock is not None and dock.isHidden() and dock.window().isVisible():
            dock.show()
            dock.raise_()

    def _join(self) -> None:
        dock = _dock_of(self._panel)
        window = dock.parent() if dock is not None else None
        if not isinstance(window, QMainWindow):
            return
        delete_in_canvas_context(self._panel, window)
        area = window.dockWidgetArea(dock)
        others = [
            other
            for other in window.findChildren(QDockWidget)
            if other is not dock
            and other.isVisible()
            and not other.isFloating()
            and window.dockWidgetArea(other) == area
            and other.findChild(StandsAsTab) is not None
        ]
        if others and not set(others) & set(window.tabifiedDockWidgets(dock)):
            window.tabifyDockWidget(others[-1], dock)
            dock.show()
            dock.raise_()


def _dock_of(panel: QWidget) -> QDockWidget | None:
    """What holds a panel in the window."""
    parent = panel.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent
