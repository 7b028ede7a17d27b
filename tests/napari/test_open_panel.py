"""Panels that are opened from the menus, as users open them."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QDockWidget

from napari_mambamic._napari.classify_panel import ClassifyPanel
from napari_mambamic._napari.find_objects_panel import FindObjectsPanel
from napari_mambamic._napari.open_panel import open_panel
from napari_mambamic._napari.results_table import ResultsTable
from napari_mambamic._napari.why_panel import WhyPanel

PANELS = {
    "Classify tiles and cells": ClassifyPanel,
    "Find objects": FindObjectsPanel,
    "Why this class?": WhyPanel,
    "Results table": ResultsTable,
}


@pytest.fixture
def window(make_napari_viewer):
    """A window that is shown: tabs are laid out only then."""
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1200, 800)
    return viewer


@pytest.fixture
def choose(window, qtbot):
    """Choose a panel in the menu Plugins > Mambamic."""

    def press(name):
        main = window.window._qt_window
        plugins = next(a for a in main.menuBar().actions() if "Plugins" in a.text()).menu()
        plugins.aboutToShow.emit()
        mambamic = next(a for a in plugins.actions() if a.text() == "Mambamic").menu()
        mambamic.aboutToShow.emit()
        next(a for a in mambamic.actions() if a.text().startswith(name)).trigger()
        qtbot.wait(50)

    return press


def docks_of(window, panel_class):
    """The docks that hold panels of a class."""
    main = window.window._qt_window
    return [d for d in main.findChildren(QDockWidget) if d.findChild(panel_class) is not None]


def is_in_front(window, panel_class):
    (dock,) = docks_of(window, panel_class)
    return dock.isVisible() and not dock.visibleRegion().isEmpty()


def tabs_beside(window, panel_class):
    (dock,) = docks_of(window, panel_class)
    return {other.name for other in window.window._qt_window.tabifiedDockWidgets(dock)}


def test_panels_from_the_menu_are_tabs_with_the_last_one_in_front(window, choose, qtbot):
    for name in PANELS:
        choose(name)
    others = {docks_of(window, each)[0].name for each in list(PANELS.values())[1:]}
    qtbot.waitUntil(lambda: tabs_beside(window, ClassifyPanel) == others)
    assert [is_in_front(window, each) for each in PANELS.values()] == [False] * 3 + [True]


def test_the_menu_brings_a_panel_from_behind_and_hides_the_one_in_front(window, choose, qtbot):
    for name in PANELS:
        choose(name)
    choose("Find objects")
    qtbot.waitUntil(lambda: is_in_front(window, FindObjectsPanel))
    choose("Find objects")
    qtbot.wait(100)
    assert not docks_of(window, FindObjectsPanel)[0].isVisible()


def test_a_panel_that_leads_to_another_takes_the_one_from_the_menu(window, choose):
    choose("Classify tiles and cells")
    choose("Find objects")
    panel = open_panel(window, "Classify tiles and cells")
    (dock,) = docks_of(window, ClassifyPanel)
    assert dock.findChild(ClassifyPanel) is panel
    assert is_in_front(window, ClassifyPanel)


def test_the_menu_takes_the_panel_that_another_one_led_to(window, choose):
    open_panel(window, "Classify tiles and cells")
    choose("Classify tiles and cells")
    (dock,) = docks_of(window, ClassifyPanel)
    assert not dock.isVisible()


def test_the_preview_of_objects_goes_when_another_tab_comes_to_front(window, choose, qtbot, sheet):
    window.add_image(sheet[:192, :192], name="cells", rgb=True)
    choose("Find objects")
    panel = docks_of(window, FindObjectsPanel)[0].findChild(FindObjectsPanel)
    qtbot.waitUntil(lambda: "cells preview" in window.layers, timeout=20_000)
    choose("Classify tiles and cells")
    qtbot.waitUntil(lambda: "cells preview" not in window.layers)
    choose("Find objects")
    qtbot.waitUntil(lambda: "cells preview" in window.layers, timeout=20_000)
    qtbot.waitUntil(lambda: not panel.preview.is_busy, timeout=20_000)


def test_the_image_that_is_selected_or_opened_is_the_one_to_classify(window, choose, sheet):
    first = window.add_image(sheet[:96], name="first", rgb=True)
    second = window.add_image(sheet[:96], name="second", rgb=True)
    window.layers.selection.active = first
    choose("Classify tiles and cells")
    panel = docks_of(window, ClassifyPanel)[0].findChild(ClassifyPanel)
    assert panel.image.layer == first
    window.layers.selection.active = second
    assert panel.image.layer == second
    third = window.add_image(sheet[:96], name="third", rgb=True)
    assert panel.image.layer == third
    window.add_labels(sheet[:96, :, 0] // 200, name="objects")
    assert panel.image.layer == third
    panel.image.choose(first)  # what is chosen here holds until another image is selected
    assert panel.image.layer == first
