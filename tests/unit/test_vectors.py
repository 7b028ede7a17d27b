"""Vectors of 16 numbers inside numba kernels, against numpy."""

import numba
import numpy as np
import pytest

from napari_mambamic.networks.selective_scan import vectors
from napari_mambamic.networks.selective_scan.vectors import LANES

DTYPES = (np.float32, np.float64)


@numba.njit
def exp2_of(values, result):
    for i in range(0, len(values), LANES):
        vectors.store(result, (i,), vectors.exp2(vectors.load(values, (i,))))


@numba.njit
def softplus_of(values, result):
    for i in range(0, len(values), LANES):
        vectors.store(result, (i,), vectors.softplus(vectors.load(values, (i,))))


@numba.njit
def copy_first(values, count, result):
    part = vectors.load_first(values, (1, 2), count)
    vectors.store(result, (0, 0), part)
    vectors.store_first(result, (1, 0), part + vectors.fill(values.dtype.type(1)), count)


@numba.njit
def arithmetic(values, result):
    left, right = vectors.load(values, (0, 0)), vectors.load(values, (1, 0))
    vectors.store(result, (0, 0), left + right)
    vectors.store(result, (1, 0), left - right)
    vectors.store(result, (2, 0), left * right)
    vectors.store(result, (3, 0), vectors.repeat(values, (1, 3)))
    return vectors.total(left)


def relative_error(function, expected, values):
    result = np.empty_like(values)
    function(values, result)
    wanted = expected(values.astype(np.longdouble))
    return float(np.max(np.abs(result - wanted) / wanted))


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp2(dtype):
    lowest = np.log2(np.finfo(dtype).tiny)
    values = np.linspace(lowest, 0, 1 << 16).astype(dtype)
    assert relative_error(exp2_of, np.exp2, values) < 2.5 * np.finfo(dtype).eps

    extremes = np.zeros(LANES, dtype)
    extremes[:3] = -np.inf, 3 * lowest, np.nan
    result = np.empty_like(extremes)
    exp2_of(extremes, result)
    assert np.all(result[:2] <= 2 * np.finfo(dtype).tiny)
    assert np.isnan(result[2])
    assert np.all(result[3:] == 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softplus(dtype):
    values = np.concatenate([np.linspace(-80, 80, 1 << 16), [-1e4, 1e4] * 8]).astype(dtype)
    usual = values[: 1 << 16]
    error = relative_error(softplus_of, lambda v: np.log1p(np.exp(v)), usual)
    assert error < 100 * np.finfo(dtype).eps  # exp(-80) from a product that is rounded at 115
    result = np.empty_like(values)
    softplus_of(values, result)
    assert np.all(result[1 << 16 :: 2] < 1e-37)
    assert np.all(result[(1 << 16) + 1 :: 2] == 1e4)

    unknown = np.full(LANES, np.nan, dtype)
    softplus_of(unknown, unknown)
    assert np.isnan(unknown).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 7, 16, 40])
def test_first_items_alone_are_read_and_written(dtype, count):
    values = np.arange(1, 61, dtype=dtype).reshape(2, 30)
    result = np.full((2, LANES), -1, dtype)
    copy_first(values, count, result)
    within = min(count, LANES)
    assert np.array_equal(result[0, :within], np.append(values[1, 2:], 0)[:within])
    assert np.all(result[0, within:] == 0)
    assert np.array_equal(result[1, :within], result[0, :within] + 1)
    assert np.all(result[1, within:] == -1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arithmetic_is_lane_by_lane(dtype):
    values = np.random.default_rng(0).normal(size=(2, LANES)).astype(dtype)
    result = np.empty((4, LANES), dtype)
    total = arithmetic(values, result)
    left, right = values
    expected = [left + right, left - right, left * right, np.full(LANES, right[3])]
    assert np.array_equal(result, expected)
    assert total == pytest.approx(left.sum(), rel=1e-5)
