"""The mechanism that the ledger accounts for: vectors of a norm bound, noise in the ring, a sum of constant variance.

**Vectors.** In units of the clipping bound C, client k contributes

    u_k = (a_k clip(delta_k, C) / C,  a_k,  c (b_k - 1/2))

a_k in (0, 1] its own ISFA weight, b_k whether it was within the bound (adaptive clipping only). ||u_k|| <= B with
B^2 = 2 + (c/2)^2: sqrt(2) for update and weight. Adding or removing a client changes the sum by one u_k, so B is the
sum's L2 sensitivity, and `FixedPoint` keeps it in the ring: B/step integers. The noise is isotropic with deviation
z B / step, z the noise multiplier that the ledger accounts for. The count sees deviation sigma_b = z B / c, the updates
z B / sqrt(2) = z_delta (`update_multiplier`); c is what makes the two agree.

**Who adds the noise.** `central`: the aggregator, to the opened sum. `distributed`: each client adds a share before it
is masked. For a cohort of n the shares are sized such that the fewest survivors that the round may have, less those who
may collude with the server and know their own shares, reach the whole variance V together. So neither dropout nor
collusion within the assumptions takes anything away. With more survivors the sum would carry more noise, and an
observer could tell from its level how many took part, which Poisson accounting does not allow for: so the server
tops the noise up to one constant variance, the largest that any cohort's shares come to. The accounted V is below it.

**Why Gaussian accounting is right for integer noise.** Let eta = 2 steps and epsilon_eta = 2 exp(-2 pi^2 eta^2) = 1e-34.
By Poisson summation, sum_z exp(-(z-y)^2 / (2 eta^2)) is the same for every real y within a factor 1 +- epsilon_eta. So
rounding a continuous Gaussian of variance V - eta^2 around an integer to the lattice by a discrete Gaussian kernel of
deviation eta gives N_Z of variance V, each probability within that factor: the integer mechanism is a post-processing,
free of charge, of the continuous one with V - eta^2, Poisson sampling included. Hence V = (z B / step)^2 + eta^2. A
sum of n discrete Gaussians of deviation s is one of variance n s^2 within exp(tau) a coordinate, tau = 10 sum_{k<n}
exp(-2 pi^2 s^2 k/(k+1)), at most 10 n exp(-pi^2 s^2) (Kairouz, Liu and Steinke, ICML 2021, on sums of discrete
Gaussians). Both factors, for all coordinates (`slack`), are added up when the configuration is read, and refused above
1e-12 a round; at the usual 16 bits a share's s is above ten thousand and the slack some 1e-28.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.discrete_gaussian import Entropy, discrete_gaussian
from fedtalk.privacy.fixed_point import FixedPoint, noise_tail, smallest_ring_bits
from fedtalk.privacy.secagg.ring import LARGEST_RING_BITS
from fedtalk.privacy.secagg.settings import AggregationSettings

SMOOTHING = 2
"""eta, in steps of the ring."""
LARGEST_SLACK = 1e-12
"""Largest addition to a round's epsilon that is left out of the accounts."""
SMALLEST_TOP_UP = 24
"""From here on every integer is a sum of squares of integers that are 2 or more."""
UNITS_BOUND = math.sqrt(2.0)
"""||(a clip(delta, C) / C, a)|| for a <= 1."""


@dataclass(frozen=True)
class Noise:
    """How much noise a round has, and who adds it."""

    multiplier: float
    """z, relative to the vectors' norm bound."""
    distributed: bool
    """Whether clients add it, in shares."""


@dataclass(frozen=True)
class Mechanism:
    """How vectors become a noised sum; the same on both sides, fixed for a run."""

    dimension: int
    """Coordinates of a vector: update, weight, count."""
    norm_bound: float
    """B."""
    fewest: int
    """Smallest cohort of a round that isn't void."""
    clients: int
    """Largest cohort: all who are registered."""
    protocol: AggregationSettings
    """Whose assumptions say how few survive and how many collude."""
    noise: Noise | None = None
    coordinate_bits: int = 16
    ring_bits: int | None = None
    """Width of the ring; the narrowest that can't overflow by default."""

    def __post_init__(self) -> None:
        if self.noise is not None and self.slack > LARGEST_SLACK:
            raise ConfigurationError(
                f"privacy.coordinate_bits: expected a step that is fine beside the noise (what its roundness adds to "
                f"epsilon at most {LARGEST_SLACK:g}), got {self.slack:g} with {self.coordinate_bits} bits. Use more."
            )
        _ = self.fixed_point  # proves that no sum can wrap around, or raises

    @cached_property
    def fixed_point(self) -> FixedPoint:
        """The encoding, in a ring that has room for every cohort and its noise."""
        deviation = math.sqrt(self.released_variance)
        tail = noise_tail(deviation, self.dimension)
        bits = self.ring_bits or min(
            LARGEST_RING_BITS, smallest_ring_bits(self.clients, self._largest_encoding.largest, tail)
        )
        return FixedPoint(
            self.dimension, self.norm_bound, self.clients, bits, self.coordinate_bits, deviation * self.step
        )

    @cached_property
    def _largest_encoding(self) -> FixedPoint:
        """The encoding without regard to noise, for its step."""
        return FixedPoint(self.dimension, self.norm_bound, self.clients, LARGEST_RING_BITS, self.coordinate_bits)

    @property
    def step(self) -> float:
        """Value of one unit of the ring, in units of the vectors."""
        return self._largest_encoding.step

    @property
    def accounted_variance(self) -> int:
        """V = (z B / step)^2 + eta^2, rounded up, in steps^2; 0 without noise."""
        if self.noise is None:
            return 0
        return math.ceil((self.noise.multiplier * self.norm_bound / self.step) ** 2) + SMOOTHING**2

    def fewest_honest(self, cohort: int) -> int:
        """Fewest survivors of ``cohort`` clients that don't collude."""
        return self.protocol.survivors_needed(cohort) - self.protocol.assumptions.colluding(cohort)

    def share_deviation(self, cohort: int) -> int:
        """sigma of one client's share in a cohort of that size, in steps: the fewest honest ones reach V together."""
        return _square_root_up(math.ceil(self.accounted_variance / self.fewest_honest(cohort)))

    @cached_property
    def released_variance(self) -> int:
        """Variance of a coordinate of every opened sum once noised, in steps^2, whoever took part."""
        if self.noise is None:
            return 0
        if not self.noise.distributed:
            return _square_root_up(self.accounted_variance) ** 2
        most = max(cohort * self.share_deviation(cohort) ** 2 for cohort in range(self.fewest, self.clients + 1))
        return most + SMALLEST_TOP_UP

    @property
    def released_deviation(self) -> float:
        """Standard deviation of a coordinate of the decoded sum, in units of the vectors."""
        return math.sqrt(self.released_variance) * self.fixed_point.step / self.fixed_point.kappa

    def client_deviations(self, cohort: int) -> Sequence[int]:
        """Deviations of the discrete Gaussians that a client adds, in steps."""
        return [self.share_deviation(cohort)] if self.noise is not None and self.noise.distributed else []

    def server_deviations(self, cohort: int, survivors: int) -> Sequence[int]:
        """Deviations of the discrete Gaussians that the server adds to the opened sum, in steps.

        All of the noise where it is central; else what is missing from the constant variance.
        """
        if self.noise is None:
            return []
        if not self.noise.distributed:
            return [math.isqrt(self.released_variance)]
        return squares(self.released_variance - survivors * self.share_deviation(cohort) ** 2)

    @property
    def slack(self) -> float:
        """What a round's epsilon exceeds that of the continuous Gaussian by, at most."""
        if self.noise is None:
            return 0.0
        # 4 factors of 1 +- epsilon_eta in a ratio of probabilities; at most 12 further terms that deviate by 2 or more.
        rounding = (4 * 2.001 + 2 * 10 * 12) * math.exp(-2 * (math.pi * SMOOTHING) ** 2)
        summing = 0.0
        if self.noise.distributed:
            smallest = min(self.share_deviation(cohort) for cohort in range(self.fewest, self.clients + 1))
            summing = 2 * 10 * self.clients * math.exp(-((math.pi * smallest) ** 2))
        return self.dimension * (rounding + summing)

    def draw(self, deviations: Sequence[int], entropy: Entropy) -> np.ndarray:
        """The sum of one discrete Gaussian vector for each deviation, (dimension,) int64."""
        total = np.zeros(self.dimension, np.int64)
        for deviation in deviations:
            total += discrete_gaussian(deviation, self.dimension, entropy)
        return total


def squares(value: int) -> list[int]:
    """Integers of 2 or more whose squares sum to ``value``, which is at least 24; a handful, largest first.

    >>> squares(1_000_003)
    [999, 44, 6, 3, 3, 2, 2, 2]
    """
    roots = []
    while value >= 144:
        root = math.isqrt(value)
        while 0 < value - root**2 < SMALLEST_TOP_UP:
            root -= 1
        roots.append(root)
        value -= root**2
    if value:
        threes = value % 4  # 9 is 1 modulo 4
        roots += [3] * threes
        fours = (value - 9 * threes) // 4
        while fours:
            roots.append(2 * math.isqrt(fours))
            fours -= math.isqrt(fours) ** 2
    return sorted(roots, reverse=True)


def _square_root_up(value: int) -> int:
    root = math.isqrt(value)
    return root if root * root == value else root + 1
