"""What a run leaves: a trained network with all that is needed to use it and to judge it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.atomic import write_json
from napari_mambamic.classifier import TileClassifier
from napari_mambamic.devices import choose_device
from napari_mambamic.trust.reference import Reference
from napari_mambamic.weights.checkpoint import save_weights
from napari_mambamic.weights.manifest import Manifest

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with all that is needed to use it and to judge it.

    Parameters
    ----------
    network : StagedNetwork
        In evaluation mode, on the CPU.
    manifest : Manifest
        Without a hash, which it gets when it is saved.
    report : dict
        ``config``, ``split``, ``history``, ``validation`` and ``test`` figures, ``calibration``,
        and what is predicted for each validation sample; ready for JSON.
    example, example_logits : ndarray
        A patch (y, x, channel) and its logits under the weights as they are stored, for the
        self-test.
    reference : Reference or None
        Statistics of the training samples; of a run that was cancelled there are none.
    """

    network: StagedNetwork
    manifest: Manifest
    report: dict[str, Any]
    example: NDArray[Any]
    example_logits: NDArray[np.float32]
    reference: Reference | None = None

    def save(self, path: str | Path) -> Path:
        """Write weights, manifest and report, none ever half-written.

        Parameters
        ----------
        path : path
            Ends in ``.safetensors``; manifest and report go beside it, to ``.json`` and
            ``.report.json``.
        """
        path = Path(path).with_suffix(".safetensors")
        title = f"{path.stem}: {self.manifest.title}"
        manifest = replace(self.manifest, name=path.stem, title=title)
        test = self.example, self.example_logits
        save_weights(self.network, path, manifest, self_test=test, reference=self.reference)
        write_json(path.with_suffix(".report.json"), self.report, indent=1)
        return path

    def classifier(self, *, device: str = "auto") -> TileClassifier:
        """Classifier with these weights, without saving them."""
        choice = choose_device(device)
        return TileClassifier(deepcopy(self.network), self.manifest, choice, self.reference)
