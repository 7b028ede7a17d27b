"""The whole flow: image -> tiles -> patches -> network -> results."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.errors import ImageError, NothingToClassify, PixelSizeMissing
from napari_mambamic.flow import Flow, Predicting, with_rows
from napari_mambamic.foreground import (
    Foreground,
    can_be_overseen,
    foreground_of_tiles,
    overview_step,
    sampled_foreground,
)
from napari_mambamic.image import ImagePyramid, as_image
from napari_mambamic.kept_runs import KeptRuns
from napari_mambamic.memory import freed_memory_kept
from napari_mambamic.patches import PatchSpec, check_channels
from napari_mambamic.progress import Progress, drained
from napari_mambamic.provenance import provenance_of
from napari_mambamic.results import TileResults
from napari_mambamic.run_store import RunStore, key_of
from napari_mambamic.schedule import View
from napari_mambamic.tiling import (
    ObjectTiles,
    Tile,
    TileGrid,
    places_of,
    plan_tiles,
    tiles_at_points,
    tiles_of_objects,
    tiles_within,
)
from napari_mambamic.trust.warnings import warnings_of

if TYPE_CHECKING:
    from napari_mambamic.classifier import TileClassifier

OnProgress = Callable[[Progress], object]
Region = tuple[int, int, int, int]
FlowMaker = Callable[..., Predicting]
_MANY_TILES = 100_000
# Settings that change no probability.
_NOT_DECISIVE = ("batch_size", "unsure_below", "count_unsure", "coverage")
_LEAST_TILE, _LARGEST_SHRINKING = 4, 64  # px; and px of the image per px of a patch


def classify_image(
    image: Any,
    classifier: TileClassifier,
    *,
    tile_size: int | None = None,
    overlap: int = 0,
    pixel_size_um: float | tuple[float, float] | None = None,
    use_pixels: bool = False,
    region: Region | None = None,
    within: Any = None,
    channels: Sequence[int] | None = None,
    skip_background: bool = False,
    batch_size: int | Literal["auto"] = "auto",
    unsure_below: float = 0.0,
    count_unsure: bool = True,
    coverage: float | None = None,
    keep_in: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> TileResults:
    """Cut an image into a grid of tiles and classify each.

    Parameters
    ----------
    image : array-like, list of array-like or ImagePyramid
        (y, x), (y, x, 3) or (y, x, 4): numpy, dask, zarr, or a list of them (multiscale, finest
        first; tiles are read from the coarsest that is fine enough).  See `as_image` for other
        axes.
    classifier : TileClassifier
        From `load_classifier`.
    tile_size : int, optional
        Side of a tile in px of the image.  By default the size that the weights were trained on:
        in micrometres where the weights have a pixel size, else in pixels.
    overlap : int
        Pixels that neighbours share.
    pixel_size_um : float or (float, float), optional
        Micrometres per px of the image.
    use_pixels : bool
        Take the weights' tile size in pixels, whatever the pixel sizes are.
    region : (int, int, int, int), optional
        (y, x, height, width) of the part to classify.
    within : list of array-like, or array-like, optional
        Classify the tiles whose middle lies in one of these polygons, each (k, 2) of (y, x) in px,
        or on this mask or label image (y, x).
    channels : sequence of int, optional
        Which channels of the image, from 0 on, are those of the weights, in their order.
    skip_background : bool
        Leave out tiles that hold only glass or darkness.
    batch_size : int or "auto"
        Tiles that are classified at once; it does not change the labels.
    unsure_below : float
        Tiles whose most probable class is less probable than this are unsure: see
        `TileResults.is_unsure`.  Their labels stay.
    count_unsure : bool
        Whether `TileResults.counts` counts them.
    coverage : float, optional
        Tables also tell how many classes the set of each tile has, which holds the right one as
        often as this: see `TileResults.prediction_sets`.
    keep_in : path, optional
        Folder where the state is kept while the run goes on; one that was interrupted goes on from
        there.
    on_progress : callable, optional
        Called with a `Progress` after each batch.

    Raises
    ------
    MambamicError
        One of its kinds; the sentence says what is wrong and what to do.
    """
    steps = iter_classify(
        image,
        classifier,
        tile_size=tile_size,
        overlap=overlap,
        pixel_size_um=pixel_size_um,
        use_pixels=use_pixels,
        region=region,
        within=within,
        channels=channels,
        skip_background=skip_background,
        batch_size=batch_size,
        unsure_below=unsure_below,
        count_unsure=count_unsure,
        coverage=coverage,
        keep_in=keep_in,
    )
    return drained(steps, on_progress)


def classify_objects(
    image: Any,
    objects: Any,
    classifier: TileClassifier,
    *,
    tile_size: int | None = None,
    object_scale: float | None = None,
    pixel_size_um: float | tuple[float, float] | None = None,
    use_pixels: bool = False,
    within: Any = None,
    channels: Sequence[int] | None = None,
    batch_size: int | Literal["auto"] = "auto",
    unsure_below: float = 0.0,
    count_unsure: bool = True,
    coverage: float | None = None,
    keep_in: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> TileResults:
    """Classify one patch per object.

    Parameters
    ----------
    image, classifier, on_progress and the others that are not named here
        As in `classify_image`.
    objects : array-like
        A label image (y, x) of integers, 0 = background, or (n, 2) points (y, x) in px.
    object_scale : float, optional
        For label images, instead of `tile_size`: the side of each tile is this many times the
        longer side of its object's bounding box.
    """
    steps = iter_classify(
        image,
        classifier,
        objects=objects,
        tile_size=tile_size,
        object_scale=object_scale,
        pixel_size_um=pixel_size_um,
        use_pixels=use_pixels,
        within=within,
        channels=channels,
        batch_size=batch_size,
        unsure_below=unsure_below,
        count_unsure=count_unsure,
        coverage=coverage,
        keep_in=keep_in,
    )
    return drained(steps, on_progress)


def iter_classify(
    image: Any,
    classifier: TileClassifier,
    *,
    objects: Any = None,
    tile_size: int | None = None,
    object_scale: float | None = None,
    overlap: int = 0,
    pixel_size_um: float | tuple[float, float] | None = None,
    use_pixels: bool = False,
    region: Region | None = None,
    within: Any = None,
    channels: Sequence[int] | None = None,
    skip_background: bool = False,
    batch_size: int | Literal["auto"] = "auto",
    unsure_below: float = 0.0,
    count_unsure: bool = True,
    coverage: float | None = None,
    with_embeddings: bool | Literal["auto"] = "auto",
    view: Callable[[], View | None] | None = None,
    keep_in: str | Path | KeptRuns | None = None,
    flow: FlowMaker | None = None,
) -> Generator[Progress, None, TileResults]:
    """Classify one batch at a time: what `classify_image` and `classify_objects` drain.

    Yields a `Progress` before the first batch and after each; its ``results`` fill as the run goes
    on.  Closing the generator stops it and leaves them as they are, marked as not complete.

    Parameters
    ----------
    objects, object_scale
        As in `classify_objects`; without objects the image is cut into a grid.
    tile_size, overlap and the others that are not named here
        As in `classify_image`.
    with_embeddings : bool or "auto"
        Keep the embeddings (3 kB a tile); "auto": of up to 100,000 tiles.
    view : callable, optional
        Gives the part (y, x, height, width) of the image that the user sees, before each batch: its
        tiles come first.
    keep_in : path, optional
        As in `classify_image`: with the same image, weights and settings, tiles that are done are
        not done again.  Without embeddings.  `KeptRuns` keep what takes long, until it is complete.
    flow : callable, optional
        Makes what turns tiles into predictions, of the arguments of `Flow`, which is the default:
        in this process.
    """
    pyramid = as_image(image, pixel_size_um=pixel_size_um).with_chunk_cache()
    if channels is not None:
        pyramid = pyramid.with_channels(channels)
    spec = classifier.manifest.patch
    tiles = plan(
        pyramid,
        spec,
        objects=objects,
        tile_size=tile_size,
        object_scale=object_scale,
        overlap=overlap,
        region=region,
        use_pixels=use_pixels,
    )
    check_channels(pyramid.n_channels, spec, are_colours=pyramid.has_colours)
    wanted, rule = _wanted(pyramid, tiles, within, skip_background)
    size = classifier.batch_size() if batch_size == "auto" else int(batch_size)
    if size < 1:
        raise ImageError(f"The batch size is {batch_size}. Choose at least 1.")
    settings = {
        "cut": "objects" if isinstance(tiles, ObjectTiles) else "tiles",
        "tile_size": tiles[0].size if object_scale is None else None,
        "object_scale": object_scale,
        "overlap": overlap,
        "region": region,
        "within": _in_words(within),
        "channels": None if channels is None else list(channels),
        "skip_background": skip_background,
        "batch_size": size,
        "unsure_below": unsure_below,
        "count_unsure": count_unsure,
        "coverage": coverage,
    }
    results = TileResults(
        classifier.class_names,
        tiles,
        np.full((len(tiles), len(classifier.class_names)), np.nan, np.float32),
        None,
        provenance_of(pyramid, classifier, settings),
        complete=False,
    )
    results.with_unsure(unsure_below).with_coverage(coverage)  # refuses what cannot be
    if with_embeddings == "auto":
        with_embeddings = len(tiles) <= _MANY_TILES
    total, store, before = len(wanted), None, None
    if keep_in is not None:
        with_embeddings = False
        store = _store_of(keep_in, pyramid, results, wanted)
    if store is not None:
        before, rows, distances = store.done()
        results.probabilities[before] = rows
        results.distances = with_rows(None, len(tiles), before, distances)
        wanted = np.setdiff1d(wanted, before)
    done = n_before = total - len(wanted)
    results.complete = done == total
    begin = time.perf_counter()
    predicting = (flow or Flow)(pyramid, tiles, classifier, rule, view)
    try:
        yield Progress(
            done, total, message="Starting", tiles=before, results=results, before=n_before
        )
        begin = time.perf_counter()
        with freed_memory_kept(), closing(predicting.predictions(wanted, size)) as predictions:
            for batch, probabilities, embeddings, distances in predictions:
                results.probabilities[batch] = probabilities
                results.distances = with_rows(results.distances, len(tiles), batch, distances)
                if with_embeddings:
                    results.embeddings = with_rows(
                        results.embeddings, len(tiles), batch, embeddings
                    )
                if store is not None:
                    store.add(batch, probabilities, distances)
                done += len(batch)
                results.complete = done == total
                seconds = time.perf_counter() - begin
                yield Progress(done, total, seconds, "Classifying", batch, results, n_before)
    finally:
        if store is not None:
            store.end(complete=results.complete)
    of_patches = None if flow else partial(_distances_of, classifier)
    results.provenance["warnings"] = warnings_of(results, pyramid, spec, of_patches)
    return results


def _distances_of(classifier: TileClassifier, patches: NDArray[np.float32]) -> NDArray[np.float32]:
    distances = classifier.predict_prepared(patches).distances
    return np.zeros(len(patches), np.float32) if distances is None else distances


def plan(
    image: ImagePyramid,
    spec: PatchSpec,
    *,
    objects: Any = None,
    tile_size: int | None = None,
    object_scale: float | None = None,
    overlap: int = 0,
    region: Region | None = None,
    use_pixels: bool = False,
) -> TileGrid | ObjectTiles:
    """Choose the tiles of a run, without reading the image."""
    if object_scale is None and tile_size is None:
        tile_size = spec.tile_size if use_pixels else default_tile_size(image, spec)
    if objects is None:
        if tile_size is None:
            raise ImageError("A scale for objects was given, and no objects. Give a tile size.")
        return plan_tiles(image.plane_shape, tile_size=tile_size, overlap=overlap, region=region)
    shape = np.shape(objects)
    is_points = not shape or shape == (0,) or (len(shape) == 2 and shape[1] == 2)
    if is_points and tuple(shape) != image.plane_shape:
        if tile_size is None:
            raise ImageError("Points have no size to scale tiles by. Give a tile size instead.")
        return tiles_at_points(objects, tile_size=tile_size, plane_shape=image.plane_shape)
    if tuple(shape) != image.plane_shape:
        raise ImageError(
            f"The label image has shape {tuple(shape)}, and image {image.name!r} is "
            f"{image.plane_shape[0]} x {image.plane_shape[1]} px. Choose labels of this image."
        )
    return tiles_of_objects(
        objects, tile_size=None if object_scale is not None else tile_size, scale=object_scale
    )


def default_tile_size(image: ImagePyramid, spec: PatchSpec) -> int:
    """Side in px of the image that shows as much as the tiles of the training images did.

    In micrometres where the weights have a pixel size, else in pixels.

    Raises
    ------
    PixelSizeMissing
        The weights have a pixel size and the image has none, or one that cannot be true.
    """
    if spec.pixel_size_um is None:
        return spec.tile_size
    what_to_do = (
        "Set the scale and the units of the layer (pixel_size_um in a script), or use its pixels "
        "as they are ('Use pixels as they are' in the panel, use_pixels=True), or give a tile size."
    )
    if image.pixel_size_um is None:
        raise PixelSizeMissing(
            f"Image {image.name!r} has no pixel size in micrometres, and the weights were trained "
            f"at {spec.pixel_size_um:g} um per px. {what_to_do}"
        )
    pixel_size = float(np.sqrt(np.prod(image.pixel_size_um)))
    size = round(spec.tile_size * spec.pixel_size_um / pixel_size)
    if not _LEAST_TILE <= size <= _LARGEST_SHRINKING * spec.tile_size:
        raise PixelSizeMissing(
            f"Image {image.name!r} has {pixel_size:g} um per px, which is implausible: a tile of "
            f"the weights, {spec.tile_size * spec.pixel_size_um:g} um, would be {size} px wide. "
            f"{what_to_do}"
        )
    return size


def _wanted(
    image: ImagePyramid, tiles: Sequence[Tile], within: Any, skip_background: bool
) -> tuple[NDArray[np.intp], Foreground | None]:
    """Numbers of the tiles to classify, and the rule for those that can only be told when read."""
    wanted = np.arange(len(tiles))
    if within is not None:
        wanted = wanted[tiles_within(tiles, within)]
        if not len(wanted):
            raise NothingToClassify(
                f"None of the {len(tiles)} tiles of image {image.name!r} has its middle in the "
                f"chosen shapes or mask. Make them larger, or the tiles smaller."
            )
    if not skip_background:
        return wanted, None
    if not can_be_overseen(image, overview_step(tiles)):
        return wanted, sampled_foreground(image, overview_step(tiles))
    wanted = np.intersect1d(wanted, np.flatnonzero(foreground_of_tiles(image, tiles)))
    if not len(wanted):
        raise NothingToClassify(
            f"All {len(tiles)} tiles of image {image.name!r} look like background. Do not "
            f"skip the background to classify them anyway."
        )
    return wanted, None


def _store_of(
    keep_in: str | Path | KeptRuns,
    image: ImagePyramid,
    results: TileResults,
    wanted: NDArray[np.intp],
) -> RunStore | None:
    provenance = results.provenance
    settings = {k: v for k, v in provenance["settings"].items() if k not in _NOT_DECISIVE}
    weights = provenance["weights"]["sha256"]
    places = hashlib.sha256(places_of(results.tiles)[wanted].tobytes()).hexdigest()
    decisive = {"settings": settings, "weights": weights, "tiles": places}
    n_tiles, n_classes = len(wanted), len(results.class_names)
    if isinstance(keep_in, KeptRuns):
        decisive["precision"] = provenance["precision"]
        return keep_in.run_of(image, decisive, n_tiles, n_classes)
    return RunStore(Path(keep_in), key_of(image, decisive), n_tiles, n_classes)


def _in_words(within: Any) -> Any:
    """Polygons as lists of numbers; of a mask, how much it covers."""
    if within is None:
        return None
    if isinstance(within, (list, tuple)):
        return [np.asarray(polygon).tolist() for polygon in within]
    return f"mask of {int(np.count_nonzero(np.asarray(within)))} px"
