"""The wheel, as users get it: built, installed into a clean environment, found by napari."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Opens every contribution of the installed plugin through npe2, in a real window.
OPEN_EVERYTHING = """
import sys, napari, napari_mambamic
from npe2 import PluginManager
assert sys.prefix in napari_mambamic.__file__, napari_mambamic.__file__
viewer = napari.Viewer()
found = PluginManager.instance().get_manifest("napari-mambamic").contributions
for widget in found.widgets:
    viewer.window.add_plugin_dock_widget("napari-mambamic", widget.display_name)
    print("widget", widget.display_name)
for sample in found.sample_data:
    assert viewer.open_sample("napari-mambamic", sample.key)
    print("sample", sample.key)
for items in found.menus.values():
    for item in items:
        assert item.command in {command.id for command in found.commands}
layers = napari_mambamic.classify_layer(viewer, viewer.layers["blood cells"])
print("tiles", layers[-1].data.shape)
viewer.close()
"""


def run(*command, **keywords) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    ended = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment, **keywords
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_what_it_needs_and_is_small(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for wanted in (
        "napari_mambamic/napari.yaml",
        "napari_mambamic/py.typed",
        "napari_mambamic/weights/bundled/blood-cells-t.safetensors",
        "napari_mambamic/weights/bundled/blood-cells-t.json",
        "napari_mambamic/_napari/samples/blood-cells.jpg",
        "napari_mambamic/_napari/samples/LICENCES.md",
    ):
        assert wanted in names
    assert wheel.stat().st_size < 10e6
    assert wheel.name.endswith("py3-none-any.whl")


def test_the_package_asks_for_no_qt_binding_and_no_pinned_version(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(
            next(n for n in archive.namelist() if n.endswith("METADATA"))
        ).decode()
    required = [
        line.removeprefix("Requires-Dist: ")
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert any(line.startswith("torch>=") for line in required)
    assert not [line for line in required if "==" in line or "qt" in line.lower()]


def test_napari_finds_every_contribution_in_a_clean_environment(wheel, tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "clean")
    python = tmp_path / "clean" / ("Scripts" if os.name == "nt" else "bin") / "python"
    constraints = ROOT / "constraints.txt"
    install = (python, "-m", "pip", "install", "-q", "--no-compile", "-c", constraints)
    run(*install, f"{wheel}[all]")
    said = run(python, "-W", "ignore", "-c", OPEN_EVERYTHING, cwd=tmp_path).splitlines()
    assert "widget Classify tiles and cells" in said
    assert "sample blood-cells" in said
    assert "sample blood-smear" in said
    assert "tiles (8, 12)" in said
