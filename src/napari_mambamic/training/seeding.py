"""Random numbers that depend on the seed of a run and on nothing that came before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed torch for a while, and leave its random state as it was."""
    seed = int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "big")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
