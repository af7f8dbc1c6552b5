"""Real vectors to a ring of integers and back: rotate, round, and prove beforehand that no sum can wrap around.

A client's vector u with ||u|| <= C (its weight applied already) goes through

1. a public random rotation R, which spreads its energy evenly: every coordinate of R u is about C / sqrt(d);
2. scaling by kappa / step, kappa a public constant a little below 1;
3. unbiased rounding to integers q, drawn again until ||q|| <= C / step, counted in integers. So E[q] =
   (kappa / step) R u but for the conditioning, which a draw meets with probability 1 - `REDRAW_PROBABILITY` or more;
4. limiting each coordinate to +-largest, which can only lower the norm; the rotation makes it a rare event
   (`LIMIT_PROBABILITY`).

So ||step * q|| <= C always, and the L2 sensitivity of the sum is what it was before rounding. The sum of the ring
elements, read as signed integers, goes back by step / kappa and the inverse rotation.

kappa: for stochastic rounding of x to q in d dimensions, always ||q|| <= ||x|| + sqrt(d), and with probability 1 - beta
or more (Kairouz, Liu and Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure
Aggregation", ICML 2021, on conditional rounding)

    ||q||^2 <= ||x||^2 + d/4 + sqrt(2 ln(1/beta)) (||x|| + sqrt(d)/2).

kappa is the largest scale for which either keeps ||q|| within C / step. Where the step is so coarse that the
rounding noise sqrt(d)/2 fills the bound, there is none, and the settings are refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.secagg.ring import Ring
from fedtalk.privacy.secagg.rotation import Rotation, largest_coordinate

LIMIT_PROBABILITY = 1e-9
"""Bound on the probability, over the rotation, that any coordinate of a client's vector has to be limited."""
REDRAW_PROBABILITY = 1e-6
"""beta: bound on the probability that the rounding of a vector at the norm bound is drawn again."""
_DRAWS = 16
SMALLEST_COORDINATE_BITS, LARGEST_COORDINATE_BITS = 4, 32
"""With fewer bits the rounding noise takes up the norm bound; with more, squared norms don't fit 64 bits."""


def check_no_overflow(clients: int, largest: int, noise_tail: int, bits: int) -> None:
    """Prove that a sum can't wrap: ``clients * largest + noise_tail < 2**(bits - 1)``.

    Args:
        clients: most vectors in one sum.
        largest: largest absolute value of a coordinate, an integer.
        noise_tail: what the noise of the sum stays within (`noise_tail`), 0 without noise.
        bits: width of the ring.

    Raises:
        ConfigurationError: it could wrap; the message gives the numbers and the width that is enough.
    """
    needed = smallest_ring_bits(clients, largest, noise_tail)
    if bits < needed:
        raise ConfigurationError(
            f"ring bits: expected clients * largest coordinate + noise tail < 2**(bits - 1), got {clients} * {largest} "
            f"+ {noise_tail} = {clients * largest + noise_tail} >= 2**{bits - 1} = {2 ** (bits - 1)}: the sum could "
            f"wrap around. Use at least {needed} bits, or fewer coordinate_bits."
        )


def smallest_ring_bits(clients: int, largest: int, noise_tail: int = 0) -> int:
    """The narrowest ring in which the sum can't wrap; arguments as in `check_no_overflow`.

    >>> smallest_ring_bits(clients=10, largest=2**15 - 1)
    20
    """
    if clients < 1 or largest < 1 or noise_tail < 0:
        raise ConfigurationError(
            "overflow check: expected clients and largest coordinate of at least 1 and a noise tail of at least 0, got "
            f"{clients}, {largest}, {noise_tail}"
        )
    return (clients * largest + noise_tail).bit_length() + 1


def noise_tail(standard_deviation: float, dimension: int, probability: float = 2.0**-40) -> int:
    """What all coordinates of the summed noise stay within, except with ``probability`` a round.

    For noise that is sub-Gaussian with its standard deviation, as discrete Gaussians and their sums are (Canonne,
    Kamath and Steinke, 2020): sigma sqrt(2 ln(2 d / probability)), rounded up.

    Args:
        standard_deviation: of one coordinate of the sum's noise, all clients' shares together, in steps of the ring.
        dimension: coordinates.
        probability: of any coordinate lying outside.
    """
    if standard_deviation < 0 or dimension < 1 or not 0 < probability < 1:
        raise ConfigurationError(
            "noise tail: expected a standard deviation of at least 0, a dimension of at least 1 and a probability in "
            f"(0, 1), got {standard_deviation}, {dimension}, {probability}"
        )
    return math.ceil(standard_deviation * math.sqrt(2 * math.log(2 * dimension / probability)))


@dataclass(frozen=True)
class FixedPoint:
    """Vectors of a norm bound as integers of a ring, for a number of clients whose sum can't wrap.

    >>> fixed_point = FixedPoint(dimension=3, norm_bound=1.0, clients=10, bits=20)
    >>> rotation = fixed_point.rotation(seed=5)
    >>> ring_vector = fixed_point.encode(np.array([0.5, -0.25, 0.0]), rotation, np.random.default_rng(0))
    >>> np.round(fixed_point.decode(ring_vector, rotation), 3) + 0.0
    array([ 0.5 , -0.25,  0.  ])
    """

    dimension: int
    """Coordinates of a vector."""
    norm_bound: float
    """C, the L2 norm that no vector exceeds, in the vectors' own units; kept by what `encode` gives."""
    clients: int
    """Most vectors in one sum."""
    bits: int
    """Width of the ring, 2 to 62."""
    coordinate_bits: int = 16
    """Width of one client's signed coordinate, 4 to 32: sets the step."""
    noise_deviation: float = 0.0
    """Standard deviation of the noise in one coordinate of the sum, over all its shares, in the vectors' own units."""

    def __post_init__(self) -> None:
        if self.dimension < 1 or self.clients < 1:
            raise ConfigurationError(
                f"fixed point: expected a dimension and clients of at least 1, got {self.dimension} and {self.clients}"
            )
        if not (math.isfinite(self.norm_bound) and self.norm_bound > 0):
            raise ConfigurationError(f"norm_bound: expected a finite number above 0, got {self.norm_bound}")
        if not SMALLEST_COORDINATE_BITS <= self.coordinate_bits <= LARGEST_COORDINATE_BITS:
            raise ConfigurationError(
                f"coordinate_bits: expected {SMALLEST_COORDINATE_BITS} to {LARGEST_COORDINATE_BITS}, got {self.coordinate_bits}"
            )
        Ring(self.bits)
        tail = noise_tail(self.noise_deviation / self.step, self.dimension)
        check_no_overflow(self.clients, self.largest, tail, self.bits)
        if self.kappa <= 0.5:
            raise ConfigurationError(
                f"coordinate_bits: expected a step that is fine beside a coordinate of about C / sqrt(d), got "
                f"{self.coordinate_bits} bits, whose rounding noise takes up the norm bound (only {self.kappa:.2f} of "
                "it is left for the vector). Use more coordinate_bits."
            )

    @property
    def ring(self) -> Ring:
        """The ring of the encoded vectors."""
        return Ring(self.bits)

    @property
    def largest(self) -> int:
        """Largest absolute value of an encoded coordinate."""
        return 2 ** (self.coordinate_bits - 1) - 1

    @cached_property
    def step(self) -> float:
        """Value of one unit of the ring, such that `largest` is not met but with `LIMIT_PROBABILITY`."""
        return largest_coordinate(self.dimension, self.norm_bound, LIMIT_PROBABILITY) / (self.largest - 1)

    @cached_property
    def kappa(self) -> float:
        """Public scale below 1 that leaves room for the rounding under the norm bound; 0 where there is no room."""
        bound = self.norm_bound / self.step
        chance = math.sqrt(2 * math.log(1 / REDRAW_PROBABILITY))
        # x^2 + chance x + (d/4 + chance sqrt(d)/2 - bound^2) = 0, its positive root
        constant = self.dimension / 4 + chance * math.sqrt(self.dimension) / 2 - bound**2
        likely = (-chance + math.sqrt(chance**2 - 4 * constant)) / 2 if constant < 0 else 0.0
        always = bound - math.sqrt(self.dimension)
        return max(likely, always, 0.0) / bound

    @cached_property
    def _largest_squared_norm(self) -> int:
        """(C / step)**2 rounded down, free of rounding errors."""
        return int((Fraction(self.norm_bound) / Fraction(self.step)) ** 2)

    def rotation(self, seed: int) -> Rotation:
        """The round's public rotation; ``seed`` is the same for server and clients, and new each round."""
        return Rotation(self.dimension, seed)

    def encode(self, vector: np.ndarray, rotation: Rotation, generator: np.random.Generator) -> np.ndarray:
        """A client's vector as ring elements.

        Args:
            vector: (dimension,) real, finite, L2 norm at most ``norm_bound`` (up to 1e-6 of it, for float arithmetic).
            rotation: the round's.
            generator: the client's stream for rounding; no secret depends on it.

        Returns:
            (dimension,) of the ring's dtype. As signed integers q: ||step * q|| <= norm_bound and |q| <= largest.

        Raises:
            ValueError: the shape is wrong, a number isn't finite or the norm is above the bound.
        """
        if vector.shape != (self.dimension,):
            raise ValueError(f"vector: expected shape ({self.dimension},), got {vector.shape}")
        exact = np.asarray(vector, dtype=np.float64)
        norm = float(np.linalg.norm(exact))
        if not norm <= self.norm_bound * (1 + 1e-6):
            raise ValueError(f"vector: expected an L2 norm of at most {self.norm_bound}, got {norm}; clip it first")
        scale = self.kappa / self.step * min(1.0, self.norm_bound / norm if norm else 1.0)
        return Ring(self.bits).from_signed(self._round(rotation.forward(exact) * scale, generator))

    def decode(self, total: np.ndarray, rotation: Rotation) -> np.ndarray:
        """The sum of real vectors behind a sum of ring elements, with its noise if any.

        Args:
            total: (dimension,) of the ring's dtype: the sum modulo 2**bits of at most ``clients`` encoded vectors.
            rotation: the round's.

        Returns:
            (dimension,) float64, in the vectors' own units.
        """
        if total.shape != (self.dimension,):
            raise ValueError(f"sum: expected shape ({self.dimension},), got {total.shape}")
        return rotation.inverse(Ring(self.bits).to_signed(total) * (self.step / self.kappa))

    def _round(self, scaled: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Integers (dimension,) int64 near ``scaled``, unbiased, their norm within the bound."""
        floor = np.floor(scaled)
        fraction = scaled - floor
        whole = floor.astype(np.int64)
        for _ in range(_DRAWS):
            up = generator.random(self.dimension) < fraction
            rounded = np.clip(whole + up, -self.largest, self.largest)
            if _squared_norm(rounded) <= self._largest_squared_norm:
                return rounded
        # Sixteen refusals have a probability below 1e-90; towards zero the norm can't rise, so this always ends.
        return np.clip(np.trunc(scaled), -self.largest, self.largest).astype(np.int64)


def _squared_norm(values: np.ndarray) -> int:
    """The squared L2 norm of int64 values below 2**32, exact: in halves of 16 bits no partial sum overflows."""
    high, low = values >> 16, values & 0xFFFF
    return (int(high @ high) << 32) + (int(high @ low) << 17) + int(low @ low)
