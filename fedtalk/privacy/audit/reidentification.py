"""Whose update is it? Gradient matching among candidates.

After the observation behind gradient inversion (Zhu, Liu and Han, "Deep Leakage from Gradients", NeurIPS 2019; Geiping
et al. 2020): an update follows the negative gradient of its own client's data. The attacker scores candidate j by

    s_j = -<u, g_j - mean(g)> / ||g_j - mean(g)||

g_j the gradient on candidate j's known clips, the mean over the decoys, so that what all people have in common cancels,
and ranks the right client among decoys who sent nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from fedtalk.errors import ConfigurationError


@dataclass(frozen=True)
class RankSummary:
    """Ranks of the right clients, 1 the best."""

    ranks: list[int]
    candidates: int
    """The right client and its decoys."""
    first: float
    """Share of clients ranked first."""
    first_interval: tuple[float, float]
    """95 % Clopper-Pearson interval of ``first``."""
    percentile: float
    """Mean share of decoys behind the right client; 0.5 is chance."""

    @property
    def chance(self) -> float:
        """``first`` of a guess."""
        return 1 / self.candidates


def rank_of_right(scores_right: float, scores_decoys: Sequence[float]) -> int:
    """1 + the decoys that score higher; ties count half, rounded up.

    >>> rank_of_right(0.5, [0.9, 0.1, 0.2])
    2
    """
    decoys = np.asarray(scores_decoys)
    return 1 + int(np.sum(decoys > scores_right)) + -(-int(np.sum(decoys == scores_right)) // 2)


def match_gradients(
    update: np.ndarray, right: np.ndarray, decoys: Sequence[np.ndarray], common: np.ndarray
) -> tuple[float, list[float]]:
    """Scores ``s_j`` of the right client and of the decoys.

    Args:
        update: (d,) what was seen, in any units.
        right: (d,) gradient of the client it is from.
        decoys: gradients of others.
        common: (d,) mean gradient of the decoys.
    """

    def score(gradient: np.ndarray) -> float:
        own = gradient - common
        return -float(np.dot(update, own)) / max(float(np.linalg.norm(own)), 1e-30)

    return score(right), [score(gradient) for gradient in decoys]


def summarise_ranks(ranks: Mapping[str, int], candidates: int) -> RankSummary:
    """Summary of the ranks by client.

    Raises:
        ConfigurationError: nobody, or no decoys.
    """
    if not ranks or candidates < 2:
        raise ConfigurationError(
            f"re-identification: expected a client and a decoy at least, got {len(ranks)} clients and "
            f"{candidates - 1} decoys"
        )
    values = list(ranks.values())
    hits = sum(rank == 1 for rank in values)
    interval = binomtest(hits, len(values)).proportion_ci(0.95)
    behind = float(np.mean([(candidates - rank) / (candidates - 1) for rank in values]))
    return RankSummary(values, candidates, hits / len(values), (float(interval.low), float(interval.high)), behind)
