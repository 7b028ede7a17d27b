"""Weights that were published with the papers, or trained with their code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mambamic.errors import WeightsError
from napari_mambamic.networks import build_network, known_name
from napari_mambamic.networks.published import load_published, looks_like
from napari_mambamic.patches import PatchSpec, prepare_patches
from napari_mambamic.weights.checkpoint import logits_of, read_tensors, save_weights
from napari_mambamic.weights.manifest import Manifest

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork


def import_published(path: str | Path, *, network: str) -> StagedNetwork:
    """Build a network from a published state dict.

    Parameters
    ----------
    path : path
        A ``.pth`` or ``.safetensors`` file that holds the state dict of the released code, as it
        is or as ``{"model": ...}``, with or without ``module.`` before its keys.
    network : str
        One of `list_networks` or an alias.

    Returns
    -------
    nn.Module
        In evaluation mode, with the classes and channels of the file and, for MambaMIC, with the
        published behaviour of its filter.

    Raises
    ------
    WeightsError
        The file is damaged, holds more than tensors, or belongs to another network.
    NetworkError
        There is no such network, or the file has keys that do not belong to it.
    """
    wanted = known_name(network)
    tensors = read_tensors(Path(path))
    found = looks_like(tensors)
    if found != wanted:
        what = f"those of {found!r}" if found else "those of no network that is known here"
        raise WeightsError(
            f"{path} was given as weights of {wanted!r}, and looks like {what}. "
            + (f"Import it with network={found!r}." if found else "Check the file.")
        )
    stem = next(tensor for key, tensor in tensors.items() if key.startswith("patch_embed."))
    built = build_network(wanted, n_classes=len(tensors["head.weight"]), in_channels=stem.shape[1])
    load_published(built, tensors)
    return built.eval().requires_grad_(False)


def register_published(
    path: str | Path,
    *,
    network: str,
    class_names: tuple[str, ...],
    out: Path,
    patch: PatchSpec,
    training_data: str = "",
    licence: str = "not stated",
) -> Manifest:
    """Make weights with a manifest from a published state dict.

    The self-test patch is noise from a fixed seed; its logits are those of this machine's CPU.
    Weights are stored as float32, as they were published.

    Parameters
    ----------
    path, network
        As in `import_published`.
    class_names : tuple of str
        In the order of the training code: folders in alphabetical order for torchvision's loader.
    out : Path
        Ends in ``.safetensors``; its stem is the name of the weights.
    patch : PatchSpec
        What the network was trained on.
    training_data, licence : str
        For the manifest.
    """
    built = import_published(path, network=network)
    if built.head.out_features != len(class_names):
        raise WeightsError(
            f"{path} has {built.head.out_features} classes, and {len(class_names)} names were "
            f"given: {', '.join(class_names)}. Give one name for each, in the order of training."
        )
    noise = np.random.default_rng(0).integers(
        0, 256, (patch.tile_size, patch.tile_size, len(patch.channels)), np.uint8
    )
    logits = logits_of(built, prepare_patches(noise[np.newaxis], patch))[0]
    manifest = Manifest(
        name=out.stem,
        title=f"{out.stem}: imported from {Path(path).name}",
        network=known_name(network),
        class_names=class_names,
        patch=patch,
        sha256="",
        licence=licence,
        training_data=training_data or "data that the file does not tell of",
        published_filter=True,
    )
    return save_weights(built, out, manifest, self_test=(noise, logits), dtype="float32")
