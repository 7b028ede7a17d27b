"""Where the objects are, for an image that nobody has segmented: threshold, split, number.

    pixels -> signal (0 is the background, high in objects) -> mask -> objects -> numbers 1 ... n

The signal is told by a sample of the plane, so a part of it gives the objects of the whole.  For
cells that this cannot find, such as unstained or crowded ones, use a trained segmentation
(Cellpose, StarDist): its label image can be classified just the same.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import clear_border, watershed

from napari_mambamic.errors import ImageError, MambamicError
from napari_mambamic.image import ImagePyramid, as_image
from napari_mambamic.progress import Progress, drained

MOST_PIXELS = 100_000_000  # looked at in one go; the label image and the mask take 9 bytes a pixel
_WHOLE_SAMPLE = 4_000_000  # px; a larger plane is sampled
_WINDOWS, _WINDOW = 8, 256  # so many along each axis, of so many px
_STRIP = 4_000_000  # px that are read at once
_TOUCHING = np.ones((3, 3), bool)  # pixels that share a corner belong together
_TRUNCATE = 4.0  # a Gaussian reaches so many sigmas
_OBJECTS_BETWEEN_REPORTS = 200

Region = tuple[int, int, int, int]
Channel = int | Literal["nuclei"]


@dataclass(frozen=True, slots=True)
class ObjectSettings:
    """What counts as an object.

    The defaults were chosen on blood smears, see ``docs/objects.md``.

    Parameters
    ----------
    channel : int or "nuclei", optional
        Look at this channel alone; by default at the one that shows most, pixel by pixel.
        "nuclei": at what takes more green than blue out of the light, as the nuclei of white
        cells and platelets do in a stained smear, and red cells do not; RGB alone.
    bright : bool, optional
        Objects are brighter than the background (fluorescence) or darker (bright field); by
        default whichever strays further from the background.
    threshold : "auto", "otsu" or float
        Share of the signal from 0, the background, up to 1: total darkness for dark objects, the
        brightest thousandth of the pixels for bright ones.  "otsu" is Otsu's threshold, for
        strong objects and what "auto" takes for nuclei; else "auto" is Otsu's of the signal's
        square root, so that dark nuclei do not hide pale cells.
    smoothing_px : float
        Sigma of a Gaussian that evens out noise and, where objects are split, ragged outlines.
    min_size_px : int
        Smaller objects are left out (pixels, an area).
    split : bool
        Cut touching objects apart.
    neck : float
        An object is cut where it is narrower than this share of the narrower of the two parts;
        1 cuts at every dent, 0 never.
    fill_holes : bool
        Background that an object encloses, such as the pale middle of a red cell, is part of it.
    clear_border : bool
        Leave out objects that touch the border.
    """

    channel: Channel | None = None
    bright: bool | None = None
    threshold: float | Literal["auto", "otsu"] = "auto"
    smoothing_px: float = 1.0
    min_size_px: int = 200
    split: bool = True
    neck: float = 0.9
    fill_holes: bool = True
    clear_border: bool = False

    def __post_init__(self) -> None:
        is_share = isinstance(self.threshold, (int, float)) and self.threshold >= 0
        if not is_share and self.threshold not in ("auto", "otsu"):
            raise MambamicError(
                f"The threshold is {self.threshold!r}. Give 'auto', 'otsu' or a share of the "
                f"signal from 0 to 1."
            )
        if not self.smoothing_px >= 0:
            raise MambamicError(f"The smoothing is {self.smoothing_px} px. Give 0 or more.")
        if not 0 <= self.neck <= 1:
            raise MambamicError(f"The neck is {self.neck}. Give a share from 0 to 1.")


@dataclass(frozen=True, slots=True)
class Signal:
    """How pixels become one number that is high in objects: made by `signal_of`.

    Parameters
    ----------
    channel : int, "nuclei" or None
        The only one that counts; see `ObjectSettings`.
    bright : bool
        Objects are brighter than the background.
    background : (n_channels,) ndarray
        The most frequent value of each channel, in the image's own units.
    reach : (n_channels,) ndarray
        How far from the background the signal is 1, in the image's own units.
    threshold : float
        Objects have more; infinite where the image has one value.
    """

    channel: Channel | None
    bright: bool
    background: NDArray[np.float32] = field(repr=False)
    reach: NDArray[np.float32] = field(repr=False)
    threshold: float = np.inf

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Signal (y, x) of pixels (y, x, channel); what is no number is background."""
        away = _colours(pixels, self.channel)
        if pixels.dtype.kind == "f":
            away = np.where(np.isfinite(away), away, self.background)
        away -= self.background
        away /= self.reach if self.bright else -self.reach
        if self.channel == "nuclei":
            away = away[..., 1:2] - away[..., 2:3]
        signal: NDArray[np.float32] = away[..., 0]
        for other in range(1, away.shape[-1]):
            signal = np.maximum(signal, away[..., other])  # 20 times as fast as along an axis
        return np.maximum(signal, 0)


def find_objects(
    image: Any, settings: ObjectSettings | None = None, *, region: Region | None = None
) -> NDArray[np.int32]:
    """Find the objects of a plane by a threshold, and cut touching ones apart.

    Parameters
    ----------
    image : array-like, list of array-like or ImagePyramid
        See `as_image`; of several levels the finest counts.
    settings : ObjectSettings, optional
    region : (y, x, height, width), optional
        Look only here, in pixels; the signal and its threshold are those of the whole plane.

    Returns
    -------
    ndarray
        (y, x) int32 of the region or the plane: 0 is background, the objects are 1 ... n.  An
        image of one value has no objects.

    Raises
    ------
    ImageError
        The image is empty, has no such channel, or is too large to look at without a region.

    Examples
    --------
    >>> image = np.full((40, 60), 200, np.uint8)
    >>> image[5:25, 5:25] = image[10:30, 35:55] = 90
    >>> np.unique(find_objects(image)).tolist()
    [0, 1, 2]
    """
    return drained(iter_find_objects(image, settings, region=region))


def iter_find_objects(
    image: Any,
    settings: ObjectSettings | None = None,
    *,
    region: Region | None = None,
    signal: Signal | None = None,
) -> Generator[Progress, None, NDArray[np.int32]]:
    """The same as `find_objects`, one strip and then some objects at a time.

    Parameters
    ----------
    image, settings, region
        See there.
    signal : Signal, optional
        What `signal_of` told before of this image and these settings.
    """
    image, settings = as_image(image), settings or ObjectSettings()
    region = _checked_region(image, region)
    if signal is None:
        yield Progress(0, 0, message="Looking for the threshold")
        signal = signal_of(image, settings)
    mask = yield from _iter_mask(image, signal, settings.smoothing_px, region)
    if settings.fill_holes:
        yield Progress(0, 0, message="Filling holes")
        mask = _without_holes(mask)
    return (yield from _iter_number(mask, settings))


def signal_of(image: Any, settings: ObjectSettings | None = None) -> Signal:
    """Learn background, direction and threshold from a sample of at most 4 million pixels.

    Raises
    ------
    ImageError
        The image has no such channel, or no pixel that is a number.
    """
    image, settings = as_image(image), settings or ObjectSettings()
    channel = _checked_channel(image, settings.channel)
    windows = _sample(image)
    colours = _finite_colours(windows, channel, image.name)
    background = np.array([_most_frequent(c) for c in colours.T], np.float32)
    bright = False if channel == "nuclei" else settings.bright
    if bright is None:
        low, high = np.percentile(colours, [0.5, 99.5], axis=0)
        bright = bool((high - background).max() > (background - low).max())
    if bright:
        top = np.percentile(colours, 99.9, axis=0)
        top = top if (top > background).any() else colours.max(axis=0)
        reach = np.full_like(background, (top - background).max())
    else:
        reach = background - np.minimum(colours.min(axis=0), 0)
    reach = np.where(reach > 0, reach, np.inf).astype(np.float32)
    signal = Signal(channel, bright, background, reach)
    return replace(signal, threshold=_threshold(signal, windows, settings))


def _checked_channel(image: ImagePyramid, channel: Channel | None) -> Channel | None:
    if channel == "nuclei" and image.n_channels not in (3, 4):
        raise ImageError(
            f"Nuclei are told by their colour, and image {image.name!r} has {image.n_channels} "
            f"channel(s). Choose an RGB image, or another channel."
        )
    if isinstance(channel, int) and not 0 <= channel < image.n_channels:
        raise ImageError(
            f"Image {image.name!r} has {image.n_channels} channel(s), and channel {channel} is "
            f"asked for. Choose one from 0 to {image.n_channels - 1}."
        )
    return channel


def _colours(pixels: NDArray[Any], channel: Channel | None) -> NDArray[np.float32]:
    """The channels that count, without the alpha of RGBA."""
    if isinstance(channel, int):
        return pixels[..., channel : channel + 1].astype(np.float32)
    n_channels = pixels.shape[-1]
    return pixels[..., : 3 if n_channels == 4 else n_channels].astype(np.float32)


def _sample(image: ImagePyramid) -> list[NDArray[Any]]:
    """The plane, or windows that are spread over it evenly."""
    height, width = image.plane_shape
    if height * width <= _WHOLE_SAMPLE:
        return [image.read(0, 0, height, width)]

    def spread(length: int) -> tuple[list[int], int]:
        side = min(_WINDOW, length)
        return np.linspace(0, length - side, _WINDOWS).astype(int).tolist(), side

    (rows, window_height), (columns, window_width) = spread(height), spread(width)
    return [image.read(y, x, window_height, window_width) for y in rows for x in columns]


def _finite_colours(
    windows: list[NDArray[Any]], channel: Channel | None, name: str
) -> NDArray[np.float32]:
    """Pixels (n, n_channels) of all windows."""
    parts = [_colours(window, channel) for window in windows]
    colours: NDArray[np.float32]
    colours = np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])
    colours = colours[np.isfinite(colours).all(axis=1)]
    if not len(colours):
        raise ImageError(
            f"Image {name!r} has no pixel that is a number: all are NaN or infinite. Choose "
            f"another image."
        )
    return colours


def _most_frequent(values: NDArray[np.float32]) -> float:
    low, high = np.percentile(values, [0.1, 99.9])
    if low == high:
        return float(low)
    counts, edges = np.histogram(values, bins=256, range=(low, high))
    # A running mean, so that a single value that a camera prefers is not the background.
    peak = int(ndimage.uniform_filter1d(counts.astype(float), 5).argmax())
    return float(edges[peak] + edges[peak + 1]) / 2


def _threshold(signal: Signal, windows: list[NDArray[Any]], settings: ObjectSettings) -> float:
    """The threshold that is set, or Otsu's; infinite where nothing can be told apart."""
    if not isinstance(settings.threshold, str):
        return float(settings.threshold)
    parts = [_smooth(signal(window), settings.smoothing_px).ravel() for window in windows]
    is_sensitive = settings.threshold == "auto" and settings.channel != "nuclei"
    power = 0.5 if is_sensitive else 1.0
    values = np.concatenate(parts) ** power
    return float(threshold_otsu(values)) ** (1 / power) if np.ptp(values) > 0 else np.inf


def _smooth(signal: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    if not sigma:
        return signal
    smoothed: NDArray[np.float32] = ndimage.gaussian_filter(
        signal, sigma, mode="nearest", truncate=_TRUNCATE
    )
    return smoothed


def _checked_region(image: ImagePyramid, region: Region | None) -> Region:
    height, width = image.plane_shape
    y, x, rows, columns = region or (0, 0, height, width)
    if min(y, x) < 0 or min(rows, columns) < 1 or y + rows > height or x + columns > width:
        raise ImageError(
            f"The region (y, x, height, width) = {region} does not lie inside image "
            f"{image.name!r}, which is {height:,} x {width:,} px. Give one that does."
        )
    if rows * columns > MOST_PIXELS:
        raise ImageError(
            f"{rows:,} x {columns:,} px of image {image.name!r} are too many to find objects in at "
            f"once: at most {MOST_PIXELS:,} px are looked at. Crop the image, or give a smaller "
            f"region=(y, x, height, width)."
        )
    return y, x, rows, columns


def _iter_mask(
    image: ImagePyramid, signal: Signal, sigma: float, region: Region
) -> Generator[Progress, None, NDArray[np.bool_]]:
    """Where the smoothed signal is above the threshold; read in strips with what they need."""
    y, x, height, width = region
    plane_height, plane_width = image.plane_shape
    halo = int(_TRUNCATE * sigma + 0.5)
    left, right = max(x - halo, 0), min(x + width + halo, plane_width)
    strip = max(1, _STRIP // width)
    mask = np.empty((height, width), bool)
    for row in range(0, height, strip):
        yield Progress(row, height, message="Reading the image")
        stop = min(row + strip, height)
        top, bottom = max(y + row - halo, 0), min(y + stop + halo, plane_height)
        smooth = _smooth(signal(image.read(top, left, bottom - top, right - left)), sigma)
        wanted = smooth[y + row - top : y + stop - top, x - left : x - left + width]
        mask[row:stop] = wanted > signal.threshold
    return mask


def _without_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill background that does not reach the border."""
    background, n_parts = ndimage.label(~mask)
    is_hole = np.ones(n_parts + 1, bool)
    is_hole[0] = False
    for edge in (background[0], background[-1], background[:, 0], background[:, -1]):
        is_hole[edge] = False
    filled: NDArray[np.bool_] = mask | is_hole[background]
    return filled


def _iter_number(
    mask: NDArray[np.bool_], settings: ObjectSettings
) -> Generator[Progress, None, NDArray[np.int32]]:
    """Number the objects of a mask, split where wanted."""
    yield Progress(0, 0, message="Numbering the objects")
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, _TOUCHING, output=labels)
    least = max(settings.min_size_px, 1)
    labels = _renumbered(labels, np.bincount(labels.ravel()) >= least)
    if settings.split:
        yield from _iter_split(labels, settings)
    if settings.clear_border:
        labels = clear_border(labels)
        labels = _renumbered(labels, np.bincount(labels.ravel()) > 0)
    return labels


def _renumbered(labels: NDArray[np.int32], is_kept: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Keep some objects, numbered 1 ... n in their order."""
    is_kept[0] = False
    numbers = np.where(is_kept, np.cumsum(is_kept), 0).astype(np.int32)
    renumbered: NDArray[np.int32] = numbers[labels]
    return renumbered


def _iter_split(
    labels: NDArray[np.int32], settings: ObjectSettings
) -> Generator[Progress, None, None]:
    """Cut each object, in place: the first part keeps its number, the others get new ones.

    Objects do not touch, not even by their corners, so the background nearest to a pixel borders
    on the pixel's own object: each can be cut by itself.
    """
    boxes = ndimage.find_objects(labels)
    last = len(boxes)
    for number, box in enumerate(boxes, start=1):
        if number % _OBJECTS_BETWEEN_REPORTS == 0:
            yield Progress(number, len(boxes), message="Splitting")
        window = labels[box]
        parts = _parts(window == number, settings)
        if parts is not None:
            # Part 1 keeps the number of the whole.
            others = parts > 1
            window[others] = parts[others] + (last - 1)
            last += int(parts.max()) - 1


def _parts(whole: NDArray[np.bool_], settings: ObjectSettings) -> NDArray[np.int32] | None:
    """Cut one object (y, x) at its necks: numbers 1 ... n, or None where it is one.

    Peaks of the distance to the background are middles of parts.  Two peaks are one part when the
    way between them keeps above `neck` of the lower peak: h-maxima, but relative, so that neither
    the size of the cells nor that of the pixels matters.
    """
    whole = np.pad(whole, 1)
    distance = ndimage.distance_transform_edt(whole).astype(np.float32)
    distance = _smooth(distance, settings.smoothing_px) * whole
    markers, n_parts = ndimage.label(local_maxima(distance) & whole, _TOUCHING)
    if n_parts > 1:  # most objects have a single peak, and are done
        middles = local_maxima(reconstruction(settings.neck * distance, distance)) & whole
        markers, n_parts = ndimage.label(middles, _TOUCHING)
    while n_parts > 1:
        parts: NDArray[np.int32] = watershed(-distance, markers, mask=whole)
        is_large = np.bincount(parts.ravel(), minlength=n_parts + 1) >= settings.min_size_px
        is_large[0] = True
        if is_large.all():
            return parts[1:-1, 1:-1]
        # A part too small to be an object is no object: its pixels go to its neighbours.
        markers, n_parts = ndimage.label(is_large[markers] & (markers > 0), _TOUCHING)
    return None
