"""The documentation names what there is, and its scripts run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.io import imread

import napari_mambamic
from napari_mambamic import errors, networks, samples_from_arrays
from napari_mambamic.cli import main

DOCS = Path(__file__).parents[2] / "docs"
SAMPLES = Path(napari_mambamic.__file__).parent / "_napari" / "samples"


def text(page):
    return (DOCS / page).read_text(encoding="utf-8")


def script_of(page, *, heading):
    """The first Python block under a heading."""
    section = text(page).split(f"## {heading}\n")[1]
    return re.search(r"```python\n(.*?)```", section, re.S)[1]


def test_every_public_name_is_in_the_reference():
    described = set(re.findall(r"^::: \S*?(\w+)$", text("api.md"), re.M)) | set(vars(errors))
    assert set(napari_mambamic.__all__) <= described


def test_the_architecture_page_names_every_module_and_the_layers_that_are_held():
    package = Path(napari_mambamic.__file__).parent
    modules = {path.name for path in package.rglob("*.py")} - {"__init__.py", "__main__.py"}
    page = text("architecture.md")
    assert not {name for name in modules if name not in page}
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = [each["layers"] for each in contracts if each["type"] == "layers"]
    assert "\n```\n" + "\n".join(layers) + "\n```\n" in page


def test_every_command_is_told_of(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = re.findall(r"^    (\w+)  ", capsys.readouterr().out, re.M)
    pages = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    assert len(commands) > 5
    assert [command for command in commands if f"mambamic {command}" not in pages] == []


def test_the_first_script_runs(tmp_path, monkeypatch, capsys):
    tifffile.imwrite(tmp_path / "smear.tif", imread(SAMPLES / "blood-smear.jpg"))
    monkeypatch.chdir(tmp_path)
    exec(script_of("index.md", heading="In a script"), {})
    assert "lymphocyte" in capsys.readouterr().out
    assert len(napari_mambamic.read_results("smear.geojson")) > 10


def test_the_network_of_ones_own_can_be_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(networks, "_registered", {})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 99, (18, 16, 16, 3), dtype=np.uint8)
    images[9:] += 99
    samples = samples_from_arrays(images, ["a"] * 9 + ["b"] * 9)
    exec(script_of("extending.md", heading="A network"), {"samples": samples})
    assert napari_mambamic.load_classifier("tiny.safetensors").class_names == ("a", "b")
