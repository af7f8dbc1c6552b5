"""A public random rotation that spreads a vector's energy evenly over its coordinates.

Signed Walsh-Hadamard transforms (Ailon and Chazelle, 2006), without padding: with b the largest power of two up to the
dimension d, the first transform takes the first b coordinates, the second, with its own signs, the last b. Both are
orthogonal, together they reach every coordinate, and the vector stays d long (padding to a power of two would nearly
double the traffic at worst).
"""

from __future__ import annotations

import math

import numpy as np

from fedtalk.randomness import numpy_generator

_FACTOR_BITS = 4


def walsh_hadamard(values: np.ndarray) -> np.ndarray:
    """The orthonormal Walsh-Hadamard transform of a float64 vector (2**k,), its own inverse.

    >>> walsh_hadamard(np.array([1.0, 0.0, 0.0, 0.0]))
    array([0.5, 0.5, 0.5, 0.5])

    The Hadamard matrix of order 2**k is a Kronecker product of smaller ones, each of which is applied to one axis
    of the reshaped vector as a matrix product: k/4 passes over memory in place of k.
    """
    size = values.size
    bits = max(size.bit_length() - 1, 0)
    if values.ndim != 1 or size != 1 << bits:
        raise ValueError(f"Walsh-Hadamard transform: expected a vector of 2**k numbers, got shape {values.shape}")
    left = 1
    transformed = values
    while bits:
        factor_bits = min(bits, _FACTOR_BITS)
        bits -= factor_bits
        matrix = _hadamard(factor_bits)
        right = 1 << bits
        if right == 1:
            transformed = transformed.reshape(left, len(matrix)) @ matrix
        else:
            transformed = matrix @ transformed.reshape(left, len(matrix), right)
        left *= len(matrix)
    return transformed.reshape(size)


def largest_coordinate(dimension: int, norm: float, probability: float) -> float:
    """What all rotated coordinates of a vector of the given norm stay within, except with ``probability``.

    A rotated coordinate is a sum of +-u_i / sqrt(b) over at most b coordinates with independent signs, so that by
    Hoeffding P[|y_i| > t] <= 2 exp(-t**2 b / (2 ||u||**2)); then the union over the coordinates. Never above the norm.
    """
    block = 1 << (dimension.bit_length() - 1)
    return norm * min(1.0, math.sqrt(2 * math.log(2 * dimension / probability) / block))


class Rotation:
    """The rotation of one round."""

    def __init__(self, dimension: int, seed: int) -> None:
        """
        Args:
            dimension: of the vectors, at least 1.
            seed: public; new each round, and drawn without regard to the vectors.
        """
        self._block = 1 << (dimension.bit_length() - 1)
        parts = ["first", "last"] if self._block < dimension else ["first"]
        self._blocks = [
            (
                slice(0, self._block) if part == "first" else slice(dimension - self._block, dimension),
                numpy_generator(seed, "rotation", part).choice(np.array([-1.0, 1.0]), self._block),
            )
            for part in parts
        ]

    def forward(self, vector: np.ndarray) -> np.ndarray:
        """The rotated vector, (dimension,) float64."""
        rotated = np.array(vector, dtype=np.float64)
        for block, signs in self._blocks:
            rotated[block] = walsh_hadamard(rotated[block] * signs)
        return rotated

    def inverse(self, vector: np.ndarray) -> np.ndarray:
        """The vector that `forward` rotated, (dimension,) float64."""
        restored = np.array(vector, dtype=np.float64)
        for block, signs in reversed(self._blocks):
            restored[block] = walsh_hadamard(restored[block]) * signs
        return restored


def _hadamard(bits: int) -> np.ndarray:
    """The orthonormal Hadamard matrix of order 2**bits (Sylvester)."""
    matrix = np.ones((1, 1))
    for _ in range(bits):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]]) / math.sqrt(2)
    return matrix
