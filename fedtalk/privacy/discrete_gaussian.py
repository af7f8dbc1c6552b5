"""Exact discrete Gaussian noise from the operating system's randomness, vectorised, in integer arithmetic only.

N_Z(0, sigma^2) gives the integer x with probability proportional to exp(-x^2 / (2 sigma^2)). Sampled by rejection from
a discrete Laplace distribution (Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS
2020, algorithms 1 to 3), so that no floating-point number is on the way and no coordinate has another distribution
than the stated one.

**Why it is exact, and fits 64 bits.** sigma is an integer, and the Laplace distribution's scale is sigma too. Each coin
has a rational probability n / m and is thrown as ``u < n`` for u uniform below m, itself drawn from 64-bit words with
those at or above the largest multiple of m refused. Where the paper needs a coin of exp(-g) with
g = (|y| - sigma)^2 / (2 sigma^2), the distance ||y| - sigma| = a sigma + b is cut into whole scales and a rest, and

    exp(-g) = exp(-1/2)^(a^2) * exp(-b/sigma)^a * exp(-(b/sigma)^2 / 2)

is thrown as independent coins, none of which has a numerator or denominator above K sigma, K being the number of
throws in algorithm 1 (its probability falls like 1/K!).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from fedtalk.errors import ConfigurationError

Entropy = Callable[[int], bytes]
"""Gives that many random bytes."""

LARGEST_DEVIATION = 2**48
"""Largest sigma: leaves 2**16 throws of algorithm 1 before a product could leave 64 bits."""

operating_system: Entropy = secrets.token_bytes
"""The only source of noise of a run that protects anybody."""


def insecure_entropy(seed: int, *purpose: int | str) -> Entropy:
    """A repeatable stream of bytes for tests; whoever knows the seed can subtract the noise."""
    key = hashlib.sha256(repr(("insecure noise", seed, *purpose)).encode()).digest()
    encryptor = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    return lambda size: encryptor.update(bytes(size))


def discrete_gaussian(deviation: int, count: int, entropy: Entropy = operating_system) -> np.ndarray:
    """Independent samples of N_Z(0, deviation^2).

    Args:
        deviation: sigma, an integer from 1 to 2**48.
        count: how many, 0 or more.
        entropy: where random bytes come from.

    Returns:
        (count,) int64.

    Raises:
        ConfigurationError: the deviation is out of range.
    """
    if not 1 <= deviation <= LARGEST_DEVIATION:
        raise ConfigurationError(f"noise deviation: expected 1 to 2**48 steps of the ring, got {deviation}")
    accepted = np.empty(count, np.int64)
    have = 0
    while have < count:
        # Three of four proposals are kept for large sigma; the rest comes in the next turn.
        drawn = _proposals_accepted(deviation, (count - have) * 7 // 5 + 8, entropy)[: count - have]
        accepted[have : have + len(drawn)] = drawn
        have += len(drawn)
    return accepted


def uniform_below(bound: int, count: int, entropy: Entropy) -> np.ndarray:
    """Independent uniform integers, (count,) uint64 in [0, bound); exact, by refusing the incomplete last multiple."""
    limit = (2**64 // bound) * bound
    words = _words(count, entropy)
    if limit < 2**64:
        refused = np.flatnonzero(words >= np.uint64(limit))
        while len(refused):
            words[refused] = _words(len(refused), entropy)
            refused = refused[words[refused] >= np.uint64(limit)]
    return words % np.uint64(bound)


def _words(count: int, entropy: Entropy) -> np.ndarray:
    return np.frombuffer(entropy(8 * count), "<u8").copy()


def _proposals_accepted(sigma: int, count: int, entropy: Entropy) -> np.ndarray:
    """Those of ``count`` discrete Laplace proposals that algorithm 3 accepts, as int64."""
    rest, scales, negative = _discrete_laplace(sigma, count, entropy)
    # |y| = rest + sigma * scales; its distance from sigma as whole * sigma + part.
    inside = scales == 0
    part = np.where(inside, (np.uint64(sigma) - rest) % np.uint64(sigma), rest)
    whole = np.where(inside, (rest == 0).astype(np.uint64), scales - np.uint64(1))
    keep = _half_square_coin(part, sigma, entropy)
    keep[keep] = _repeated(whole[keep] ** np.uint64(2), lambda which: _half_coin(len(which), entropy))
    alive = np.flatnonzero(keep)
    passed = _repeated(whole[alive], lambda which: _exponential_coin(part[alive[which]], sigma, entropy))
    alive = alive[passed]
    values = (rest[alive] + np.uint64(sigma) * scales[alive]).astype(np.int64)
    return np.where(negative[alive], -values, values)


def _discrete_laplace(scale: int, count: int, entropy: Entropy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Algorithm 2: probability proportional to exp(-|y| / scale), as |y| = rest + scale * scales with a sign.

    Of ``count`` attempts, those that succeed.
    """
    rest = uniform_below(scale, count, entropy)
    rest = rest[_exponential_coin(rest, scale, entropy)]
    scales = np.zeros(len(rest), np.uint64)
    going = np.arange(len(rest))
    while len(going):  # geometric: as many successes of exp(-1) as come before the first failure
        going = going[_exponential_coin(np.ones(len(going), np.uint64), 1, entropy)]
        scales[going] += np.uint64(1)
    negative = uniform_below(2, len(rest), entropy) == 1
    once = ~(negative & (rest == 0) & (scales == 0))  # or zero would be proposed twice as often
    return rest[once], scales[once], negative[once]


def _exponential_coin(numerator: np.ndarray, denominator: int, entropy: Entropy) -> np.ndarray:
    """Algorithm 1: True with probability exp(-numerator / denominator), numerator (n,) uint64 in [0, denominator]."""
    return _alternating(
        len(numerator),
        lambda which, throw: uniform_below(denominator * throw, len(which), entropy) < numerator[which],
    )


def _half_square_coin(numerator: np.ndarray, denominator: int, entropy: Entropy) -> np.ndarray:
    """True with probability exp(-(numerator / denominator)^2 / 2), numerator (n,) uint64 in [0, denominator)."""

    def throw_all(which: np.ndarray, throw: int) -> np.ndarray:
        hit = uniform_below(2 * throw, len(which), entropy) == 0
        for _ in range(2):
            hit[hit] = uniform_below(denominator, int(hit.sum()), entropy) < numerator[which[hit]]
        return hit

    return _alternating(len(numerator), throw_all)


def _half_coin(count: int, entropy: Entropy) -> np.ndarray:
    """True with probability exp(-1/2)."""
    return _exponential_coin(np.ones(count, np.uint64), 2, entropy)


def _alternating(count: int, coin: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """exp(-g) by its alternating series: the first K whose coin of g / K fails; True where K is odd."""
    odd = np.zeros(count, bool)
    going, throw = np.arange(count), 1
    while len(going):
        hit = coin(going, throw)
        odd[going[~hit]] = throw % 2 == 1
        going, throw = going[hit], throw + 1
    return odd


def _repeated(times: np.ndarray, coin: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """True where ``times[i]`` independent throws of coin i all succeed; none needed where it is 0."""
    passed = np.ones(len(times), bool)
    left = times.copy()
    going = np.flatnonzero(left)
    while len(going):
        hit = coin(going)
        passed[going[~hit]] = False
        left[going] -= np.uint64(1)
        going = going[hit & (left[going] > 0)]
    return passed
