"""The manifest: what weights expect and what their outputs mean, in a JSON file beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from napari_mambamic.atomic import written_atomically
from napari_mambamic.errors import WeightsError
from napari_mambamic.patches import PatchSpec

_FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a weights file needs and means.

    Parameters
    ----------
    name, title : str
        The registered name, and one for people.
    network : str
        One of `list_networks`.
    class_names : tuple of str
        In the order of the logits.
    patch : PatchSpec
        Tile size, patch size, channels and normalisation.
    licence, credit, citation, training_data : str
        Of the images that it was trained on.
    split : dict
        How training and validation were separated.
    metrics : dict
        What it scored, and on what.
    sha256 : str
        Of the weights file.
    published_filter : bool
        Whether a MambaMIC network exchanges height and width in its filters, as in the code that
        was released with the paper: true for weights that were trained with that code.
    temperature : float
        That logits are divided by before they become probabilities, fitted on validation samples.
    trust : dict
        What predictions are doubted by, of `trust.assessment`: ``distance`` (how far embeddings of
        tiles like those of the training are, and its threshold), ``conformal`` (scores of held-back
        samples) and ``pixels`` (how bright training tiles are); each may be missing.
    """

    name: str
    title: str
    network: str
    class_names: tuple[str, ...]
    patch: PatchSpec
    sha256: str
    licence: str = ""
    credit: str = ""
    citation: str = ""
    training_data: str = ""
    split: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    published_filter: bool = False
    temperature: float = 1.0
    trust: Mapping[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> str:
        """How good the weights are, in words; nothing where it is not known."""
        figures = self.metrics.get("validation", {})
        accuracy = figures.get("overall_accuracy", self.metrics.get("validation_accuracy"))
        held_out = figures.get("n", self.split.get("n_validation"))
        if not accuracy or not held_out:
            return ""
        return f"{accuracy:.1%} right on {held_out:,} samples that it was not trained on."

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read and check a manifest.

        Raises
        ------
        WeightsError
            It is missing, not JSON, or lacks or contradicts something; the sentence says what.
        """
        path = Path(path)
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise WeightsError(
                f"The weights have no manifest: there is no file {path}. It says which classes and "
                f"patches the weights are for; put it beside them."
            ) from None
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"The manifest {path} cannot be read: {error}. Get the weights again."
            ) from error
        return cls.from_fields(fields, f"The manifest {path}")

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], where: str) -> Manifest:
        """Check a manifest that was read from JSON; `where` begins the sentences of errors."""
        try:
            fields = dict(fields)
            if fields.pop("format") != _FORMAT:
                raise WeightsError(
                    f"{where} is of another format than {_FORMAT}, which this version reads. "
                    f"Update napari-mambamic."
                )
            patch = dict(fields.pop("patch"))
            for key in ("channels", "mean", "std"):
                patch[key] = tuple(patch[key])
            fields["class_names"] = tuple(fields["class_names"])
            manifest = cls(patch=PatchSpec(**patch), **fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"{where} does not fit: {error}. Get the weights again, or add what is missing."
            ) from error
        manifest._check(where)
        return manifest

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest as JSON, never half-written."""
        with written_atomically(path) as temporary:
            temporary.write_text(
                json.dumps({"format": _FORMAT} | asdict(self), indent=2, ensure_ascii=False) + "\n",
                encoding="utf-8",
            )

    def _check(self, where: str) -> None:
        wrong = []
        if not self.class_names or len(set(self.class_names)) < len(self.class_names):
            wrong.append(f"its class names {list(self.class_names)} are missing or not distinct")
        counts = {len(self.patch.channels), len(self.patch.mean), len(self.patch.std)}
        if len(counts) > 1 or 0 in counts:
            wrong.append(
                f"it names {len(self.patch.channels)} channels with {len(self.patch.mean)} means "
                f"and {len(self.patch.std)} standard deviations"
            )
        if not all(value > 0 for value in self.patch.std):
            wrong.append(f"its standard deviations {list(self.patch.std)} are not all positive")
        if not self.temperature > 0:
            wrong.append(f"its temperature {self.temperature} is not positive")
        if min(self.patch.tile_size, self.patch.patch_size) < 1:
            wrong.append("its tile size or patch size is below 1 px")
        if wrong:
            raise WeightsError(f"{where} does not fit: {'; '.join(wrong)}. Mend it.")
