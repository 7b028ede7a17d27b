"""Many images: each classified, written, and skipped the next time; here or on a Dask cluster.

The ``<name>.classes.provenance.json`` that is written last of an image's files tells what was done:
with which weights and settings, and to which file.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import logging
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from napari_mambamic.atomic import written_atomically
from napari_mambamic.classify import FlowMaker, iter_classify
from napari_mambamic.errors import (
    ClusterError,
    ExportError,
    ImageError,
    MambamicError,
    NothingToClassify,
)
from napari_mambamic.exports.table import write_provenance
from napari_mambamic.image import ImagePyramid
from napari_mambamic.image_files import open_image
from napari_mambamic.kept_runs import stamp_of
from napari_mambamic.partners import (
    KINDS,
    partners_of,
    read_partners,
    told_of_left_out,
    told_of_lookalikes,
    without_partners,
)
from napari_mambamic.progress import Progress, drained
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import ObjectTiles
from napari_mambamic.weights.store import read_manifest

if TYPE_CHECKING:
    from napari_mambamic.classifier import TileClassifier

# The labels are those that objects were cut by.
FORMATS: Mapping[str, Callable[[TileResults, Path, ImagePyramid, Any], Path]] = {
    "csv": lambda results, path, image, labels: results.to_csv(path),
    "parquet": lambda results, path, image, labels: results.to_parquet(path),
    "geojson": lambda results, path, image, labels: results.to_geojson(path, labels=labels),
    "geojson.gz": lambda results, path, image, labels: results.to_geojson(path, labels=labels),
    "ome.zarr": lambda results, path, image, labels: results.to_ome_zarr(path, labels=labels),
    "png": lambda results, path, image, labels: results.to_thumbnail(path, image, labels=labels),
}
SUMMARY = "summary.csv"
_OPENING = ("series", "z", "t", "channel_axis", "pixel_size_um")
_CUTTING = (
    "tile_size",
    "object_scale",
    "overlap",
    "use_pixels",
    "region",
    "channels",
    "skip_background",
    "batch_size",
    "unsure_below",
    "count_unsure",
    "coverage",
)
_OF_TILES = ("overlap", "region", "skip_background")
OPTIONS = (*_OPENING, *_CUTTING, *KINDS)
_ENDINGS = (".tif", ".tiff", ".btf", ".svs", ".ndpi", ".png", ".jpg", ".jpeg", ".bmp", ".zarr")
_OURS = ".classes."
_OF_PLANE = re.compile(r"((?:-[zt]\d+)+)(?:-[0-9a-f]{8})?$")  # the end of a name, see `_jobs`
_COLUMNS = ("image", "status", "tiles")
_MOST_AT_ONCE = 64  # images that wait for a cluster, each in a thread here


@dataclass(frozen=True)
class ImageOutcome:
    """What became of one image.

    Parameters
    ----------
    path : Path
    status : str
        "done", "skipped" (it was done before), "empty" (a plane of a stack with nothing to
        classify), "failed" (also an image with nothing to classify), or "not done" where the run
        ended before.
    n_tiles : int
    counts : dict
        Tiles per class.
    seconds : float
        That it took, when it was done.
    sentence : str
        What went wrong; of other images, what is to be told about them.
    files : tuple of Path
        That hold its results.
    warnings : tuple of str
        What makes its results doubtful.
    plane : mapping
        Of one of several planes of a stack, where it lies, by axis ("z", "t").
    """

    path: Path
    status: Literal["done", "skipped", "empty", "failed", "not done"]
    n_tiles: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    sentence: str = ""
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    plane: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people."""
        return ", ".join([str(self.path), *(f"{axis} = {at}" for axis, at in self.plane.items())])


@dataclass(frozen=True)
class BatchSummary:
    """What became of all images, in their order.

    Parameters
    ----------
    images : tuple of ImageOutcome
    left_out : tuple of Path
        Files that were named, or found in a folder, and are label images of others.
    """

    images: tuple[ImageOutcome, ...]
    left_out: tuple[Path, ...] = ()

    def count(self, status: str) -> int:
        """How many have a status."""
        return sum(image.status == status for image in self.images)

    @property
    def n_failed(self) -> int:
        """How many failed."""
        return self.count("failed")

    def __str__(self) -> str:
        counts = Counter(image.status for image in self.images)
        told = ", ".join(f"{n:,} {status}" for status, n in counts.items())
        what = "planes" if any(image.plane for image in self.images) else "images"
        return f"{len(self.images):,} {what}: {told}"

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a row per image or plane: status, tiles, tiles per class, seconds, sentence."""
        axes = list(dict.fromkeys(axis for image in self.images for axis in image.plane))
        names = list(dict.fromkeys(name for image in self.images for name in image.counts))
        with (
            written_atomically(path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow([*_COLUMNS, *axes, *names, "seconds", "sentence"])
            for image in self.images:
                counts = [image.counts.get(name, "") for name in names]
                planes = [str(image.plane[axis]) if axis in image.plane else "" for axis in axes]
                start = [image.path, image.status, image.n_tiles, *planes]
                said = " ".join(filter(None, [image.sentence, *image.warnings]))
                writer.writerow([*start, *counts, f"{image.seconds:.1f}", said])
        return Path(path)


@dataclass(frozen=True)
class BatchProgress:
    """One step of a batch.

    Parameters
    ----------
    settled, n_images : int
        Images that are done, skipped or failed, and all.
    image : Path or None
        The one that the step is about.
    step : Progress or None
        How far it is.
    outcome : ImageOutcome or None
        What became of it, once that is settled.
    message : str
        What there is to wait for, or which files are left out, if anything.
    """

    settled: int
    n_images: int
    image: Path | None = None
    step: Progress | None = None
    outcome: ImageOutcome | None = None
    message: str = ""


OnBatchProgress = Callable[[BatchProgress], object]


def classify_many(
    paths: Iterable[str | Path],
    *,
    weights: str | Path = "default",
    out: str | Path,
    formats: Sequence[str] = ("csv",),
    device: str = "auto",
    precision: str = "auto",
    on_progress: OnBatchProgress | None = None,
    dask: Any = None,
    **options: Any,
) -> BatchSummary:
    """Classify image files and write the results of each to ``OUT/<name>.classes.<format>``.

    An image that was done before, with these weights and options and unchanged since, is skipped;
    one that was interrupted goes on where it was.  One that cannot be classified does not stop the
    others: the summary, and ``OUT/summary.csv``, name it and say why.  Where there is nothing to
    classify any more, and where weights or options are others, the files of an earlier run go; so
    do those of planes that a stack, of which all are asked for, has no more.  Results of images
    that are not named stay.

    Parameters
    ----------
    paths : iterable of path
        Image files and zarr folders; see `find_images`.  Where names are the same, those of the
        results end in a digest of the path.
    weights, device, precision
        As in `load_classifier`.
    out : path
        Folder for the results; it is made if need be.
    formats : sequence of str
        Of "csv", "parquet", "geojson", "geojson.gz", "ome.zarr" and "png" (a picture).
    on_progress : callable, optional
        Called with a `BatchProgress`, by one thread at a time.
    dask : str, path or Client, optional
        The Dask cluster that is to compute: its address, the path of its scheduler file (.json), or
        a client of it.  Its workers need the package, and the images under the same paths.
    **options
        Of `open_image`: series, z, t, channel_axis, pixel_size_um; z or t may be "all": each plane
        of a stack is classified and written by itself.  Of `classify_image`: tile_size,
        overlap, use_pixels, region, channels, skip_background, batch_size, unsure_below,
        count_unsure, coverage.  For what lies beside each image: objects (a label image), with
        object_scale of `classify_objects`, or points (CSV or GeoJSON), and within (polygons in
        GeoJSON), each a pattern such as ``"{stem}_labels.tif"`` or a folder; see `partners`.

    Raises
    ------
    MambamicError
        Nothing can be done: no images, the folder cannot be made, the weights cannot be loaded; or
        the cluster does not answer or went away.  What was done till then is kept.
    """
    request = _Request.checked(weights, Path(out), formats, options)
    images, left_out = without_partners(paths, request.beside)
    tally = _Tally(_jobs(images, request), on_progress, left_out)
    said = told_of_left_out(left_out)
    if "objects" not in request.beside:
        said = told_of_lookalikes(images)
    try:
        if said:
            tally.tell(message=said)
        for job in tally.open_jobs():
            earlier = request.earlier_outcome(job)
            if earlier is not None:
                tally.settle(job, earlier)
        if tally.open_jobs() and dask is None:
            _classify_here(tally, request, device, precision)
        elif tally.open_jobs():
            _classify_on_cluster(tally, request, device, precision, dask)
        _remove_gone_planes(tally, request)
    finally:
        tally.summary().to_csv(request.out / SUMMARY)
        if request.runs.is_dir() and not any(request.runs.iterdir()):
            request.runs.rmdir()
    return tally.summary()


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """Image files of paths, of folders (not of those in them), and of patterns such as ``*.svs``.

    Files that were written by `classify_many` are left out, and each file is named once.

    Raises
    ------
    ImageError
        A folder or a pattern has none.
    """
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        some = [path]
        if not path.exists() and glob.has_magic(str(path)):
            some = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
            if not some:
                raise ImageError(f"No file fits the pattern {path}. Check the path.")
        elif path.is_dir() and not _is_zarr(path):
            some = sorted(file for file in path.iterdir() if _looks_like_image(file))
            if not some:
                raise ImageError(
                    f"Folder {path} holds no images: no files that end in {', '.join(_ENDINGS)}. "
                    f"Name the files, or another folder."
                )
        found |= {os.path.abspath(file): file for file in some}
    return list(found.values())


@dataclass(frozen=True)
class _Job:
    number: int
    path: Path
    name: str  # of its results, without ending
    plane: Mapping[str, int]  # of one of several planes of a stack, by axis


@dataclass(frozen=True)
class _Request:
    """What is asked of every image."""

    weights: str | Path
    sha256: str
    out: Path
    formats: tuple[str, ...]
    opening: dict[str, Any]
    cutting: dict[str, Any]
    beside: dict[str, str]

    @classmethod
    def checked(
        cls, weights: str | Path, out: Path, formats: Sequence[str], options: dict[str, Any]
    ) -> _Request:
        _check_formats(formats)
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise ImageError(
                f"There is no option {unknown[0]!r} for many images. There are "
                f"{', '.join(OPTIONS)}."
            )
        sha256 = read_manifest(str(weights)).sha256
        opening, cutting, beside = (
            {name: options[name] for name in names if options.get(name) is not None}
            for names in (_OPENING, _CUTTING, KINDS)
        )
        beside = {kind: os.fspath(pattern) for kind, pattern in beside.items()}
        _check_opening(opening)
        _check_beside(beside, cutting, formats)
        request = cls(weights, sha256, out, tuple(formats), opening, cutting, beside)
        _make_folder(request.runs)
        _check_summary(out / SUMMARY)
        return request

    @property
    def runs(self) -> Path:
        """Where the states of interrupted runs are kept, a folder per image."""
        return self.out / ".runs"

    def planes_of(self, path: Path) -> list[dict[str, int]]:
        """The planes of an image that are classified each by itself; [{}] where it is but one."""
        wanted = [axis for axis in ("z", "t") if self.opening.get(axis) == "all"]
        if not wanted:
            return [{}]
        try:
            stack = open_image(path, **self.opening_of({})).stack
        except ImageError:  # which classifying it will say
            return [{}]
        axes = [axis for axis in stack if axis in wanted]
        places = product(*(range(stack[axis][1]) for axis in axes))
        return [dict(zip(axes, place, strict=True)) for place in places]

    def opening_of(self, plane: Mapping[str, int]) -> dict[str, Any]:
        """Keywords of `open_image` for a plane."""
        every = [axis for axis in ("z", "t") if self.opening.get(axis) == "all"]
        return {k: v for k, v in self.opening.items() if k not in every} | dict(plane)

    def provenance(self, job: _Job) -> dict[str, Any]:
        """What decides whether an image is done: as it is read from JSON."""
        path, chosen = job.path, self.opening_of(job.plane) | self.cutting
        settings = {name: value for name, value in chosen.items() if name != "batch_size"}
        decisive = {
            "path": os.path.abspath(path),
            "weights": self.sha256,
            "options": settings,
            "file": stamp_of(path),
            "beside": {
                kind: [os.path.abspath(partner), stamp_of(partner)]
                for kind, partner in partners_of(path, self.beside).items()
            },
        }
        return cast("dict[str, Any]", json.loads(json.dumps(decisive)))

    def files_of(self, job: _Job) -> tuple[Path, ...]:
        """Where the results of an image go."""
        return tuple(self.out / f"{job.name}{_OURS}{format}" for format in self.formats)

    def earlier_outcome(self, job: _Job) -> ImageOutcome | None:
        """What became of an image that was done before, as it is asked for now."""
        before = _batch_of(self.out, job.name)
        files = self.files_of(job)
        same = before.get("request") == self.provenance(job)
        if not same or not all(file.exists() for file in files):
            return None
        counts, tiles, seconds = before["counts"], before["tiles"], before["seconds"]
        said = "It was done before."
        warnings = tuple(before.get("warnings", ()))
        return ImageOutcome(
            job.path, "skipped", tiles, counts, seconds, said, files, warnings, job.plane
        )


class _Tally:
    """Which images are settled, and who is told."""

    def __init__(
        self, jobs: Sequence[_Job], on_progress: OnBatchProgress | None, left_out: Sequence[Path]
    ) -> None:
        self._jobs, self._on_progress, self._left_out = jobs, on_progress, tuple(left_out)
        self._outcomes: dict[int, ImageOutcome] = {}
        self._lock = threading.RLock()

    def jobs_by_path(self) -> dict[str, list[_Job]]:
        """Of the images that are settled and did not fail."""
        found: dict[str, list[_Job]] = {}
        for job in self._jobs:
            found.setdefault(os.path.abspath(job.path), []).append(job)
        fine = ("done", "skipped", "empty")
        status = {number: outcome.status for number, outcome in self._outcomes.items()}
        return {
            path: jobs
            for path, jobs in found.items()
            if all(status.get(job.number) in fine for job in jobs)
        }

    def open_jobs(self) -> list[_Job]:
        return [job for job in self._jobs if job.number not in self._outcomes]

    def settle(self, job: _Job, outcome: ImageOutcome) -> None:
        with self._lock:
            self._outcomes[job.number] = outcome
            self.tell(image=job.path, outcome=outcome)

    def tell(self, **what: Any) -> None:
        """Call `on_progress`, one thread at a time."""
        if self._on_progress is not None:
            with self._lock:
                self._on_progress(BatchProgress(len(self._outcomes), len(self._jobs), **what))

    def summary(self) -> BatchSummary:
        return BatchSummary(
            tuple(
                self._outcomes.get(job.number, ImageOutcome(job.path, "not done", plane=job.plane))
                for job in self._jobs
            ),
            self._left_out,
        )


def _classify_here(tally: _Tally, request: _Request, device: str, precision: str) -> None:
    from napari_mambamic.classifier import load_classifier

    classifier = load_classifier(request.weights, device=device, precision=precision)
    for job in tally.open_jobs():
        tally.settle(job, _outcome_of(job, request, classifier, None, tally))


def _classify_on_cluster(
    tally: _Tally, request: _Request, device: str, precision: str, dask: Any
) -> None:
    """Some images at a time, each in a thread here that waits for the workers."""
    try:
        from napari_mambamic.cluster import connected, loaded_on_cluster
    except ImportError as error:
        raise ClusterError(
            f"A Dask cluster needs dask.distributed, which is not installed ({error}). Install it "
            f"with pip install 'napari-mambamic[cluster]'."
        ) from error

    def say(text: str) -> None:
        tally.tell(message=text)

    with (
        connected(dask) as client,
        loaded_on_cluster(
            client, request.weights, device=device, precision=precision, say=say
        ) as remote,
    ):
        classifier = cast("TileClassifier", remote)
        at_once = min(_MOST_AT_ONCE, max(8, 2 * remote.n_threads()))
        with _stopping(ThreadPoolExecutor(at_once, "mambamic-batch"), remote.stopped) as pool:
            running = {
                # Those that come first have priority, so that they are also done first.
                pool.submit(
                    _outcome_of, job, request, classifier, remote.flow(-job.number), tally
                ): job
                for job in tally.open_jobs()
            }
            for finished in as_completed(running):
                tally.settle(running[finished], finished.result())


@contextmanager
def _stopping(pool: ThreadPoolExecutor, stopped: threading.Event) -> Iterator[ThreadPoolExecutor]:
    """When something ends the batch, its threads end too instead of going through the rest."""
    try:
        yield pool
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


def _outcome_of(
    job: _Job,
    request: _Request,
    classifier: TileClassifier,
    flow: FlowMaker | None,
    tally: _Tally,
) -> ImageOutcome:
    begin = time.perf_counter()
    try:
        asked = request.provenance(job)  # of the file as it is before it is read
        image = open_image(job.path, **request.opening_of(job.plane))
        beside = read_partners(image, job.path, request.beside)
        results = drained(
            iter_classify(
                image,
                classifier,
                objects=beside.objects,
                within=beside.within,
                keep_in=request.runs / job.name,
                flow=flow,
                **request.cutting,
            ),
            lambda step: tally.tell(image=job.path, step=step),
        )
        if beside.numbers is not None and isinstance(results.tiles, ObjectTiles):
            results.tiles.object_ids[:] = beside.numbers
        seconds = round(time.perf_counter() - begin, 3)
        results.provenance["batch"] = {
            "request": asked,
            "tiles": len(results),
            "counts": results.counts,
            "seconds": seconds,
            "warnings": list(results.warnings),
        }
        files = _write(results, image, beside.labels, request, job)
    except ClusterError:
        raise
    except NothingToClassify as error:
        return _nothing_in(job, request, str(error))
    except MambamicError as error:
        return ImageOutcome(job.path, "failed", sentence=str(error), plane=job.plane)
    except Exception as error:  # hours of other images must not be lost to a defect
        logging.getLogger(__name__).exception("%s", job.path)
        said = f"{job.path} could not be classified: {type(error).__name__}: {error}. This is a "
        said += "defect of napari-mambamic; please report it."
        return ImageOutcome(job.path, "failed", sentence=said, plane=job.plane)
    said = "" if job.plane else " ".join(filter(None, [image.note, beside.note]))
    counts, warnings = results.counts, results.warnings
    return ImageOutcome(
        job.path, "done", len(results), counts, seconds, said, files, warnings, job.plane
    )


def _nothing_in(job: _Job, request: _Request, why: str) -> ImageOutcome:
    """An image with nothing to classify: what an earlier run found there is no longer true."""
    status: Literal["empty", "failed"] = "empty" if job.plane else "failed"
    if _batch_of(request.out, job.name):
        try:
            _remove_files(job.name, request, FORMATS)
            _provenance_file(request.out, job.name).unlink()
            why += " The files of an earlier run were removed."
        except ExportError as error:
            status, why = "failed", f"{why} {error}"
    shutil.rmtree(request.runs / job.name, ignore_errors=True)
    return ImageOutcome(job.path, status, sentence=why, plane=job.plane)


def _remove_gone_planes(tally: _Tally, request: _Request) -> None:
    """Remove what earlier runs wrote of planes that a stack has no more, or calls otherwise now.

    Planes that those runs chose along other axes are there still, unless the file has changed.
    """
    if "all" not in (request.opening.get("z"), request.opening.get("t")):
        return
    done = tally.jobs_by_path()
    gone: dict[str, list[str]] = {}
    for file in sorted(request.out.glob(f"*{_OURS}provenance.json")):
        name = file.name.removesuffix(f"{_OURS}provenance.json")
        if not _OF_PLANE.search(name):
            continue
        before = _batch_of(request.out, name).get("request", {})
        jobs = done.get(before.get("path", ""), [])
        if not jobs or name in [job.name for job in jobs]:
            continue
        plane = _OF_PLANE.fullmatch(name.removeprefix(jobs[0].path.stem))
        axes = plane and re.findall("[zt]", plane[1])
        has_changed = before.get("file") != request.provenance(jobs[0])["file"]
        if axes and (has_changed or axes == list(jobs[0].plane)):
            gone.setdefault(str(jobs[0].path), []).append(name)
    for path, names in gone.items():
        try:
            for name in names:
                _remove_files(name, request, FORMATS)
                _provenance_file(request.out, name).unlink()
                shutil.rmtree(request.runs / name, ignore_errors=True)
            said = f"{path} has other planes than in an earlier run, whose results were removed: "
            said += f"{', '.join(names)}."
        except ExportError as error:
            said = str(error)
        tally.tell(message=said)


def _remove_files(name: str, request: _Request, formats: Iterable[str]) -> None:
    """Remove results that an earlier run wrote, in some formats."""
    for format in formats:
        file = request.out / f"{name}{_OURS}{format}"
        try:
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise ExportError(
                f"{file} is of an earlier run and cannot be removed: {error.strerror or error}. "
                f"Close it in other programs, or remove it by hand."
            ) from error


def _write(
    results: TileResults, image: ImagePyramid, labels: Any, request: _Request, job: _Job
) -> tuple[Path, ...]:
    """Write all files of an image.  The one that says that they are there is removed before.

    So are those of an earlier run in other formats, of which it would speak.
    """
    said = _provenance_file(request.out, job.name)
    before = _batch_of(request.out, job.name)
    if before and before.get("request") != results.provenance["batch"]["request"]:
        _remove_files(job.name, request, set(FORMATS) - set(request.formats))
    said.unlink(missing_ok=True)
    files = request.files_of(job)
    by_format = dict(zip(request.formats, files, strict=True))
    for format in sorted(by_format, key="csv".__eq__):  # CSV last: it writes the provenance itself
        FORMATS[format](results, by_format[format], image, labels)
    if "csv" not in by_format:
        write_provenance(results, said)
    shutil.rmtree(request.runs / job.name, ignore_errors=True)
    return files


def _jobs(files: Sequence[Path], request: _Request) -> list[_Job]:
    """Name the results of each image by its file, with a digest of the path where that is taken.

    Those of planes of a stack also by the plane: "cells-z07".
    """
    if not files:
        raise ImageError("There are no images. Name at least one file.")
    found = []
    for file in files:
        planes = request.planes_of(file)
        digits = {axis: len(str(at)) for axis, at in planes[-1].items()}
        for plane in planes:
            named = [f"-{axis}{at:0{digits[axis]}d}" for axis, at in plane.items()]
            found.append((file, plane, file.stem + "".join(named)))
    taken = Counter(name.casefold() for _, _, name in found)
    jobs = []
    for number, (file, plane, name) in enumerate(found):
        path = os.path.abspath(file)
        holder = _batch_of(request.out, name).get("request", {}).get("path", path)
        if taken[name.casefold()] > 1 or holder != path:
            name += f"-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
        jobs.append(_Job(number, file, name, plane))
    return jobs


def _batch_of(out: Path, name: str) -> dict[str, Any]:
    """What an earlier batch noted about the results of that name; empty where none did."""
    try:
        said = json.loads(_provenance_file(out, name).read_text(encoding="utf-8"))
        return dict(said["batch"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _provenance_file(out: Path, name: str) -> Path:
    return out / f"{name}{_OURS}provenance.json"


def _check_formats(formats: Sequence[str]) -> None:
    unknown = [format for format in formats if format not in FORMATS]
    if unknown or not formats:
        raise ExportError(
            f"There is no format {', '.join(map(repr, unknown)) or 'given'}. Choose among "
            f"{', '.join(FORMATS)}."
        )
    if "parquet" in formats and find_spec("pyarrow") is None:
        raise ExportError(
            "Parquet needs pyarrow, which is not installed. Install it with pip install "
            "'napari-mambamic[exports]', or choose csv."
        )


def _check_opening(opening: Mapping[str, Any]) -> None:
    for axis in ("z", "t"):
        value = opening.get(axis, "all")
        if value != "all" and not isinstance(value, (int, np.integer)):
            raise ImageError(f"{axis} is {value!r}. Give the number of a plane, or 'all'.")


def _check_beside(
    beside: Mapping[str, str], cutting: Mapping[str, Any], formats: Sequence[str]
) -> None:
    if "objects" in beside and "points" in beside:
        raise ImageError("Label images and points were both given. Choose one of them.")
    if "object_scale" in cutting and "objects" not in beside:
        raise ImageError("A scale for objects was given, and no label images. Give a tile size.")
    if "points" in beside and "ome.zarr" in formats:
        raise ExportError("Results of points cannot be saved as OME-Zarr. Choose another format.")
    of_tiles = [name for name in _OF_TILES if cutting.get(name)]
    if of_tiles and {"objects", "points"} & set(beside):
        raise ImageError(
            f"{of_tiles[0].replace('_', ' ').capitalize()} is for tiles, and objects or points are "
            f"classified. Leave it out."
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"The folder {folder.parent} cannot be made or written to: {error.strerror or error}. "
            f"Choose another folder for the results."
        ) from error


def _check_summary(path: Path) -> None:
    """Refuse to write over a table of someone else's."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            is_ours = tuple(next(csv.reader(file), ())[:3]) == _COLUMNS
    except FileNotFoundError:
        return
    except (OSError, ValueError, csv.Error):
        is_ours = False
    if not is_ours:
        raise ExportError(
            f"{path} is there already and was not written by napari-mambamic. Choose another "
            f"folder for the results, or rename it."
        )


def _is_zarr(folder: Path) -> bool:
    names = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
    return folder.suffix == ".zarr" or any((folder / name).exists() for name in names)


def _looks_like_image(path: Path) -> bool:
    if path.name.startswith(".") or _OURS in path.name:
        return False
    return path.suffix.lower() in _ENDINGS and (path.is_file() or _is_zarr(path))
