"""Writing and reading weights files: data, never code.

A weights file is a safetensors file with a manifest beside it.  It also holds a patch and the
logits that belong to it, so that a machine that computes something else is found out on load.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from napari_mambamic.atomic import written_atomically
from napari_mambamic.errors import WeightsError
from napari_mambamic.networks import build_network
from napari_mambamic.networks.mambamic import MambaMIC
from napari_mambamic.trust.reference import Reference, tensor_widths
from napari_mambamic.weights.manifest import Manifest

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork

SELF_TEST_PATCH, SELF_TEST_LOGITS = "self_test.patch", "self_test.logits"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_weights(
    network: nn.Module,
    path: str | Path,
    manifest: Manifest,
    *,
    self_test: tuple[NDArray[np.generic], NDArray[np.float32]],
    reference: Reference | None = None,
    dtype: str = "float16",
) -> Manifest:
    """Write weights and their manifest, neither ever half-written.

    Parameters
    ----------
    network : nn.Module
    path : path
        Ends in ``.safetensors``; the manifest goes to the same name with ``.json``.
    manifest : Manifest
        Its hash is filled in here.
    self_test : (ndarray, ndarray)
        A patch (y, x, channel) in an image's own dtype and its logits (n_classes,).
    reference : Reference, optional
        Statistics of the training set.
    dtype : str
        What floating-point weights are stored as: "float16" or "float32".

    Returns
    -------
    Manifest
        With the hash.
    """
    path = Path(path)
    stored_as: torch.dtype = getattr(torch, dtype)
    tensors = {
        name: (tensor.to(stored_as) if tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in network.state_dict().items()
    }
    tensors[SELF_TEST_PATCH] = torch.from_numpy(np.ascontiguousarray(self_test[0]))
    tensors[SELF_TEST_LOGITS] = torch.from_numpy(np.asarray(self_test[1], np.float32))
    if reference is not None:
        tensors |= {name: value.contiguous().cpu() for name, value in reference.tensors.items()}
    with written_atomically(path) as temporary:
        save_file(tensors, temporary)
    manifest = replace(manifest, sha256=sha256_of(path))
    manifest.write(path.with_suffix(".json"))
    return manifest


def load_network(path: str | Path) -> tuple[StagedNetwork, Manifest, dict[str, Tensor]]:
    """Build the network of a weights file in evaluation mode, float32, on the CPU.

    Returns
    -------
    (nn.Module, Manifest, dict)
        The last holds the tensors of the self-test and of the `Reference`, where the file has them.

    Raises
    ------
    WeightsError
        The file is truncated, is not the one of its manifest, holds code, or does not fit.
    """
    path = Path(path)
    manifest = Manifest.read(path.with_suffix(".json"))
    tensors = read_tensors(path)
    digest = sha256_of(path)
    if digest != manifest.sha256:
        raise WeightsError(
            f"{path} is not the file that its manifest speaks of: its SHA-256 begins with "
            f"{digest[:12]} and the manifest says {manifest.sha256[:12]}. Get the weights again."
        )
    channels = len(manifest.patch.channels)
    network = build_network(
        manifest.network, n_classes=len(manifest.class_names), in_channels=channels
    )
    widths = tensor_widths(network.head.in_features, channels)
    others = {SELF_TEST_PATCH, SELF_TEST_LOGITS} | set(widths)
    beside = {name: tensors.pop(name) for name in others & set(tensors)}
    _check_shapes(network.state_dict(), tensors, manifest, path)
    for name in set(widths) & set(beside):
        if beside[name].ndim != 2 or beside[name].shape[1] != widths[name]:
            raise WeightsError(
                f"{path} does not fit the network {manifest.network!r}: its {name!r} has the shape "
                f"{tuple(beside[name].shape)}, and {widths[name]} columns are needed. Get it again."
            )
    network.load_state_dict(tensors)
    if isinstance(network, MambaMIC):
        network.published_filter = manifest.published_filter
    return network.eval().requires_grad_(False), manifest, beside


@torch.inference_mode()
def logits_of(network: nn.Module, patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (n, n_classes) of prepared patches, on the network's own device."""
    logits: NDArray[np.float32] = network(torch.from_numpy(patches)).numpy()
    return logits


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file, or of a ``.pth`` file that holds nothing but tensors.

    A state dict that is wrapped in ``{"model": ...}``, or whose keys begin with ``module.`` because
    it was trained on several GPUs, is unwrapped.
    """
    tensors: Any
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"There is no weights file {path}. Check the path.") from None
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors, perhaps code that would run when it is opened, or it "
            f"is damaged. It was not opened. Ask for the weights as .safetensors."
        ) from error
    except Exception as error:  # the unpickler raises anything on what is no pickle
        raise WeightsError(
            f"{path} cannot be read: it is truncated or not a weights file ({error}). Get it again."
        ) from error
    for wrapper in ("model", "state_dict", "net"):
        if isinstance(tensors, Mapping) and isinstance(tensors.get(wrapper), Mapping):
            tensors = tensors[wrapper]
    if not isinstance(tensors, Mapping) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise WeightsError(f"{path} does not hold a table of tensors. Ask for the state dict.")
    return {key.removeprefix("module."): tensor for key, tensor in tensors.items()}


def _check_shapes(
    wanted: Mapping[str, Tensor], got: Mapping[str, Tensor], manifest: Manifest, path: Path
) -> None:
    for key, what, axis, count in (
        ("head.weight", "classes", 0, len(manifest.class_names)),
        ("stem.0.weight", "channels", 1, len(manifest.patch.channels)),
        ("stem.weight", "channels", 1, len(manifest.patch.channels)),
    ):
        if key in got and got[key].shape[axis] != count:
            raise WeightsError(
                f"The manifest of {path} names {count} {what}, and the weights have "
                f"{got[key].shape[axis]}. They do not belong together; get both again."
            )
    for key in [*wanted, *got]:
        if key not in got or key not in wanted or got[key].shape != wanted[key].shape:
            shapes = [tuple(t[key].shape) if key in t else "nothing" for t in (got, wanted)]
            raise WeightsError(
                f"{path} does not fit the network {manifest.network!r}: for {key!r} it has "
                f"{shapes[0]}, and the network needs {shapes[1]}. Check the manifest."
            )
