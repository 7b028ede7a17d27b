"""A classified plane that is gone through: where its corrections are, and what they teach."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer
from numpy.typing import NDArray

from napari_mambamic._napari.classified import (
    Classified,
    classified_of,
    iter_embeddings_of,
    weights_of,
)
from napari_mambamic._napari.from_layer import some_pixels_of
from napari_mambamic._napari.to_layers import compile_colormaps
from napari_mambamic._napari.workers import or_sentence
from napari_mambamic.errors import ImageError, MambamicError, NothingToClassify
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import ObjectTiles
from napari_mambamic.training.corrected_head import CorrectedHead, fit_corrected_head
from napari_mambamic.training.corrections import Corrections, Sidecar, sidecar_path
from napari_mambamic.training.queue import How, review_order


def reviewed_plane_of(viewer: ViewerModel, layer: Layer | None) -> Classified:
    """Find what is to be reviewed, on the thread of the window; of a stack, the plane in view.

    Raises
    ------
    MambamicError
        There are no results, or their image is closed.
    """
    reviewed = classified_of(viewer, layer)
    if not reviewed.results.is_done.any():
        raise NothingToClassify(f"No tile of {layer.name!r} is classified yet. Let Classify run.")
    if isinstance(reviewed.results.tiles, ObjectTiles) and reviewed.objects is None:
        raise ImageError(
            f"The objects of layer {layer.name!r} are closed, so that no corrections can be shown. "
            f"Open them and classify them again."
        )
    # Whichever channel was in view, the corrections are those of all.
    return replace(reviewed, plane=reviewed.plane.at_first_channel(reviewed.channel_axis))


def facts_of(reviewed: Classified) -> dict[str, Any]:
    """What a `Sidecar` says of the image."""
    told = reviewed.results.provenance.get("image", {})
    layer, image = reviewed.plane.layer, reviewed.plane.image
    source = layer.source.path or told.get("path")
    # A file is not the image when channels were put together.
    is_file = source and os.path.exists(source) and not reviewed.channels
    return {
        "name": " + ".join(reviewed.channels) or layer.name,
        "path": os.path.abspath(source) if is_file else None,
        "plane_shape": list(image.plane_shape),
        "channels": image.chosen_channels and list(image.chosen_channels),
        "axes": [str(axis) for axis in layer.axis_labels[: len(reviewed.plane.index)]],
        "opened_with": dict(told.get("opened_with") or {}),
    }


# ---- in threads ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """What was known of a plane before, where it is kept, and what to say about that."""

    corrections: Corrections
    path: Path
    note: str


def iter_open(
    reviewed: Classified,
) -> Generator[Opened | Progress, None, NDArray[np.float32] | str]:
    """Read the corrections of the image, then give the embeddings, or why there are none."""
    facts = facts_of(reviewed)
    weights = reviewed.results.provenance.get("weights", {})
    path, note = sidecar_path(
        facts["path"],
        name=facts["name"],
        plane_shape=facts["plane_shape"],
        pixels=some_pixels_of(reviewed.plane.layer),
    )
    sidecar = Sidecar(facts)
    if path.exists():
        sidecar = sidecar.joined(Sidecar.read(path))
    corrections = Corrections(
        sidecar,
        plane=reviewed.plane.index,
        pixel_size_um=reviewed.plane.image.pixel_size_um,
        weights=str(weights.get("name", "")),
        sha256=str(weights.get("sha256", "")),
    )
    compile_colormaps()  # or the window would wait for it
    yield Opened(corrections, path, note)
    try:
        return (yield from iter_embeddings_of(reviewed.plane.image, reviewed.results))
    except MambamicError as error:
        return f"{error} Tiles are ordered by their probabilities alone, and nothing is learned."


@dataclass(frozen=True)
class Learned:
    """What the labels so far teach about a plane."""

    reviewed: Classified
    order: NDArray[np.intp]
    results: TileResults | None
    head: CorrectedHead | None


def learn(
    reviewed: Classified,
    embeddings: NDArray[np.float32] | None,
    numbers: NDArray[np.intp],
    names: list[str],
    how: How,
) -> Learned:
    """Correct the head by the labels, classify all tiles with it, and order those without one."""
    results, head = reviewed.results, None
    probabilities = results.probabilities
    if embeddings is not None and len(numbers):
        head = fit_corrected_head(
            probabilities,
            embeddings,
            labelled=numbers,
            labels=names,
            class_names=results.class_names,
        )
        probabilities = head.probabilities(probabilities, embeddings)
    order = review_order(probabilities, embeddings, labelled=numbers, how=how, seed=len(numbers))
    if head is None:
        return Learned(reviewed, order, None, None)
    given = [head.class_names.index(name) for name in names]
    probabilities[numbers] = np.eye(len(head.class_names), dtype=np.float32)[given]
    corrected = replace(
        results,
        class_names=head.class_names,
        probabilities=probabilities,
        embeddings=None,
        provenance=results.provenance | {"corrected": {"labels": len(numbers)}},
    )
    return Learned(reviewed, order, corrected, head)


def written(sidecar: Sidecar, path: Path) -> Sidecar | str:
    """Write corrections; a sentence where that fails."""
    return or_sentence(sidecar.write, path)


def saved_head(head: CorrectedHead, results: TileResults, path: Path) -> Path | str:
    """Write the weights of results with a corrected head; a sentence where that fails."""
    return or_sentence(lambda: head.save(weights_of(results), path))
