"""What void rounds tell, and the delta that is set aside for it.

A round is void where too few vectors arrive, n - s of n drawn clients being more than the protocol withstands, or s below the
least. Everybody sees that: the adapter stays as it was. One client more or less can be what decides it, whatever the noise.

**Noise in place of the adapter would not help.** Were a void round to release noise alone, it would still differ from the
same round with one client more, not void, by the whole sum of the other clients' vectors, many times one client's. So void
rounds release nothing, and the probability that one client decides goes to delta.

**The bound.** Of the clients other than k, n ~ Bin(N - 1, q) are drawn; each drawn client drops out with probability p,
independently of the others and of anybody's data, so s | n ~ Bin(n, 1 - p) of them survive. A cohort of n is void below m(n)
survivors. Without k the round is void iff s < m(n); with k drawn iff s + 1 < m(n + 1) where k survives, and iff s < m(n + 1)
where it drops out. Let H be the event that these differ. Outside of H a round is void whether or not k is drawn, or it is the
sampled Gaussian mechanism, with k's own draw as its randomness, whatever the others are. H is an event of the others (and of
whether k would survive), so it has the same probability whether or not k is there:

    P[H] = sum_n P[n] ((1 - p) P[1(s < m(n)) != 1(s + 1 < m(n + 1))] + p P[1(s < m(n)) != 1(s < m(n + 1))])

For every set of outputs S of R rounds, P[M(D) in S] <= P[M(D) in S, H in no round] + R P[H] <= e^epsilon P[M(D') in S] + delta' +
R P[H], where the mechanism alone is (epsilon, delta')-private, in both directions. With p = 0 only the least number matters,
and P[H] = P[Bin(N - 1, q) = m - 1].

Where all that is bounded is what a client contributes, H is none of its data and nothing is set aside: so with server and
sites, who know the rosters, and with everybody where q = 1 or clients take turns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from scipy.stats import binom

log = logging.getLogger("fedtalk")

_STEPS = 8
"""Dropout probabilities that are tried from 0 to the assumed one."""
_IMPROBABLE = 1e-6
_TAIL = 1e-18
"""Cohort sizes whose probability is below it all together are taken as decisive."""


def void_probability(rate: float, clients: int, needed: Callable[[int], int], dropout: float) -> float:
    """P[H], the largest over dropout probabilities from 0 to ``dropout`` (a grid of them).

    Args:
        rate: q, (0, 1].
        clients: N, all who are registered.
        needed: m, survivors that a cohort of a given size needs.
        dropout: p, at most, [0, 1).
    """
    others = clients - 1
    low, high = (int(binom.ppf(tail, others, rate)) for tail in (_TAIL, 1 - 1e-15))
    sizes = np.arange(max(0, low - 1), min(others, high + 8) + 1)
    chances = binom.pmf(sizes, others, rate)
    without, with_k = (np.array([needed(int(size) + more) for size in sizes]) for more in (0, 1))
    largest = 0.0
    for p in {0.0, *(dropout * step / _STEPS for step in range(1, _STEPS + 1))}:
        # void without k is s <= a, void with k is s <= b: they differ for s between the two
        survivors = binom(sizes, 1 - p)
        alone = survivors.cdf(without - 1)
        decisive = (1 - p) * np.abs(survivors.cdf(with_k - 2) - alone) + p * np.abs(survivors.cdf(with_k - 1) - alone)
        largest = max(largest, float(np.sum(chances * decisive)))
    return largest + max(0.0, float(_TAIL + binom.sf(sizes[-1], others, rate)))


class DropoutWatch:
    """The server's eye on the assumption: says so where clients drop out more often than they were assumed to."""

    def __init__(self, assumed: float) -> None:
        """
        Args:
            assumed: largest probability with which a drawn client drops out.
        """
        self._assumed, self._drawn, self._dropped = assumed, 0, 0

    def note(self, cohort: int, survivors: int) -> None:
        """A round of ``cohort`` clients of whom ``survivors`` gave something."""
        self._drawn, self._dropped = self._drawn + cohort, self._dropped + cohort - survivors
        chance = float(binom.sf(self._dropped - 1, self._drawn, self._assumed)) if self._dropped else 1.0
        if chance < _IMPROBABLE:
            log.warning(
                "privacy: %d of %d drawn clients dropped out, which has a probability of %.1g where each does so with "
                "privacy.dropout_probability = %g at most: void rounds may tell more than the delta set aside for them. "
                "Raise it.", self._dropped, self._drawn, chance, self._assumed,
            )  # fmt: skip
