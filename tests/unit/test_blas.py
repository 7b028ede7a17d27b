"""numpy's threads are held back while a run goes on, and let go after the last one."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from napari_mambamic.blas import one_blas_thread


def threads():
    np.ones((2, 2)) @ np.ones((2, 2))
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_overlapping_users_leave_the_threads_as_they_were():
    with threadpool_limits(2, user_api="blas"):
        assert threads() == {2}
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        assert threads() == {1}
        first.__exit__(None, None, None)  # the one that began first ends first
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == {2}
