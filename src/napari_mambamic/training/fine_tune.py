"""Training: from samples to weights.

Every step is seeded by the run's seed and its own number, so that a run which was interrupted, or
another run with the same seed, does the same on the same device.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

from napari_mambamic.devices import choose_device
from napari_mambamic.errors import TrainingError
from napari_mambamic.memory import freed_memory_kept
from napari_mambamic.progress import drained
from napari_mambamic.training.checkpoint import Checkpoint as Checkpoint
from napari_mambamic.training.config import TrainConfig as TrainConfig
from napari_mambamic.training.processes import Processes, is_first_process
from napari_mambamic.training.progress import TrainProgress as TrainProgress
from napari_mambamic.training.run import Run
from napari_mambamic.training.samples import Samples
from napari_mambamic.training.splits import split_samples


def fine_tune(
    samples: Samples,
    *,
    start: str | Path | None = "default",
    config: TrainConfig | None = None,
    folder: str | Path | None = None,
    on_epoch: Callable[[TrainProgress], object] | None = None,
) -> Checkpoint:
    """Train on samples.

    A script that ``accelerate launch`` or ``torchrun`` starts in several processes trains on as
    many GPUs: each batch is shared between them, and all return the same checkpoint.

    Parameters
    ----------
    samples : Samples
    start : str, path or None
        Weights to start from, by name or path; None trains ``config.network`` from scratch.
    config : TrainConfig, optional
    folder : path, optional
        Where the state is kept after each epoch; a run that was interrupted goes on from there.
    on_epoch : callable, optional
        Called after each epoch; of several processes, in the first.

    Raises
    ------
    SamplesError
        The samples cannot be split, or nothing can be learned from them.
    TrainingError
        The loss became infinite or not a number, or the folder holds another run.
    """
    run = iter_fine_tune(samples, start=start, config=config, folder=folder)
    epochs = 0

    def tell(progress: TrainProgress) -> None:
        nonlocal epochs
        if on_epoch is not None and len(progress.history) > epochs and is_first_process():
            epochs = len(progress.history)
            on_epoch(progress)

    return drained(run, tell)


def iter_fine_tune(
    samples: Samples,
    *,
    start: str | Path | None = "default",
    config: TrainConfig | None = None,
    folder: str | Path | None = None,
) -> Generator[TrainProgress, None, Checkpoint]:
    """Train one step at a time: what `fine_tune` drains.  Parameters as there."""
    config = config or TrainConfig()
    config.check()
    yield TrainProgress(0, 1, 0.0, "Splitting the samples")
    split = split_samples(
        samples,
        validation_share=config.validation_share,
        test_share=config.test_share,
        seed=config.seed,
    )
    processes = Processes.found(cpu=config.device == "cpu")
    if processes.count > min(config.batch_size, len(split.training)):
        raise TrainingError(
            f"{processes.count} processes share batches of "
            f"{min(config.batch_size, len(split.training))} samples. Choose larger batches, or "
            f"fewer processes."
        )
    choice = choose_device(processes.device or config.device)
    run = Run(samples, split, start, config, choice, processes)
    with freed_memory_kept():
        if config.mode == "head":
            return (yield from run.fit_head())
        if folder is not None:
            run.keep_in(Path(folder))
        return (yield from run.fit())
