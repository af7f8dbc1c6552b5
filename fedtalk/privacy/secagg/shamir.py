"""Shamir's secret sharing (Shamir, 1979) of 32-byte secrets over the prime field of p = 2**256 + 297.

The secret is the constant term of a polynomial of degree threshold - 1 whose other coefficients come from the operating
system; a share is its value at the holder's point 1, 2, 3, … Any ``threshold`` shares give the polynomial, fewer are
independent of the secret.
"""

from __future__ import annotations

import functools
import math
import operator
import secrets
from collections.abc import Mapping, Sequence

import numpy as np

PRIME = 2**256 + 297
"""The smallest prime above 2**256: every 32-byte secret is a field element."""
LARGEST_POINT = 2**20
"""Points are places among a client's neighbours."""
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
    if max(values) >= PRIME:
        raise ValueError("share: expected a field element, got a number of at least the prime")
    weights, common = _weights(tuple(points))
    total = sum(map(operator.mul, values, weights))
    secret = total * common % PRIME
    return secret.to_bytes(SECRET_BYTES, "big") if secret < 1 << (8 * SECRET_BYTES) else None


@functools.lru_cache(maxsize=256)
def _weights(points: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Lagrange's weights at 0, but for a factor that they have in common: integers, and the factor modulo the prime.

    For all points 1 to n the weight of i is (-1)**(i - 1) C(n, i), an integer; each point m that is missing multiplies it by
    (m - i) / m. The first holders of many are nearly all there, so these are few. Differences are multiplied in machine words as
    long as these hold them. The same holders often open many secrets.
    """
    largest = max(points)
    missing = sorted(set(range(1, largest + 1)).difference(points))
    at_once = 62 // largest.bit_length()
    differences = np.ones((len(points), at_once * max(1, -(-len(missing) // at_once))), dtype=np.int64)
    differences[:, : len(missing)] = np.array(missing, dtype=np.int64) - np.array(points)[:, None]
    factors = differences.reshape(len(points), -1, at_once).prod(axis=2)
    weights = tuple(
        math.prod(row) * math.comb(largest, point) * (1 if point % 2 else -1)
        for point, row in zip(points, factors.tolist(), strict=True)
    )
    return weights, pow(math.prod(missing), -1, PRIME)


def _check_points(points: Sequence[int]) -> None:
    if not points or len(set(points)) != len(points) or not 0 < min(points) <= max(points) <= LARGEST_POINT:
        raise ValueError(
            f"points: expected distinct numbers from 1 to {LARGEST_POINT}, at least one, got {list(points)[:8]}"
        )
