"""Canary clients: made-up participants whose updates are as visible as the mechanism allows, each in or out by a coin.

A canary that is in takes part like any client: the run's cohort sampler draws it, its update of norm C is clipped,
weighted, sealed and summed with the others'. Updates of different canaries are orthogonal (each has coordinates of its
own, with public random signs), so that the score of one, the dot product of the released sums with its direction, holds
nothing of the others: one run tests many. All else that a worst-case adversary may know is known here: the other
clients send zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


class Mechanism(Protocol):
    """The rounds of one run, from clear updates to what the server sees."""

    dimension: int

    def release(self, round_number: int, updates: Iterator[tuple[str, np.ndarray]]) -> np.ndarray | None:
        """The opened, noisy sum (dimension,) of one round, or None if there is none."""
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
    mechanism: Callable[[int], Mechanism],
    sampler: CohortSampler,
    *,
    canaries: int,
    per_run: int,
    rounds: int,
    norm: float,
    fillers: int,
    seed: int,
    sent: float | None = None,
    on_round: Callable[[], None] | None = None,
) -> CanaryOutcome:
    """Run the mechanism with canaries and score them.

    Args:
        mechanism: begins a fresh run of the mechanism, from the run's seed.
        sampler: draws cohorts, as in the run under audit.
        canaries: in all; rounded up to whole runs.
        per_run: canaries of one run; 1 gives independent runs, one trial each.
        rounds: of a run.
        norm: C, what a canary's update weighs in the sum.
        fillers: other clients, who send zeros.
        seed: of coins, cohorts and signs.
        sent: L2 norm of a canary's update before it is clipped to C; C by default.
        on_round: called after every round.
    """
    for name, value in (("canaries", canaries), ("per_run", per_run), ("rounds", rounds)):
        if value < 1:
            raise ConfigurationError(f"{name}: expected at least 1, got {value}")
    runs = -(-canaries // per_run)
    coins, seen, spare = [], [], []
    for run in range(runs):
        run_seed = derive_seed(seed, "canary run", run)
        game = mechanism(run_seed)
        included = numpy_generator(run_seed, "coins").random(per_run) < 0.5
        directions = CanaryDirections(per_run + _SPARE, game.dimension, run_seed)
        products = np.full((rounds, per_run + _SPARE), np.nan)
        for number in range(rounds):
            # Canaries that are out don't exist: the sampler sees those that are in, as it would any client.
            everyone = registered(per_run, fillers)
            members = [name for name, present in zip(everyone, [*included, *[True] * fillers], strict=True) if present]
            cohort = sampler.draw(run_seed, number, members)
            total = game.release(number, _updates(cohort, directions, sent or norm))
            if total is not None:
                products[number] = directions.dot(total) / norm
            if on_round is not None:
                on_round()
        coins.append(included)
        seen.append(products[:, :per_run])
        spare.append(products[:, per_run:])
    outside = np.concatenate([part[np.isfinite(part)] for part in spare])
    deviation = float(np.sqrt(np.mean(outside**2))) if len(outside) else 0.0
    scores = [likelihood_ratio(part, inclusion_rate(sampler, fillers, per_run), deviation) for part in seen]
    return CanaryOutcome(np.concatenate(coins), np.concatenate(scores), deviation, runs)


def registered(per_run: int, fillers: int) -> list[str]:
    """Names of all who may take part in a run: the canaries, in or out, and the other clients."""
    return [f"canary-{i}" for i in range(per_run)] + [f"filler-{i}" for i in range(fillers)]


def inclusion_rate(sampler: CohortSampler, fillers: int, per_run: int) -> float:
    """Probability that a canary that is in takes part in a round; for fixed cohorts at the expected number of clients."""
    rate = getattr(sampler, "rate", None)
    if rate is not None:
        return float(rate)
    return min(1.0, getattr(sampler, "size", 1) / max(1.0, fillers + per_run / 2))


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


def _updates(cohort: list[str], directions: CanaryDirections, norm: float) -> Iterator[tuple[str, np.ndarray]]:
    for client in cohort:
        kind, index = client.split("-")
        if kind == "canary":
            yield client, norm * directions.vector(int(index))
        else:
            yield client, np.zeros(directions.dimension)
