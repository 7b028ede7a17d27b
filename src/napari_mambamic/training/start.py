"""What a run starts from: a network with a new head, and what it is fed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mambamic.errors import TrainingError
from napari_mambamic.networks import build_network
from napari_mambamic.patches import PatchSpec, prepare_patches
from napari_mambamic.training.config import TrainConfig
from napari_mambamic.training.samples import Samples
from napari_mambamic.training.splits import Split
from napari_mambamic.weights.checkpoint import load_network
from napari_mambamic.weights.manifest import Manifest
from napari_mambamic.weights.store import locate_weights

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork


def begin(
    samples: Samples, split: Split, start: str | Path | None, config: TrainConfig
) -> tuple[StagedNetwork, PatchSpec, Manifest]:
    """Network with a new head, what it is fed, and the manifest that it comes from.

    Raises
    ------
    TrainingError
        Without a start, less than everything is to be trained.
    """
    if start is None:
        return _from_scratch(samples, split, config)
    return _from_weights(samples, split, start, config)


def _from_scratch(
    samples: Samples, split: Split, config: TrainConfig
) -> tuple[StagedNetwork, PatchSpec, Manifest]:
    if config.mode != "all":
        raise TrainingError("From scratch, everything is trained: choose the mode 'all'.")
    network = build_network(
        config.network, n_classes=len(samples.class_names), in_channels=len(samples.channels)
    )
    mean, std = _statistics(samples, split)
    spec = PatchSpec(
        tile_size=samples.tile_size,
        patch_size=config.patch_size or 64,
        channels=samples.channels,
        mean=mean,
        std=std,
        pixel_size_um=samples.pixel_size_um,
    )
    origin = Manifest("", "", config.network, samples.class_names, spec, "")
    return network, spec, origin


def _from_weights(
    samples: Samples, split: Split, start: str | Path, config: TrainConfig
) -> tuple[StagedNetwork, PatchSpec, Manifest]:
    loaded, origin, _ = load_network(locate_weights(start))
    # Grey samples can stand in for RGB; other channels have statistics of their own.
    same = origin.patch.channels == samples.channels or (
        origin.patch.is_rgb and samples.channels == ("grey",)
    )
    spec = replace(
        origin.patch,
        tile_size=samples.tile_size,
        patch_size=config.patch_size or origin.patch.patch_size,
        pixel_size_um=samples.pixel_size_um,
    )
    if not same:
        mean, std = _statistics(samples, split)
        spec = replace(spec, channels=samples.channels, mean=mean, std=std)
    network = build_network(
        origin.network, n_classes=len(samples.class_names), in_channels=len(spec.channels)
    )
    state = {k: v for k, v in loaded.state_dict().items() if not k.startswith("head.")}
    if not same:
        first = next(k for k in ("stem.0.weight", "stem.weight") if k in state)
        filters = state[first].mean(dim=1, keepdim=True)
        count = len(spec.channels)
        state[first] = filters.repeat(1, count, 1, 1) * state[first].shape[1] / count
    network.load_state_dict(state, strict=False)
    if origin.published_filter:
        network.published_filter = True  # type: ignore[assignment]
    return network, spec, origin


def _statistics(samples: Samples, split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of (up to 2000) training samples, at 0 to 1."""
    count = len(samples.channels)
    some = split.training[:: max(1, len(split.training) // 2000)]
    spec = PatchSpec(
        samples.tile_size, samples.tile_size, samples.channels, (0.0,) * count, (1.0,) * count
    )
    values = prepare_patches(samples.pixels[some], spec)
    mean, std = (getattr(values, name)(axis=(0, 2, 3)) for name in ("mean", "std"))
    return (
        tuple(round(float(v), 5) for v in mean),
        tuple(max(round(float(v), 5), 1e-4) for v in std),
    )
