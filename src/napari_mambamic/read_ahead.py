"""Reading what comes next while the network is at work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(
    batches: Iterator[T], read: Callable[[T], R], *, threads: int, ahead: int
) -> Generator[tuple[T, R]]:
    """Give each batch with what was read for it, in their order.

    Parameters
    ----------
    batches : iterator
        Asked for the next batch not before there is room for it.
    read : callable
        Called in one of the threads; an error is raised where the batch would have been given.
    threads : int
        0 reads each batch when it is asked for.
    ahead : int
        Batches that are read or being read, at most, while one is worked on.
    """
    if not threads:
        for batch in batches:
            yield batch, read(batch)
        return
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="mambamic-read") as pool:
        try:
            for batch in batches:
                waiting.append((batch, pool.submit(read, batch)))
                if len(waiting) > ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
