"""The whole flow: image -> tiles -> patches -> network -> results."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_mambamic.errors import ImageError, NothingToClassify
from napari_mambamic.foreground import foreground_of_tiles
from napari_mambamic.image import ImagePyramid, as_image
from napari_mambamic.memory import freed_memory_kept
from napari_mambamic.patches import PatchSpec, check_channels, read_patches
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import (
    ObjectTiles,
    TileGrid,
    plan_tiles,
    tiles_at_points,
    tiles_of_objects,
)

if TYPE_CHECKING:
    from napari_mambamic.classifier import TileClassifier

OnProgress = Callable[[Progress], object]
Region = tuple[int, int, int, int]


def classify_image(
    image: Any,
    classifier: TileClassifier,
    *,
    tile_size: int | None = None,
    overlap: int = 0,
    pixel_size_um: float | tuple[float, float] | None = None,
    region: Region | None = None,
    skip_background: bool = False,
    batch_size: int | Literal["auto"] = "auto",
    on_progress: OnProgress | None = None,
) -> TileResults:
    """Cut an image into a grid of tiles and classify each.

    Parameters
    ----------
    image : array-like, list of array-like or ImagePyramid
        (y, x), (y, x, 3) or (y, x, 4): numpy, dask, zarr, or a list of them (multiscale, finest
        first; tiles are read from the finest).  See `as_image` for other axes.
    classifier : TileClassifier
        From `load_classifier`.
    tile_size : int, optional
        Side of a tile in px of the image.  By default the size that the weights were trained on,
        in micrometres where both pixel sizes are known, else in pixels.
    overlap : int
        Pixels that neighbours share.
    pixel_size_um : float or (float, float), optional
        Micrometres per px of the image.
    region : (int, int, int, int), optional
        (y, x, height, width) of the part to classify.
    skip_background : bool
        Leave out tiles that hold only glass or darkness.
    batch_size : int or "auto"
        Tiles that are classified at once; it does not change the labels.
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
        region=region,
        skip_background=skip_background,
        batch_size=batch_size,
    )
    return _drain(steps, on_progress)


def classify_objects(
    image: Any,
    objects: Any,
    classifier: TileClassifier,
    *,
    tile_size: int | None = None,
    object_scale: float | None = None,
    pixel_size_um: float | tuple[float, float] | None = None,
    batch_size: int | Literal["auto"] = "auto",
    on_progress: OnProgress | None = None,
) -> TileResults:
    """Classify one patch per object.

    Parameters
    ----------
    image, classifier, tile_size, pixel_size_um, batch_size, on_progress
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
        batch_size=batch_size,
    )
    return _drain(steps, on_progress)


def iter_classify(
    image: Any,
    classifier: TileClassifier,
    *,
    objects: Any = None,
    tile_size: int | None = None,
    object_scale: float | None = None,
    overlap: int = 0,
    pixel_size_um: float | tuple[float, float] | None = None,
    region: Region | None = None,
    skip_background: bool = False,
    batch_size: int | Literal["auto"] = "auto",
    with_embeddings: bool = True,
) -> Generator[Progress, None, TileResults]:
    """Classify one batch at a time: what `classify_image` and `classify_objects` drain.

    Yields a `Progress` before the first batch and after each; its ``results`` fill as the run goes
    on.  Closing the generator stops it and leaves them as they are, marked as not complete.

    Parameters
    ----------
    objects, object_scale
        As in `classify_objects`; without objects the image is cut into a grid.
    with_embeddings : bool
        Keep the embeddings (3 kB a tile).
    """
    pyramid = as_image(image, pixel_size_um=pixel_size_um)
    spec = classifier.manifest.patch
    tiles = plan(
        pyramid,
        spec,
        objects=objects,
        tile_size=tile_size,
        object_scale=object_scale,
        overlap=overlap,
        region=region,
    )
    check_channels(pyramid.n_channels, spec)
    wanted = np.arange(len(tiles))
    if skip_background:
        wanted = wanted[foreground_of_tiles(pyramid, tiles)]
        if not len(wanted):
            raise NothingToClassify(
                f"All {len(tiles)} tiles of image {pyramid.name!r} look like background. Do not "
                f"skip the background to classify them anyway."
            )
    size = classifier.batch_size() if batch_size == "auto" else int(batch_size)
    if size < 1:
        raise ImageError(f"The batch size is {batch_size}. Choose at least 1.")
    settings = {
        "cut": "objects" if isinstance(tiles, ObjectTiles) else "tiles",
        "tile_size": tiles[0].size if object_scale is None else None,
        "object_scale": object_scale,
        "overlap": overlap,
        "region": region,
        "skip_background": skip_background,
        "batch_size": size,
    }
    results = TileResults(
        classifier.class_names,
        tiles,
        np.full((len(tiles), len(classifier.class_names)), np.nan, np.float32),
        None,
        provenance_of(pyramid, classifier, settings),
        complete=False,
    )
    yield Progress(0, len(wanted), message="Starting", results=results)
    begin = time.perf_counter()
    with freed_memory_kept():
        for first in range(0, len(wanted), size):
            batch = wanted[first : first + size]
            predicted = classifier.predict_prepared(
                read_patches(pyramid, [tiles[i] for i in batch], spec)
            )
            if with_embeddings:
                if results.embeddings is None:
                    width = predicted.embeddings.shape[1]
                    results.embeddings = np.full((len(tiles), width), np.nan, np.float32)
                results.embeddings[batch] = predicted.embeddings
            results.probabilities[batch] = predicted.probabilities
            done = first + len(batch)
            results.complete = done == len(wanted)
            yield Progress(
                done, len(wanted), time.perf_counter() - begin, "Classifying", batch, results
            )
    return results


def plan(
    image: ImagePyramid,
    spec: PatchSpec,
    *,
    objects: Any = None,
    tile_size: int | None = None,
    object_scale: float | None = None,
    overlap: int = 0,
    region: Region | None = None,
) -> TileGrid | ObjectTiles:
    """Choose the tiles of a run, without reading the image."""
    if object_scale is None and tile_size is None:
        tile_size = default_tile_size(image, spec)
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

    In micrometres where both pixel sizes are known, else in pixels.
    """
    if image.pixel_size_um is None or spec.pixel_size_um is None:
        return spec.tile_size
    pixel_size = float(np.sqrt(np.prod(image.pixel_size_um)))
    return max(1, round(spec.tile_size * spec.pixel_size_um / pixel_size))


def provenance_of(
    image: ImagePyramid, classifier: TileClassifier, settings: dict[str, Any]
) -> dict[str, Any]:
    """What is needed to tell, and to repeat, how results were made."""
    manifest = classifier.manifest
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("napari-mambamic", "torch", "numpy")},
        },
        "image": {
            "name": image.name,
            "plane_shape": list(image.plane_shape),
            "n_channels": image.n_channels,
            "dtype": str(image.dtype),
            "pixel_size_um": image.pixel_size_um and list(image.pixel_size_um),
        },
        "weights": {
            "name": manifest.name,
            "network": manifest.network,
            "sha256": manifest.sha256,
            "licence": manifest.licence,
            "credit": manifest.credit,
        },
        "device": classifier.device.reason,
        "precision": classifier.precision,
        "settings": settings,
    }


def _drain(
    steps: Generator[Progress, None, TileResults], on_progress: OnProgress | None
) -> TileResults:
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            results: TileResults = stop.value
            return results
        if on_progress is not None:
            on_progress(progress)
