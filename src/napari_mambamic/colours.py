"""One colour per class, the same in layers, legends and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Colours = Mapping[str, Sequence[float] | NDArray[Any]]  # RGBA 0 ... 1 of classes, by name

# Okabe and Ito's eight, with grey for black; then Tol's muted. Both are safe for the colour-blind.
_PALETTE = [
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#999999",
    "#332288",
    "#88CCEE",
    "#44AA99",
    "#117733",
    "#999933",
    "#DDCC77",
    "#CC6677",
    "#882255",
    "#AA4499",
]

UNSURE = (0.3, 0.3, 0.3, 1.0)  # darker than the grey of the eighth class


def class_colours(n_classes: int) -> NDArray[np.float32]:
    """Colours (n_classes, 4), RGBA 0 ... 1, that colour-blind people can tell apart up to 17."""
    rgb = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in _PALETTE]
    return np.array([[*rgb[i % len(rgb)], 1.0] for i in range(n_classes)], np.float32)


def colours_beside(class_names: Sequence[str], known: Colours) -> NDArray[np.float32]:
    """Colours (n_classes, 4) of classes: those that their names have already, else free ones.

    >>> known = dict(zip(["long", "round"], class_colours(2)))
    >>> colours = colours_beside(["round", "odd"], known)
    >>> bool((colours[0] == known["round"]).all()), bool((colours[1] == class_colours(3)[2]).all())
    (True, True)
    """
    palette = class_colours(max(len(_PALETTE), len(class_names)))
    taken = {tuple(colour) for colour in known.values()}
    free = [i for i, colour in enumerate(palette) if tuple(colour) not in taken]
    colours = palette[: len(class_names)].copy()
    for i, name in enumerate(class_names):
        if name in known:
            colours[i] = known[name]
        elif free:  # its own place in the palette, where no other class has that
            colours[i] = palette[free.pop(free.index(i) if i in free else 0)]
    return colours
