"""What a test of robustness found, as figures, a sentence, JSON and a page with charts."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from napari_mambamic.atomic import write_json, written_atomically
from napari_mambamic.explain.perturbations import PERTURBATIONS
from napari_mambamic.pages import line_chart, page, table

_MIDDLE = 2  # of the five strengths


@dataclass(frozen=True)
class Robustness:
    """What one perturbation of one strength does to n patches.

    Parameters
    ----------
    perturbation : str
    strength : float
    in_words : str
        The strength with its unit.
    stability : float
        Share of the patches whose label stays.
    stability_interval : (float, float)
        95 % interval of it (Wilson).
    probability_drop : float
        Mean of how much the probability of the first label falls; negative where it rises.
    accuracy : float or None
        Share of the patches with known classes that are classified correctly.
    """

    perturbation: str
    strength: float
    in_words: str
    stability: float
    stability_interval: tuple[float, float]
    probability_drop: float
    accuracy: float | None


@dataclass(frozen=True)
class RobustnessReport:
    """What each perturbation does to the labels.

    Parameters
    ----------
    rows : tuple of Robustness
        Perturbation by perturbation, strengths rising.
    n : int
        Patches.
    n_known : int
        Those whose class is known.
    accuracy : float or None
        Of the patches as they are.
    notes : tuple of str
        What was left out, in sentences.
    provenance : dict
        Weights, device and seed; where they are known the image, and the plane of a layer, or
        where the samples are.
    """

    rows: tuple[Robustness, ...]
    n: int
    n_known: int
    accuracy: float | None
    notes: tuple[str, ...]
    provenance: dict[str, Any]

    @property
    def by_perturbation(self) -> dict[str, tuple[Robustness, ...]]:
        """The rows of each perturbation."""
        names = dict.fromkeys(row.perturbation for row in self.rows)
        return {name: tuple(r for r in self.rows if r.perturbation == name) for name in names}

    @property
    def source(self) -> str:
        """What was measured on, for people; "" where it is not known."""
        if samples := self.provenance.get("samples"):
            return f"Samples: {samples}"
        if not (image := self.provenance.get("image")):
            return ""
        places = [f"{axis} = {at} of {of}" for axis, (at, of) in image["stack"].items()]
        if plane := self.provenance.get("plane"):
            places = [f"plane {', '.join(map(str, plane))}"]
        path = image["path"] or ""
        name = [] if path.endswith(image["name"]) else [image["name"]]
        return f"Image: {', '.join([*name, *places, *filter(None, [path])])}"

    @property
    def sentence(self) -> str:
        """What to take from it: what labels change most with, and least."""
        at_middle = [rows[_MIDDLE] for rows in self.by_perturbation.values()]
        strength = f"strength {_MIDDLE + 1} of 5"
        if all(row.stability == 1 for row in at_middle):
            at_middle = [rows[-1] for rows in self.by_perturbation.values()]
            strength = "strength 5 of 5"
        worst = min(at_middle, key=lambda row: row.stability)
        best = max(at_middle, key=lambda row: row.stability)
        if worst.stability == 1:
            return f"None of {self.n} labels changes, whatever is done to the picture."
        return (
            f"Labels change most with {worst.perturbation}: {1 - worst.stability:.0%} of {self.n} "
            f"at {strength} ({worst.in_words}). They change least with {best.perturbation}: "
            f"{1 - best.stability:.0%} ({best.in_words})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "sentence": self.sentence}

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write all figures, never half-written."""
        write_json(path, self.to_dict())
        return Path(path)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a page with a chart for each perturbation, which needs nothing else."""
        title = f"Robustness of {self.provenance['weights']['name']}"
        with written_atomically(path) as temporary:
            temporary.write_text(
                page(title, [f"<h1>{escape(title)}</h1>", self.html]), encoding="utf-8"
            )
        return Path(path)

    @property
    def html(self) -> str:
        """The sentence, the charts and the figures, for a page."""
        known = ""
        if self.accuracy is not None:
            known = f" As they are, {self.accuracy:.1%} are classified correctly."
        notes = " ".join(self.notes)
        source = f"<p>{escape(self.source)}</p>" if self.source else ""
        parts = [f"{source}<p>{self.sentence}{known} {notes}</p>"]
        for name, rows in self.by_perturbation.items():
            lines = {"labels that stay": [1.0, *(row.stability for row in rows)]}
            if self.accuracy is not None:
                told_right = [row.accuracy for row in rows if row.accuracy is not None]
                lines["accuracy"] = [self.accuracy, *told_right]
            strengths = [0.0, *(row.strength for row in rows)]
            unit = next(p.unit for p in PERTURBATIONS if p.name == name).replace("{}", "...")
            chart = line_chart(strengths, lines, "strength", top=1.0)
            parts.append(
                f"<figure>{chart}<figcaption style='max-width: 26rem'>{name}: "
                f"{unit}</figcaption></figure>"
            )
        head = ["perturbation", "strength", "labels that stay", "95 % interval"]
        head += ["drop of the probability", *(["accuracy"] if self.accuracy is not None else [])]
        figures = [
            [
                row.perturbation,
                row.in_words,
                f"{row.stability:.1%}",
                "{:.1%} to {:.1%}".format(*row.stability_interval),
                f"{row.probability_drop:.3f}",
                *([f"{row.accuracy:.1%}"] if row.accuracy is not None else []),
            ]
            for row in self.rows
        ]
        return "".join([*parts, table(head, figures)])
