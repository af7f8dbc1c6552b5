"""From settings to a ledger: how much noise the planned rounds need, and what void rounds may tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fedtalk.errors import ConfigurationError
from fedtalk.federation.cohort import CohortSampler, FixedCohort, PoissonCohort, RotatingCohort
from fedtalk.privacy.accounting import gaussian_multiplier, solve_noise_multiplier
from fedtalk.privacy.ledger import Ledger, secret_rate
from fedtalk.privacy.settings import Privacy
from fedtalk.privacy.void_rounds import void_probability

if TYPE_CHECKING:
    from fedtalk.privacy.sealed_rounds import AggregationTask


def usual_cohort(sampler: CohortSampler, clients: int) -> float:
    """Clients of a usual round: the mean, or the smallest group that takes turns."""
    if isinstance(sampler, PoissonCohort):
        return clients * sampler.rate
    if isinstance(sampler, RotatingCohort):
        return clients // sampler.every
    return min(sampler.size, clients) if isinstance(sampler, FixedCohort) else clients


def open_ledger(privacy: Privacy, task: AggregationTask, needed: Callable[[int], int]) -> Ledger:
    """The ledger of a run that is about to begin.

    Args:
        privacy: with noise.
        task: of the run.
        needed: survivors that a cohort of a given size needs for its round not to be void.

    Raises:
        ConfigurationError: the sampler has no accounting, the budget is out of reach, or void rounds tell too much.
    """
    rate = secret_rate(task.sampler)
    secret = rate is not None and rate < 1  # else all know that the client takes part, void rounds tell nothing more
    void = (
        0.0
        if not secret or rate is None
        else void_probability(rate, len(task.clients), needed, privacy.dropout_probability)
    )
    multiplier = privacy.noise_multiplier
    if multiplier is None:
        assert privacy.target_epsilon is not None
        if isinstance(task.sampler, RotatingCohort):
            times = task.sampler.participations(max(1, task.rounds))
            multiplier = gaussian_multiplier(privacy.target_epsilon, times, privacy.delta)
        else:
            assert rate is not None
            left = privacy.delta - void * task.rounds
            multiplier = solve_noise_multiplier(
                privacy.target_epsilon,
                rate,
                max(1, task.rounds),
                left if left > 0 else privacy.delta,
                privacy.accountant,
            )
    if privacy.accountant == "rdp" and rate is None and privacy.target_epsilon is not None:
        raise ConfigurationError(
            "privacy.accountant: expected prv with target_epsilon and RotatingCohort, whose releases compose to one Gaussian "
            "exactly, got rdp. Leave it out."
        )
    return Ledger(
        task.sampler, task.clients, multiplier, privacy.delta, budget=privacy.budget, accountant=privacy.accountant,
        void_probability=void, rounds=task.rounds, seed=task.seed, central=not privacy.distributed,
        insecure_seed=privacy.insecure_noise_seed,
    )  # fmt: skip
