"""Maps of the tiles of an image: the whole flow, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.classifier import TileClassifier
from napari_mambamic.errors import ImageError, NothingToClassify, WeightsError
from napari_mambamic.explain.heatmap import Heatmap, heatmap_over
from napari_mambamic.explain.maps import Explainer, Method, targets_of
from napari_mambamic.image import as_image
from napari_mambamic.memory import freed_memory_kept
from napari_mambamic.patches import check_channels, read_patches
from napari_mambamic.progress import Progress, drained
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import Tile


@dataclass(frozen=True, slots=True)
class ExplainProgress(Progress):
    """One step of `iter_explain`.

    Parameters
    ----------
    heatmap : Heatmap or None
        One object that fills while the run goes on.
    """

    heatmap: Heatmap | None = None


def explain_tiles(
    image: Any,
    classifier: TileClassifier,
    results: TileResults | Sequence[Tile],
    *,
    target: int | str | None = None,
    method: Method = "grad-cam",
    on_progress: Callable[[Progress], object] | None = None,
) -> Heatmap:
    """Show where in each tile of an image something speaks for its class.

    Parameters
    ----------
    image : array-like, list of array-like or ImagePyramid
        What was classified, as in `classify_image`.
    classifier : TileClassifier
        That it was classified with.
    results : TileResults or sequence of Tile
        Of results, the tiles that were classified.
    target : int or str, optional
        Number or name of the class to explain; by default that of each tile.
    method : str
        "grad-cam" or "occlusion": see `explain_patches`.
    on_progress : callable, optional
        Called with a `Progress` after each batch.

    Returns
    -------
    Heatmap
        Its ``pixels`` (y, x) lie at ``origin`` and ``step`` px apart.

    Raises
    ------
    MambamicError
        One of its kinds; the sentence says what is wrong and what to do.
    """
    steps = iter_explain(image, classifier, results, target=target, method=method)
    return drained(steps, on_progress)


def iter_explain(
    image: Any,
    classifier: TileClassifier,
    results: TileResults | Sequence[Tile],
    *,
    numbers: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    target: int | str | None = None,
    method: Method = "grad-cam",
) -> Generator[ExplainProgress, None, Heatmap]:
    """Explain one batch at a time: what `explain_tiles` drains.

    Yields an `ExplainProgress` before the first batch and after each; its ``heatmap`` fills as the
    run goes on.  Closing the generator stops it and leaves the heatmap as it is, marked as not
    complete.

    Parameters
    ----------
    numbers : sequence of int, optional
        The tiles to explain; by default all, of results those that were classified.
    image, classifier, results, target, method
        As in `explain_tiles`.
    """
    explainer = Explainer(classifier, method)
    targets_of(classifier, target, 1)  # at the door
    pyramid = as_image(image).with_chunk_cache()
    labels, provenance = None, {}
    tiles: Sequence[Tile]
    if isinstance(results, TileResults):
        tiles, labels, provenance = results.tiles, results.labels, results.provenance
        _check_weights(classifier, results)
        _check_plane(pyramid.plane_shape, provenance)
        channels = provenance.get("settings", {}).get("channels")
        if channels and pyramid.chosen_channels is None:
            pyramid = pyramid.with_channels(channels)
    else:
        tiles = results
    check_channels(pyramid.n_channels, classifier.manifest.patch, are_colours=pyramid.has_colours)
    chosen = np.arange(len(tiles)) if numbers is None else np.asarray(numbers, np.intp)
    if labels is not None:
        chosen = chosen[labels[chosen] >= 0]
    if not len(chosen):
        raise NothingToClassify("There are no tiles to explain: none was classified.")
    how = {"method": method, "class": target, "weights": classifier.manifest.name}
    heatmap = heatmap_over(
        [tiles[i] for i in chosen] if numbers is not None else tiles,
        pyramid.plane_shape,
        provenance | {"explanation": how},
    )
    total, size = len(chosen), explainer.batch_size()
    yield ExplainProgress(0, total, message="Starting", heatmap=heatmap)
    begin = time.perf_counter()
    with freed_memory_kept():
        for start in range(0, total, size):
            batch = chosen[start : start + size]
            places = [tiles[i] for i in batch]
            patches = read_patches(pyramid, places, classifier.manifest.patch)
            targets = targets_of(classifier, target, len(batch))
            if targets is None and labels is not None:
                targets = labels[batch]
            for tile, tile_map in zip(places, explainer.maps(patches, targets), strict=True):
                heatmap.add(tile, tile_map)
            done = start + len(batch)
            heatmap.complete = done == total
            seconds = time.perf_counter() - begin
            yield ExplainProgress(done, total, seconds, "Explaining", batch, heatmap=heatmap)
    return heatmap


def _check_weights(classifier: TileClassifier, results: TileResults) -> None:
    known = results.provenance.get("weights", {})
    manifest = classifier.manifest
    if known.get("sha256", manifest.sha256) != manifest.sha256:
        raise WeightsError(
            f"The results were made with weights {known.get('name')!r}, and these are other "
            f"weights, {manifest.name!r}. Load those of the run, or classify again."
        )
    if results.class_names != classifier.class_names:
        raise WeightsError(
            f"The results have the classes {', '.join(results.class_names)}, and weights "
            f"{manifest.name!r} have {', '.join(classifier.class_names)}. Only classes of the "
            f"weights can be explained: classify with weights of these classes."
        )


def _check_plane(plane_shape: tuple[int, int], provenance: dict[str, Any]) -> None:
    wanted = provenance.get("image", {}).get("plane_shape", plane_shape)
    if tuple(wanted) != tuple(plane_shape):
        raise ImageError(
            f"The image is {plane_shape[0]} x {plane_shape[1]} px and the results are of one of "
            f"{wanted[0]} x {wanted[1]} px. Give the image that was classified."
        )
