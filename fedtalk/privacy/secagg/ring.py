"""The integers modulo 2**bits, held in the smallest unsigned numpy type that has room for them.

The word is wider than the ring (20 bits live in 32, say). Sums run in the word, where they wrap at a multiple of the
ring's modulus, and are reduced once at the end: additions carry upwards only, so the low bits are always right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtalk.errors import ConfigurationError

SMALLEST_RING_BITS = 2
LARGEST_RING_BITS = 62
"""One sign bit and one spare below 64, so that signed values and their sums fit int64."""


@dataclass(frozen=True)
class Ring:
    """The ring Z / 2**bits.

    >>> ring = Ring(20)
    >>> ring.to_signed(ring.reduce(ring.from_signed(np.array([-3, 7])) + ring.from_signed(np.array([1, 1]))))
    array([-2,  8])
    """

    bits: int
    """Width of the ring, 2 to 62."""

    def __post_init__(self) -> None:
        if not SMALLEST_RING_BITS <= self.bits <= LARGEST_RING_BITS:
            raise ConfigurationError(
                f"ring bits: expected {SMALLEST_RING_BITS} to {LARGEST_RING_BITS}, got {self.bits}; "
                "choose the width that `smallest_ring_bits` gives for the cohort"
            )

    @property
    def modulus(self) -> int:
        """2**bits."""
        return 1 << self.bits

    @property
    def word_bits(self) -> int:
        """16, 32 or 64: bits of the machine word that holds one element."""
        return 16 if self.bits <= 16 else 32 if self.bits <= 32 else 64

    @property
    def dtype(self) -> np.dtype:
        """Little-endian unsigned integer of `word_bits`."""
        return np.dtype(f"<u{self.word_bits // 8}")

    def reduce(self, values: np.ndarray) -> np.ndarray:
        """``values`` modulo 2**bits, in place; (…) of `dtype`."""
        np.bitwise_and(values, self.dtype.type(self.modulus - 1), out=values)
        return values

    def contains(self, values: np.ndarray) -> bool:
        """Whether every element of ``values`` (of `dtype`) is below the modulus."""
        return values.size == 0 or int(values.max()) < self.modulus

    def from_signed(self, values: np.ndarray) -> np.ndarray:
        """Integers (…) to their residues, of `dtype`."""
        return self.reduce(np.asarray(values, dtype=np.int64).astype(self.dtype))

    def to_signed(self, values: np.ndarray) -> np.ndarray:
        """Residues (…) to the integers in [-2**(bits-1), 2**(bits-1)), as int64."""
        signed = values.astype(np.int64)
        return np.where(signed >= self.modulus // 2, signed - self.modulus, signed)
