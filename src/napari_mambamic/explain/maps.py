"""Maps of patches: where in each something speaks for its class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_mambamic.classifier import TileClassifier
from napari_mambamic.errors import ImageError, NetworkError, WeightsError
from napari_mambamic.explain.grad_cam import DEFAULT_STAGE, MappedNetwork, grad_cam
from napari_mambamic.explain.occlusion import N_WINDOWS, occlusion
from napari_mambamic.patches import prepare_patches

Method = Literal["grad-cam", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)
Target = int | str | Sequence[int] | NDArray[np.integer[Any]]


def explain_patches(
    classifier: TileClassifier,
    patches: NDArray[Any],
    *,
    target: Target | None = None,
    method: Method = "grad-cam",
) -> NDArray[np.float32]:
    """Show where in each patch something speaks for a class.

    Parameters
    ----------
    classifier : TileClassifier
        From `load_classifier`.
    patches : ndarray
        (n, y, x, channel) or (n, y, x), as `TileClassifier.predict` takes them.
    target : int, str or sequence of int, optional
        Number or name of the class to explain, or a number for each patch; by default the class
        that is predicted.
    method : str
        "grad-cam": one pass forth and half a pass back, a coarse map.  "occlusion": 49 passes, what
        the log-odds of the class lose when a part is covered.

    Returns
    -------
    ndarray
        (n, y, x) float32, 0 to 1: each map is scaled by its own maximum, so maps tell places of one
        patch apart and not patches.  A map of zeros: nothing speaks for the class.

    Raises
    ------
    WeightsError
        The weights have no such class.
    ImageError, ChannelMismatch
        As in `TileClassifier.predict`.
    """
    pixels = np.asarray(patches)
    prepared = prepare_patches(pixels, classifier.manifest.patch)
    if not len(prepared):
        raise ImageError("There are no patches: give at least one.")
    explainer = Explainer(classifier, method)
    size = explainer.batch_size()
    targets = targets_of(classifier, target, len(prepared))
    maps = []
    for start in range(0, len(prepared), size):
        part = slice(start, start + size)
        maps.append(explainer.maps(prepared[part], None if targets is None else targets[part]))
    return _resized(np.concatenate(maps), (pixels.shape[1], pixels.shape[2]))


class Explainer:
    """A classifier's network made ready for a method; batch after batch.

    It computes in float32, whatever the classifier's precision, and leaves the classifier as it is.

    Parameters
    ----------
    classifier : TileClassifier
    method : str
        One of `METHODS`.
    stage : int
        Of Grad-CAM: the stage whose map is looked at, from 0 on.

    Raises
    ------
    NetworkError
        There is no such method.
    """

    def __init__(
        self, classifier: TileClassifier, method: Method, *, stage: int = DEFAULT_STAGE
    ) -> None:
        if method not in METHODS:
            raise NetworkError(f"There is no method {method!r}. Choose {' or '.join(METHODS)}.")
        self._classifier, self._method, self._stage = classifier, method, stage
        self._mapped: MappedNetwork | None = None

    def batch_size(self) -> int:
        """Patches per batch: fewer where each is computed many times."""
        size = self._classifier.batch_size()
        return size if self._method == "grad-cam" else max(1, size // (N_WINDOWS // 6))

    def maps(
        self, patches: NDArray[np.float32], targets: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """Maps (n, y, x) of prepared patches, 0 to 1; of Grad-CAM as coarse as the stage's map.

        Parameters
        ----------
        patches : ndarray
            (n, channel, patch_size, patch_size) float32, from `prepare_patches`.
        targets : ndarray or None
            (n,) the class to explain of each; None: the predicted one.
        """
        given = torch.from_numpy(patches).to(self._classifier.device.device)
        network = self._classifier.network
        if targets is None:
            with torch.no_grad():
                wanted = network(given).argmax(dim=1)
        else:
            wanted = torch.from_numpy(targets).to(given.device)
        if self._method == "occlusion":
            found = occlusion(network, given, wanted)
        else:
            if self._mapped is None:
                self._mapped = MappedNetwork(network, self._stage, given[:1])
            found = grad_cam(self._mapped, given, wanted)
        return _scaled(found)


def targets_of(
    classifier: TileClassifier, target: Target | None, n: int
) -> NDArray[np.int64] | None:
    """Numbers (n,) of the classes to explain; None: those that are predicted.

    Raises
    ------
    WeightsError
        The weights have no such class, or there is not one for each patch.
    """
    names = classifier.class_names
    if target is None:
        return None
    if isinstance(target, str):
        if target not in names:
            raise WeightsError(
                f"Weights {classifier.manifest.name!r} have no class {target!r} to explain. Their "
                f"classes are {', '.join(names)}."
            )
        target = names.index(target)
    numbers = np.asarray(target)
    if numbers.ndim and numbers.shape != (n,):
        raise WeightsError(
            f"There are {n} patches and classes to explain of shape {numbers.shape}. Give one "
            f"class, or one for each patch."
        )
    targets = np.broadcast_to(numbers, n).astype(np.int64)
    wrong = (targets < 0) | (targets >= len(names))
    if wrong.any():
        raise WeightsError(
            f"Weights {classifier.manifest.name!r} have no class {targets[wrong][0]} to explain. "
            f"Their {len(names)} classes are counted from 0: {', '.join(names)}."
        )
    return targets


def _scaled(maps: Tensor) -> NDArray[np.float32]:
    highest = maps.amax(dim=(1, 2), keepdim=True)
    scaled: NDArray[np.float32] = (
        torch.where(highest > 0, maps / highest.clamp(min=1e-30), 0).float().cpu().numpy()
    )
    return scaled


def _resized(maps: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    found = functional.interpolate(
        torch.from_numpy(maps)[:, None], shape, mode="bilinear", align_corners=False
    )
    resized: NDArray[np.float32] = found[:, 0].numpy()
    return resized
