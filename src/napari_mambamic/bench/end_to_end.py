"""How much of the network's own speed is left when images are read, cut and prepared as well."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.blas import one_blas_thread
from napari_mambamic.classifier import TileClassifier, load_classifier
from napari_mambamic.classify import classify_image
from napari_mambamic.image_files import open_image
from napari_mambamic.memory import freed_memory_kept
from napari_mambamic.patches import read_patches
from napari_mambamic.tiling import Tile

SOURCES = ("memory", "zarr", "tiff")
_CHUNK = 512  # px


def measure_end_to_end(
    *,
    weights: str = "default",
    device: str = "auto",
    n_tiles: int = 4900,
    sources: Sequence[str] = SOURCES,
) -> dict[str, Any]:
    """Classify an image from memory, from zarr and from a JPEG-compressed TIFF.

    Each run is between two of the network alone, with patches that are ready in memory, and is
    compared with their mean: the speed of a machine drifts.

    Parameters
    ----------
    weights, device : str
        As `load_classifier` takes them.
    n_tiles : int
        Of the image, about.
    sources : sequence of str
        Among "memory", "zarr" (chunks of 512 px, zstd) and "tiff" (tiles of 512 px, JPEG).

    Returns
    -------
    dict
        Ready for JSON; ``share`` is that of the network's own tiles per second.
    """
    classifier = load_classifier(weights, device=device)
    size = classifier.manifest.patch.tile_size
    pixels = _picture(round(n_tiles**0.5) * size)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for source in sources:
            image = _stored(pixels, source, Path(folder))
            classify_image(image, classifier, region=(0, 0, 4 * size, 4 * size))  # the warm-up
            before, n_alone = _alone(classifier, pixels)
            begin = time.perf_counter()
            results = classify_image(image, classifier)
            seconds = time.perf_counter() - begin
            after, _ = _alone(classifier, pixels)
            alone = n_alone / ((before + after) / 2)
            rows.append(
                {
                    "source": source,
                    "tiles_per_second": len(results) / seconds,
                    "network_alone": alone,
                    "share": len(results) / seconds / alone,
                }
            )
    return {
        "device": classifier.device.reason,
        "weights": classifier.manifest.name,
        "tile_size": size,
        "n_tiles": len(results),
        "batch_size": classifier.batch_size(),
        "rows": rows,
    }


def end_to_end_table(report: dict[str, Any]) -> str:
    """The report in words."""
    lines = [f"{report['weights']}, {report['n_tiles']:,} tiles on {report['device']}"]
    lines += [
        f"{row['source']:8} {row['tiles_per_second']:10,.0f} tiles/s, {row['share']:5.0%} of the "
        f"network alone ({row['network_alone']:,.0f})"
        for row in report["rows"]
    ]
    return "\n".join(lines)


def _picture(side: int) -> NDArray[np.uint8]:
    """Smooth blots with some noise: compresses about as a stained slide does."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(90, 255, (side // 24 + 2, side // 24 + 2, 3))
    fine = np.repeat(np.repeat(coarse, 24, axis=0), 24, axis=1)[:side, :side]
    return (fine + rng.integers(-8, 8, fine.shape)).clip(0, 255).astype(np.uint8)


def _stored(pixels: NDArray[np.uint8], source: str, folder: Path) -> Any:
    if source == "memory":
        return pixels
    if source == "zarr":
        import zarr

        array = zarr.create_array(
            folder / "image.zarr", shape=pixels.shape, chunks=(_CHUNK, _CHUNK, 3), dtype="uint8"
        )
        array[:] = pixels
        return open_image(folder / "image.zarr")
    import tifffile

    path = folder / "image.tif"
    tifffile.imwrite(path, pixels, tile=(_CHUNK, _CHUNK), compression="jpeg", photometric="rgb")
    return open_image(path)


def _alone(classifier: TileClassifier, pixels: NDArray[np.uint8]) -> tuple[float, int]:
    """Seconds of the network for some tiles whose patches are ready, and how many they are."""
    from napari_mambamic.image import as_image

    spec, size = classifier.manifest.patch, classifier.batch_size()
    tiles = [Tile(0, i * 7, spec.tile_size) for i in range(size)]
    patches = read_patches(as_image(pixels), tiles, spec)
    n_batches = max(4, 400 // size)
    with freed_memory_kept(), one_blas_thread():
        classifier.predict_prepared(patches)
        begin = time.perf_counter()
        for _ in range(n_batches):
            classifier.predict_prepared(patches)
        return time.perf_counter() - begin, n_batches * size
