"""The four-direction selective scan: one signature, several back ends.

Letters: n maps, d channels, s states per channel (16), r rank of the step size.
For direction k and along its walk over the map, at position p of channel j:

    delta = softplus(dt_weight[k] @ projected[p, k, :r] + dt_bias[k])
    h     = exp(-delta exp(a_log[k])) h + delta x[p] B[p, k]          (s numbers per channel)
    y[p] += C[p, k] . h + skip[k] x[p]

B and C are the next s and the last s numbers of ``projected[p, k]``.  The projections act on each
pixel alone, so they are computed once on the map as it lies, not on four permuted copies.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from napari_mambamic.errors import NetworkError

_MODULES = {
    "reference": "reference",
    "torch": "torch_scan",
    "numba": "numba_scan",
    "triton": "triton_scan",
    "mamba-ssm": "mamba_ssm_scan",
}


def list_back_ends() -> tuple[str, ...]:
    """Names that `selective_scan` takes as ``back_end``."""
    return tuple(_MODULES)


def back_end_for(device: torch.device) -> str:
    """Name of the fastest back end that works on a device.

    A Triton that does not work on a CUDA device is told of once, as a `RuntimeWarning`.
    """
    if device.type == "cpu":
        return "numba"
    if device.type == "cuda" and not why_not("triton", device):
        return "triton"
    return "torch"


@cache
def why_not(back_end: str, device: torch.device) -> str:
    """Run a back end on a small map against the reference: why it is of no use, or nothing.

    What is found is kept for the life of the process.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 5, 6, 8), (1, 5, 6, 4, 33), (4, 8, 1), (4, 8), (4, 8, 16), (4, 8))
    values = [torch.randn(shape, generator=generator) for shape in shapes]
    expected = _scan_of("reference")(*values)
    try:
        got = _scan_of(back_end)(*(value.to(device) for value in values)).cpu()
        difference = float((got - expected).abs().max())
        reason = "" if difference < 1e-3 else f"its results differ by {difference:.3g}"
    # Compilers and drivers fail in their own ways; whichever it is, the reason is passed on.
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if reason and back_end == "triton":
        warnings.warn(
            f"The Triton scan does not work on {device} ({reason}). The slower torch scan is used "
            f"instead. Check that triton (on Windows: triton-windows) fits this version of torch.",
            RuntimeWarning,
            stacklevel=3,
        )
    return reason


@cache
def _scan_of(back_end: str) -> Callable[..., Tensor]:
    module = importlib.import_module(f"{__name__}.{_MODULES[back_end]}")
    scan: Callable[..., Tensor] = module.scan
    return scan


def selective_scan(
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    a_log: Tensor,
    skip: Tensor,
    *,
    back_end: str = "auto",
) -> Tensor:
    """Scan maps in four directions and add the four results.

    Parameters
    ----------
    x : Tensor
        (n, height, width, d)
    projected : Tensor
        (n, height, width, 4, r + 2 s): low-rank step size, B and C of each direction.
    dt_weight, dt_bias, a_log, skip : Tensor
        (4, d, r), (4, d), (4, d, s), (4, d)
    back_end : str
        "triton" (CUDA), "numba" (CPU), "torch" (any device), "mamba-ssm" (CUDA, where that
        package is installed), "reference" (slow, for tests), or "auto": `back_end_for` the device.

    Returns
    -------
    Tensor
        (n, height, width, d), differentiable in all six inputs.
    """
    if back_end == "auto":
        back_end = back_end_for(x.device)
    if back_end not in _MODULES:
        raise NetworkError(
            f"There is no scan back end {back_end!r}. Choose one of {', '.join(_MODULES)}."
        )
    return _scan_of(back_end)(x, projected, dt_weight, dt_bias, a_log, skip)
