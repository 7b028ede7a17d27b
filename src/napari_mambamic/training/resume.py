"""The state of a run in a folder, so that a run that was interrupted goes on."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from napari_mambamic.atomic import written_atomically
from napari_mambamic.errors import ExportError, TrainingError
from napari_mambamic.training.config import TrainConfig
from napari_mambamic.training.samples import Samples

_CHECKPOINT = "last.checkpoint"


class RunFolder:
    """Where the state of a run is kept after each epoch.

    Parameters
    ----------
    folder : path
        Made where there is none.
    fingerprint : str
        Of the run: only the state of the same run is gone on from.
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = Path(folder), fingerprint
        self.folder.mkdir(parents=True, exist_ok=True)

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """State that was kept, its tensors on a device; None where there is none.

        Raises
        ------
        TrainingError
            It cannot be read, or is of another run.
        """
        path = self.folder / _CHECKPOINT
        if not path.exists():
            return None
        try:
            if not zipfile.is_zipfile(path):  # what torch writes; of anything else it makes guesses
                raise EOFError("it is damaged")
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise TrainingError(
                f"{path} cannot be read ({error}). Remove it to train from the start."
            ) from error
        if state["fingerprint"] != self.fingerprint:
            raise TrainingError(
                f"{self.folder} holds a run with other samples or settings. Choose another folder, "
                f"or remove {path.name} there."
            )
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Keep a state instead of the last one.

        Raises
        ------
        ExportError
            It cannot be written; the last one remains.
        """
        try:
            with written_atomically(self.folder / _CHECKPOINT) as temporary:
                torch.save({"fingerprint": self.fingerprint} | state, temporary)
        except (ExportError, RuntimeError) as error:  # torch tells of a full disk as the latter
            raise ExportError(f"the state could not be kept in {self.folder}: {error}") from error


def fingerprint(
    samples: Samples, start: str | Path | None, config: TrainConfig, device: torch.device
) -> str:
    """Digest of what decides the outcome of a run."""
    digest = hashlib.sha256()
    settings = asdict(config) | {"device": device.type}
    digest.update(json.dumps([settings, str(start)], sort_keys=True).encode())
    digest.update(samples.labels.tobytes())
    some = samples.pixels[:: max(1, len(samples) // 64)]
    digest.update(some.tobytes())
    return digest.hexdigest()
