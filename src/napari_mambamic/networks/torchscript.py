"""A network as TorchScript: one file that plain torch runs, without this package.

TorchScript is what QuPath (through the Deep Java Library) and WSInfer load.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from napari_mambamic.errors import NetworkError
from napari_mambamic.networks.lean import lean_copy
from napari_mambamic.networks.selective_scan import script_scan
from napari_mambamic.networks.ss2d import SS2D

if TYPE_CHECKING:
    from napari_mambamic.networks.stages import StagedNetwork

_TOLERANCE = 1e-3  # of a logit; another order of additions moves them by 1e-6


def as_torchscript(
    network: StagedNetwork, *, in_channels: int, patch_size: int, temperature: float = 1.0
) -> bytes:
    """Write a network as TorchScript, and check that what was written computes the same.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode, float32, on the CPU.
    in_channels, patch_size : int
        Of the patches that it takes.
    temperature : float
        That the logits are divided by.

    Returns
    -------
    bytes
        A file for `torch.jit.load` of torch 2.0 or later.  It maps patches (n, in_channels, height,
        width) float32, already normalised, to ``logits / temperature`` (n, n_classes), for any n
        and on the device that it is moved to.  Patches of another size are resampled.

    Raises
    ------
    NetworkError
        The network cannot be traced, or its trace depends on the patches that it was made with.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = [(n, in_channels, patch_size, patch_size) for n in (2, 3)]
    example, others = (torch.randn(shape, generator=generator) for shape in shapes)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # The tracer warns of each shape that it takes as it is, and torch of TorchScript's age.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(_with_script_scan(network), example, check_trace=False)
            written: bytes = torch.jit.script(
                _OfAnySize(traced, patch_size, temperature)
            ).save_to_buffer()
            again = torch.jit.load(io.BytesIO(written))
            difference = float((again(others) * temperature - network(others)).abs().max())
    except RuntimeError as error:  # of the tracer, the compiler or the compiled code
        said = str(error).strip().splitlines()
        reason = said[-1] if said[-1].startswith("RuntimeError") else said[0]  # else a trace-back
        raise NetworkError(
            f"The network {type(network).__name__} cannot be written as TorchScript: {reason}"
        ) from error
    if not difference <= _TOLERANCE:
        raise NetworkError(
            f"As TorchScript the network {type(network).__name__} computes something else: its "
            f"logits differ by {difference:.3g}, allowed is {_TOLERANCE}. Nothing was exported."
        )
    return written


class _OfAnySize(nn.Module):
    """Resamples what is not of the patch size, and divides by the temperature."""

    def __init__(self, network: Any, patch_size: int, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.patch_size = patch_size
        self.temperature = temperature

    def forward(self, patches: Tensor) -> Tensor:
        """Logits over temperature (n, n_classes) of patches (n, channels, height, width)."""
        size = self.patch_size
        if patches.shape[-2] != size or patches.shape[-1] != size:
            # Not `interpolate`: written as TorchScript, it names operations that older torch lacks.
            patches = torch.ops.aten._upsample_bilinear2d_aa(patches, [size, size], False)
        return self.network(patches) / self.temperature


class _ScriptSS2D(nn.Module):
    """An SS2D whose scan can be written as TorchScript."""

    def __init__(self, ss2d: SS2D) -> None:
        super().__init__()
        self.ss2d = ss2d

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, height, width, channels) to (n, height, width, 2 channels)."""
        own = self.ss2d
        values, gate, projected = own.project(x)
        scanned = script_scan.scan(
            values, projected, own.dt_weight, own.dt_bias, own.a_log, own.skip
        )
        return own.gated(scanned, gate)


def _with_script_scan(network: StagedNetwork) -> StagedNetwork:
    lean = lean_copy(network)
    for module in list(lean.modules()):
        for name, child in module.named_children():
            if isinstance(child, SS2D):
                setattr(module, name, _ScriptSS2D(child))
    return lean
