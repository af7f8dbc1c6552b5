"""Masks: the keystream of AES-256 in counter mode, read as little-endian words and added in the ring.

Expanding masks is nearly all the work of a round, so the keystream is drawn in blocks that stay in the processor's
second-level cache, into a buffer that is allocated once, and added there and then; nothing is reduced until the end.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK_BYTES = 1 << 17
"""Keystream drawn at once: buffer, zeros and accumulator together fit a cache of half a megabyte."""
_CIPHERS_AT_ONCE = 64
_AES_BLOCK = 16


@dataclass(frozen=True)
class Mask:
    """One mask: the stream of ``key`` (32 bytes, used for this mask only), added or subtracted."""

    key: bytes
    subtract: bool = False


def apply_masks(accumulator: np.ndarray, masks: Sequence[Mask], threads: int = 1) -> None:
    """Add every mask to ``accumulator``, in place, modulo the word's size.

    The result doesn't depend on ``threads``: a thread takes a range of coordinates and enters the stream there.

    Args:
        accumulator: (dimension,) contiguous, of the ring's dtype (2, 4 or 8 bytes a word, all of them masked).
        masks: what to add; each key gives the same stream whatever the dimension.
        threads: workers; the cipher lets others run meanwhile.
    """
    per_block = BLOCK_BYTES // accumulator.itemsize
    blocks = -(-len(accumulator) // per_block)
    threads = max(1, min(threads, blocks))
    edges = [blocks * part // threads * per_block for part in range(threads + 1)]
    ranges = list(zip(edges[:-1], edges[1:], strict=True))
    failures: list[BaseException] = []

    def work(start: int, stop: int) -> None:
        try:
            _apply_range(accumulator, masks, start, stop)
        except BaseException as failure:  # handed to the caller below: a thread's own exceptions go nowhere
            failures.append(failure)

    workers = [threading.Thread(target=work, args=part) for part in ranges[1:]]
    for worker in workers:
        worker.start()
    work(*ranges[0])
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]


def _apply_range(accumulator: np.ndarray, masks: Sequence[Mask], start: int, stop: int) -> None:
    """Add the masks to the coordinates from ``start`` (a multiple of the block) to ``stop`` or the end."""
    stop = min(stop, len(accumulator))
    per_block = BLOCK_BYTES // accumulator.itemsize
    zeros = memoryview(bytes(BLOCK_BYTES))
    buffer = np.empty(BLOCK_BYTES + _AES_BLOCK, dtype=np.uint8)  # update_into asks for a spare cipher block
    words = buffer[:BLOCK_BYTES].view(accumulator.dtype)
    counter = (start * accumulator.itemsize // _AES_BLOCK).to_bytes(_AES_BLOCK, "big")
    for first in range(0, len(masks), _CIPHERS_AT_ONCE):
        streams = [
            (Cipher(algorithms.AES256(mask.key), modes.CTR(counter)).encryptor(), np.subtract if mask.subtract else np.add)
            for mask in masks[first : first + _CIPHERS_AT_ONCE]
        ]
        for position in range(start, stop, per_block):
            part = accumulator[position : min(position + per_block, stop)]
            source, drawn = zeros[: part.nbytes], words[: len(part)]
            for stream, combine in streams:
                stream.update_into(source, buffer)
                combine(part, drawn, out=part)
