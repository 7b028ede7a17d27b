"""Importing is light, and what is promised is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import napari_mambamic


def modules_after(statement: str) -> set[str]:
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name.split(".")[0] for name in said.split()}


@pytest.mark.parametrize(
    "statement",
    [
        "import napari_mambamic",
        "from napari_mambamic import plan_tiles, list_weights, list_networks, TileResults",
        "from napari_mambamic import classify_image",
        "import napari_mambamic.cli",
    ],
)
def test_importing_loads_neither_torch_nor_napari_nor_qt(statement):
    heavy = {"torch", "numba", "napari", "qtpy", "PyQt6", "PySide6", "magicgui"}
    assert not heavy & modules_after(statement)


@pytest.mark.parametrize("name", napari_mambamic.__all__)
def test_every_name_is_there_and_documented(name):
    if name in ("classify_layer", "samples_from_layers"):
        pytest.importorskip("napari.layers")  # tests/napari is a napari, too
    value = getattr(napari_mambamic, name)
    assert value.__doc__
    assert name in dir(napari_mambamic)


def test_the_names_of_type_checkers_are_those_of_python():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(napari_mambamic.__file__).read_text())
    imported = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert imported == set(napari_mambamic.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        napari_mambamic.nonsense  # noqa: B018
