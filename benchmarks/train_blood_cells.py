"""Train MambaMIC on single blood cells: the run behind the bundled weights.

Data: ``pbc96.zip``, folders = classes, 13,669 RGB cells of 96 px (Acevedo et al., Data in Brief
2020, doi:10.1016/j.dib.2020.105474, CC BY 4.0).  Split: 85 % training, 15 % validation, stratified
by class, seed 20261121.  Nothing is chosen on the validation cells: the weights that are kept are
the running mean (EMA) after the last epoch.

    python benchmarks/train_blood_cells.py --data pbc96.zip --out runs/blood-cells-t

A run that was interrupted goes on where it was: call it again with the same ``--out``.
Glibc gives freed memory back to the system and asks for it again in every step unless
MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ are large: setting both to 4294967296 saves 10 %.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from skimage.io import imread
from torch.nn import functional

from napari_mambamic.networks import build_network
from napari_mambamic.training.augment import defocus
from napari_mambamic.weights.checkpoint import load_network
from napari_mambamic.weights.store import locate_weights

SPLIT_SEED = 20261121
VALIDATION_SHARE = 0.15
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def load_cells(path: Path) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Images (n, 96, 96, 3) uint8, labels (n,), class names and file names, in sorted order."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".jpg"))
        images = np.stack([imread(BytesIO(archive.read(n))) for n in names])
    folders = [n.split("/")[-2] for n in names]
    classes = sorted(set(folders))
    return images, np.array([classes.index(f) for f in folders]), classes, names


def split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training and validation cells, stratified by class."""
    rng = np.random.default_rng(SPLIT_SEED)
    validation = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        validation.append(members[: round(VALIDATION_SHARE * len(members))])
    held = np.sort(np.concatenate(validation))
    return np.setdiff1d(np.arange(len(labels)), held), held


def to_patches(images: torch.Tensor, size: int) -> torch.Tensor:
    """Normalised float32 patches of `size` px from uint8 images (n, y, x, 3)."""
    patches = images.permute(0, 3, 1, 2).float() / 255
    return normalise(functional.interpolate(patches, size, mode="bilinear", antialias=True))


def normalise(patches: torch.Tensor) -> torch.Tensor:
    """Subtract the mean and divide by the standard deviation of each channel."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (patches - mean) / std


def patch_sizes(plan: str) -> list[list[int]]:
    """The sizes that each epoch draws from.

    >>> patch_sizes("48:1,40-64:2")
    [[48], [40, 48, 56, 64], [40, 48, 56, 64]]
    """
    epochs = []
    for part in plan.split(","):
        sizes, count = part.split(":")
        first, _, last = sizes.partition("-")
        epochs += [list(range(int(first), int(last or first) + 1, 8))] * int(count)
    return epochs


def augment(images: torch.Tensor, size: int) -> torch.Tensor:
    """Turn, mirror, zoom, shift and recolour each cell, at its own size, then resample."""
    n = len(images)
    angle = torch.rand(n) * 2 * math.pi
    zoom = torch.exp((torch.rand(n) - 0.5) * 2 * math.log(1.2))
    mirror = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    shift = (torch.rand(n, 2) - 0.5) * 0.16
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack(
        [
            torch.stack([cos * mirror, -sin, shift[:, 0]], dim=1),
            torch.stack([sin * mirror, cos, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, [n, 3, *images.shape[1:3]], align_corners=False)
    patches = functional.grid_sample(
        images.permute(0, 3, 1, 2).float() / 255,
        grid,
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )
    patches = functional.interpolate(patches, size, mode="bilinear", antialias=True)

    def around_one(strength: float, channels: int = 1) -> torch.Tensor:
        return 1 + (torch.rand(n, channels, 1, 1) * 2 - 1) * strength

    # Light (one gain), stain and white balance (a gain and a gamma per channel), contrast.
    mean = patches.mean(dim=(2, 3), keepdim=True)
    patches = (patches - mean) * around_one(0.15) + mean
    patches = patches.clamp(1e-3, 1) ** around_one(0.15, 3) * around_one(0.12) * around_one(0.05, 3)
    return normalise(defocus(patches.clamp(0, 1)))


def without_copies_of_held(
    images: np.ndarray, training: np.ndarray, held: np.ndarray
) -> np.ndarray:
    """The training cells of which no copy is held back (some images are in the set twice)."""
    seen = {images[i].tobytes() for i in held}
    return np.array([i for i in training if images[i].tobytes() not in seen])


def parameter_groups(network: torch.nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """No weight decay on vectors, on the state matrix and on the skip of the scan."""
    free, decayed = [], []
    for name, parameter in network.named_parameters():
        small = parameter.ndim < 2 or name.split(".")[-1] in ("a_log", "skip", "dt_bias")
        (free if small else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


@torch.no_grad()
def predict(network: torch.nn.Module, images: torch.Tensor, size: int) -> torch.Tensor:
    """Logits of uint8 images."""
    network.eval()
    batches = [network(to_patches(part, size)) for part in images.split(64)]
    network.train()
    return torch.cat(batches)


def save_atomically(state: dict[str, object], path: Path) -> None:
    """Write a checkpoint beside its place, then move it there."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def main() -> None:
    """Train, or go on training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", default="mambamic-t")
    parser.add_argument("--start", help="weights to go on from: a name, or a file")
    parser.add_argument(
        "--sizes",
        default="48:2,40-64:14,64:16",
        help="patch size:epochs, in turn; 40-64 draws 40, 48, 56 or 64 per batch",
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)

    images, labels, classes, _ = load_cells(args.data)
    training, validation = split(labels)
    training = without_copies_of_held(images, training, validation)
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    plan = patch_sizes(args.sizes)
    steps_per_epoch = len(training) // args.batch
    total = steps_per_epoch * len(plan)

    torch.manual_seed(args.seed)
    network = build_network(args.network, n_classes=len(classes))
    if args.start:
        network.load_state_dict(load_network(locate_weights(args.start))[0].state_dict())
    average = build_network(args.network, n_classes=len(classes))
    average.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(parameter_groups(network, 0.05), lr=args.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, args.rate, total_steps=total + 1, pct_start=0.15, final_div_factor=1e3
    )
    step, seconds = 0, 0.0
    last = args.out / "last.pt"
    if last.exists():
        state = torch.load(last, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        step, seconds = state["step"], state["seconds"]

    def save() -> None:
        save_atomically(
            {
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "step": step,
                "seconds": seconds,
                "classes": classes,
                "arguments": {k: str(v) for k, v in vars(args).items() if k not in ("data", "out")},
            },
            last,
        )

    losses: list[float] = []
    network.train()
    begin = saved = time.perf_counter()
    while step < total:
        epoch, within = divmod(step, steps_per_epoch)
        # Order and augmentation depend on seed and step alone, so a resumed run does the same.
        order = np.random.default_rng([args.seed, epoch]).permutation(training)
        torch.manual_seed(args.seed * 1_000_003 + step)
        chosen = torch.from_numpy(order[within * args.batch : (within + 1) * args.batch])
        size = int(np.random.default_rng([args.seed, step, 1]).choice(plan[epoch]))
        patches = augment(images[chosen], size)
        loss = functional.cross_entropy(network(patches), labels[chosen], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        step += 1
        losses.append(loss.item())
        decay = min(args.ema, step / (step + 10))
        with torch.no_grad():
            for kept, new in zip(
                average.state_dict().values(), network.state_dict().values(), strict=True
            ):
                if kept.is_floating_point():
                    kept.lerp_(new, 1 - decay)
                else:
                    kept.copy_(new)
        now = time.perf_counter()
        ends = step % steps_per_epoch == 0
        if ends or now - saved > 120:
            seconds, begin, saved = seconds + now - begin, now, now
            save()
        if ends:
            logits = predict(average, images[validation], plan[-1][-1])
            right = (logits.argmax(1) == labels[validation]).float()
            recalls = [right[labels[validation] == c].mean().item() for c in range(len(classes))]
            line = {
                "epoch": epoch + 1,
                "patch_sizes": plan[epoch],
                "loss": round(sum(losses) / len(losses), 4),
                "validation_accuracy": round(right.mean().item(), 5),
                "validation_balanced_accuracy": round(sum(recalls) / len(recalls), 5),
                "rate": round(schedule.get_last_lr()[0], 7),
                "training_seconds": round(seconds),
            }
            losses.clear()
            with open(args.out / "log.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
            print(line, flush=True)
            begin = time.perf_counter()


if __name__ == "__main__":
    main()
