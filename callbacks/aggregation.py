"""Aggregation of a round: the client's own weight, and the server's step.

FedAvg, FedProx and ISFA are one path: FedAvg weighs by clips alone, FedProx is that with `LocalTraining.proximal`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from lightning.pytorch import Callback
from torch import Tensor

from fedtalk.checks import check_least
from fedtalk.errors import ConfigurationError
from fedtalk.federation.server import Server, ServerOptimizer


def isfa_weight(clips: int, most_clips: int, score: float, gamma: float) -> float:
    """A client's own ISFA weight, ``min(n, n_max) / n_max * exp(gamma * (s - 1))``, in (0, 1].

    Weights of a cohort are proportional to the paper's ``n_k * exp(gamma * s_k)`` (PrivFedTalk, ISFA) as long as no client
    has more than ``most_clips`` clips, and a client needs nothing but its own data to compute its own.

    >>> isfa_weight(8, 8, 1.0, 2.0)
    1.0
    >>> round(isfa_weight(4, 8, 0.5, 2.0), 4)
    0.1839
    """
    return min(clips, most_clips) / most_clips * math.exp(gamma * (score - 1.0))


class Aggregation(Callback, ABC):
    """An aggregation rule: a client's weight from what it knows of itself alone, and what the server does with the mean."""

    needs_reliability = False
    """Whether clients must measure themselves at all."""

    def __init__(self, server_optimizer: ServerOptimizer | None = None) -> None:
        """
        Args:
            server_optimizer: what the server does with the mean update; SGD with rate 1 (averaging) by default.
        """
        self.server_optimizer = server_optimizer or ServerOptimizer()

    @abstractmethod
    def weight(self, clips: int, identity: float, stability: float) -> float:
        """A client's weight.

        Args:
            clips: its training clips, 1 or more.
            identity: consistency of its identity, in [0, 1]; 1 where clients don't measure themselves.
            stability: temporal stability, in [0, 1]; 1 where clients don't measure themselves.

        Returns:
            a weight in (0, 1]; never above 1, or weighting could lengthen a clipped update.
        """

    def build_server(self, state: dict[str, Tensor]) -> Server:
        """The server half, which begins with ``state``."""
        return Server(state, self.server_optimizer)


class ISFA(Aggregation):
    """Identity-Stable Federated Aggregation: clients whose identity and motion are stable count for more."""

    def __init__(
        self,
        gamma: float = 1.0,
        alpha: float = 0.6,
        most_clips: int = 8,
        by_clips: bool = True,
        server_optimizer: ServerOptimizer | None = None,
    ) -> None:
        """
        Args:
            gamma: how strongly reliability counts; 0 is FedAvg (the paper uses 0.5 to 2).
            alpha: share of identity consistency in the score ``s = alpha * identity + (1 - alpha) * stability``.
            most_clips: clips beyond this number do not add weight.
            by_clips: weight by the number of clips; otherwise all clients start from the same weight.
            server_optimizer: what the server does with the mean update; SGD with rate 1 (averaging) by default.
        """
        super().__init__(server_optimizer)
        if not 0 <= gamma <= 100:
            raise ConfigurationError(f"aggregation.gamma: expected 0 (FedAvg) to 100, got {gamma}")
        if not 0 <= alpha <= 1:
            raise ConfigurationError(f"aggregation.alpha: expected a share in [0, 1], got {alpha}")
        check_least("aggregation", 1, most_clips=most_clips)
        self.gamma, self.alpha, self.most_clips, self.by_clips = gamma, alpha, most_clips, by_clips
        self.needs_reliability = gamma > 0

    def score(self, identity: float, stability: float) -> float:
        """``s_k`` in [0, 1] (PrivFedTalk, ISFA)."""
        return self.alpha * identity + (1 - self.alpha) * stability

    def weight(self, clips: int, identity: float, stability: float) -> float:
        score = self.score(identity, stability)
        return isfa_weight(clips if self.by_clips else self.most_clips, self.most_clips, score, self.gamma)


class FedAvg(Aggregation):
    """Federated averaging (McMahan et al. 2017): weights are the numbers of clips alone."""

    def __init__(self, most_clips: int = 8, server_optimizer: ServerOptimizer | None = None) -> None:
        """
        Args:
            most_clips: clips beyond this number do not add weight.
            server_optimizer: what the server does with the mean update; SGD with rate 1 (averaging) by default.
        """
        super().__init__(server_optimizer)
        check_least("aggregation", 1, most_clips=most_clips)
        self.most_clips = most_clips

    def weight(self, clips: int, identity: float, stability: float) -> float:
        return min(clips, self.most_clips) / self.most_clips
