"""Threads that work for a panel, and end before the program does."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from napari.qt import threading
from superqt.utils import WorkerBase

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


@cache
def _end_in_time() -> None:
    atexit.register(_end_workers)  # before what Qt registered, because it came later


def _end_workers() -> None:
    with suppress(RuntimeError):  # a thread that takes longer is left to itself
        WorkerBase.await_workers(_LONGEST_WAIT_MS)
