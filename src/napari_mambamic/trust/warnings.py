"""Sentences about what makes results doubtful, and what to do.

Each check is a function from results, and a look at some of their tiles, to a sentence or None.
Limits come from the training samples where the weights know them (`Manifest.trust`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.foreground import Foreground
from napari_mambamic.image import ImagePyramid
from napari_mambamic.patches import PatchSpec, read_patches
from napari_mambamic.tiling import Tile, places_of
from napari_mambamic.trust.pixels import PixelStatistics, without_normalisation

if TYPE_CHECKING:
    from napari_mambamic.results import TileResults

Distances = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # of prepared patches

_LEAST_LOOKED_AT, _MOST_LOOKED_AT = 8, 64  # tiles; in between, one in twenty
_LEAST_PROBED, _MOST_PROBED = 6, 16  # tiles that are classified again at another size
_FEW, _SEVERAL, _MANY = 2, 8, 50  # tiles that say something
_NOTABLE = 0.05  # share of tiles that is worth a sentence
_SURE = 0.5  # more probable than all others together
_LARGEST_RATIO = 1.5  # of tile sizes in um
_LEAST_COLOUR = 0.01  # a grey picture that was saved as a JPEG in colour has less
_DARK = 0.125  # of the range of the pixel type: three bits of it are empty
_LEAST_CONTRAST = 0.02  # of a tile that holds something, where the training samples do not tell


@dataclass(frozen=True)
class Look:
    """What some tiles of an image look like.

    Parameters
    ----------
    tiles : ndarray
        (n,) numbers of the tiles.
    pixels : PixelStatistics
    holds_something : ndarray
        (n,) whether the rule that background is skipped by calls each tile foreground.
    brightest : float
        Of all of their pixels, 0 ... 1.
    """

    tiles: NDArray[np.intp]
    pixels: PixelStatistics
    holds_something: NDArray[np.bool_]
    brightest: float


def warnings_of(
    results: TileResults,
    image: ImagePyramid,
    spec: PatchSpec,
    distances: Distances | None = None,
) -> list[str]:
    """All sentences about complete results; none where nothing is suspicious.

    Parameters
    ----------
    results : TileResults
    image : ImagePyramid
        What was classified; at most 64 of its tiles, one in twenty, are read again.
    spec : PatchSpec
        Of the weights.
    distances : callable, optional
        Gives the distances of prepared patches from the training set.  Where many tiles are unlike
        it, up to 16 are tried at half and at twice the size.
    """
    if not results.is_done.any():
        return []
    look = look_at(results, image, spec)
    cause = unused_range(look, image, results) or of_another_kind(results, look, spec)
    unlike = unlike_training(results, is_explained=cause is not None)
    found = [cause, unlike]  # what matters most comes first
    if distances is not None and cause is None:
        found.append(another_size(results, image, spec, distances))
    found += [larger_than_the_image(results), wrong_pixel_size(results, spec)]
    found.append(constant_output(results))
    if unlike is None:
        found.append(one_class(results))
    found += [sure_of_nothing(results, look), overexposed(results, look)]
    return [sentence for sentence in found if sentence is not None]


def look_at(results: TileResults, image: ImagePyramid, spec: PatchSpec) -> Look:
    """Read some tiles that were classified, spread evenly."""
    done = np.flatnonzero(results.is_done)
    n = min(len(done), max(_LEAST_LOOKED_AT, min(_MOST_LOOKED_AT, len(done) // 20)))
    chosen = done[np.unique(np.linspace(0, len(done) - 1, n).round().astype(int))]
    patches = read_patches(image, [results.tiles[i] for i in chosen], without_normalisation(spec))
    as_pixels = (patches.transpose(0, 2, 3, 1) * 65535).round().astype(np.uint16)
    held = Foreground.of_pixels(as_pixels).of_patches(as_pixels)
    return Look(chosen, PixelStatistics.of(patches), held, float(patches.max()))


def unlike_training(results: TileResults, *, is_explained: bool = False) -> str | None:
    """More tiles are far from the training set than of its own kind would be.

    Where another sentence explains it, this one is short.
    """
    unlike = results.is_unlike_training
    if unlike is None:
        return None
    share, n_calibration = _unlike_share(results), _trust(results)["distance"]["n_calibration"]
    # One in a hundred is expected, or as many as the samples that the threshold is from can tell.
    if unlike.sum() < _FEW or share <= max(_NOTABLE, 3 / (n_calibration + 1)):
        return None
    weights = results.provenance["weights"]
    said = f"{share:.0%} of the {_what(results)} are unlike the training data of {weights['name']}"
    if is_explained:
        return f"{said}."
    where, single = "the status bar tells which", ""
    if results.object_ids is None:
        where = "the heatmap 'distance' shows where"
        single = "; weights for single cells want objects or points instead of tiles"
    return (
        f"{said} ({weights['title']}): look at some ({where}), and at stain, channels and tile "
        f"size, before you trust their classes{single}."
    )


def another_size(
    results: TileResults, image: ImagePyramid, spec: PatchSpec, distances: Distances
) -> str | None:
    """Tiles of half or twice the size are like the training set, and those of the run are not."""
    unlike, limit = results.is_unlike_training, results.distance_threshold
    if unlike is None or limit is None or unlike.sum() < _FEW or _unlike_share(results) < 0.3:
        return None
    strange = np.flatnonzero(unlike)
    n = min(len(strange), _MOST_PROBED, max(_LEAST_PROBED, int(results.is_done.sum()) // 40))
    chosen = strange[np.unique(np.linspace(0, len(strange) - 1, n).round().astype(int))]
    likeness = {}
    for factor in (0.5, 2.0):
        tiles = [_resized(results.tiles[i], factor) for i in chosen]
        if min(tile.size for tile in tiles) >= 4:
            likeness[factor] = float((distances(read_patches(image, tiles, spec)) <= limit).mean())
    if not likeness or max(likeness.values()) < 0.9:
        return None
    factor = max(likeness, key=lambda f: likeness[f])
    size = round(float(np.median([results.tiles[i].size for i in chosen])) * factor)
    word = "half" if factor < 1 else "twice"
    return (
        f"At {word} the tile size, {likeness[factor]:.0%} of {len(chosen)} {_what(results)} that "
        f"were tried look like the training data, and now they do not: the pixel size may be "
        f"wrong. Set the layer's scale, or try a tile size of {size} px."
    )


def wrong_pixel_size(results: TileResults, spec: PatchSpec) -> str | None:
    """Tiles show more or less of the specimen than those that the weights were trained on."""
    pixel_size = results.provenance["image"]["pixel_size_um"]
    if spec.pixel_size_um is None or pixel_size is None:
        return None
    if results.provenance["settings"].get("object_scale"):
        return None
    trained = spec.tile_size * spec.pixel_size_um
    here = results.tiles[0].size * float(np.sqrt(np.prod(pixel_size)))
    if 1 / _LARGEST_RATIO <= here / trained <= _LARGEST_RATIO:
        return None
    return (
        f"The tiles are {here:.3g} um wide, and those that {_name(results)} was trained on "
        f"{trained:.3g} um: what is in them has another size. Check the layer's pixel size "
        f"({np.sqrt(np.prod(pixel_size)):.3g} um), or leave the tile size as trained."
    )


def larger_than_the_image(results: TileResults) -> str | None:
    """Tiles hold more of what was made up beyond the border than of the image."""
    height, width = results.provenance["image"]["plane_shape"]
    size = int(places_of(results.tiles)[:, 2].max())
    if results.object_ids is not None or size**2 < 2 * min(size, height) * min(size, width):
        return None
    return (
        f"The tiles are {size} px wide, and the image has only {width} x {height} px: most of each "
        f"tile is a mirror image of what lies inside. Choose a smaller tile size."
    )


def constant_output(results: TileResults) -> str | None:
    """All tiles get nearly the same probabilities, and none is sure."""
    known = results.probabilities[results.is_done]
    if len(known) < _SEVERAL or len(results.class_names) < 2:
        return None
    low, high = np.quantile(known, [0.05, 0.95], axis=0)
    if (high - low).max() > 0.02 or known.max(axis=1).mean() > 0.8:
        return None
    return (
        f"All {_what(results)} get nearly the same probabilities, whatever is in them: the network "
        f"makes nothing of this image. Check that the channels are in the right order and that the "
        f"image is not empty, or choose other weights."
    )


def one_class(results: TileResults) -> str | None:
    """Nearly all of many tiles are of one class."""
    labels = results.labels[results.is_done]
    if len(labels) < _MANY or len(results.class_names) < 2:
        return None
    counts = np.bincount(labels, minlength=len(results.class_names))
    first = int(counts.argmax())
    if counts[first] < 0.99 * len(labels):
        return None
    return (
        f"{counts[first]:,} of {len(labels):,} {_what(results)} are {results.class_names[first]!r}."
        f" If that is not so, the network does not see what it was trained on: look at some with "
        f"Preview, and check tile size and channels."
    )


def sure_of_nothing(results: TileResults, look: Look) -> str | None:
    """Tiles that hold only glass or darkness get a class all the same."""
    least = _ranges(results).get("contrast", [_LEAST_CONTRAST])[0]
    contrast = look.pixels.contrast
    # Otsu's rule finds something in any noise, so flat tiles are empty whatever it says.  Red cells
    # have half the contrast of white ones and are not nothing.
    flat = contrast < min(least / 2, _LEAST_CONTRAST)
    empty = flat | ((contrast < least) & ~look.holds_something)
    if results.object_ids is not None:  # somebody saw something there
        empty = flat
    sure = results.probabilities[look.tiles].max(axis=1) >= _SURE
    wrong = look.tiles[empty & sure]
    if len(wrong) < _FEW or len(wrong) < _NOTABLE * len(look.tiles):
        return None
    labels = results.labels[wrong]
    often = results.class_names[int(np.bincount(labels).argmax())]
    what_to_do = (
        "leave them out with 'Skip background' (skip_background=True in scripts, --skip-background "
        "on the command line)."
    )
    if results.object_ids is not None:
        what_to_do = "remove objects and points where there is nothing."
    return (
        f"About {len(wrong) / len(look.tiles):.0%} of the {_what(results)} hold only glass or "
        f"darkness and yet got a class, most often {often!r}: {what_to_do}"
    )


def overexposed(results: TileResults, look: Look) -> str | None:
    """Many pixels are at the end of their range."""
    usual = _ranges(results).get("clipped", [0.0])[-1]
    clipped = float(np.median(look.pixels.clipped))
    if clipped <= max(0.1, usual + 0.05):
        return None
    return (
        f"{clipped:.0%} of the pixels are at the brightest value, and in the training images at "
        f"most {usual:.0%}: the image is overexposed, and what was there is lost. Take it again "
        f"with less light, and do not stretch the contrast before classifying."
    )


def unused_range(look: Look, image: ImagePyramid, results: TileResults) -> str | None:
    """A camera of 10 to 14 bits whose images are stored in 16: all is nearly black."""
    kind = image.dtype
    usual = _ranges(results).get("mean")
    if usual is None or kind != np.uint16 or not 0 < look.brightest <= _DARK:
        return None
    if float(np.median(look.pixels.mean)) >= usual[0]:
        return None
    return (
        f"The pixels reach only {look.brightest:.0%} of what {kind} can hold, and the image is "
        f"read as nearly black. If the camera has fewer bits, or the light was dim, stretch the "
        f"values, for example with skimage.exposure.rescale_intensity, all images alike."
    )


def of_another_kind(results: TileResults, look: Look, spec: PatchSpec) -> str | None:
    """The image is dark where the training images are bright or the other way round, or grey."""
    light, is_grey = _other_light(results, look), _lacks_colours(results, look, spec)
    if light is None:
        if not is_grey:
            return None
        return (
            f"The image is grey, and {_name(results)} was trained on colours: use an image in "
            f"colour, choose weights for grey images, or train on your own."
        )
    return (
        f"The image is {'grey, and ' if is_grey else ''}{light}: it may be inverted, or of another "
        f"kind of microscopy; choose weights for such images, or train on your own."
    )


def _other_light(results: TileResults, look: Look) -> str | None:
    usual = _ranges(results).get("mean")
    if usual is None:
        return None
    low, middle, high = usual
    here = float(np.median(look.pixels.mean))
    if low <= here <= high or 2 * abs(1 - here - middle) >= abs(here - middle):
        return None
    words = ("dark", "bright") if here < middle else ("bright", "dark")
    return (
        f"{words[0]} where the training images of {_name(results)} are {words[1]} (mean "
        f"brightness {here:.2f}, there {low:.2f} to {high:.2f})"
    )


def _lacks_colours(results: TileResults, look: Look, spec: PatchSpec) -> bool:
    usual = _ranges(results).get("colour")
    trained_on_grey = usual is not None and usual[0] <= _LEAST_COLOUR
    return bool(spec.is_rgb and not trained_on_grey and look.pixels.colour.max() <= _LEAST_COLOUR)


def told_once(several: Sequence[TileResults]) -> Iterator[str]:
    """The sentences of several planes, each once."""
    yield from dict.fromkeys(sentence for each in several for sentence in each.warnings)


def _unlike_share(results: TileResults) -> float:
    unlike = results.is_unlike_training
    return 0.0 if unlike is None else float(unlike.sum() / results.is_done.sum())


def _resized(tile: Tile, factor: float) -> Tile:
    size = round(tile.size * factor)
    return Tile(tile.y + (tile.size - size) // 2, tile.x + (tile.size - size) // 2, size)


def _what(results: TileResults) -> str:
    return "tiles" if results.object_ids is None else "objects"


def _name(results: TileResults) -> str:
    return str(results.provenance["weights"]["name"])


def _trust(results: TileResults) -> Mapping[str, Any]:
    trust: Mapping[str, Any] = results.provenance["weights"]["trust"]
    return trust


def _ranges(results: TileResults) -> Mapping[str, list[float]]:
    """What the training samples have: [low, middle, high] by name; may be empty."""
    ranges: Mapping[str, list[float]] = _trust(results).get("pixels", {})
    return ranges
