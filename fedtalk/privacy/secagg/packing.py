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


def packed_bytes(dimension: int, bits: int) -> int:
    """Bytes of a packed vector of ``dimension`` coordinates: dimension * bits / 8, up to one group of words more.

    >>> packed_bytes(1_000_000, 20)
    2500000
    """
    _, words, length, ring = _layout(dimension, bits)
    return words * length * ring.word_bits // 8


def padded_dimension(dimension: int, bits: int) -> int:
    """Coordinates of the accumulator that `add_packed` needs, at least ``dimension``."""
    segments, _, length, _ = _layout(dimension, bits)
    return segments * length


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


def add_packed(accumulator: np.ndarray, data: bytes | memoryview, dimension: int, bits: int) -> None:
    """Add a packed vector to ``accumulator``, in place.

    The neighbours' bits that come along above bit ``bits`` are left there, since they can't carry downwards: whoever
    reads the accumulator reduces it first.

    Args:
        accumulator: (`padded_dimension`,) of the ring's dtype.
        data: `packed_bytes` bytes; the caller has checked the length.
        dimension: coordinates of the vector.
        bits: width of the ring.
    """
    segments, words, length, ring = _layout(dimension, bits)
    packed = np.frombuffer(data, dtype=ring.dtype).reshape(words, length)
    part = np.empty(length, dtype=ring.dtype)
    for index, segment in enumerate(accumulator.reshape(segments, length)):
        word, shift = divmod(index * bits, ring.word_bits)
        np.right_shift(packed[word], ring.dtype.type(shift), out=part)
        segment += part
        if shift + bits > ring.word_bits:
            np.left_shift(packed[word + 1], ring.dtype.type(ring.word_bits - shift), out=part)
            segment += part


def unpack(data: bytes | memoryview, dimension: int, bits: int) -> np.ndarray:
    """The vector (dimension,) that `pack` packed."""
    ring = Ring(bits)
    accumulator = np.zeros(padded_dimension(dimension, bits), dtype=ring.dtype)
    add_packed(accumulator, data, dimension, bits)
    return ring.reduce(accumulator[:dimension])


def _layout(dimension: int, bits: int) -> tuple[int, int, int, Ring]:
    """Segments, words a group, length of a segment, ring."""
    ring = Ring(bits)
    common = math.gcd(bits, ring.word_bits)
    segments = ring.word_bits // common
    return segments, bits // common, -(-dimension // segments), ring
