"""Every back end of the scan computes what the reference computes, forward and backward."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import warnings

import pytest
import torch

from napari_mambamic.errors import NetworkError
from napari_mambamic.networks import build_network
from napari_mambamic.networks import selective_scan as scan_package
from napari_mambamic.networks.selective_scan import (
    back_end_for,
    numba_scan,
    selective_scan,
    why_not,
)
from napari_mambamic.networks.ss2d import SS2D

BACK_ENDS = ("torch", "numba")
MAPS = [(1, 1), (1, 7), (5, 1), (3, 5), (4, 4), (9, 6)]


def inputs(height, width, *, dtype=torch.float64, n=2, d=6, states=4, rank=2):
    generator = torch.Generator().manual_seed(height * 100 + width)

    def normal(*shape):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.to(dtype).requires_grad_()

    return (
        normal(n, height, width, d),
        normal(n, height, width, 4, rank + 2 * states),
        normal(4, d, rank),
        normal(4, d),
        normal(4, d, states),
        normal(4, d),
    )


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("size", MAPS)
def test_forward_and_gradients_are_the_references_in_double(back_end, size):
    values = inputs(*size)
    expected = selective_scan(*values, back_end="reference")
    flow = torch.randn(expected.shape, dtype=torch.float64)
    expected_grads = torch.autograd.grad(expected, values, flow)
    got = selective_scan(*values, back_end=back_end)
    assert torch.allclose(got, expected, rtol=1e-10, atol=1e-11)
    for gradient, wanted in zip(
        torch.autograd.grad(got, values, flow), expected_grads, strict=True
    ):
        assert torch.allclose(gradient, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_single_precision_is_close_to_the_reference_in_double(back_end):
    values = inputs(14, 14, dtype=torch.float32, d=24, states=16, rank=1)
    doubles = [v.detach().double().requires_grad_() for v in values]
    expected = selective_scan(*doubles, back_end="reference")
    got = selective_scan(*values, back_end=back_end)
    assert got.dtype == torch.float32
    assert (got - expected).norm() < 1e-6 * expected.norm()
    flow = torch.randn_like(got)
    wanted = torch.autograd.grad(expected, doubles, flow.double())
    for gradient, double in zip(torch.autograd.grad(got, values, flow), wanted, strict=True):
        assert (gradient - double).norm() < 1e-5 * double.norm()


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_extreme_steps_neither_overflow_nor_vanish_into_nan(back_end):
    x, projected, dt_weight, dt_bias, a_log, skip = inputs(6, 6, dtype=torch.float32)
    for bias in (-40.0, 40.0):
        with torch.no_grad():
            dt_bias.fill_(bias)
        values = (x, projected, dt_weight, dt_bias, a_log, skip)
        got = selective_scan(*values, back_end=back_end)
        expected = selective_scan(*(v.double() for v in values), back_end="reference")
        assert torch.isfinite(got).all()
        assert torch.allclose(got.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_nan_is_passed_on_not_swallowed(back_end):
    values = inputs(4, 4, dtype=torch.float32)
    with torch.no_grad():
        values[0][0, 1, 1, 0] = float("nan")
    got = selective_scan(*values, back_end=back_end)
    assert got[0, :, :, 0].isnan().any()
    assert not got[1].isnan().any()


def test_bfloat16_inputs_are_computed_in_single_precision():
    values = inputs(5, 5, dtype=torch.float32)
    halves = [v.detach().bfloat16() for v in values]
    got = selective_scan(*halves, back_end="numba")
    assert got.dtype == torch.bfloat16
    expected = selective_scan(*(h.float() for h in halves), back_end="numba")
    assert torch.equal(got, expected.bfloat16())


def test_views_that_are_not_contiguous_are_read_right():
    x, *rest = inputs(4, 6)
    wide = torch.cat([x, x + 1], dim=-1)
    expected = selective_scan(x, *rest, back_end="reference")
    assert torch.allclose(selective_scan(wide[..., :6], *rest, back_end="numba"), expected)


@pytest.fixture(params=[True, False], ids=["parallel loops", "thread pool"])
def threading_of_numba(request, monkeypatch):
    """With OpenMP, and as on a machine that has none."""
    monkeypatch.setattr(numba_scan, "has_parallel_loops", lambda: request.param)


@pytest.mark.usefixtures("threading_of_numba")
@pytest.mark.parametrize("n", [0, 1, 5])
def test_threads_share_the_maps_out_without_gaps(n):
    values = inputs(6, 5, n=n)
    expected = selective_scan(*values, back_end="reference")
    got = selective_scan(*values, back_end="numba")
    assert torch.allclose(got, expected, rtol=1e-10, atol=1e-11)
    if n:
        flow = torch.randn_like(got)
        for gradient, wanted in zip(
            torch.autograd.grad(got, values, flow),
            torch.autograd.grad(expected, values, flow),
            strict=True,
        ):
            assert torch.allclose(gradient, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("threading_of_numba")
def test_two_threads_may_scan_at_once():
    values = inputs(12, 12, dtype=torch.float32, n=4)
    expected = selective_scan(*values, back_end="numba")
    results = []

    def work():
        for _ in range(20):
            results.append(selective_scan(*values, back_end="numba"))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 60
    assert all(torch.equal(r, expected) for r in results)


needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="there is no Triton for this system"
)


@needs_triton
@pytest.mark.parametrize(
    ("size", "keywords"),
    [
        ((1, 1), {}),
        ((1, 7), {}),
        ((5, 1), {}),
        ((3, 6), {}),
        ((4, 5), {"d": 40, "states": 16, "rank": 3}),  # more channels than a program has
        ((3, 3), {"n": 3, "d": 24, "states": 16, "rank": 1}),
    ],
)
def test_triton_computes_what_the_reference_does(size, keywords):
    """In Triton's interpreter where there is no GPU."""
    values = inputs(*size, dtype=torch.float32, **keywords)
    doubles = [v.detach().double().requires_grad_() for v in values]
    expected = selective_scan(*doubles, back_end="reference")
    got = selective_scan(*values, back_end="triton")
    assert (got - expected).norm() < 1e-6 * expected.norm()
    flow = torch.randn_like(got)
    wanted = torch.autograd.grad(expected, doubles, flow.double())
    for gradient, double in zip(torch.autograd.grad(got, values, flow), wanted, strict=True):
        assert (gradient - double).norm() < 1e-5 * double.norm() + 1e-9


@needs_triton
def test_triton_takes_bfloat16_and_keeps_its_state_in_single_precision():
    values = [v.detach().bfloat16() for v in inputs(3, 4, dtype=torch.float32, states=16)]
    got = selective_scan(*values, back_end="triton")
    assert got.dtype == torch.bfloat16
    expected = selective_scan(*(v.double() for v in values), back_end="reference")
    assert (got - expected).norm() < 1e-2 * expected.norm()


@needs_triton
def test_triton_gives_the_logits_of_numba():
    torch.manual_seed(0)
    network = build_network("mambamic-t", n_classes=3).eval().requires_grad_(False)
    patches = torch.randn(1, 3, 32, 32)
    expected = network(patches)
    for module in network.modules():
        if isinstance(module, SS2D):
            module.back_end = "triton"
    assert torch.allclose(network(patches), expected, atol=1e-5)


def test_a_triton_that_does_not_work_is_told_of_once(monkeypatch):
    def broken(*values):
        raise RuntimeError("ptxas: no such architecture\nmore lines")

    scans = {"triton": broken, "reference": scan_package._scan_of("reference")}
    monkeypatch.setattr(scan_package, "_scan_of", scans.get)
    scan_package.why_not.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"ptxas: no such architecture\).*torch scan is used"):
        assert why_not("triton", torch.device("cpu"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert why_not("triton", torch.device("cpu"))
    scan_package.why_not.cache_clear()


@pytest.mark.parametrize(("reason", "back_end"), [("", "triton"), ("no ptxas", "torch")])
def test_torch_takes_over_from_a_triton_that_does_not_work(monkeypatch, reason, back_end):
    monkeypatch.setattr(scan_package, "why_not", lambda name, device: reason)
    assert back_end_for(torch.device("cuda")) == back_end


def test_a_back_end_that_computes_something_else_is_found_out(monkeypatch):
    wrong = {"numba": lambda *v: v[0] * 0, "reference": scan_package._scan_of("reference")}
    monkeypatch.setattr(scan_package, "_scan_of", wrong.get)
    scan_package.why_not.cache_clear()
    assert "its results differ by" in why_not("numba", torch.device("cpu"))
    scan_package.why_not.cache_clear()


@pytest.mark.parametrize(
    ("device", "back_end"), [("cpu", "numba"), ("mps", "torch"), ("meta", "torch")]
)
def test_back_ends_are_chosen_by_device(device, back_end):
    assert back_end_for(torch.device(device)) == back_end


def test_an_unknown_back_end_is_named():
    with pytest.raises(NetworkError, match="'cupy'"):
        selective_scan(*inputs(2, 2), back_end="cupy")


AS_MANY_THREADS = """
import numba, torch
from napari_mambamic.networks.selective_scan import selective_scan

torch.set_num_threads(1)
shapes = [(1, 4, 4, 6), (1, 4, 4, 4, 10), (4, 6, 2), (4, 6), (4, 6, 4), (4, 6)]
selective_scan(*(torch.rand(shape) for shape in shapes), back_end="numba")
print(numba.config.NUMBA_NUM_THREADS, numba.get_num_threads())
"""


@pytest.mark.skipif(not numba_scan.has_parallel_loops(), reason="numba has no parallel loops here")
def test_the_numba_scan_takes_no_more_threads_than_torch():
    done = subprocess.run(
        [sys.executable, "-c", AS_MANY_THREADS],
        env=os.environ | {"NUMBA_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["2", "1"], done.stderr
