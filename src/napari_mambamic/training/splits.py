"""Which samples are learned from and which are held back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from napari_mambamic.errors import SamplesError
from napari_mambamic.training.samples import TEST, TRAINING, VALIDATION, Samples, hash_of


@dataclass(frozen=True)
class Split:
    """Indices of samples.

    Parameters
    ----------
    training, validation, test : ndarray
        Disjoint and sorted; `test` may be empty.
    method : str
        How they were separated, in words.
    """

    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    method: str


def split_samples(
    samples: Samples, *, validation_share: float = 0.2, test_share: float = 0.0, seed: int = 0
) -> Split:
    """Hold samples back for validation, and for a test.

    By the split that comes with the samples, where there is one; else by group, where there are
    groups, so that no group is on two sides; else sample by sample.  Classes have about the same
    shares on all sides.

    Raises
    ------
    SamplesError
        There are fewer than two classes, a class has too few samples or groups, or the same pixels
        are on two sides.
    """
    _check_counts(samples)
    everything = np.arange(len(samples))
    if samples.parts is not None:
        training, validation, test = (
            np.flatnonzero(samples.parts == part) for part in (TRAINING, VALIDATION, TEST)
        )
        split = Split(training, validation, test, "the split that comes with the data")
    else:
        by = "groups" if samples.groups is not None else "samples"
        rest, test = _held_back(samples, everything, test_share, seed)
        share = validation_share / (1 - test_share)
        training, validation = _held_back(samples, rest, share, seed + 1)
        split = Split(training, validation, test, f"stratified by class, whole {by}, seed {seed}")
    _check_sides(samples, split)
    return split


def _held_back(
    samples: Samples, among: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if share <= 0:
        return among, among[:0]
    labels = samples.labels[among]
    groups = np.arange(len(among)) if samples.groups is None else samples.groups[among]
    n_groups = len(np.unique(groups))
    if n_groups == len(among):
        held = _some_of_each_class(labels, share, seed)
        return among[~held], among[held]
    if n_groups < 2:
        raise SamplesError(
            f"All samples belong together (group {str(groups[0])!r}), so none can be held back to "
            f"validate on. Label tiles that do not overlap, or samples of another image."
        )
    # Folds are of about one size each; as many are taken as make up the share.
    n_folds = min(10, n_groups, int(np.bincount(labels).max()))
    if n_folds < 2:
        raise SamplesError("Each class has a single sample. Label more samples of each.")
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes that are rarer than folds
        parts = [held for _, held in folds.split(among, labels, groups)]
    wanted = min(max(1, round(share * n_folds)), n_folds - 1)
    held = np.zeros(len(among), bool)
    held[np.concatenate(parts[:wanted])] = True
    return among[~held], among[held]


def _some_of_each_class(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Mask of a share of each class, at least one and never all."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held[members[: min(max(1, round(share * len(members))), len(members) - 1)]] = True
    return held


def _check_counts(samples: Samples) -> None:
    present = {name: n for name, n in samples.counts.items() if n}
    if len(present) < 2:
        raise SamplesError(
            f"There is one class only ({', '.join(present) or 'none'}). Label samples of at least "
            f"two classes."
        )
    missing = [name for name, n in samples.counts.items() if not n]
    if missing:
        raise SamplesError(
            f"Classes without samples: {', '.join(missing)}. Label some, or remove the classes."
        )
    if samples.parts is None and samples.groups is None:
        few = [f"{name} ({n})" for name, n in present.items() if n < 2]
        if few:
            raise SamplesError(
                f"Classes with a single sample: {', '.join(few)}. Each class needs at least two, "
                f"one to learn from and one to validate on."
            )


def _check_sides(samples: Samples, split: Split) -> None:
    sides = {TRAINING: split.training, VALIDATION: split.validation, TEST: split.test}
    for side in (TRAINING, VALIDATION):
        if not len(sides[side]):
            raise SamplesError(f"There are no samples for {side}. Label more samples.")
    absent = set(range(len(samples.class_names))) - set(samples.labels[split.training].tolist())
    if absent:
        names = ", ".join(samples.class_names[i] for i in sorted(absent))
        raise SamplesError(
            f"No sample of {names} is left to learn from: all of them belong to groups that are "
            f"held back. Label this class in more images or places."
        )
    seen: dict[bytes, tuple[str, int]] = {}
    for side, members in sides.items():
        for i in members.tolist():
            digest = hash_of(samples.pixels[i])
            other = seen.setdefault(digest, (side, i))
            if other[0] != side:
                raise SamplesError(
                    f"The same patch is on two sides of the split: {samples.name_of(other[1])} "
                    f"({other[0]}) and {samples.name_of(i)} ({side}). Choose to leave copies out, "
                    f"remove one of them, or give both the same group."
                )
