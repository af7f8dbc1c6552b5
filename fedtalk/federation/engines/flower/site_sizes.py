"""Whether the sites fit what the run assumes of its clients: a site is one party, however many people it hosts.

A site sees the secrets of all of its clients: if it colludes they all do, and when it is lost they all drop out. With
Poisson cohorts of rate q, a site of m clients among M sends X ~ Bin(m, q) of them into a round of X + Y clients, Y ~
Bin(M - m, q); the run withstands that unless X exceeds what `Assumptions` allow of X + Y clients.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import binom, hypergeom

from fedtalk.errors import ConfigurationError
from fedtalk.federation.cohort import CohortSampler, FixedCohort, RotatingCohort
from fedtalk.privacy.settings import Privacy

MOST_LIKELY = 1e-6
"""Probability, over a whole run, that a site sends more clients into a round than may collude; with noise it is also at most
`SHARE_OF_DELTA` of delta."""
SHARE_OF_DELTA = 0.01


def check_sizes(
    clients_of: Mapping[str, Sequence[str]],
    most: Mapping[str, int],
    privacy: Privacy,
    sampler: CohortSampler,
    rounds: int,
) -> list[str]:
    """Refuse sites that are larger than what is assumed; what losing each of the others costs, a line each.

    Args:
        clients_of: names of each site's clients.
        most: by site, the most clients that the server's operator has agreed on with it.
        privacy: with the assumptions. ``colluding_fraction: 0`` says that nobody colludes with the server, sites included.
        sampler: of the cohorts.
        rounds: of the run.

    Raises:
        ConfigurationError: a site has more clients than ``most`` says, or than may collude, or ``most`` names no site.
    """
    unknown = sorted(most.keys() - clients_of.keys())
    if unknown:
        raise ConfigurationError(f"flower.most_clients: expected names of sites, {sorted(clients_of)}, got {unknown}")
    assumptions, total = privacy.assumptions, sum(map(len, clients_of.values()))
    allowed = MOST_LIKELY if not privacy.noised else min(MOST_LIKELY, SHARE_OF_DELTA * privacy.delta)
    lines = []
    for site, clients in clients_of.items():
        own = len(clients)
        if own > most.get(site, own):
            raise ConfigurationError(
                f"site {site}: expected at most {most[site]} clients (flower.most_clients), got {own}; whoever it may have "
                "invented adds no noise"
            )
        if assumptions.colluding_fraction > 0:

            def likely(size: int) -> float:
                return min(1.0, rounds * exceeding(size, total - size, sampler, assumptions.colluding))

            if likely(own) > allowed:
                largest = bisect.bisect_right(range(own), allowed, key=likely) - 1
                raise ConfigurationError(
                    f"site {site}: all of its clients collude if it does, and it has {own} of {total}: with probability "
                    f"{likely(own):.2g} in {rounds} rounds they are more than colluding_fraction "
                    f"{assumptions.colluding_fraction:g} of a round. Expected at most {allowed:.2g}, which {max(0, largest)} "
                    "clients keep. Raise privacy.assumptions.colluding_fraction above the largest site's share, or spread the "
                    "clients over more sites; 0 says that every site is trusted"
                )
        void = exceeding(own, total - own, sampler, assumptions.dropouts)
        lines.append(
            f"site {site}: {own} of {total} clients ({own / total:.0%}). If it is lost, its clients drop out of every round, "
            f"and a round is void with probability {void:.2g}; if it adds no noise, {1 - own / total:.0%} of the clients' "
            "noise variance is left"
        )
    if assumptions.colluding_fraction == 0:
        lines.append("colluding_fraction is 0: every site is trusted not to collude with the server")
    return lines


def exceeding(own: int, others: int, sampler: CohortSampler, allowed: Callable[[int], int]) -> float:
    """Probability that a site's clients in a cohort are more than ``allowed`` of a cohort of that size.

    Args:
        own: the site's clients.
        others: all other clients.
        sampler: of the cohorts.
        allowed: from the cohort's size to a number that doesn't fall as it grows.
    """
    size: int | None = None
    if isinstance(sampler, FixedCohort):
        size = min(sampler.size, own + others)
    elif isinstance(sampler, RotatingCohort):  # a group of it is drawn as a fixed cohort is
        size = (own + others) // sampler.every
    if size is not None:
        return float(hypergeom.sf(allowed(size), own + others, own, size))
    rate = getattr(sampler, "rate", 1.0)
    drawn = np.arange(1, own + 1)
    # The smallest cohort that withstands so many, and how many others it takes.
    enough = np.array([bisect.bisect_left(range(own + others + 1), int(count), key=allowed) for count in drawn], int)
    return float(np.sum(binom.pmf(drawn, own, rate) * binom.cdf(enough - drawn - 1, others, rate)))
