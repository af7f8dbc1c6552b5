"""Masks: the keystream of AES-256 in counter mode, read as little-endian words and added in the ring.

Expanding masks is nearly all the work of a round. Keystream is drawn in blocks that stay in the processor's second-level
cache, into a buffer that is allocated once, and added there and then; nothing is reduced until the end. Cipher and
addition leave Python's lock, so threads share the masks out: each adds up by itself what it takes, and the parts are added at
the end. Sums of integers do not depend on their order.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedtalk.machine import usable_cores

BLOCK_BYTES = 1 << 17
"""Keystream drawn at once: buffer, zeros and accumulator together fit a cache of half a megabyte."""
LEAST_BYTES_A_THREAD = 1 << 25
"""Keystream below which a thread costs more than it saves: some five milliseconds of cipher."""
_CIPHERS_AT_ONCE = 64
_AES_BLOCK = 16


@dataclass(frozen=True)
class Mask:
    """One mask: the stream of ``key`` (32 bytes, used for this mask only), added or subtracted."""

    key: bytes
    subtract: bool = False


def apply_masks(accumulator: np.ndarray, masks: Iterable[Mask], count: int, threads: int | None = None) -> None:
    """Add every mask to ``accumulator``, in place, modulo the word's size.

    Args:
        accumulator: (words,) contiguous, unsigned integers of 2, 4 or 8 bytes, all of them masked.
        masks: what to add; each key gives the same stream whatever the number of words. Taken as they are needed, by one
            thread at a time: where keys are derived on the way, the other threads expand meanwhile.
        count: of the masks.
        threads: that share the masks out, each with an accumulator of its own; by default as many as this process may
            use cores, where the masks are worth it.
    """
    if threads is None:
        threads = max(1, min(usable_cores(), count * accumulator.nbytes // LEAST_BYTES_A_THREAD))
    take = _Taker(masks, max(1, min(_CIPHERS_AT_ONCE, count // threads)))
    if threads == 1:
        _add_streams(accumulator, take)
        return
    parts = [np.zeros_like(accumulator) for _ in range(threads - 1)]
    with ThreadPoolExecutor(threads - 1, "masks") as pool:
        started = [pool.submit(_add_streams, part, take) for part in parts]
        _add_streams(accumulator, take)
        for part, future in zip(parts, started, strict=True):
            future.result()
            accumulator += part


class _Taker:
    """Hands out masks, some at a time, to whichever thread asks."""

    def __init__(self, masks: Iterable[Mask], at_once: int) -> None:
        self._masks, self._at_once, self._lock = iter(masks), at_once, threading.Lock()

    def __call__(self) -> list[Mask]:
        with self._lock:
            return list(itertools.islice(self._masks, self._at_once))


def _add_streams(accumulator: np.ndarray, take: Callable[[], list[Mask]]) -> None:
    per_block = BLOCK_BYTES // accumulator.itemsize
    zeros = memoryview(bytes(BLOCK_BYTES))
    buffer = np.empty(BLOCK_BYTES + _AES_BLOCK, dtype=np.uint8)  # update_into asks for a spare cipher block
    target = buffer.data
    words = buffer[:BLOCK_BYTES].view(accumulator.dtype)
    while masks := take():
        streams = [
            (
                Cipher(algorithms.AES256(mask.key), modes.CTR(bytes(_AES_BLOCK))).encryptor(),
                np.subtract if mask.subtract else np.add,
            )
            for mask in masks
        ]
        for start in range(0, len(accumulator), per_block):
            part = accumulator[start : start + per_block]
            source, drawn = zeros[: part.nbytes], words[: len(part)]
            for stream, combine in streams:
                stream.update_into(source, target)
                combine(part, drawn, out=part)
