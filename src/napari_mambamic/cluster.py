"""Classifying on a Dask cluster: the tiles of an image in ranges, each a task of some worker.

=====================================  ==========================================
here                                   on a worker
=====================================  ==========================================
weights and manifest, as bytes         kept in the worker's own folder, loaded once
path of the image, numbers of tiles    opens the image, reads and classifies them
probabilities, distances, as results   -
=====================================  ==========================================

A task depends on nothing but its arguments, so another worker can do it again when one is lost.
Ranges end where batches end: workers compute the batches that one process would.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from distributed import Client, Future, KilledWorker, WorkerPlugin, get_worker
from numpy.typing import NDArray

from napari_mambamic.atomic import written_atomically
from napari_mambamic.errors import ClusterError, ImageError, MambamicError
from napari_mambamic.flow import Flow, Predicted, Rows, schedule_of
from napari_mambamic.foreground import Foreground
from napari_mambamic.image import ImagePyramid
from napari_mambamic.image_files import open_image
from napari_mambamic.memory import freed_memory_kept
from napari_mambamic.tiling import ObjectTiles, Tile, TileGrid
from napari_mambamic.weights.manifest import Manifest
from napari_mambamic.weights.store import locate_weights

if TYPE_CHECKING:
    from napari_mambamic.classifier import TileClassifier

_BATCHES_A_TASK = 16  # at most: some seconds of work
_TASKS_A_WORKER = 4  # of one image, where it has as many batches: the last ones end together
_RETRIES = 3
_CONNECT_S, _LOOK_S = 15.0, 1.0


@dataclass(frozen=True)
class Model:
    """What a worker loads; workers keep the one that they used last."""

    sha256: str
    device: str
    precision: str
    package: str

    @property
    def file(self) -> Path:
        """Where the weights are, on the worker that asks."""
        return _folder_of(get_worker(), self.sha256) / "weights.safetensors"


@dataclass(frozen=True)
class ImageFile:
    """How a worker opens an image, and what it must find."""

    path: str
    opened_with: tuple[tuple[str, Any], ...]
    channels: tuple[int, ...] | None
    plane_shape: tuple[int, int]
    n_bytes: int
    modified: float  # tells a worker that the file that it has open was replaced


@dataclass(frozen=True)
class Part:
    """One task: some tiles of an image, in batches.

    `tiles` are the whole grid, or the tiles with these `numbers` in their order.
    """

    model: Model
    file: ImageFile
    tiles: Sequence[Tile]
    foreground: Foreground | None
    numbers: NDArray[np.intp]
    batch_size: int


class WeightsOnWorkers(WorkerPlugin):
    """Puts weights and their manifest onto every worker, those that come later included."""

    def __init__(self, weights: Path, sha256: str) -> None:
        self.name = f"mambamic-{uuid4().hex}"  # another run must not remove it
        self.sha256 = sha256
        self.contents = {s: weights.with_suffix(s).read_bytes() for s in (".json", ".safetensors")}

    def setup(self, worker: Any) -> None:
        """Write the files into the worker's folder."""
        folder = _folder_of(worker, self.sha256)
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, content in self.contents.items():
            with written_atomically(folder / f"weights{suffix}") as temporary:
                temporary.write_bytes(content)


@dataclass(frozen=True)
class ClusterClassifier:
    """A classifier that is loaded on the workers: what is known of it here.

    Stands in for a `TileClassifier` where nothing is computed; its `flow` has the workers compute.

    Parameters
    ----------
    client : Client
    manifest : Manifest
    model : Model
    reason : str
        What the worker that was asked computes on.
    size : int
        Its batch size; the same for all workers, so that batches are.
    say : callable
        Told, in a sentence, when there is something to wait for.
    stopped : Event
        Set it to end all flows.
    """

    client: Client
    manifest: Manifest
    model: Model
    reason: str
    size: int
    say: Callable[[str], object]
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.manifest.class_names

    @property
    def device(self) -> ClusterClassifier:
        """Where it computes: its ``reason`` says it."""
        return self

    @property
    def precision(self) -> str:
        """Of the computation: "float32" or "bfloat16"."""
        return self.model.precision

    def batch_size(self) -> int:
        """Patches per batch that keep a worker's device busy."""
        return self.size

    def n_threads(self) -> int:
        """Tasks that the cluster can do at once at present; at least 1."""
        return max(sum(map(int, self.client.nthreads().values())), 1)

    def flow(self, priority: int) -> Callable[..., ClusterFlow]:
        """What `iter_classify` takes as its `flow`; tasks of a higher priority come first."""

        def make(
            image: ImagePyramid,
            tiles: Sequence[Tile],
            _: TileClassifier,
            foreground: Foreground | None,
            view: object,
        ) -> ClusterFlow:
            return ClusterFlow(self, image, tiles, foreground, priority)

        return make


class ClusterFlow:
    """From tiles to predictions, on the workers; the ranges come as they are done."""

    def __init__(
        self,
        classifier: ClusterClassifier,
        image: ImagePyramid,
        tiles: Sequence[Tile],
        foreground: Foreground | None,
        priority: int,
    ) -> None:
        self.classifier, self.image, self.tiles = classifier, image, tiles
        self.foreground, self.priority = foreground, priority

    def predictions(self, wanted: NDArray[np.intp], size: int) -> Generator[Predicted]:
        """Numbers of the tiles of each range, probabilities and distances; no embeddings."""
        if not len(wanted):
            return
        client = self.classifier.client
        futures = client.map(
            _classify_part,
            self._parts(wanted, size),
            pure=False,
            retries=_RETRIES,
            priority=self.priority,
        )
        done: SimpleQueue[Future[Any]] = SimpleQueue()
        for future in futures:
            future.add_done_callback(done.put)
        try:
            for _ in futures:
                future = _next_of(done, self.classifier)
                numbers, probabilities, distances = _result_of(future, client, self.image.name)
                yield numbers, probabilities, None, distances
        finally:
            if client.status == "running":
                client.cancel(futures)

    def _parts(self, wanted: NDArray[np.intp], size: int) -> list[Part]:
        schedule = schedule_of(self.image, self.tiles, wanted, self.classifier.manifest.patch)
        n_batches = -(-len(wanted) // size)
        fair = -(-n_batches // (_TASKS_A_WORKER * self.classifier.n_threads()))
        image = self.image
        file = ImageFile(
            image.path,
            tuple(image.opened_with.items()),
            image.chosen_channels,
            image.plane_shape,
            _n_bytes_of(image.path),
            os.path.getmtime(image.path),
        )
        parts = []
        while len(schedule):
            numbers = schedule.take(size * min(fair, _BATCHES_A_TASK))
            model, tiles = self.classifier.model, self.tiles
            if isinstance(tiles, ObjectTiles):  # a grid is small however many tiles it has
                tiles = tuple(tiles[int(number)] for number in numbers)
            parts.append(Part(model, file, tiles, self.foreground, numbers, size))
        return parts


@contextmanager
def connected(dask: Any) -> Iterator[Client]:
    """A client of a cluster, from its address, from a scheduler file (.json), or as it is.

    Raises
    ------
    ClusterError
        It does not answer.
    """
    if isinstance(dask, Client):
        yield dask
        return
    what_to_do = (
        "Start one with 'dask scheduler' and 'dask worker', or check the address, the network "
        "and the firewall."
    )
    keywords = {"address": str(dask)}
    if str(dask).endswith(".json"):
        if not Path(dask).is_file():
            raise ClusterError(f"There is no scheduler file {dask}. {what_to_do}")
        keywords = {"scheduler_file": str(dask)}
    try:
        # As the default it would stay that of the process where it does not connect, and whatever
        # dask computes later would wait for it.
        client = Client(**keywords, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"No Dask cluster answers at {dask} within {_CONNECT_S:.0f} s. {what_to_do}"
        ) from error
    with client:
        yield client


@contextmanager
def loaded_on_cluster(
    client: Client,
    weights: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    say: Callable[[str], object] = lambda text: None,
) -> Iterator[ClusterClassifier]:
    """Send weights to the workers of a cluster, and ask one what it makes of them.

    Raises
    ------
    ClusterError
        The workers do not have this package, or another version of it.
    MambamicError
        As in `load_classifier`, there.
    """
    path = locate_weights(weights)
    manifest = Manifest.read(path.with_suffix(".json"))
    plugin = WeightsOnWorkers(path, manifest.sha256)
    package = version("napari-mambamic")
    asked = Model(manifest.sha256, device, precision, package)
    try:
        client.register_plugin(plugin)
        asking = client.submit(_describe, asked, pure=False)
        done: SimpleQueue[Future[Any]] = SimpleQueue()
        asking.add_done_callback(done.put)
        waiting = ClusterClassifier(client, manifest, asked, "", 1, say)
        size, precision, reason = _result_of(_next_of(done, waiting), client, "")
    except ImportError as error:
        raise ClusterError(
            f"The Dask cluster at {_address_of(client)} does not have what it takes: {error}. "
            f"Install napari-mambamic {package} where its scheduler and its workers run."
        ) from error
    model = Model(manifest.sha256, device, precision, package)
    try:
        yield ClusterClassifier(client, manifest, model, f"Dask workers: {reason}", size, say)
    finally:
        if client.status == "running":
            client.unregister_worker_plugin(plugin.name)


def _next_of(done: SimpleQueue[Future[Any]], classifier: ClusterClassifier) -> Future[Any]:
    """Wait for a future that is done; say so when there is nobody to do it."""
    client, said = classifier.client, False
    while True:
        try:
            return done.get(timeout=_LOOK_S)
        except Empty:
            if classifier.stopped.is_set() or client.status == "closed":
                raise _gone(client) from None
        if client.status == "running" and not client.nthreads():
            if not said:
                classifier.say(
                    f"The Dask cluster at {_address_of(client)} has no workers at present; waiting "
                    f"for some."
                )
            said = True


def _result_of(future: Future[Any], client: Client, image: str) -> Any:
    try:
        result = future.result()
    except KilledWorker as error:
        raise ImageError(
            f"Image {image!r}: the workers that were to classify the same tiles ended, one after "
            f"the other. Most likely their memory does not suffice: give workers more, or choose a "
            f"smaller batch size. Their logs tell more."
        ) from error
    except (CancelledError, OSError) as error:
        raise _gone(client) from error
    if isinstance(result, MambamicError):
        raise result
    return result


def _gone(client: Client) -> ClusterError:
    return ClusterError(
        f"The Dask cluster at {_address_of(client)} went away before all was done. What was done "
        f"is kept: start a cluster and run the same again to go on."
    )


def _address_of(client: Client) -> str:
    return str(client.scheduler.address if client.scheduler else "an unknown address")


def _n_bytes_of(path: str) -> int:
    return os.path.getsize(path) if os.path.isfile(path) else 0


# What follows runs on the workers.

_loading = threading.Lock()


def _describe(model: Model) -> tuple[int, str, str] | MambamicError:
    """Batch size, precision and device of a model on this worker."""
    try:
        classifier = _classifier_of(model)
    except MambamicError as error:
        return error
    return classifier.batch_size(), classifier.precision, classifier.device.reason


def _classify_part(
    part: Part,
) -> tuple[NDArray[np.intp], NDArray[np.float32], Rows] | MambamicError:
    """Numbers of the tiles, their probabilities and their distances from the training set.

    What is wrong with an image is given back, not raised: trying again would not mend it.
    """
    try:
        image, classifier = _opened(part.file), _classifier_of(part.model)
        flow = Flow(image, part.tiles, classifier, part.foreground, None)
        is_grid = isinstance(part.tiles, TileGrid)
        wanted = part.numbers if is_grid else np.arange(len(part.numbers))
        with (
            freed_memory_kept(),
            closing(flow.predictions(wanted, part.batch_size)) as predictions,
        ):
            numbers, probabilities, _, parts = zip(*predictions, strict=True)
    except MambamicError as error:
        return error
    distances = None
    if classifier.reference is not None:
        # A batch of background alone has none.
        distances = np.concatenate(
            [
                np.full(len(n), np.nan, np.float32) if part is None else part
                for n, part in zip(numbers, parts, strict=True)
            ]
        )
    done = np.concatenate(numbers)
    return done if is_grid else part.numbers[done], np.concatenate(probabilities), distances


def _classifier_of(model: Model) -> TileClassifier:
    with _loading:  # a worker of several threads loads it once
        return _load(model)


@lru_cache(maxsize=1)
def _load(model: Model) -> TileClassifier:
    from napari_mambamic.classifier import load_classifier

    here = version("napari-mambamic")
    if here != model.package:
        raise ClusterError(
            f"Worker {get_worker().address} has napari-mambamic {here}, and {model.package} asks. "
            f"Install the same version on all machines."
        )
    return load_classifier(model.file, device=model.device, precision=model.precision)


@lru_cache(maxsize=1)
def _opened(file: ImageFile) -> ImagePyramid:
    what_to_do = (
        "Workers read images by the path that they have here: keep them in a folder that all "
        "machines share."
    )
    try:
        image = open_image(file.path, **dict(file.opened_with))
    except ImageError as error:
        raise ImageError(f"On worker {get_worker().address}: {error} {what_to_do}") from error
    if (image.plane_shape, _n_bytes_of(file.path)) != (file.plane_shape, file.n_bytes):
        raise ImageError(
            f"Worker {get_worker().address} finds another file at {file.path}: "
            f"{_n_bytes_of(file.path):,} bytes, and here are {file.n_bytes:,}. {what_to_do}"
        )
    return image if file.channels is None else image.with_channels(file.channels)


def _folder_of(worker: Any, sha256: str) -> Path:
    return Path(worker.local_directory) / "mambamic" / sha256[:16]
