"""Put trained weights into ``weights/`` and list them in the registry.

    python benchmarks/publish_weights.py runs/chula-.../chula-....safetensors red-cell-shapes-t

What was written by ``accuracy.py`` gets the name that is given, and the title, licence and credit
of its card here, and goes into ``weights/``, from where users download it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from napari_mambamic.weights.checkpoint import load_network
from napari_mambamic.weights.manifest import Manifest

ROOT = Path(__file__).parents[1]
REGISTRY = ROOT / "src/napari_mambamic/weights/registry.json"


@dataclass(frozen=True)
class Card:
    """What people are told about the data of a set of weights."""

    title: str
    licence: str
    credit: str
    citation: str
    training_data: str


_PBC = (
    "Acevedo, A. et al., Data in Brief 30 (2020) 105474, doi:10.1016/j.dib.2020.105474 "
    "(peripheral blood cells, Hospital Clinic of Barcelona, CC BY 4.0)"
)
CARDS = {
    "red-cell-shapes": Card(
        "Red-cell shapes: 13 classes in blood smears",
        "weights CC BY 4.0; images MIT (Chula PIC Lab)",
        f"Chula RBC-12 dataset, Chula PIC Lab. Started from blood-cells-t: {_PBC}",
        "Naruenatthanaset, K. et al., arXiv 2012.01321",
        "Chula RBC-12: red cells in 320 fields of blood smears, 80 px around each",
    ),
    "cell-cycle": Card(
        "Cell cycle: 7 phases of Jurkat cells, 3 channels",
        "BSD-3, as the images",
        "Images of Blasi, T. et al.",
        "Blasi, T. et al., Nature Communications 7 (2016) 10256, doi:10.1038/ncomms10256",
        "2,735 Jurkat cells of an imaging flow cytometer: bright field, DNA, scatter; 40 px",
    ),
    "smear-objects": Card(
        "Smear objects: red cells, white cells and platelets",
        "weights CC BY 4.0; images MIT (BCCD)",
        f"BCCD dataset. Started from blood-cells-t: {_PBC}",
        "github.com/Shenggan/BCCD_Dataset",
        "BCCD: 364 fields of blood smears with boxes, 128 px around each object",
    ),
    "blood-cells": Card(
        "Blood cells: 8 classes",
        "CC BY 4.0",
        _PBC,
        "Acevedo, A. et al., Data in Brief 30 (2020) 105474",
        "13,669 single cells of peripheral blood, 96 px",
    ),
}
FULL_NAMES = {"ig": "immature granulocyte"}  # of class folders


def main() -> None:
    """Copy, describe, register."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("name", help="such as red-cell-shapes-t; it begins as its card does")
    options = parser.parse_args()
    card = CARDS[next(known for known in CARDS if options.name.startswith(known))]
    load_network(options.file)  # refuses what is damaged
    manifest = Manifest.read(options.file.with_suffix(".json"))
    manifest = replace(
        manifest,
        name=options.name,
        class_names=tuple(FULL_NAMES.get(name, name) for name in manifest.class_names),
        **asdict(card),
    )
    target = ROOT / "weights" / f"{options.name}.safetensors"
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(options.file, target)
    manifest.write(target.with_suffix(".json"))
    report = options.file.with_suffix(".report.json")
    text = report.read_text(encoding="utf-8")
    for short, full in FULL_NAMES.items():
        text = text.replace(f'"{short}"', f'"{full}"')
    target.with_suffix(".report.json").write_text(text, encoding="utf-8")
    registry = json.loads(REGISTRY.read_text(encoding="utf-8"))
    registry["weights"][options.name] = {
        "file": target.name,
        "size": target.stat().st_size,
        "sha256": manifest.sha256,
        "manifest": json.loads(target.with_suffix(".json").read_text(encoding="utf-8")),
    }
    REGISTRY.write_text(json.dumps(registry, indent=2) + "\n", encoding="utf-8")
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, {manifest.metrics}")


if __name__ == "__main__":
    main()
