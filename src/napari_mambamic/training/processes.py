"""Training on several GPUs: one process for each, which share every batch.

Each process takes its share of a batch, and the gradients are averaged over all, so that all keep
the same weights.  `accelerate` sets the processes up; they are started with ``accelerate launch``
or ``torchrun``.
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_mambamic.errors import TrainingError


def is_first_process() -> bool:
    """Whether this process is the one that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class Processes:
    """The processes that train together.

    Parameters
    ----------
    number : int
        Of this process.
    count : int
    device : str or None
        Of this process, where there are several.
    """

    number: int = 0
    count: int = 1
    device: str | None = None

    @classmethod
    def found(cls, *, cpu: bool = False) -> Processes:
        """Those that this process was started among; it is alone unless a launcher says otherwise.

        They use the CPU, by gloo, where that is asked for or there is no CUDA GPU.

        Raises
        ------
        TrainingError
            There are several and accelerate is missing.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise TrainingError(
                "Training in several processes needs accelerate: pip install "
                "'napari-mambamic[multi-gpu]'."
            ) from error
        state = PartialState(cpu=cpu or not torch.cuda.is_available())
        # Threads of a group that is still there when the interpreter goes may abort the process.
        atexit.register(state.destroy_process_group)
        device = "cpu" if state.device.type == "cpu" else str(state.device)
        return cls(state.process_index, state.num_processes, device)

    @property
    def seed(self) -> tuple[int, ...]:
        """What sets the random changes of this process's samples apart from those of others."""
        return (self.number,) if self.number else ()

    def share(self, members: NDArray[np.int64]) -> NDArray[np.int64]:
        """Part of samples that is for this process; the parts of all, in order, are the whole."""
        return np.array_split(members, self.count)[self.number]

    def average_gradients(self, network: nn.Module) -> None:
        """Replace each gradient by its mean over the processes."""
        if self.count > 1:
            self._average([p.grad for p in network.parameters() if p.grad is not None])

    def average_buffers(self, network: nn.Module) -> None:
        """Replace running statistics by their means over the processes."""
        if self.count > 1:
            self._average([b for b in network.buffers() if b.is_floating_point()])

    def average(self, value: float) -> float:
        """Mean of a number over the processes."""
        if self.count == 1:
            return value
        tensor = torch.tensor([value], device=self.device)
        self._average([tensor])
        return tensor.item()

    def begin_alike(self, network: nn.Module) -> None:
        """Give every process the weights of the first."""
        if self.count > 1:
            from accelerate.utils import broadcast

            broadcast(list(network.state_dict().values()))

    def joined(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The rows of all processes, in their order."""
        if self.count == 1:
            return rows
        from accelerate.utils import gather_object

        return np.concatenate(gather_object([rows]))

    def _average(self, tensors: list[Tensor]) -> None:
        from accelerate.utils import reduce

        together = reduce(torch.cat([t.flatten() for t in tensors]), "mean")
        for tensor, mean in zip(tensors, together.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))
