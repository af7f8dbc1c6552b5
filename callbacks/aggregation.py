"""Aggregation of a round: the client's own weight, and the server's step.

FedAvg, FedProx and ISFA are one path: FedAvg weighs by clips alone, FedProx is that with `LocalTraining.proximal`. What they
are compared with stands in `fedtalk.callbacks.baselines`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from lightning.pytorch import Callback
from torch import Tensor

from fedtalk.checks import check_least, check_share
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


Measures = Literal["nothing", "clips", "estimates"]
"""What clients measure of themselves in a round: nothing, the quality of the clips that they train on, or the paper's scores of
what the model makes of their held-out clips."""


@dataclass(frozen=True)
class Standing:
    """What a client knows of itself when it weighs its update. It does not leave the client."""

    clips: int
    """Its training clips, 1 or more."""
    quality: float = 1.0
    """Of its training clips, in [0, 1]; 1 where clients don't measure it."""
    identity: float = 1.0
    """Consistency of its identity in what the model makes of it, in [0, 1]; 1 where clients don't measure it."""
    stability: float = 1.0
    """Temporal stability of the same, in [0, 1]; 1 where clients don't measure it."""
    faulty: bool = False
    """Whether its clips were made faulty on purpose; known only where the data are made up."""


class Aggregation(Callback, ABC):
    """An aggregation rule: a client's weight from what it knows of itself alone, and what the server does with the mean."""

    measures: Measures = "nothing"
    """What clients must measure of themselves."""
    controls = False
    """Whether clients correct their steps by control variates (`fedtalk.federation.scaffold`)."""
    sees_updates = False
    """Whether the rule needs single clients' updates in the clear, and can't be had with privacy."""

    def __init__(self, server_optimizer: ServerOptimizer | None = None) -> None:
        """
        Args:
            server_optimizer: what the server does with the mean update; SGD with rate 1 (averaging) by default.
        """
        self.server_optimizer = server_optimizer or ServerOptimizer()

    @abstractmethod
    def weight(self, standing: Standing) -> float:
        """A client's weight.

        Returns:
            a weight in [0, 1]; never above 1, or weighting could lengthen a clipped update.
        """

    def build_server(self, state: dict[str, Tensor], clients: int = 1) -> Server:
        """The server half.

        Args:
            state: what it begins with.
            clients: all who are registered.
        """
        return Server(state, self.server_optimizer)


class ISFA(Aggregation):
    """Identity-Stable Federated Aggregation: clients whose clips can be relied on count for more."""

    def __init__(
        self,
        gamma: float = 2.0,
        scores: Literal["quality", "paper"] = "quality",
        alpha: float = 0.6,
        most_clips: int = 8,
        by_clips: bool = True,
        server_optimizer: ServerOptimizer | None = None,
    ) -> None:
        """
        Args:
            gamma: how strongly reliability counts; 0 is FedAvg (the paper uses 0.5 to 2).
            scores: what the score of a client is. ``quality``: how its training clips compare with public ones in sharpness,
                steadiness of light, agreement of lips and sound, and agreement about who it is (`fedtalk.talker.quality`).
                ``paper``: ``s = alpha * identity + (1 - alpha) * stability`` of what the model makes of its held-out clips.
            alpha: share of identity consistency in the paper's score.
            most_clips: clips beyond this number do not add weight.
            by_clips: weight by the number of clips; otherwise all clients start from the same weight.
            server_optimizer: what the server does with the mean update; SGD with rate 1 (averaging) by default.
        """
        super().__init__(server_optimizer)
        if not 0 <= gamma <= 100:
            raise ConfigurationError(f"aggregation.gamma: expected 0 (FedAvg) to 100, got {gamma}")
        if scores not in ("quality", "paper"):
            raise ConfigurationError(f"aggregation.scores: expected 'quality' or 'paper', got {scores!r}")
        check_share("aggregation", alpha=alpha)
        check_least("aggregation", 1, most_clips=most_clips)
        self.gamma, self.scores, self.alpha = gamma, scores, alpha
        self.most_clips, self.by_clips = most_clips, by_clips
        if gamma > 0:
            self.measures = "clips" if scores == "quality" else "estimates"

    def score(self, standing: Standing) -> float:
        """``s_k`` in [0, 1]."""
        if self.scores == "quality":
            return standing.quality
        return self.alpha * standing.identity + (1 - self.alpha) * standing.stability  # PrivFedTalk, ISFA

    def weight(self, standing: Standing) -> float:
        clips = standing.clips if self.by_clips else self.most_clips
        return isfa_weight(clips, self.most_clips, self.score(standing), self.gamma)


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

    def weight(self, standing: Standing) -> float:
        return min(standing.clips, self.most_clips) / self.most_clips
