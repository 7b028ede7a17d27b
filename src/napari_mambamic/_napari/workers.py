"""Threads that work for a panel, and end before the program does."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import cache
from typing import Any

from napari.qt import threading
from superqt.utils import WorkerBase

from napari_mambamic.errors import MambamicError

_LONGEST_WAIT_MS = 30_000  # loading torch, which nothing can stop, takes some ten seconds


def create_worker(
    function: Callable[..., Any], *arguments: Any, worker_class: type[WorkerBase] | None = None
) -> Any:
    """Make a worker as napari's `create_worker` does, that is ended at the end of the program.

    napari waits for workers when its event loop ends.  A script that closes the window by itself
    has none, and Qt would be gone while a thread still tells of its work: superqt then prints
    'Signal source has been deleted'.
    """
    _end_in_time()
    return threading.create_worker(function, *arguments, _worker_class=worker_class)


def or_sentence(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Call a function in the worker's thread: what it returns, or the sentence that it raises.

    An error that is a sentence for the user is returned as one: if it were raised, napari would
    show it as a defect of the program, with its traceback.
    """
    try:
        return function(*arguments, **keywords)
    except MambamicError as error:
        return str(error)


def iter_or_sentence(
    generator: Callable[..., Generator[Any, None, Any]], *arguments: Any
) -> Generator[Any, None, Any]:
    """Run a generator in the worker's thread; as `or_sentence`."""
    try:
        return (yield from generator(*arguments))
    except MambamicError as error:
        return str(error)


@cache
def _end_in_time() -> None:
    atexit.register(_end_workers)  # before what Qt registered, because it came later


def _end_workers() -> None:
    with suppress(RuntimeError):  # a thread that takes longer is left to itself
        WorkerBase.await_workers(_LONGEST_WAIT_MS)
