"""Receiver operating characteristic of an attack: true against false positives over all thresholds, by torchmetrics."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_roc

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
    false, true, _ = binary_roc(*_ranked(members, others))
    return false.double().numpy(), true.double().numpy()


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """Area under the curve: the probability that a member outscores another one, ties counting half; 0.5 is chance.

    >>> auc(np.array([3.0, 1.0]), np.array([2.0, 0.0]))
    0.75
    """
    return float(binary_auroc(*_ranked(members, others)))


def tpr_at_fpr(members: np.ndarray, others: np.ndarray, fpr: float) -> float:
    """Largest true positive rate at a false positive rate of at most ``fpr`` (Carlini et al. 2022).

    >>> tpr_at_fpr(np.array([3.0, 1.0]), np.array([2.0, 0.0]), 0.01)
    0.5
    """
    false, hits = roc_curve(members, others)
    return float(hits[false <= fpr + 1e-6].max())  # rates come in single precision


def _ranked(members: np.ndarray, others: np.ndarray) -> tuple[Tensor, Tensor]:
    """Scores and labels; ranks in place of scores, since torchmetrics takes scores outside [0, 1] for logits and rounds them."""
    if not len(members) or not len(others):
        raise ConfigurationError(f"roc: expected members and others, got {len(members)} and {len(others)}")
    ranks = rankdata(np.concatenate([members, others]), "dense") / (len(members) + len(others))
    return torch.from_numpy(ranks), torch.tensor([1] * len(members) + [0] * len(others))
