"""The networks by name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from napari_mambamic.errors import NetworkError

if TYPE_CHECKING:
    from torch import nn

_DEPTHS_AND_WIDTHS = {
    "mambamic-t": ((2, 2, 4, 2), (96, 192, 384, 768)),
    "mambamic-s": ((2, 2, 8, 2), (96, 192, 384, 768)),
    "mambamic-b": ((2, 2, 12, 2), (128, 256, 512, 1024)),
}
_ALIASES = {f"microscopic-mamba-{size}": f"mambamic-{size}" for size in "tsb"}


def list_networks() -> tuple[str, ...]:
    """Names that `build_network` takes, smallest first (aliases left out).

    >>> list_networks()
    ('mambamic-t', 'mambamic-s', 'mambamic-b')
    """
    return tuple(_DEPTHS_AND_WIDTHS)


def build_network(name: str, *, n_classes: int, in_channels: int = 3) -> nn.Module:
    """Build a network with fresh weights.

    Parameters
    ----------
    name : str
        One of `list_networks`, or "microscopic-mamba-t/-s/-b" for the same networks.
    n_classes, in_channels : int
        Size of the output and channels of the input.

    Returns
    -------
    nn.Module
        Maps patches (n, in_channels, height, width) float32 to logits (n, n_classes);
        ``.embed`` gives the vectors before the head.
    """
    from napari_mambamic.networks.mambamic import MambaMIC

    known = _ALIASES.get(name, name)
    if known not in _DEPTHS_AND_WIDTHS:
        near = difflib.get_close_matches(name, [*_DEPTHS_AND_WIDTHS, *_ALIASES], n=3, cutoff=0.3)
        raise NetworkError(
            f"There is no network {name!r}. Nearest: {', '.join(near or _DEPTHS_AND_WIDTHS)}."
        )
    for what, count in (("n_classes", n_classes), ("in_channels", in_channels)):
        if count < 1:
            raise NetworkError(f"{what} is {count}; it must be at least 1.")
    depths, widths = _DEPTHS_AND_WIDTHS[known]
    return MambaMIC(depths=depths, widths=widths, n_classes=n_classes, in_channels=in_channels)
