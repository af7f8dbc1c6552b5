"""Named random streams: every draw comes from (seed, what it is for), so that no draw depends on the order of another."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive_seed(seed: int, *purpose: int | str) -> int:
    """A 63-bit seed for one purpose, for instance ``derive_seed(seed, "cohort", round)``.

    SHA-256 over the parts, so that streams of neighbouring seeds, rounds or clients are unrelated.

    >>> derive_seed(0, "cohort", 1) == derive_seed(0, "cohort", 1)
    True
    >>> derive_seed(0, "cohort", 1) == derive_seed(1, "cohort", 0)
    False
    """
    text = "\x1f".join([str(int(seed)), *(f"{type(part).__name__}:{part}" for part in purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *purpose: int | str) -> np.random.Generator:
    """A numpy generator for one purpose; see `derive_seed`."""
    return np.random.default_rng(derive_seed(seed, *purpose))


def torch_generator(seed: int, *purpose: int | str) -> torch.Generator:
    """A CPU torch generator for one purpose; see `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
