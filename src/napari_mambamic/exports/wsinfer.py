"""Weights as a model of WSInfer, which QuPath's WSInfer extension and ``wsinfer run`` take.

The format: https://github.com/SBU-BMI/wsinfer-zoo, ``schemas/model-config.schema.json``.  Both
programs cut tiles by their size in micrometres, transform them as ``config.json`` says, and apply
a softmax to what the model returns.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from napari_mambamic.atomic import written_atomically
from napari_mambamic.errors import ChannelMismatch, ExportError, PixelSizeMissing
from napari_mambamic.networks.torchscript import as_torchscript
from napari_mambamic.weights.checkpoint import load_network
from napari_mambamic.weights.manifest import Manifest
from napari_mambamic.weights.store import locate_weights

MODEL, CONFIG, CARD = "torchscript_model.pt", "config.json", "README.md"  # QuPath knows the names


def export_wsinfer(
    weights: str | Path, folder: str | Path, *, pixel_size_um: float | None = None
) -> Path:
    """Write weights as a model that QuPath's WSInfer extension and ``wsinfer run`` can use.

    The model needs nothing but torch.  Its probabilities are those of `load_classifier`, with the
    temperature of the weights, for tiles that are cut and resampled in the same way.

    Parameters
    ----------
    weights : str or path
        A registered name, which may be downloaded, or the path of a ``.safetensors`` file.
    folder : path
        Gets ``torchscript_model.pt``, ``config.json`` and ``README.md``, and is made if need be;
        the folder that it is in must exist.  QuPath shows its name as that of the model.
    pixel_size_um : float, optional
        Micrometres per px of the images that the weights were trained on, before tiles were
        resampled to patches.  Needed where the manifest does not say; it comes before what it says.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    PixelSizeMissing
        Neither the weights nor the caller know the pixel size.
    ChannelMismatch
        The weights are for grey or other channels; WSInfer reads red, green and blue.
    ExportError
        The files cannot be written; what was there is untouched or whole.
    WeightsError, NetworkError
        The weights cannot be read, or their network cannot be written as TorchScript.
    """
    network, manifest, _ = load_network(locate_weights(weights))
    config = config_of(manifest, pixel_size_um)
    model = as_torchscript(
        network,
        in_channels=len(manifest.patch.channels),
        patch_size=manifest.patch.patch_size,
        temperature=manifest.temperature,
    )
    folder = Path(folder)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"The folder {folder} cannot be made: {error.strerror or error}. Choose another."
        ) from error
    for name, content in (
        (MODEL, model),
        (CONFIG, json.dumps(config, indent=2).encode()),
        (CARD, _card(manifest, config).encode()),
    ):
        with written_atomically(folder / name) as temporary:
            temporary.write_bytes(content)
    return folder


def config_of(manifest: Manifest, pixel_size_um: float | None = None) -> dict[str, Any]:
    """What ``config.json`` says of weights; errors as in `export_wsinfer`."""
    patch = manifest.patch
    if not patch.is_rgb:
        raise ChannelMismatch(
            f"WSInfer and QuPath give their models red, green and blue, and weights "
            f"{manifest.name!r} are for {', '.join(patch.channels)}. They cannot be exported; "
            f"classify with them in napari."
        )
    pixel_size = patch.pixel_size_um if pixel_size_um is None else pixel_size_um
    if pixel_size is None:
        raise PixelSizeMissing(
            f"Weights {manifest.name!r} do not say the pixel size of the images that they were "
            f"trained on, and WSInfer cuts tiles by their size in micrometres. Give pixel_size_um "
            f"(--pixel-size on the command line): micrometres per px at which an object is as many "
            f"px wide as it was in training, in tiles of {patch.tile_size} px."
        )
    if not (math.isfinite(pixel_size) and pixel_size > 0):
        raise ExportError(f"The pixel size is {pixel_size} um. Give a positive number.")
    return {
        "spec_version": "1.0",
        "architecture": manifest.network,
        "num_classes": len(manifest.class_names),
        "class_names": list(manifest.class_names),
        "patch_size_pixels": patch.tile_size,
        "spacing_um_px": float(pixel_size),
        "transform": [
            {"name": "Resize", "arguments": {"size": patch.patch_size}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": [*patch.mean], "std": [*patch.std]}},
        ],
    }


def _card(manifest: Manifest, config: dict[str, Any]) -> str:
    """Model card, in Markdown: QuPath shows it beside the model."""
    tile, spacing = config["patch_size_pixels"], config["spacing_um_px"]
    facts = {
        "Network": manifest.network,
        "Tiles": f"{tile} px of {spacing:g} um, resampled to {manifest.patch.patch_size} px, RGB",
        "Classes, in order": ", ".join(manifest.class_names),
        "Returns": f"logits divided by {manifest.temperature:g}; a softmax makes probabilities",
        "Trained on": manifest.training_data,
        "Credit": manifest.credit,
        "Citation": manifest.citation,
        "Licence": manifest.licence,
        "Made from": f"weights {manifest.name}, SHA-256 {manifest.sha256}",
    }
    return "\n".join(
        [
            f"# {manifest.title or manifest.name}",
            "",
            *(f"- **{name}**: {fact}" for name, fact in facts.items() if fact),
            "",
            "## What it scored",
            "",
            *(f"- {name}: {json.dumps(value)}" for name, value in manifest.metrics.items()),
            "" if manifest.metrics else "Not stated.\n",
            "## How to use it",
            "",
            "In QuPath: put this folder into the folder `local` of the WSInfer extension's model "
            "directory.",
            "",
            f"With WSInfer: `wsinfer run --wsi-dir SLIDES --results-dir RESULTS --config {CONFIG} "
            f"--model-path {MODEL}`",
            "",
            "For research use only, not for diagnosis. Exported by napari-mambamic.",
        ]
    )
