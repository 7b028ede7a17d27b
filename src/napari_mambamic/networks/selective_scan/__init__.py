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
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from napari_mambamic.errors import NetworkError

_MODULES = {"reference": "reference", "torch": "torch_scan", "numba": "numba_scan"}


def list_back_ends() -> tuple[str, ...]:
    """Names that `selective_scan` takes as ``back_end``."""
    return tuple(_MODULES)


def back_end_for(device: torch.device) -> str:
    """Name of the fastest back end for a device."""
    return "numba" if device.type == "cpu" else "torch"


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
        "numba" (CPU), "torch" (any device), "reference" (slow, for tests), or "auto":
        numba on the CPU and torch elsewhere.

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
