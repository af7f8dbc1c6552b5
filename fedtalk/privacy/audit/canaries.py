"""Canary clients: made-up participants whose updates are as visible as the mechanism allows, each in or out by a coin.

A canary that is in takes part like any client: the run draws it, its update of norm C is clipped, weighted, sealed and summed
with the others'. In the place of one that is out there is a client that sends zeros, as all others do: all that a worst-case
adversary may know is known here. Updates of different canaries are orthogonal (each has coordinates of its own, with public
random signs), so that the score of one, the dot product of the opened sums with its direction, holds nothing of the others: one
run tests many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedtalk.errors import ConfigurationError
from fedtalk.federation.cohort import CohortSampler
from fedtalk.randomness import derive_seed, numpy_generator

_SPARE = 4
"""Directions of each run that belong to no canary: the scale of the noise is read there."""
_LEAST_DEVIATION = 0.05
"""In units of an update's norm; below it the noise no longer matters, and likelihood ratios would overflow."""


class Game(Protocol):
    """The rounds of one run, from clear updates to what the server sees."""

    dimension: int

    def play_round(self, update_of: Callable[[str], np.ndarray]) -> np.ndarray | None:
        """Draw a cohort, and open the sum of its updates: (dimension,) in units of C, or None if there is none."""
        ...


class CanaryDirections:
    """Orthogonal unit vectors: direction i has the coordinates j with ``j mod count == i``, random signs, equal sizes.

    >>> directions = CanaryDirections(3, 7, seed=0)
    >>> bool(np.allclose(directions.dot(directions.vector(1)), [0, 1, 0]))
    True
    """

    def __init__(self, count: int, dimension: int, seed: int) -> None:
        """
        Args:
            count: directions, at most ``dimension``.
            dimension: coordinates of an update.
            seed: of the public signs.
        """
        if not 0 < count <= dimension:
            raise ConfigurationError(
                f"canaries: expected 1 to {dimension} orthogonal directions in {dimension} dimensions, got {count}"
            )
        self.count, self.dimension = count, dimension
        signs = np.where(numpy_generator(seed, "canary signs").random(dimension) < 0.5, 1.0, -1.0)
        self._owner = np.arange(dimension) % count
        self._values = signs / np.sqrt(np.bincount(self._owner, minlength=count))[self._owner]

    def vector(self, index: int) -> np.ndarray:
        """(dimension,) float64 of norm 1."""
        return np.where(self._owner == index, self._values, 0.0)

    def dot(self, vector: np.ndarray) -> np.ndarray:
        """(count,): dot products of all directions with ``vector``."""
        return np.bincount(self._owner, weights=vector * self._values, minlength=self.count)


@dataclass(frozen=True)
class CanaryOutcome:
    """What the canaries of one or more runs came to."""

    included: np.ndarray
    """(m,) bool: the coins."""
    scores: np.ndarray
    """(m,) log-likelihood ratio of included against left out; computed without the coins."""
    deviation: float
    """Standard deviation of the noise along one direction, in units of an update's norm C."""
    runs: int


def play_canaries(
    begin: Callable[[int, Sequence[str]], Game],
    sampler: CohortSampler,
    *,
    canaries: int,
    per_run: int,
    rounds: int,
    sent: float,
    clients: int,
    seed: int,
    on_round: Callable[[], None] | None = None,
) -> CanaryOutcome:
    """Run the mechanism with canaries and score them.

    Args:
        begin: a fresh run of the mechanism, by the run's number, with these clients.
        sampler: by which the mechanism draws; for the rate alone.
        canaries: in all; rounded up to whole runs.
        per_run: canaries of one run; 1 gives independent runs, one trial each.
        rounds: of a run.
        sent: L2 norm of a canary's update before it is clipped to C.
        clients: of a run, at least ``per_run``.
        seed: of coins and signs.
        on_round: called after every round.
    """
    for name, value in (("canaries", canaries), ("per_run", per_run), ("rounds", rounds)):
        if value < 1:
            raise ConfigurationError(f"{name}: expected at least 1, got {value}")
    if clients < per_run:
        raise ConfigurationError(f"clients: expected at least {per_run}, the canaries of a run, got {clients}")
    names = [f"client-{number}" for number in range(clients)]
    runs = -(-canaries // per_run)
    coins, seen, spare = [], [], []
    for run in range(runs):
        run_seed = derive_seed(seed, "canary run", run)
        game = begin(run, names)
        included = numpy_generator(run_seed, "coins").random(per_run) < 0.5
        directions = CanaryDirections(per_run + _SPARE, game.dimension, run_seed)
        own = {name: index for index, name in enumerate(names[:per_run]) if included[index]}

        def update_of(name: str, own: dict[str, int] = own, directions: CanaryDirections = directions) -> np.ndarray:
            return sent * directions.vector(own[name]) if name in own else np.zeros(directions.dimension)

        products = np.full((rounds, per_run + _SPARE), np.nan)
        for number in range(rounds):
            total = game.play_round(update_of)
            if total is not None:
                products[number] = directions.dot(total)
            if on_round is not None:
                on_round()
        coins.append(included)
        seen.append(products[:, :per_run])
        spare.append(products[:, per_run:])
    outside = np.concatenate([part[np.isfinite(part)] for part in spare])
    deviation = float(np.sqrt(np.mean(outside**2))) if len(outside) else 0.0
    scores = [likelihood_ratio(part, inclusion_rate(sampler, clients), deviation) for part in seen]
    return CanaryOutcome(np.concatenate(coins), np.concatenate(scores), deviation, runs)


def inclusion_rate(sampler: CohortSampler, clients: int) -> float:
    """Probability that a client takes part in a round; where it is no matter of chance, its share of the rounds."""
    rate = getattr(sampler, "rate", None)
    if rate is not None:
        return float(rate)
    every = getattr(sampler, "every", None)
    return 1.0 / every if every else min(1.0, getattr(sampler, "size", 1) / max(1, clients))


def likelihood_ratio(products: np.ndarray, rate: float, deviation: float) -> np.ndarray:
    """The best score of a canary whose rounds are ``N(b, s^2)``, b a coin of probability ``rate`` if it is in, else 0.

    ``sum_t log(1 - q + q exp((2 x_t - 1) / (2 s^2)))``

    Args:
        products: (rounds, m) dot products over C; NaN where a round gave nothing.
        rate: q.
        deviation: s.

    Returns:
        (m,)
    """
    s = max(deviation, _LEAST_DEVIATION)
    exponent = (2 * np.nan_to_num(products, nan=0.0) - 1) / (2 * s * s)
    with np.errstate(divide="ignore"):
        ratio = np.logaddexp(np.log1p(-rate), np.log(rate) + exponent)
    # Rounds that gave nothing say nothing.
    return np.where(np.isnan(products), 0.0, ratio).sum(0)
