"""Words on the wire at the width that is used of them: 60 bits of 64 cost 60 bits.

Let w = 64 and g = gcd(width, w). Then w/g values fill exactly width/g machine words. The values are cut into w/g consecutive
segments of equal length m (the last one filled up with zeros), and value i of segment j takes the bits
[j*width, (j+1)*width) of the i-th group of machine words. Machine word number a of all groups lies together (a row), so that
packing and unpacking are shifts of whole rows, at the speed of memory. Machine words are little-endian.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fedtalk.machine import usable_cores
from fedtalk.privacy.secagg.words import DTYPE, WORD_BITS

AT_ONCE = 8
"""Vectors that are added together: their sums, larger than a cache, are read and written once for all of them."""
_BLOCK = 10_500
"""Most machine words that are added at once: with the sums that they go to they stay in the processor's second-level cache."""
_LEAST_BYTES_A_THREAD = 1 << 22
"""Packed bytes below which a thread costs more than it saves."""


def packed_bytes(count: int, width: int) -> int:
    """Bytes of ``count`` packed values: count * width / 8, up to one group more.

    >>> packed_bytes(333_334, 60)
    2500080
    """
    _, words, length = _layout(count, width)
    return words * length * WORD_BITS // 8


def pack(values: np.ndarray, width: int) -> bytes:
    """Values (count,), uint64, each below 2**width, as `packed_bytes` bytes."""
    segments, words, length = _layout(len(values), width)
    padded = np.zeros(segments * length, dtype=DTYPE)
    padded[: len(values)] = values
    packed = np.zeros((words, length), dtype=DTYPE)
    for index, segment in enumerate(padded.reshape(segments, length)):
        word, shift = divmod(index * width, WORD_BITS)
        packed[word] |= segment << DTYPE.type(shift)
        if shift + width > WORD_BITS:
            packed[word + 1] |= segment >> DTYPE.type(WORD_BITS - shift)
    return packed.tobytes()


class PackedSum:
    """The sum of packed values, taken without unpacking one: only what the layout makes unavoidable is done for each.

    The last few, up to `AT_ONCE`, wait to be added together, on all cores where they are long.

    A segment's low bits are its machine word shifted right. Bits of neighbouring segments come along above bit ``width``, where
    they can't carry downwards, and are left there. The high bits of a segment that straddles two machine words are the next
    one shifted left, and shifting left commutes with adding: there the machine words themselves are summed, once for all
    that need them.
    """

    def __init__(self, count: int, width: int) -> None:
        """
        Args:
            count: of the values.
            width: bits of each, 1 to 64; sums are taken modulo 2**width.
        """
        segments, self._words, self._length = _layout(count, width)
        self._count, self._width = count, width
        self._places = [divmod(index * width, WORD_BITS) for index in range(segments)]
        """(machine word, shift) at which each segment begins."""
        shifted = {place for place in self._places if place[1]}
        # Every machine word is somebody's beginning or somebody's end.
        self._sums = {
            place: np.zeros(self._length, dtype=DTYPE)
            for place in sorted(shifted | {(word, 0) for word in range(self._words)})
        }
        self._waiting: list[np.ndarray] = []
        self._pool: ThreadPoolExecutor | None = None
        """Threads beside the caller's, started with the first long vectors; they end with the sum."""

    def add(self, data: bytes | memoryview) -> None:
        """Add packed values, `packed_bytes` long, which must not change any more; the caller has checked the length."""
        self._waiting.append(np.frombuffer(data, dtype=DTYPE).reshape(self._words, self._length))
        if len(self._waiting) == AT_ONCE:
            self._add_waiting()

    def _add_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        work = sum(packed.nbytes for packed in waiting)
        threads = max(1, min(usable_cores(), work // _LEAST_BYTES_A_THREAD))
        count = threads * -(-self._length // (threads * _BLOCK))
        ends = [self._length * index // count for index in range(count + 1)]
        blocks = [slice(*pair) for pair in itertools.pairwise(ends)]
        if threads == 1:
            self._add_blocks(waiting, blocks)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(usable_cores(), "packed")
        started = [self._pool.submit(self._add_blocks, waiting, blocks[index::threads]) for index in range(1, threads)]
        self._add_blocks(waiting, blocks[::threads])
        for future in started:
            future.result()

    def _add_blocks(self, waiting: Sequence[np.ndarray], blocks: Sequence[slice]) -> None:
        """What is no other thread's: these blocks of every sum."""
        for block in blocks:
            part = np.empty(block.stop - block.start, dtype=DTYPE)
            for word, places in itertools.groupby(self._sums, key=lambda place: place[0]):
                sums = [(DTYPE.type(shift), self._sums[word, shift][block]) for _, shift in places]
                for packed in waiting:
                    drawn = packed[word, block]
                    for shift, into in sums:
                        np.add(into, np.right_shift(drawn, shift, out=part) if shift else drawn, out=into)

    def total(self) -> np.ndarray:
        """The sum so far, (count,) uint64, right in its lower ``width`` bits."""
        self._add_waiting()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        whole = np.empty((len(self._places), self._length), dtype=DTYPE)
        for segment, (word, shift) in zip(whole, self._places, strict=True):
            segment[:] = self._sums[word, shift]
            if shift + self._width > WORD_BITS:
                segment += self._sums[word + 1, 0] << DTYPE.type(WORD_BITS - shift)
        return whole.reshape(-1)[: self._count]


def unpack(data: bytes | memoryview, count: int, width: int) -> np.ndarray:
    """The values (count,), uint64, that `pack` packed."""
    packed_sum = PackedSum(count, width)
    packed_sum.add(data)
    return packed_sum.total() & DTYPE.type((1 << width) - 1)


def _layout(count: int, width: int) -> tuple[int, int, int]:
    """Segments, machine words a group, length of a segment."""
    common = math.gcd(width, WORD_BITS)
    segments = WORD_BITS // common
    return segments, width // common, -(-count // segments)
