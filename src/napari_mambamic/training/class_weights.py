"""How much each class counts in the loss, so that frequent classes do not drown rare ones."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_mambamic.errors import TrainingError


def weights_of_classes(labels: NDArray[np.int64], n_classes: int, balance: str) -> Tensor:
    """Weights (n_classes,) in the loss of training samples with these labels (n,).

    Parameters
    ----------
    balance : str
        As `TrainConfig` takes it.

    Raises
    ------
    TrainingError
        There is no such balance.
    """
    counts = np.bincount(labels, minlength=n_classes).clip(1)
    power = {"none": 0.0, "root": 0.5, "full": 1.0}.get(balance)
    if power is None:
        raise TrainingError(f"There is no balance {balance!r}. Choose none, root or full.")
    weights = (counts.mean() / counts) ** power
    # The mean over samples is 1, so that the learning rate means the same.
    return torch.tensor(weights * counts.sum() / (weights * counts).sum(), dtype=torch.float32)


def shift_of_prior(class_weights: Tensor, prior: str) -> Tensor:
    """What is added to the logits (n_classes,) of a network that was trained with class weights.

    Parameters
    ----------
    prior : str
        As `TrainConfig` takes it.

    Raises
    ------
    TrainingError
        There is no such prior.
    """
    if prior not in ("balanced", "training"):
        raise TrainingError(f"There is no prior {prior!r}. Choose balanced or training.")
    return torch.zeros_like(class_weights) if prior == "balanced" else -class_weights.log()
