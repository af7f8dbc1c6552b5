"""Several coordinates in one machine word, so that a mask is no longer than it need be and one addition adds them all.

With f = 64 // bits, coordinates x_1 … x_f of a group, signed, become the word x_1 + x_2 2**bits + x_3 2**(2 bits) + …, modulo
2**(f bits). That is linear: the sum of words is the word of the sums, whatever masks were added and taken away in between. And
as long as each sum lies in [-2**(bits-1), 2**(bits-1)), the word gives it back: the lowest field is the first sum, and what it
borrowed from the next is known. A sum outside of that interval comes out modulo 2**bits and takes with it the next
coordinate of its group, by as many units as it wrapped.

Group number i holds coordinates i, i + m, i + 2 m, … for m groups: fields are whole slices of the vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtalk.privacy.secagg.ring import Ring

WORD_BITS = 64
DTYPE = np.dtype("<u8")


@dataclass(frozen=True)
class Words:
    """The layout for vectors of ``dimension`` coordinates in a ring of ``bits``.

    >>> words = Words(4, 20)
    >>> vector = Ring(20).from_signed(np.array([-3, 7, 1, -2]))
    >>> Ring(20).to_signed(words.split(words.join(vector) + words.join(vector)))
    array([-6, 14,  2, -4])
    """

    dimension: int
    bits: int

    @property
    def fields(self) -> int:
        """Coordinates a word."""
        return WORD_BITS // self.bits

    @property
    def count(self) -> int:
        """Words a vector."""
        return -(-self.dimension // self.fields)

    @property
    def width(self) -> int:
        """Bits of a word that are used, 33 to 64: words count modulo 2**width."""
        return self.fields * self.bits

    def join(self, vector: np.ndarray) -> np.ndarray:
        """A vector (dimension,) of the ring's residues as (count,) words, uint64, right modulo 2**width."""
        words = np.zeros(self.count, dtype=DTYPE)
        half = DTYPE.type(1 << (self.bits - 1))
        for field in range(self.fields):
            part = vector[field * self.count : (field + 1) * self.count].astype(DTYPE)
            # The upper half of the residues are negative numbers.
            part -= (part & half) << DTYPE.type(1)
            words[: len(part)] += part << DTYPE.type(field * self.bits)
        return words

    def split(self, words: np.ndarray) -> np.ndarray:
        """(count,) words to the residues (dimension,), of the ring's dtype."""
        ring, bits = Ring(self.bits), DTYPE.type(self.bits)
        fields = np.empty((self.fields, self.count), dtype=ring.dtype)
        left = words
        for field in fields:
            residues = left & DTYPE.type(ring.modulus - 1)
            field[:] = residues
            left = (left >> bits) + (residues >> (bits - DTYPE.type(1)))  # a negative one had borrowed
        return fields.reshape(-1)[: self.dimension]
