"""Two runs over the same tiles: where they agree, and where they do not."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from napari_mambamic.atomic import write_json, written_atomically
from napari_mambamic.errors import ImageError, NothingToClassify
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import places_of


@dataclass(frozen=True)
class Comparison:
    """What two runs say about the tiles that both classified.

    Parameters
    ----------
    a, b : TileResults
    tiles_a, tiles_b : ndarray
        (n,) numbers of the same tiles in `a` and in `b`, in the order of `a`.
    labels_a, labels_b : ndarray
        (n,) classes of those tiles, numbers of the classes of `a` and of `b`.
    sure_a, sure_b : ndarray
        (n,) probabilities of those classes.
    agrees : ndarray
        (n,) bool: whether the classes have one name.
    n_left_out : int
        Tiles that one of the runs did not classify.
    kappa : float or None
        Cohen's kappa: agreement beyond chance; None where all tiles have one class in both.
    disagreements : ndarray
        Places in `tiles_a` of the tiles that they disagree on, where both are surest first.
    """

    a: TileResults
    b: TileResults
    tiles_a: NDArray[np.intp]
    tiles_b: NDArray[np.intp]
    labels_a: NDArray[np.int64]
    labels_b: NDArray[np.int64]
    sure_a: NDArray[np.float32]
    sure_b: NDArray[np.float32]
    agrees: NDArray[np.bool_]
    n_left_out: int
    kappa: float | None
    disagreements: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.tiles_a)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(n_classes_a, n_classes_b) tiles of each pair of classes."""
        counts = np.zeros((len(self.a.class_names), len(self.b.class_names)), np.int64)
        np.add.at(counts, (self.labels_a, self.labels_b), 1)
        return counts

    @property
    def agreement(self) -> float:
        """Share of the tiles that both give the same class."""
        return float(self.agrees.mean())

    def pairs_of(self, class_a: int, class_b: int) -> NDArray[np.intp]:
        """As `disagreements`, of the tiles that are of one class in `a` and of one in `b`."""
        chosen = (self.labels_a == class_a) & (self.labels_b == class_b)
        return _surest_first(chosen, self.sure_a, self.sure_b)

    @property
    def sentence(self) -> str:
        """The figures in words."""
        what = "tiles" if self.a.object_ids is None else "objects"
        kappa = "n/a (all of one class)" if self.kappa is None else f"{self.kappa:.3f}"
        told = (
            f"{int(self.agrees.sum()):,} of {len(self):,} {what} agree ({self.agreement:.1%}), "
            f"Cohen's kappa {kappa}."
        )
        if self.n_left_out:
            told += f" {self.n_left_out:,} that one run did not classify are left out."
        only = set(self.a.class_names) ^ set(self.b.class_names)
        if only:
            told += f" Classes that only one of them has: {', '.join(sorted(only))}."
        return told

    @property
    def table(self) -> str:
        """The confusion as text: rows are the classes of `a`, columns those of `b`."""
        head = ["", *self.b.class_names]
        rows = [
            [name, *(f"{count:,}" for count in counts)]
            for name, counts in zip(self.a.class_names, self.confusion.tolist(), strict=True)
        ]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        return "\n".join(
            "  ".join(
                text.ljust(width) if i == 0 else text.rjust(width)
                for i, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in [head, *rows]
        )

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write one row per tile, disagreements first and of these the surest; never half-written.

        Columns: tile (its number in `a`), y, x, size (px), object (for objects), class_a,
        probability_a, class_b, probability_b, agree (1 or 0).  The provenance of both runs goes
        beside it, to ``<name>.provenance.json``.
        """
        path = Path(path)
        rest = np.flatnonzero(self.agrees)
        order = np.concatenate([self.disagreements, rest])
        places, ids = places_of(self.a.tiles), self.a.object_ids
        names = ["tile", "y", "x", "size", *([] if ids is None else ["object"])]
        names += ["class_a", "probability_a", "class_b", "probability_b", "agree"]
        with (
            written_atomically(path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(names)
            for i in order.tolist():
                tile = int(self.tiles_a[i])
                number = [] if ids is None else [int(ids[tile])]
                writer.writerow(
                    [
                        tile,
                        *places[tile].tolist(),
                        *number,
                        self.a.class_names[self.labels_a[i]],
                        f"{self.sure_a[i]:.6g}",
                        self.b.class_names[self.labels_b[i]],
                        f"{self.sure_b[i]:.6g}",
                        int(self.agrees[i]),
                    ]
                )
        write_json(path.with_suffix(".provenance.json"), self.provenance)
        return path

    @property
    def provenance(self) -> dict[str, Any]:
        """Where both runs came from, and the figures."""
        return {
            "a": self.a.provenance,
            "b": self.b.provenance,
            "n": len(self),
            "agreement": self.agreement,
            "kappa": self.kappa,
        }


def compare_runs(a: TileResults, b: TileResults) -> Comparison:
    """Compare two runs, of two weights or from before and after training, tile by tile.

    Tiles are matched by their place, classes by their names, which may differ.

    Raises
    ------
    ImageError
        The runs are of different images, planes or tiles.
    NothingToClassify
        There is no tile that both classified.
    """
    _check_images(a, b)
    order_a, order_b = _matched(a, b)
    done = a.is_done[order_a] & b.is_done[order_b]
    if not done.any():
        raise NothingToClassify(
            "There is no tile that both runs classified. Let both runs come to their end."
        )
    tiles_a, tiles_b = order_a[done], order_b[done]
    back = np.argsort(tiles_a, kind="stable")
    tiles_a, tiles_b = tiles_a[back], tiles_b[back]
    labels_a, labels_b = a.labels_of(tiles_a), b.labels_of(tiles_b)
    numbers = {name: i for i, name in enumerate(dict.fromkeys(a.class_names + b.class_names))}
    names_a, names_b = (
        np.array([numbers[name] for name in class_names])[labels]
        for class_names, labels in ((a.class_names, labels_a), (b.class_names, labels_b))
    )
    agrees = names_a == names_b
    sure_a, sure_b = a.probabilities[tiles_a, labels_a], b.probabilities[tiles_b, labels_b]
    of_one_class = len({*np.unique(names_a).tolist(), *np.unique(names_b).tolist()}) < 2
    return Comparison(
        a,
        b,
        tiles_a,
        tiles_b,
        labels_a,
        labels_b,
        sure_a,
        sure_b,
        agrees,
        n_left_out=int((~done).sum()),
        kappa=None if of_one_class else float(cohen_kappa_score(names_a, names_b)),
        disagreements=_surest_first(~agrees, sure_a, sure_b),
    )


def _surest_first(
    chosen: NDArray[np.bool_], sure_a: NDArray[np.float32], sure_b: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Places of the chosen; how sure both runs are is the smaller of their probabilities."""
    places = np.flatnonzero(chosen)
    sure = np.minimum(sure_a[places], sure_b[places])
    return places[np.argsort(-sure, kind="stable")]


def _check_images(a: TileResults, b: TileResults) -> None:
    images = [results.provenance.get("image", {}) for results in (a, b)]
    for key in ("name", "plane_shape"):
        values = [image.get(key) for image in images]
        if None not in values and values[0] != values[1]:
            raise ImageError(
                f"The runs are of different images: {_image(images[0])} and {_image(images[1])}. "
                f"Choose two runs of one image."
            )
    planes = [list((r.provenance.get("layer") or {}).get("plane") or ()) for r in (a, b)]
    if planes[0] != planes[1]:
        raise ImageError(
            f"The runs are of different planes of image {images[0].get('name')!r}: {planes[0]} and "
            f"{planes[1]}. Choose two runs of one plane."
        )


def _image(image: dict[str, Any]) -> str:
    shape = image.get("plane_shape") or ("?", "?")
    return f"{image.get('name')!r} ({shape[0]} x {shape[1]} px)"


def _matched(a: TileResults, b: TileResults) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers of the tiles of `a` and of `b`, so that those at the same index are one place."""
    if (a.object_ids is None) != (b.object_ids is None):
        raise ImageError(
            "One run is of a grid of tiles and the other of objects. Choose two runs that cut the "
            "image in the same way."
        )
    places, orders = [], []
    for results in (a, b):
        rows = places_of(results.tiles)
        ids = results.object_ids
        keys = [*rows.T[::-1]] if ids is None else [ids, *rows.T[::-1]]
        order = np.lexsort(keys)
        places.append(rows[order])
        orders.append(order)
    if not np.array_equal(places[0], places[1]):
        sizes = [np.unique(rows[:, 2]) for rows in places]
        sides = [f"{s[0]} px" if len(s) == 1 else f"{s[0]} to {s[-1]} px" for s in sizes]
        raise ImageError(
            f"The runs have different tiles: {len(a):,} of {sides[0]} and {len(b):,} of "
            f"{sides[1]}, not all at the same places. Classify with the same tile size, overlap "
            f"and region, or the same objects."
        )
    return orders[0], orders[1]
