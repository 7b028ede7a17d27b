"""How many labels change when the picture does: turned, moved, blurred, noisy, lit otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.errors import ImageError, NothingToClassify
from napari_mambamic.explain.perturbations import (
    PERTURBATIONS,
    Draw,
    inside,
    margin_for,
    reflected,
)
from napari_mambamic.explain.robustness_report import Robustness as Robustness
from napari_mambamic.explain.robustness_report import RobustnessReport as RobustnessReport
from napari_mambamic.image import ImagePyramid
from napari_mambamic.patches import (
    PatchSpec,
    check_channels,
    laid_on_white,
    read_tiles,
    to_unit_range,
)
from napari_mambamic.progress import Progress, drained
from napari_mambamic.provenance import about_image
from napari_mambamic.tiling import Tile, places_of

if TYPE_CHECKING:
    from napari_mambamic.classifier import TileClassifier

ENOUGH = 200  # tiles: the share of labels that stay is then known to 7 points or better
_MOST_VALUES = 2**25  # of the pixels of a batch
_PERCENTILES = (1, 99)  # dead and hot pixels are not the range of an image

# Pixels (k, side, side, channel) of some patches with their surroundings, and the margin in px.
Read = Callable[[NDArray[np.intp]], tuple[NDArray[Any], int]]


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
    report = yield from run.steps()
    return replace(report, provenance=report.provenance | {"image": about_image(image)})


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
