"""How to train: every setting of a run, and the recipe of the papers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from napari_mambamic.errors import TrainingError


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Parameters
    ----------
    mode : str
        "head": the last layer alone, on embeddings that are computed once: seconds.
        "last stage": the last stage and the head.  "all": everything.
    network : str
        Trained from scratch, where `start` is None; else the network of the start is taken.
    patch_size : int, optional
        In px; by default that of the start, or 64 from scratch.
    epochs, batch_size : int
    optimiser : str
        "adamw" or "adam".
    learning_rate : float, optional
        The highest; by default 2e-3 from scratch and 5e-4 from a start.
    weight_decay : float
        Of matrices and kernels; none on vectors and on the state matrices of the scan.
    schedule : str
        "one-cycle": up during the first 15 % of the steps, then down to nothing; "cosine": up
        during 10 epochs, then down.
    label_smoothing, mixup, clip, averaging : float
        `mixup` is the alpha of its beta distribution, `clip` the largest norm of the gradient,
        `averaging` the decay of the running mean of the weights; 0 turns each off.
    balance : str
        Weights of the classes in the loss: "none", "root" (by the root of their inverse frequency)
        or "full" (inverse frequency).
    prior : str
        How frequent probabilities take the classes to be.  "balanced": nearer to each other than in
        the training samples, as `balance` makes them; rare classes are found.  "training": as in
        the training samples (Menon et al., ICLR 2021); more samples are right and counts are
        not drawn to rare classes, which are overlooked more often.
    augmentation : str
        A preset of `make_augmentation`, or "auto": bright-field for RGB, else fluorescence.
    zoom : float
        Largest zoom of the augmentation; 1 where the size tells classes apart.
    gain : float, optional
        Largest change of brightness; 1 where brightness tells classes apart, such as the amount of
        DNA.  By default that of the augmentation.
    patience : int, optional
        Stop after so many epochs without a better validation.
    choose_best : bool
        Keep the epoch with the best balanced accuracy on the validation samples; else the last.
    validation_share, test_share : float
    seed : int
    device, precision : str
        As `load_classifier` takes them.
    """

    mode: Literal["head", "last stage", "all"] = "all"
    network: str = "mambamic-t"
    patch_size: int | None = None
    epochs: int = 30
    batch_size: int = 32
    optimiser: Literal["adamw", "adam"] = "adamw"
    learning_rate: float | None = None
    weight_decay: float = 0.05
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    label_smoothing: float = 0.05
    mixup: float = 0.0
    clip: float = 5.0
    averaging: float = 0.998
    balance: Literal["none", "root", "full"] = "root"
    prior: Literal["balanced", "training"] = "balanced"
    augmentation: str = "auto"
    zoom: float = 1.2
    gain: float | None = None
    patience: int | None = None
    choose_best: bool = True
    validation_share: float = 0.2
    test_share: float = 0.0
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"

    def check(self) -> None:
        """Refuse numbers that no run can have.

        Raises
        ------
        TrainingError
            One of them is too small or too large.
        """
        for name, least in (("epochs", 1), ("batch_size", 1), ("patch_size", 1), ("seed", 0)):
            number = getattr(self, name)
            if number is not None and number < least:
                raise TrainingError(f"The {_said(name)} is {number}. Choose at least {least}.")
        for name in ("validation_share", "test_share"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise TrainingError(f"The {_said(name)} is {share}. Choose 0 or more, below 1.")
        if self.validation_share + self.test_share >= 1:
            raise TrainingError(
                f"A share of {self.validation_share} to validate on and of {self.test_share} to "
                f"test on leave nothing to learn from. Choose smaller ones."
            )

    @classmethod
    def published(cls, **changes: Any) -> TrainConfig:
        """Give the recipe of the papers.

        Adam, 1e-4, weight decay 1e-4, cross-entropy, cosine after ten epochs of warm-up, early
        stopping, batches of 16, a split of 6:2:2, no augmentation.
        """
        recipe: dict[str, Any] = {
            "epochs": 100,
            "batch_size": 16,
            "optimiser": "adam",
            "learning_rate": 1e-4,
            "weight_decay": 1e-4,
            "schedule": "cosine",
            "label_smoothing": 0.0,
            "clip": 0.0,
            "averaging": 0.0,
            "balance": "none",
            "augmentation": "none",
            "patience": 20,
            "patch_size": 224,
            "test_share": 0.2,
        }
        return cls(**(recipe | changes))


def _said(name: str) -> str:
    return "number of epochs" if name == "epochs" else name.replace("_", " ")
