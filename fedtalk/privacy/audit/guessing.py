"""From scores to guesses: whom the auditor calls included, whom left out, and on whom it abstains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.audit.one_run import one_run_epsilon

LEVELS = ((1.0, True), (0.5, True), (0.25, True), (0.1, True), (0.25, False), (0.1, False))
"""Shares of the canaries that are guessed, and whether lowest scores are guessed "left out" as well as highest "included".

Fixed beforehand; the best of them is taken, each tested at its share of the error (Bonferroni). Guessing the top alone
is better where included canaries may not have been sampled and look like those left out.
"""


@dataclass(frozen=True)
class OneRunBound:
    """The best bound over `LEVELS`."""

    epsilon: float
    """At least this, with the confidence asked for."""
    guesses: int
    correct: int
    most: float
    """What the same numbers would have shown had every guess been right: the largest bound in reach."""


def guess_coins(scores: np.ndarray, share: float, both: bool) -> np.ndarray:
    """Guesses (m,): 1 included, -1 left out, 0 abstained.

    Args:
        scores: (m,) larger means "included"; equal scores are taken in their order, which the coins know nothing of.
        share: of the canaries that are guessed, in (0, 1].
        both: half of the guesses for each side, else all "included".

    >>> guess_coins(np.array([0.3, 0.9, -0.5, 0.1]), 0.5, both=True).tolist()
    [0, 1, -1, 0]
    """
    if not 0 < share <= 1:
        raise ConfigurationError(f"guesses: expected a share in (0, 1], got {share}")
    count = max(1, round(share * len(scores)))
    order = np.argsort(-scores, kind="stable")
    guesses = np.zeros(len(scores), np.int64)
    included = (count + 1) // 2 if both else count
    guesses[order[:included]] = 1
    if both and count > included:
        guesses[order[-(count - included) :]] = -1
    return guesses


def one_run_bound(included: np.ndarray, scores: np.ndarray, delta: float, confidence: float) -> OneRunBound:
    """Lower bound on epsilon from a one-run audit.

    Args:
        included: (m,) bool, the fair coins.
        scores: (m,), of a scoring rule that never saw the coins.
        delta: of the guarantee under test.
        confidence: of the bound.
    """
    if included.shape != scores.shape or included.ndim != 1:
        raise ConfigurationError(f"canaries: expected as many coins as scores, got {included.shape}, {scores.shape}")
    each = 1 - (1 - confidence) / len(LEVELS)
    truth = np.where(included, 1, -1)
    best = OneRunBound(0.0, 0, 0, 0.0)
    most = 0.0
    for share, both in LEVELS:
        guesses = guess_coins(scores, share, both)
        count, correct = int(np.sum(guesses != 0)), int(np.sum(guesses == truth))
        epsilon = one_run_epsilon(len(scores), count, correct, delta, each)
        most = max(most, one_run_epsilon(len(scores), count, count, delta, each))
        if epsilon > best.epsilon or not best.guesses:
            best = OneRunBound(epsilon, count, correct, 0.0)
    return OneRunBound(best.epsilon, best.guesses, best.correct, most)
