"""How many labels change when the picture does: turned, moved, blurred, noisy, lit otherwise."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.atomic import written_atomically
from napari_mambamic.errors import ImageError, NothingToClassify
from napari_mambamic.explain.perturbations import (
    PERTURBATIONS,
    Draw,
    inside,
    margin_for,
    reflected,
)
from napari_mambamic.image import ImagePyramid
from napari_mambamic.pages import line_chart, page, table
from napari_mambamic.patches import (
    PatchSpec,
    check_channels,
    laid_on_white,
    read_tiles,
    to_unit_range,
)
from napari_mambamic.progress import Progress, drained
from napari_mambamic.tiling import Tile, places_of

if TYPE_CHECKING:
    from napari_mambamic.classifier import TileClassifier

ENOUGH = 200  # tiles: the share of labels that stay is then known to 7 points or better
_MIDDLE = 2  # of the five strengths
_MOST_VALUES = 2**25  # of the pixels of a batch
_PERCENTILES = (1, 99)  # dead and hot pixels are not the range of an image

# Pixels (k, side, side, channel) of some patches with their surroundings, and the margin in px.
Read = Callable[[NDArray[np.intp]], tuple[NDArray[Any], int]]


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
        Share of the patches with known classes that are told right.
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
        Weights, device and seed.
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
        with written_atomically(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
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
        known = (
            "" if self.accuracy is None else f" As they are, {self.accuracy:.1%} are told right."
        )
        notes = " ".join(self.notes)
        parts = [f"<p>{self.sentence}{known} {notes}</p>"]
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
        parts.append(
            table(
                [*head, "drop of the probability", "accuracy"],
                [
                    [
                        row.perturbation,
                        row.in_words,
                        f"{row.stability:.1%}",
                        "{:.1%} to {:.1%}".format(*row.stability_interval),
                        f"{row.probability_drop:.3f}",
                        "n/a" if row.accuracy is None else f"{row.accuracy:.1%}",
                    ]
                    for row in self.rows
                ],
            )
        )
        return "".join(parts)


def robustness(
    patches: NDArray[Any],
    classifier: TileClassifier,
    *,
    labels: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> RobustnessReport:
    """Perturb patches in seven ways at five strengths, and tell how many labels change.

    Parameters
    ----------
    patches : ndarray
        (n, y, x, channel) or (n, y, x) in an image's own dtype, as `TileClassifier.predict` takes
        them.  What lies beyond their edges is taken to be their mirror image;
        `robustness_of_tiles` reads what is really there.
    classifier : TileClassifier
    labels : sequence of int, optional
        (n,) known classes as numbers of the classifier's classes, or -1 where unknown.
    seed : int
        Of directions and noise.

    Raises
    ------
    ImageError, ChannelMismatch
        As `TileClassifier.predict`, or there are no patches.
    """
    return drained(iter_robustness(patches, classifier, labels=labels, seed=seed))


def robustness_of_tiles(
    image: ImagePyramid,
    tiles: Sequence[Tile],
    classifier: TileClassifier,
    *,
    labels: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> RobustnessReport:
    """As `robustness`, of tiles of an image: turned and moved tiles show their real neighbours.

    Beyond the edges of the image its mirror image is taken.
    """
    return drained(iter_robustness_of_tiles(image, tiles, classifier, labels=labels, seed=seed))


def iter_robustness(
    patches: NDArray[Any],
    classifier: TileClassifier,
    *,
    labels: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> Generator[Progress, None, RobustnessReport]:
    """One batch and perturbation at a time: what `robustness` drains."""
    pixels = np.asarray(patches)
    pixels = pixels[..., np.newaxis] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[1] != pixels.shape[2]:
        raise ImageError(
            f"The patches have shape {pixels.shape}; give square patches (n, y, x, channel) or "
            f"(n, y, x)."
        )
    run = _Run(
        lambda some: (pixels[some], 0),
        np.full(len(pixels), pixels.shape[1]),
        pixels.shape[-1],
        classifier,
        labels=labels,
        seed=seed,
    )
    return (yield from run.steps())


def iter_robustness_of_tiles(
    image: ImagePyramid,
    tiles: Sequence[Tile],
    classifier: TileClassifier,
    *,
    labels: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> Generator[Progress, None, RobustnessReport]:
    """One batch and perturbation at a time: what `robustness_of_tiles` drains."""
    check_channels(image.n_channels, classifier.manifest.patch, are_colours=image.has_colours)
    side = classifier.manifest.patch.patch_size

    def read(some: NDArray[np.intp]) -> tuple[NDArray[Any], int]:
        size = tiles[int(some[0])].size
        level = image.level_for(size / side)
        down = max(1, round(max(image.levels[level].downsample)))
        # Whole pixels of the level, so that the tile in the middle is the one that was classified.
        margin = -(-margin_for(size) // down) * down + down
        larger = [
            Tile(tile.y - margin, tile.x - margin, tile.size + 2 * margin)
            for tile in (tiles[int(i)] for i in some)
        ]
        return read_tiles(image, larger, level=level), margin // down

    sizes = places_of(tiles)[:, 2]
    run = _Run(read, sizes, image.n_channels, classifier, labels=labels, seed=seed)
    return (yield from run.steps())


def sampled(n: int, most: int = ENOUGH, *, seed: int = 0) -> NDArray[np.intp]:
    """Numbers of at most `most` of n patches, drawn at random, in their order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


class _Run:
    """Patches are read batch by batch; each batch is perturbed and classified 36 times."""

    def __init__(
        self,
        read: Read,
        sizes: NDArray[np.integer[Any]],
        n_channels: int,
        classifier: TileClassifier,
        *,
        labels: Sequence[int] | NDArray[np.integer[Any]] | None,
        seed: int,
    ) -> None:
        self.read, self.classifier, self.seed = read, classifier, seed
        self.n = len(sizes)
        if not self.n:
            raise NothingToClassify("There are no patches to perturb. Classify some tiles first.")
        spec = classifier.manifest.patch
        check_channels(n_channels, spec)
        self.known = np.full(self.n, -1) if labels is None else np.asarray(labels)
        if self.known.shape != (self.n,):
            raise ImageError(f"There are {self.n} patches and {len(self.known)} known classes.")
        self.has_alpha = n_channels == 4 and len(spec.channels) != 4
        is_colour = (n_channels == 3 or self.has_alpha) and _takes_colour(spec)
        self.perturbations = [p for p in PERTURBATIONS if is_colour or not p.needs_colour]
        self.notes = tuple(
            f"{p.name.capitalize()} is left out: the pixels are not red, green and blue."
            for p in PERTURBATIONS
            if p not in self.perturbations
        )
        self.batches = list(_batches(sizes, n_channels, classifier.batch_size()))

    def steps(self) -> Generator[Progress, None, RobustnessReport]:
        n_steps = 1 + sum(len(p.strengths) for p in self.perturbations)
        total, done, begin = n_steps * self.n, 0, time.perf_counter()
        yield Progress(0, total, message="Reading")
        spread = self._spread()
        told = np.empty((n_steps, self.n), np.int64)
        probability = np.empty((n_steps, self.n), np.float32)  # of the first label
        for some in self.batches:
            pixels, margin = self._read(some)
            draws = [self._draw(int(i), margin, spread) for i in some]
            before = inside(pixels, margin)
            step = 0
            for step, (name, changed) in enumerate(self._changed(pixels, before, draws)):
                shares = self.classifier.predict(changed).probabilities
                told[step, some] = shares.argmax(axis=1)
                probability[step, some] = shares[np.arange(len(some)), told[0, some]]
                done += len(some)
                yield Progress(done, total, time.perf_counter() - begin, name)
        return self._report(told, probability)

    def _changed(
        self, pixels: NDArray[np.float32], before: NDArray[np.float32], draws: Sequence[Draw]
    ) -> Generator[tuple[str, NDArray[np.float32]]]:
        yield "unchanged", before
        for perturbation in self.perturbations:
            for strength in perturbation.strengths:
                changed = [
                    perturbation(patch, strength, draw)
                    for patch, draw in zip(pixels, draws, strict=True)
                ]
                yield perturbation.name, np.stack(changed)

    def _read(self, some: NDArray[np.intp]) -> tuple[NDArray[np.float32], int]:
        pixels, margin = self.read(some)
        scaled = to_unit_range(pixels)
        scaled = laid_on_white(scaled) if self.has_alpha else scaled
        return (scaled, margin) if margin else (reflected(scaled), margin_for(scaled.shape[1]))

    def _spread(self) -> NDArray[np.float32]:
        """Range of each channel over all patches: what noise is measured by."""
        lows, highs = [], []
        for some in self.batches:
            pixels, margin = self._read(some)
            low, high = np.percentile(inside(pixels, margin), _PERCENTILES, axis=(1, 2))
            lows.append(low)
            highs.append(high)
        spread: NDArray[np.float32] = np.concatenate(highs).max(0) - np.concatenate(lows).min(0)
        return spread.astype(np.float32)

    def _draw(self, number: int, margin: int, spread: NDArray[np.float32]) -> Draw:
        """Of its number alone, so that batches do not matter."""
        chance = np.random.default_rng((self.seed, number))
        sign = 1.0 if chance.random() < 0.5 else -1.0
        direction = float(chance.random()) * 2 * np.pi
        return Draw(margin, sign, direction, (self.seed, number, 1), spread)

    def _report(
        self, told: NDArray[np.int64], probability: NDArray[np.float32]
    ) -> RobustnessReport:
        known = self.known >= 0
        n_known = int(known.sum())

        def accuracy(step: int) -> float | None:
            return float((told[step] == self.known)[known].mean()) if n_known else None

        kinds = [(p, strength) for p in self.perturbations for strength in p.strengths]
        return RobustnessReport(
            tuple(
                Robustness(
                    perturbation=perturbation.name,
                    strength=float(strength),
                    in_words=perturbation.in_words(strength),
                    stability=float((told[step] == told[0]).mean()),
                    stability_interval=wilson(int((told[step] == told[0]).sum()), self.n),
                    probability_drop=float((probability[0] - probability[step]).mean()),
                    accuracy=accuracy(step),
                )
                for step, (perturbation, strength) in enumerate(kinds, start=1)
            ),
            self.n,
            n_known,
            accuracy(0),
            self.notes,
            {
                "weights": {
                    "name": self.classifier.manifest.name,
                    "network": self.classifier.manifest.network,
                    "sha256": self.classifier.manifest.sha256,
                },
                "device": self.classifier.device.reason,
                "precision": self.classifier.precision,
                "seed": self.seed,
            },
        )


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share of `hits` in n trials (Wilson 1927).

    >>> wilson(200, 200)
    (0.981, 1.0)
    """
    z = 1.959964
    middle = (hits + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * (hits * (n - hits) / n + z**2 / 4) ** 0.5
    return round(max(middle - half, 0.0), 3), round(min(middle + half, 1.0), 3)


def _takes_colour(spec: PatchSpec) -> bool:
    return spec.is_rgb or spec.channels == ("grey",)


def _batches(
    sizes: NDArray[np.integer[Any]], n_channels: int, batch_size: int
) -> Generator[NDArray[np.intp]]:
    """Numbers of patches that are perturbed at once: of one size, and no more than fit."""
    for size in np.unique(sizes):
        members = np.flatnonzero(sizes == size)
        side = int(size) + 2 * margin_for(int(size))
        most = max(1, min(batch_size, _MOST_VALUES // (side**2 * n_channels)))
        yield from (members[i : i + most] for i in range(0, len(members), most))
