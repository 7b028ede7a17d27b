"""A classified plane that is gone through: what is read of its layers, and what threads compute."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer
from numpy.typing import NDArray

from napari_mambamic._napari.classify_layer import classifier_for
from napari_mambamic._napari.from_layer import LayerPlane, plane_at
from napari_mambamic._napari.to_layers import compile_colormaps, results_of
from napari_mambamic.errors import ImageError, MambamicError, NothingToClassify, WeightsError
from napari_mambamic.image import ImagePyramid
from napari_mambamic.patches import read_tiles
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import Tile
from napari_mambamic.training.corrected_head import CorrectedHead, fit_corrected_head
from napari_mambamic.training.corrections import Corrections, Sidecar, sidecar_path
from napari_mambamic.training.queue import How, review_order
from napari_mambamic.weights.store import read_manifest

_SIDE = 224  # of a picture, in px, at least


@dataclass(frozen=True)
class ReviewedPlane:
    """Results and the plane that they are of.

    Parameters
    ----------
    layer : Layer
        Shows the results.
    results : TileResults
    plane : LayerPlane
    image : ImagePyramid
        The plane, with the channels that were classified.
    objects : Layer or None
        What the tiles were laid around.
    """

    layer: Layer
    results: TileResults
    plane: LayerPlane
    image: ImagePyramid
    objects: Layer | None

    @property
    def weights(self) -> dict[str, Any]:
        """Name and hash of what classified."""
        found: dict[str, Any] = self.results.provenance.get("weights", {})
        return found

    def facts(self) -> dict[str, Any]:
        """What a `Sidecar` says of the image."""
        told = self.results.provenance.get("image", {})
        source = self.plane.layer.source.path or told.get("path")
        path = os.path.abspath(source) if source and os.path.exists(source) else None
        return {
            "name": self.plane.layer.name,
            "path": path,
            "plane_shape": list(self.image.plane_shape),
            "channels": self.image.chosen_channels and list(self.image.chosen_channels),
            "axes": [str(a) for a in self.plane.layer.axis_labels[: len(self.plane.index)]],
            "opened_with": dict(told.get("opened_with") or {}),
        }


def reviewed_plane_of(viewer: ViewerModel, layer: Layer | None) -> ReviewedPlane:
    """Read what is to be reviewed, on the thread of the window; of a stack, the plane in view.

    Raises
    ------
    MambamicError
        There are no results, or their image is closed.
    """
    several = [] if layer is None else results_of(layer)
    if not several:
        raise NothingToClassify("There are no results to review. Press Classify first.")
    known = {each.unique_id: each for each in viewer.layers}
    image = known.get(layer.metadata.get("image"))
    if not isinstance(image, Image):
        raise ImageError(
            f"The image that {layer.name!r} was made from is closed. Open and classify it again."
        )
    results = _in_view(viewer, image, several)
    told = results.provenance.get("layer") or {}
    if told.get("channels"):
        raise ImageError(
            f"{layer.name!r} was made from channels of several layers ({told['channels']}), which "
            f"cannot be reviewed. Classify a layer that holds all channels."
        )
    if not results.is_done.any():
        raise NothingToClassify(f"No tile of {layer.name!r} is classified yet. Let Classify run.")
    plane = plane_at(image, _index_of(results))
    channels = results.provenance.get("settings", {}).get("channels")
    pixels = plane.image if channels is None else plane.image.with_channels(channels)
    return ReviewedPlane(layer, results, plane, pixels, known.get(layer.metadata.get("objects")))


def _index_of(results: TileResults) -> tuple[int, ...]:
    return tuple((results.provenance.get("layer") or {}).get("plane") or ())


def _in_view(viewer: ViewerModel, image: Image, several: list[TileResults]) -> TileResults:
    at = np.asarray(image.world_to_data(np.asarray(viewer.dims.point)[-image.ndim :]))[:-2]
    near = [np.abs(np.subtract(_index_of(each), at)).sum() for each in several]
    return several[int(np.argmin(near))]


# ---- in threads ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """What was known of a plane before, where it is kept, and what to say about that."""

    corrections: Corrections
    path: Path
    note: str


def iter_open(
    reviewed: ReviewedPlane, device: str
) -> Generator[Opened | Progress | str, None, NDArray[np.float32] | str]:
    """Read the corrections of the image, then give the embeddings, or why there are none."""
    try:
        facts = reviewed.facts()
        path, note = sidecar_path(
            facts["path"], name=facts["name"], plane_shape=facts["plane_shape"]
        )
        sidecar = Sidecar(facts)
        if path.exists():
            sidecar = sidecar.joined(Sidecar.read(path))
        corrections = Corrections(
            sidecar,
            plane=reviewed.plane.index,
            pixel_size_um=reviewed.image.pixel_size_um,
            weights=str(reviewed.weights.get("name", "")),
            sha256=str(reviewed.weights.get("sha256", "")),
        )
    except MambamicError as error:
        return str(error)
    compile_colormaps()  # or the window would wait for it
    yield Opened(corrections, path, note)
    try:
        if reviewed.results.embeddings is not None:
            return reviewed.results.embeddings
        return (yield from _embeddings_of(reviewed, device))
    except MambamicError as error:
        return f"{error} Tiles are ordered by their probabilities alone, and nothing is learned."


def _embeddings_of(
    reviewed: ReviewedPlane, device: str
) -> Generator[Progress | str, None, NDArray[np.float32]]:
    """Show the network the very tiles of the results again."""
    yield "Loading the weights ..."
    name, told = reviewed.weights.get("name", ""), reviewed.weights.get("sha256")
    if told != read_manifest(name).sha256:
        raise WeightsError(f"Weights {name!r} have changed since the image was classified.")
    from napari_mambamic.classify import Flow

    classifier = classifier_for(name, device)
    results = reviewed.results
    wanted = np.flatnonzero(results.is_done)
    flow = Flow(reviewed.image.with_chunk_cache(), results.tiles, classifier, None, None)
    embeddings: NDArray[np.float32] | None = None
    done = 0
    for batch, _, part, _ in flow.predictions(wanted, classifier.batch_size()):
        if embeddings is None:
            embeddings = np.full((len(results), part.shape[1]), np.nan, np.float32)
        embeddings[batch] = part
        done += len(batch)
        yield Progress(done, len(wanted), message="Looking at the tiles")
    if embeddings is None:
        raise NothingToClassify("No tile is classified.")
    return embeddings


@dataclass(frozen=True)
class Learned:
    """What the labels so far teach about a plane."""

    reviewed: ReviewedPlane
    order: NDArray[np.intp]
    results: TileResults | None
    head: CorrectedHead | None


def learn(
    reviewed: ReviewedPlane,
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
    try:
        return sidecar.write(path)
    except MambamicError as error:
        return str(error)


def saved_head(head: CorrectedHead, start: str, path: Path) -> Path | str:
    """Write corrected weights; a sentence where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return head.save(start, path)
    except MambamicError as error:
        return str(error)


def picture_of_tile(image: ImagePyramid, tile: Tile) -> tuple[Tile, NDArray[np.uint8]]:
    """Pixels (y, x, 3) of a tile; channels other than colours side by side, stretched."""
    level = image.level_for(max(tile.size / _SIDE, 1.0))
    try:
        pixels = read_tiles(image, [tile], level=level)[0]
    except MambamicError:
        return tile, np.zeros((1, 1, 3), np.uint8)
    if pixels.shape[-1] in (3, 4) and pixels.dtype == np.uint8:
        return tile, np.ascontiguousarray(pixels[..., :3])
    planes = np.moveaxis(pixels.astype(np.float32), -1, 0)
    low = planes.min(axis=(1, 2), keepdims=True)
    high = planes.max(axis=(1, 2), keepdims=True)
    grey = (255 * (planes - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)
    return tile, np.repeat(np.concatenate(list(grey), axis=1)[..., np.newaxis], 3, axis=2)
