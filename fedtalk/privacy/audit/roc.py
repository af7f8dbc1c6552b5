"""Receiver operating characteristic of an attack: true against false positives over all thresholds."""

from __future__ import annotations

import numpy as np

from fedtalk.errors import ConfigurationError


def roc_curve(members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates, thresholds falling; equal scores make one step.

    Args:
        members: (M,) scores of those who took part; larger means "took part".
        others: (N,) scores of those who did not.

    Returns:
        ``(fpr, tpr)``, each (K + 1,), from (0, 0) to (1, 1), K different scores.

    Raises:
        ConfigurationError: no members or no others.
    """
    if not len(members) or not len(others):
        raise ConfigurationError(f"roc: expected members and others, got {len(members)} and {len(others)}")
    thresholds = np.unique(np.concatenate([members, others]))[::-1]
    hits = (members[None] >= thresholds[:, None]).mean(1)
    false = (others[None] >= thresholds[:, None]).mean(1)
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], hits])


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """Area under the curve: the probability that a member outscores another one, ties counting half; 0.5 is chance.

    >>> auc(np.array([3.0, 1.0]), np.array([2.0, 0.0]))
    0.75
    """
    false, hits = roc_curve(members, others)
    return float(np.sum(np.diff(false) * (hits[1:] + hits[:-1]) / 2))


def tpr_at_fpr(members: np.ndarray, others: np.ndarray, fpr: float) -> float:
    """Largest true positive rate at a false positive rate of at most ``fpr`` (Carlini et al. 2022).

    >>> tpr_at_fpr(np.array([3.0, 1.0]), np.array([2.0, 0.0]), 0.01)
    0.5
    """
    false, hits = roc_curve(members, others)
    return float(hits[false <= fpr].max())
