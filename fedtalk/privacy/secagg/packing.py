"""Ring vectors on the wire at the ring's true width: a 20-bit coordinate costs 20 bits.

Let w be the word's width and g = gcd(bits, w). Then w/g coordinates fill exactly bits/g words. The vector is cut into
w/g consecutive segments of equal length m (the last one filled up with zeros), and coordinate i of segment j takes the
bits [j*bits, (j+1)*bits) of the i-th group of words. Word number a of all groups lies together (a row), so that packing
and unpacking are shifts of whole rows, at the speed of memory. Words are little-endian.
"""

from __future__ import annotations

import math

import numpy as np

from fedtalk.privacy.secagg.ring import Ring

_BLOCK = 1 << 15
"""Words that are added at once: with the sums that they go to they stay in the processor's second-level cache."""


def packed_bytes(dimension: int, bits: int) -> int:
    """Bytes of a packed vector of ``dimension`` coordinates: dimension * bits / 8, up to one group of words more.

    >>> packed_bytes(1_000_000, 20)
    2500000
    """
    _, words, length, ring = _layout(dimension, bits)
    return words * length * ring.word_bits // 8


def pack(values: np.ndarray, bits: int) -> bytes:
    """A vector (dimension,) of ring elements, each below 2**bits, as `packed_bytes` bytes."""
    segments, words, length, ring = _layout(len(values), bits)
    padded = np.zeros(segments * length, dtype=ring.dtype)
    padded[: len(values)] = values
    packed = np.zeros((words, length), dtype=ring.dtype)
    for index, segment in enumerate(padded.reshape(segments, length)):
        word, shift = divmod(index * bits, ring.word_bits)
        packed[word] |= segment << ring.dtype.type(shift)
        if shift + bits > ring.word_bits:
            packed[word + 1] |= segment >> ring.dtype.type(ring.word_bits - shift)
    return packed.tobytes()


class PackedSum:
    """The sum of packed vectors, taken without unpacking one: only what the layout makes unavoidable is done for each.

    A segment's low bits are its word shifted right. Bits of neighbouring segments come along above bit ``bits``, where they
    can't carry downwards, and are left there. The high bits of a segment that straddles two words are the next word shifted
    left, and shifting left commutes with adding: there the words themselves are summed, once for all that need them.
    """

    def __init__(self, dimension: int, bits: int) -> None:
        """
        Args:
            dimension: coordinates of the vectors.
            bits: width of the ring.
        """
        segments, self._words, self._length, ring = _layout(dimension, bits)
        self._dimension, self._bits, self._ring = dimension, bits, ring
        self._places = [divmod(index * bits, ring.word_bits) for index in range(segments)]
        """(word, shift) at which each segment begins."""
        shifted = {place for place in self._places if place[1]}
        # Every word is somebody's beginning or somebody's end.
        self._sums = {
            place: np.zeros(self._length, dtype=ring.dtype)
            for place in sorted(shifted | {(word, 0) for word in range(self._words)})
        }

    def add(self, data: bytes | memoryview) -> None:
        """Add a packed vector, `packed_bytes` long; the caller has checked the length."""
        packed = np.frombuffer(data, dtype=self._ring.dtype).reshape(self._words, self._length)
        part = np.empty(min(self._length, _BLOCK), dtype=self._ring.dtype)
        for start in range(0, self._length, _BLOCK):
            block = slice(start, start + _BLOCK)
            for (word, shift), total in self._sums.items():
                drawn, into = packed[word, block], total[block]
                if shift:
                    drawn = np.right_shift(drawn, self._ring.dtype.type(shift), out=part[: len(drawn)])
                np.add(into, drawn, out=into)

    def total(self) -> np.ndarray:
        """The sum so far, (dimension,) of the ring's dtype, right in its lower ``bits`` bits: whoever reads it reduces it."""
        whole = np.empty((len(self._places), self._length), dtype=self._ring.dtype)
        for segment, (word, shift) in zip(whole, self._places, strict=True):
            segment[:] = self._sums[word, shift]
            if shift + self._bits > self._ring.word_bits:
                segment += self._sums[word + 1, 0] << self._ring.dtype.type(self._ring.word_bits - shift)
        return whole.reshape(-1)[: self._dimension]


def unpack(data: bytes | memoryview, dimension: int, bits: int) -> np.ndarray:
    """The vector (dimension,) that `pack` packed."""
    packed_sum = PackedSum(dimension, bits)
    packed_sum.add(data)
    return Ring(bits).reduce(packed_sum.total())


def _layout(dimension: int, bits: int) -> tuple[int, int, int, Ring]:
    """Segments, words a group, length of a segment, ring."""
    ring = Ring(bits)
    common = math.gcd(bits, ring.word_bits)
    segments = ring.word_bits // common
    return segments, bits // common, -(-dimension // segments), ring
