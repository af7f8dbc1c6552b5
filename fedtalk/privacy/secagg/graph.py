"""Who shares secrets and masks with whom: regular random graphs, their degrees and threshold chosen for stated probabilities.

After Bell, Bonawitz, Gascón, Lepoint and Raykova, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead"
(CCS 2020), section 3: a Harary graph (each client beside k/2 others to either side on a circle) whose places are a
uniformly random permutation of the clients. Its secrets a client shares among its k neighbours; masks it has with the
nearest m <= k of them only (m/2 to either side), for connecting the survivors takes fewer than outvoting who colludes. With n
clients, at most c of them colluding with the server and at most d dropping out, both sets independent of the permutation,
the graph is good if

1. no honest client has ``threshold`` or more colluding neighbours, who could open its secrets;
2. the honest survivors are connected by masks, else the server learns the sum of a part of them;
3. every client keeps at least ``threshold`` neighbours, else its masks can't be removed and the round is lost; and at least
   ``mask_threshold`` of those with whom it has masks, else it refuses to have its vector opened.

A client's neighbours are a uniformly random k-subset of the others, so with X hypergeometric (n-1 clients, c colluding,
k drawn), Y the same with d dropping, Z with m drawn and d dropping, and by union bounds over the n clients and the pairs of
gaps

    P[not 1] <= n P[X >= threshold]
    P[not 2] <= n(n-1)/2 * prod_{i<m} (c+d-i)/(n-i)      (0 where c + d < m)
    P[not 3] <= n P[Y > k - threshold] + n P[Z > m - mask_threshold]

The second one holds because survivors side by side on the circle with fewer than m/2 lost places between them are
neighbours: a split needs two disjoint runs of m/2 lost places, m given places in all. (The paper's bound,
n ((c+d)/n)**(m/2), asks for one such run only.) P[not 1] + P[not 2] is kept below 2**-security_bits and P[not 3] below
2**-failure_bits. Against a server that follows the protocol nothing rests on ``mask_threshold``: it makes it harder for
another to part a client from the rest by saying that its neighbours are gone. In the complete graph, 2 never fails and 1 and 3
are certain for c < threshold <= n - 1 - d.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from fedtalk.errors import ConfigurationError

COMPLETE_UP_TO = 16
"""Cohorts of at most this size use the complete graph: a dozen masks cost a few milliseconds."""


@dataclass(frozen=True)
class Assumptions:
    """What a round must withstand, and with which probability."""

    colluding_fraction: float = 0.2
    """Share of the cohort that may pool its knowledge with the server, [0, 1); rounded up to whole clients."""
    dropout_fraction: float = 0.2
    """Share of the cohort that may vanish between the roster and the end of the round, [0, 1); rounded down."""
    security_bits: int = 40
    """A good graph for secrecy with probability at least 1 - 2**-security_bits a round."""
    failure_bits: int = 20
    """A graph that survives the dropouts with probability at least 1 - 2**-failure_bits a round."""

    def __post_init__(self) -> None:
        for name in ("colluding_fraction", "dropout_fraction"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigurationError(f"{name}: expected a number in [0, 1), got {value}")
        for name in ("security_bits", "failure_bits"):
            value = getattr(self, name)
            if not 1 <= value <= 128:
                raise ConfigurationError(f"{name}: expected 1 to 128, got {value}")

    def colluding(self, clients: int) -> int:
        """c, the number of colluding clients that a cohort of ``clients`` withstands."""
        return math.ceil(self.colluding_fraction * clients - 1e-9)  # 0.1 * 30 is a little above 3 in binary

    def dropouts(self, clients: int) -> int:
        """d, the number of dropouts that a cohort of ``clients`` withstands."""
        return math.floor(self.dropout_fraction * clients + 1e-9)


@dataclass(frozen=True)
class GraphChoice:
    """Degree and threshold of a cohort, with the bounds that justify them."""

    clients: int
    degree: int
    """Neighbours of each client: even, or ``clients - 1`` for the complete graph."""
    threshold: int
    """Shares that open a secret, out of ``degree``."""
    mask_degree: int
    """Neighbours with whom each client has masks, the nearest on the circle: even, or ``degree``."""
    mask_threshold: int
    """Fewest of these that a client wants in the sum beside it."""
    security_failure: float
    """Upper bound on P[not 1] + P[not 2]."""
    dropout_failure: float
    """Upper bound on P[not 3]."""


@functools.lru_cache(maxsize=256)
def choose_graph(clients: int, assumptions: Assumptions) -> GraphChoice:
    """The smallest degree, with it the largest threshold, and then the fewest masks that keep the stated probabilities.

    >>> choice = choose_graph(1000, Assumptions(colluding_fraction=0.05, dropout_fraction=0.1))
    >>> choice.degree, choice.mask_degree, choice.security_failure < 2**-40, choice.dropout_failure < 2**-20
    (36, 22, True, True)

    Raises:
        ConfigurationError: not even the complete graph is enough, for too many colluders and dropouts.
    """
    complete = clients - 1
    degrees = range(2, complete, 2) if clients > COMPLETE_UP_TO else range(0)
    for degree in (*degrees, complete):
        threshold = _largest_threshold(clients, degree, assumptions, 2.0**-assumptions.failure_bits)
        if threshold < 1:
            continue
        security = secrecy_failure_bound(clients, degree, threshold, degree, assumptions)
        if security <= 2.0**-assumptions.security_bits:
            return _with_fewest_masks(clients, degree, threshold, assumptions)
    colluding, dropouts = assumptions.colluding(clients), assumptions.dropouts(clients)
    raise ConfigurationError(
        f"secure aggregation among {clients} clients can't withstand {colluding} colluding and {dropouts} dropping "
        f"out: expected colluding + dropouts <= clients - 2 = {clients - 2}, got {colluding + dropouts}. "
        "Lower colluding_fraction or dropout_fraction, or enlarge the cohort."
    )


def _with_fewest_masks(clients: int, degree: int, threshold: int, assumptions: Assumptions) -> GraphChoice:
    dropout = dropout_failure_bound(clients, degree, threshold, assumptions)
    left = 2.0**-assumptions.failure_bits - dropout
    for mask_degree in range(2, degree, 2) if clients > COMPLETE_UP_TO else ():
        security = secrecy_failure_bound(clients, degree, threshold, mask_degree, assumptions)
        if security > 2.0**-assumptions.security_bits:
            continue
        least = _largest_threshold(clients, mask_degree, assumptions, left)
        if least >= 1:
            dropout += dropout_failure_bound(clients, mask_degree, least, assumptions)
            return GraphChoice(clients, degree, threshold, mask_degree, least, security, dropout)
    security = secrecy_failure_bound(clients, degree, threshold, degree, assumptions)
    return GraphChoice(clients, degree, threshold, degree, threshold, security, dropout)


def secrecy_failure_bound(
    clients: int, degree: int, threshold: int, mask_degree: int, assumptions: Assumptions
) -> float:
    """Upper bound on P[not 1] + P[not 2]."""
    colluding, dropouts = assumptions.colluding(clients), assumptions.dropouts(clients)
    opened = clients * hypergeometric_tail(clients - 1, colluding, degree, threshold)
    lost = colluding + dropouts
    if mask_degree >= clients - 1 or lost < mask_degree:
        return min(1.0, opened)
    places = np.arange(mask_degree)
    split = math.exp(
        math.log(clients * (clients - 1) / 2) + float(np.sum(np.log(lost - places) - np.log(clients - places)))
    )
    return min(1.0, opened + split)


def dropout_failure_bound(clients: int, degree: int, threshold: int, assumptions: Assumptions) -> float:
    """Upper bound on the probability that a client keeps fewer than ``threshold`` of ``degree`` neighbours."""
    dropouts = assumptions.dropouts(clients)
    return min(1.0, clients * hypergeometric_tail(clients - 1, dropouts, degree, degree - threshold + 1))


def hypergeometric_tail(population: int, marked: int, drawn: int, least: int) -> float:
    """P[X >= least] for X marked ones among ``drawn`` out of ``population``, of which ``marked`` are marked.

    Summed in the logarithmic domain; exactly 0 where the event is impossible.
    """
    low = max(least, drawn + marked - population, 0)
    high = min(drawn, marked)
    if low > high:
        return 0.0
    hits = np.arange(low, high + 1)
    logarithms = (
        _log_binomial(marked, hits)
        + _log_binomial(population - marked, drawn - hits)
        - _log_binomial(population, np.asarray(drawn))
    )
    return min(1.0, float(np.sum(np.exp(logarithms))))


def neighbours(clients: Sequence[int], degree: int, seed: bytes) -> dict[int, tuple[int, ...]]:
    """The neighbours of each client, ascending, in the graph that ``seed`` draws.

    Args:
        clients: ids, ascending.
        degree: even and below ``len(clients)``, or ``len(clients) - 1``.
        seed: 32 bytes, drawn by the server from the operating system once the ids are fixed.
    """
    circle = _circle(clients, seed)
    if degree >= len(circle) - 1:
        return {client: tuple(sorted(peer for peer in circle if peer != client)) for client in circle}
    half, around = degree // 2, circle[-(degree // 2) :] + circle + circle[: degree // 2]
    return {
        client: tuple(sorted(around[place : place + half] + around[place + half + 1 : place + 2 * half + 1]))
        for place, client in enumerate(circle)
    }


def _circle(clients: Sequence[int], seed: bytes) -> list[int]:
    return sorted(clients, key=lambda client: hashlib.sha256(seed + client.to_bytes(4, "big")).digest())


def _largest_threshold(clients: int, degree: int, assumptions: Assumptions, allowed: float) -> int:
    """The largest threshold that the dropouts allow with that probability, 0 if none does; the bound grows with the threshold."""
    low, high = 0, degree
    while low < high:
        middle = (low + high + 1) // 2
        if dropout_failure_bound(clients, degree, middle, assumptions) <= allowed:
            low = middle
        else:
            high = middle - 1
    return low


def _log_binomial(items: int, chosen: np.ndarray) -> np.ndarray:
    return gammaln(items + 1) - gammaln(chosen + 1) - gammaln(items - chosen + 1)
