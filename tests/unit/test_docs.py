"""The documentation names what there is, and its scripts run."""

from __future__ import annotations

import ast
import builtins
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from npe2 import PluginManifest
from skimage.io import imread, imsave

import napari_mambamic
from napari_mambamic import errors, networks, samples_from_arrays
from napari_mambamic.cli import main

DOCS = Path(__file__).parents[2] / "docs"
PACKAGE = Path(napari_mambamic.__file__).parent
SAMPLES = PACKAGE / "_napari" / "samples"


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
    modules = {path.name for path in PACKAGE.rglob("*.py")} - {"__init__.py", "__main__.py"}
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


PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]
# Placeholders that the text beside the script explains.
OF_THE_READER = {"extending.md": {"samples"}}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_take_every_name_from_somewhere(page):
    """As they stand, from the top of the page: nothing is used before it is made or imported."""
    made = set(dir(builtins)) | OF_THE_READER.get(page.name, set())
    for script in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        tree = ast.parse(script)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                made |= {(each.asname or each.name).partition(".")[0] for each in node.names}
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                made.add(node.name)
            elif isinstance(node, ast.arg):
                made.add(node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                made.add(node.id)
            if isinstance(node, ast.ImportFrom) and node.module == "napari_mambamic":
                assert {each.name for each in node.names} <= set(napari_mambamic.__all__)
        used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        assert used <= made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_menus_are_named_as_napari_shows_them(page):
    manifest = PluginManifest.from_file(PACKAGE / "napari.yaml")
    contributions = manifest.contributions
    titles = {each.id: each.title for each in contributions.commands}
    shown = {f"Plugins > Mambamic > {each.display_name}" for each in contributions.widgets}
    for menu, items in contributions.menus.items():
        place = " > ".join(part.replace("_", " ") for part in menu.split("/")[1:]).lower()
        shown |= {f"{place} > {titles[item.command]}".lower() for item in items} | {place}
    shown = {name.lower() for name in shown}
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"\*((?:Plugins|Layers) > [^*]+)\*", text):
        is_napari = path.startswith("Plugins > Install")
        assert is_napari or path == "Plugins > Mambamic" or path.lower() in shown


def test_the_script_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    imsave(tmp_path / "smear.png", imread(SAMPLES / "blood-smear.jpg"))
    monkeypatch.chdir(tmp_path)
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    exec(re.search(r"```python\n(.*?)```", readme, re.S)[1], {})
    assert "lymphocyte" in capsys.readouterr().out
    assert len(napari_mambamic.read_results("classes.csv")) > 10
