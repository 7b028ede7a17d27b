"""Matrix products of numpy on one thread, so that they do not get in the way of torch's threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from threadpoolctl import threadpool_limits

_lock = threading.Lock()
_users = 0
_limit = ExitStack()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold numpy's matrix products to one thread; at the end, the last user lets them go.

    The products of a run are small and gain nothing from more: with two threads, two cores
    classified less than half as many tiles per second.
    """
    global _users
    with _lock:
        if not _users:
            _limit.enter_context(threadpool_limits(1, user_api="blas"))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _limit.close()
