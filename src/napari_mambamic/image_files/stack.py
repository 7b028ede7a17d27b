"""Which plane of a stack is read: images here are planes, files may hold z stacks and films."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from napari_mambamic.errors import ImageError


@dataclass(frozen=True)
class PlaneOfStack:
    """One plane of an array with more axes.

    Parameters
    ----------
    index : tuple of (int or None)
        Per axis of the stack, where the plane lies; None along y, x and the channels.
    channel_axis : 0, 2 or None
        Where the channels are in the plane.
    note : str
        What was chosen among several planes, in a sentence; or nothing.
    places : dict
        By axis ("z", "t") along which there are several: which plane, and of how many.
    """

    index: tuple[int | None, ...]
    channel_axis: Literal[0, 2] | None
    note: str
    places: dict[str, tuple[int, int]]


def plane_of_stack(
    axes: Sequence[str], shape: Sequence[int], *, z: int | None, t: int | None, name: str
) -> PlaneOfStack:
    """Choose a plane: by default the middle of a z stack, and the first of everything else.

    The outer planes of a z stack are mostly out of focus.

    Parameters
    ----------
    axes : sequence of str
        "Y", "X", "C" (channels), "S" (samples, such as red, green and blue), "Z", "T"; of the
        others, the first is chosen by `z`, the second by `t`, as long as no axis has that name.
    shape : sequence of int
        Length of each axis.
    z, t : int or None
        Which plane along those axes.
    name : str
        For messages.

    >>> plane_of_stack("TZCYX", (1, 9, 2, 64, 64), z=None, t=None, name="cells").index
    (0, 4, None, None, None)
    """
    if list(axes).count("Y") != 1 or list(axes).count("X") != 1:
        raise ImageError(f"{name} has the axes {''.join(axes)}; y and x are needed once each.")
    long = [i for i, n in enumerate(shape) if n > 1]
    samples = [i for i in long if axes[i] == "S"] or [i for i in long if axes[i] == "C"]
    whole = {*samples[:1], axes.index("Y"), axes.index("X")}
    chosen: dict[int, tuple[str, int]] = {}
    asked = {"z": z, "t": t}
    others = [i for i in long if i not in whole]
    free = [key for key in asked if key.upper() not in [axes[i] for i in others]]
    for i in others:
        key = axes[i].lower() if axes[i] in ("Z", "T") else (free.pop(0) if free else "")
        place = asked.pop(key, None)
        if place is None:
            place = shape[i] // 2 if axes[i] == "Z" else 0
        if not 0 <= place < shape[i]:
            raise ImageError(
                f"{name} has {shape[i]} planes along {key}, 0 to {shape[i] - 1}, and {key}={place} "
                f"was asked for. Choose one of them."
            )
        chosen[i] = (key, place)
    for key, place in asked.items():
        if place:
            raise ImageError(f"{name} has no axis {key}, and {key}={place} was asked for.")
    index = tuple(None if i in whole else chosen.get(i, ("", 0))[1] for i in range(len(shape)))
    return PlaneOfStack(
        index,
        _channel_axis(axes, whole, name),
        _note(shape, chosen, name),
        {key: (place, shape[i]) for i, (key, place) in chosen.items() if key},
    )


def _channel_axis(axes: Sequence[str], whole: set[int], name: str) -> Literal[0, 2] | None:
    order = "".join(axes[i] if axes[i] in "YX" else "C" for i in sorted(whole))
    if order not in ("YX", "YXC", "CYX"):
        raise ImageError(
            f"{name} has the axes {''.join(axes)}. Planes (y, x), (y, x, channel) or "
            f"(channel, y, x) can be read; reorder the axes and save it again."
        )
    return None if order == "YX" else 0 if order[0] == "C" else 2


def _note(shape: Sequence[int], chosen: dict[int, tuple[str, int]], name: str) -> str:
    if not chosen:
        return ""
    n_planes = math.prod(shape[i] for i in chosen)
    where = ", ".join(
        f"{key or 'unnamed axis'} = {place} of {shape[i]}" for i, (key, place) in chosen.items()
    )
    return f"{name} is a stack of {n_planes:,} planes: the one at {where} is read."
