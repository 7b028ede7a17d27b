"""The networks by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari_mambamic.errors import NetworkError

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork

# Depths and widths of the four stages: the same in both papers.
_SIZES = {
    "t": ((2, 2, 4, 2), (96, 192, 384, 768)),
    "s": ((2, 2, 8, 2), (96, 192, 384, 768)),
    "b": ((2, 2, 12, 2), (128, 256, 512, 1024)),
}
_NETWORKS = tuple(f"{family}-{size}" for family in ("mambamic", "medmamba") for size in _SIZES)
_ALIASES = {
    **{f"microscopic-mamba-{size}": f"mambamic-{size}" for size in _SIZES},
    "medmamba-x": "medmamba-t",  # MedMamba-T, trained with AutoAugment
}
_registered: dict[str, Callable[..., Any]] = {}


def list_networks() -> tuple[str, ...]:
    """Names that `build_network` takes, smallest first (aliases left out).

    >>> list_networks()
    ('mambamic-t', 'mambamic-s', 'mambamic-b', 'medmamba-t', 'medmamba-s', 'medmamba-b')
    """
    return (*_NETWORKS, *_registered)


def register_network(name: str, build: Callable[..., Any]) -> None:
    """Add a network of your own, for this process, to those that can be trained and loaded.

    Parameters
    ----------
    name : str
        What `build_network`, training and manifests call it.
    build : callable
        Takes the keywords ``n_classes`` and ``in_channels`` and returns a module that maps patches
        (n, in_channels, height, width) to logits (n, n_classes): by ``embed``, which gives vectors,
        and ``head``, a linear layer with a bias that makes logits of them.

    Raises
    ------
    NetworkError
        The name belongs to a network that comes with the package.
    """
    if name in _NETWORKS or name in _ALIASES:
        raise NetworkError(f"There is a network {name!r} already. Choose another name.")
    _registered[name] = build


def known_name(name: str) -> str:
    """Name of `list_networks` for a name or an alias.

    Raises
    ------
    NetworkError
        There is no such network; the nearest names are offered.
    """
    known = _ALIASES.get(name, name)
    if known not in list_networks():
        near = difflib.get_close_matches(name, [*list_networks(), *_ALIASES], n=3, cutoff=0.3)
        raise NetworkError(
            f"There is no network {name!r}. Nearest: {', '.join(near or _NETWORKS)}."
        )
    return known


def sizes_of(name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Depths and widths of the four stages of a network."""
    return _SIZES[known_name(name)[-1]]


def build_network(name: str, *, n_classes: int, in_channels: int = 3) -> StagedNetwork:
    """Build a network with fresh weights.

    Parameters
    ----------
    name : str
        One of `list_networks`, "microscopic-mamba-t/-s/-b" for mambamic-t/-s/-b, or "medmamba-x"
        for medmamba-t.
    n_classes, in_channels : int
        Size of the output and channels of the input.

    Returns
    -------
    nn.Module
        Maps patches (n, in_channels, height, width) float32 to logits (n, n_classes);
        ``.embed`` gives the vectors before the head.
    """
    known = known_name(name)
    for what, count in (("n_classes", n_classes), ("in_channels", in_channels)):
        if count < 1:
            raise NetworkError(f"{what} is {count}; it must be at least 1.")
    if known in _registered:
        built: StagedNetwork = _registered[known](n_classes=n_classes, in_channels=in_channels)
        has_head = getattr(getattr(built, "head", None), "bias", None) is not None
        if not (has_head and hasattr(built, "embed")):
            raise NetworkError(
                f"Network {known!r} has no embed, or no linear head with a bias. Divide it into "
                f"both."
            )
        return built
    depths, widths = sizes_of(known)
    from napari_mambamic.networks.mambamic import MambaMIC
    from napari_mambamic.networks.medmamba import MedMamba

    kind: type[MambaMIC] | type[MedMamba] = MambaMIC if known.startswith("mambamic") else MedMamba
    return kind(depths=depths, widths=widths, n_classes=n_classes, in_channels=in_channels)
