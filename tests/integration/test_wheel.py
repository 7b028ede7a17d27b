"""The wheel, as users get it: installed with nothing but what it asks for, found by napari."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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


def requirements_of(wheel):
    """What its metadata say that it requires."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    return [line.removeprefix("Requires-Dist: ") for line in lines if "Requires-Dist: " in line]


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
    required = [line for line in requirements_of(wheel) if "extra ==" not in line]
    assert any(line.startswith("torch>=") for line in required)
    assert not [line for line in required if "==" in line or "qt" in line.lower()]


def asked_for_by(wheel, *extras):
    """The installed distributions that a wheel asks for, and those that they ask for."""
    found, to_do = {}, [("napari-mambamic", extra) for extra in ("", *extras)]
    while to_do:
        name, extra = step = to_do.pop()
        if step in found:
            continue
        try:
            found[step] = None if name == "napari-mambamic" else distribution(name)
        except PackageNotFoundError:  # by an extra that a dependency does not have to have
            continue
        asked = requirements_of(wheel) if found[step] is None else found[step].requires or []
        for requirement in map(Requirement, asked):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                to_do += [(requirement.name, extra) for extra in ("", *requirement.extras)]
    return filter(None, found.values())


@pytest.fixture(scope="module")
def clean_python(wheel, tmp_path_factory):
    """The Python of an environment with the wheel and what it asks for: links to what is here."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    where = {"base": str(folder), "platbase": str(folder)}
    python = Path(sysconfig.get_path("scripts", "venv", where)) / Path(sys.executable).name
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel)
    packages = Path(sysconfig.get_path("purelib", "venv", where))
    here = Path(sysconfig.get_path("purelib"))
    for found in asked_for_by(wheel, "all"):
        for name in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            source, target = here / name, packages / name
            if target.exists():
                continue
            if os.name != "nt":
                target.symlink_to(source)
            elif source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy(source, target)
    return python


def test_napari_finds_every_contribution_in_a_clean_environment(clean_python, tmp_path):
    said = run(clean_python, "-W", "ignore", "-c", OPEN_EVERYTHING, cwd=tmp_path).splitlines()
    assert "widget Classify tiles and cells" in said
    assert "sample blood-cells" in said
    assert "sample blood-smear" in said
    assert "tiles (8, 12)" in said
