"""Shamir's secret sharing (Shamir, 1979) of 32-byte secrets over the prime field of p = 2**256 + 297.

The secret is the constant term of a polynomial of degree threshold - 1 whose other coefficients come from the operating
system; a share is its value at the holder's point 1, 2, 3, … Any ``threshold`` shares give the polynomial, fewer are
independent of the secret.
"""

from __future__ import annotations

import functools
import math
import secrets
from collections.abc import Mapping, Sequence

import numpy as np

PRIME = 2**256 + 297
"""The smallest prime above 2**256: every 32-byte secret is a field element."""
LARGEST_POINT = 2**31 - 1
"""Points are places on a roster."""
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, points: Sequence[int], threshold: int) -> dict[int, bytes]:
    """Share ``secret`` among the holders at ``points``.

    Args:
        secret: 32 bytes.
        points: distinct, 1 to `LARGEST_POINT`, one a holder.
        threshold: shares that are needed, 1 to ``len(points)``.

    Returns:
        The share of each point, 33 bytes, big-endian.

    Raises:
        ValueError: a size, point or threshold is out of its range.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"secret: expected {SECRET_BYTES} bytes, got {len(secret)}")
    _check_points(points)
    if not 1 <= threshold <= len(points):
        raise ValueError(f"threshold: expected 1 to {len(points)} (the number of holders), got {threshold}")
    coefficients = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    constant = int.from_bytes(secret, "big")
    shares = {}
    for point in points:
        value = 0
        for coefficient in coefficients:
            value = (value + coefficient) * point % PRIME
        shares[point] = ((value + constant) % PRIME).to_bytes(SHARE_BYTES, "big")
    return shares


def combine(shares: Mapping[int, bytes]) -> bytes | None:
    """The secret behind exactly ``threshold`` shares (a mapping point -> share), by interpolation at 0.

    Returns:
        32 bytes, or None where the shares give a field element that is no 32-byte secret, so can't belong together.
        Shares that don't belong together give another secret with overwhelming probability: the caller compares it with
        a commitment.

    Raises:
        ValueError: a point or share is out of its range.
    """
    points = list(shares)
    _check_points(points)
    values = [int.from_bytes(share, "big") for share in shares.values()]
    if any(value >= PRIME for value in values):
        raise ValueError("share: expected a field element, got a number of at least the prime")
    total = sum(value * weight for value, weight in zip(values, _weights(tuple(points)), strict=True))
    secret = total % PRIME
    return secret.to_bytes(SECRET_BYTES, "big") if secret < 1 << (8 * SECRET_BYTES) else None


@functools.lru_cache(maxsize=256)
def _weights(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's weights at 0, modulo the prime: w_i = prod_{j != i} x_j / (x_j - x_i) = X / D_i, with X = prod_j x_j and
    D_i = x_i prod_{j != i} (x_j - x_i). The same holders often open many secrets.

    Differences are multiplied in machine words as long as these hold them, and one modular inverse does for all D_i
    (Montgomery's trick), since an inverse costs as much as hundreds of products.
    """
    differences = np.array(points)[None] - np.array(points)[:, None]
    np.fill_diagonal(differences, points)
    at_once = 62 // max(points).bit_length()
    filled = np.pad(differences, ((0, 0), (0, -len(points) % at_once)), constant_values=1)
    factors = filled.reshape(len(points), -1, at_once).prod(axis=2)
    denominators = [math.prod(row) % PRIME for row in factors.tolist()]
    prefixes = [1]
    for denominator in denominators:
        prefixes.append(prefixes[-1] * denominator % PRIME)
    inverse = pow(prefixes[-1], -1, PRIME) * math.prod(points) % PRIME
    weights = []
    for denominator, prefix in zip(reversed(denominators), reversed(prefixes[:-1]), strict=True):
        weights.append(inverse * prefix % PRIME)
        inverse = inverse * denominator % PRIME
    return tuple(reversed(weights))


def _check_points(points: Sequence[int]) -> None:
    if not points or len(set(points)) != len(points) or not all(0 < point <= LARGEST_POINT for point in points):
        raise ValueError(
            f"points: expected distinct numbers from 1 to {LARGEST_POINT}, at least one, got {list(points)[:8]}"
        )
