"""Matrix products of numpy on one thread, so that they do not get in the way of torch's threads."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack

from threadpoolctl import threadpool_limits

from napari_mambamic.shared_setting import SharedSetting

_limit = ExitStack()


def one_blas_thread() -> AbstractContextManager[None]:
    """Hold numpy's matrix products to one thread; at the end, the last user lets them go.

    The products of a run are small and gain nothing from more: with two threads, two cores
    classified less than half as many tiles per second.
    """
    return _setting.held()


def _hold() -> None:
    _limit.enter_context(threadpool_limits(1, user_api="blas"))


_setting = SharedSetting(_hold, _limit.close)
