"""A network with its manifest on a device: patches in, predictions out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_mambamic.devices import DeviceChoice, choose_device, choose_precision
from napari_mambamic.errors import DeviceError, ImageError, WeightsError
from napari_mambamic.networks.lean import lean_copy
from napari_mambamic.patches import prepare_patches
from napari_mambamic.trust.appearance import appearance_of
from napari_mambamic.trust.reference import Reference
from napari_mambamic.weights.checkpoint import SELF_TEST_LOGITS, SELF_TEST_PATCH, load_network
from napari_mambamic.weights.manifest import Manifest
from napari_mambamic.weights.store import locate_weights

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork

_SELF_TEST_TOLERANCE = 0.01  # of a logit; another order of additions moves them by 1e-4


@dataclass(frozen=True)
class Prediction:
    """What the network says about n patches.

    Parameters
    ----------
    logits, probabilities : ndarray
        (n, n_classes) float32.
    embeddings : ndarray
        (n, d) float32: the vectors before the head.
    distances : ndarray or None
        (n,) float32: how far the patches are from those of the training set; see `Reference`.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    distances: NDArray[np.float32] | None = None


class TileClassifier:
    """Classifies patches with one set of weights on one device.

    Made by `load_classifier`.  Its ``precision`` is "float32" or "bfloat16".
    """

    def __init__(
        self,
        network: StagedNetwork,
        manifest: Manifest,
        device: DeviceChoice,
        reference: Reference | None = None,
    ) -> None:
        self.network: Any = lean_copy(network).to(device.device)
        self.manifest = manifest
        self.device = device
        self.reference = None if reference is None else reference.to(device.device)
        self.precision = "float32"
        self._mean, self._std = (
            torch.tensor(values, device=device.device).view(1, -1, 1, 1)
            for values in (manifest.patch.mean, manifest.patch.std)
        )
        self._most_patches = 2**31  # at once: what has proved to fit into the memory

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.manifest.class_names

    def predict(self, patches: NDArray[Any]) -> Prediction:
        """Classify patches (n, y, x, channel) or (n, y, x) in an image's own dtype.

        They are resampled and normalised as the manifest says.

        Raises
        ------
        ImageError
            NaN, Inf or values out of range.
        ChannelMismatch
            The channels do not fit the weights.
        """
        return self.predict_prepared(prepare_patches(np.asarray(patches), self.manifest.patch))

    @torch.inference_mode()
    def predict_prepared(self, patches: NDArray[np.float32]) -> Prediction:
        """Classify what `prepare_patches` made: (n, channel, patch_size, patch_size) float32.

        Raises
        ------
        DeviceError
            The GPU has not enough memory for one patch.  (A batch that is too large is halved.)
        """
        return self.finish(self.begin(patches))

    @torch.inference_mode()
    def begin(self, patches: NDArray[np.float32]) -> list[tuple[Tensor, ...]]:
        """Start `predict_prepared`, on a GPU without waiting for it; `finish` takes what it gives.

        A batch that does not fit into the GPU's memory is halved, and so are those after it.
        """
        if not len(patches):
            raise ImageError("There are no patches: give at least one.")
        waiting = torch.from_numpy(patches)
        if self.device.device.type == "cuda":
            waiting = waiting.pin_memory()  # from there the GPU fetches it by itself
        parts: list[tuple[Tensor, ...]] = []
        while len(waiting):
            part = waiting[: self._most_patches]
            try:
                parts.append(self._forward(part))
            except torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise DeviceError(
                        f"The memory of {self.device.reason} does not suffice for one patch of "
                        f"{patches.shape[-1]} px. Close other programs that use it, or choose the "
                        f"CPU."
                    ) from error
                self._most_patches = len(part) // 2
                continue
            waiting = waiting[len(part) :]
        return parts

    @torch.inference_mode()
    def finish(self, begun: list[tuple[Tensor, ...]]) -> Prediction:
        """Wait for what `begin` started."""
        embeddings, logits, *distances = (torch.cat(each) for each in zip(*begun, strict=True))
        probabilities = (logits / self.manifest.temperature).softmax(dim=1)
        return Prediction(
            _numpy(logits),
            _numpy(probabilities),
            _numpy(embeddings),
            _numpy(distances[0]) if distances else None,
        )

    def _forward(self, patches: Tensor) -> tuple[Tensor, ...]:
        """Embeddings, logits, and distances where there is a reference."""
        device = self.device.device
        patches = patches.to(device, non_blocking=True)
        lowered = self.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=lowered):
            embeddings = self.network.embed(patches)
        embeddings = embeddings.float()
        logits = self.network.head(embeddings)
        if self.reference is None:
            return embeddings, logits
        appearance = None
        if self.reference.appearance is not None:
            appearance = appearance_of(patches * self._std + self._mean)
        return embeddings, logits, self.reference.distances(embeddings, appearance)

    def batch_size(self) -> int:
        """Patches per batch that keep the device busy: 50 of 64 px on a CPU, 512 on a GPU."""
        of_64_px = 50 if self.device.device.type == "cpu" else 512
        return max(1, round(of_64_px * (64 / self.manifest.patch.patch_size) ** 2))

    def self_test(self, patch: NDArray[Any], logits: NDArray[np.float32]) -> None:
        """Compare the logits of a stored patch (y, x, channel) with the stored ones.

        Raises
        ------
        WeightsError
            This machine computes something else.
        """
        got = self.predict(patch[np.newaxis]).logits[0]
        difference = float(np.abs(got - logits).max())
        if not difference <= _SELF_TEST_TOLERANCE:
            raise WeightsError(
                f"The self-test of weights {self.manifest.name!r} failed on {self.device.reason}: "
                f"logits differ by {difference:.3g}, allowed is {_SELF_TEST_TOLERANCE}. Do not "
                f"trust results from this device; try device='cpu' and update torch."
            )


def load_classifier(
    weights: str | Path = "default", *, device: str = "auto", precision: str = "auto"
) -> TileClassifier:
    """Load weights onto a device and test them.

    Parameters
    ----------
    weights : str or path
        One of `list_weights`, or the path of a ``.safetensors`` file with its manifest beside it.
    device : str
        "auto", "cuda", "cuda:1", "mps" or "cpu".
    precision : str
        "auto" (bfloat16 on CUDA GPUs that have it), "float32" or "bfloat16".

    Raises
    ------
    WeightsError
        The file is damaged, unsafe, does not fit its manifest, or fails its self-test.
    DeviceError
        The device is not there.
    """
    choice = choose_device(device)
    precision = choose_precision(precision, choice.device)
    network, manifest, beside = load_network(locate_weights(weights))
    classifier = TileClassifier(network, manifest, choice, Reference.from_tensors(beside))
    if SELF_TEST_PATCH in beside:
        classifier.self_test(beside[SELF_TEST_PATCH].numpy(), beside[SELF_TEST_LOGITS].numpy())
    classifier.precision = precision
    return classifier


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array
