"""Aggregation of a round: the client's own weight, the sealed contribution, the server's step.

FedAvg, FedProx and ISFA are one path: FedAvg is ``gamma: 0``, FedProx is that with `LocalTraining.proximal`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback
from torch import Tensor

from fedtalk.errors import ConfigurationError
from fedtalk.federation.server import Server, ServerOptimizer
from fedtalk.federation.vector import flatten
from fedtalk.privacy.preconditions import check_same_promise
from fedtalk.privacy.private_rounds import Plan, PrivateRounds
from fedtalk.privacy.sealing import PairwiseSealing, SealingRound
from fedtalk.privacy.settings import Privacy


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


class Aggregation(Callback):
    """Identity-Stable Federated Aggregation (ISFA): clients whose identity and motion are stable count for more."""

    def __init__(
        self,
        gamma: float = 1.0,
        alpha: float = 0.6,
        most_clips: int = 8,
        by_clips: bool = True,
        server_optimizer: ServerOptimizer | None = None,
        privacy: Privacy | None = None,
    ) -> None:
        """
        Args:
            gamma: how strongly reliability counts; 0 is FedAvg (the paper uses 0.5 to 2).
            alpha: share of identity consistency in the score ``s = alpha * identity + (1 - alpha) * stability``.
            most_clips: clips beyond this number do not add weight.
            by_clips: weight by the number of clips; otherwise all clients start from the same weight.
            server_optimizer: what the server does with the mean update; SGD with rate 1 (averaging) by default.
            privacy: secure aggregation and differential privacy; neither by default.
        """
        if not 0 <= gamma <= 50:
            raise ConfigurationError(f"aggregation.gamma: expected a number from 0 (FedAvg) to 50, got {gamma}")
        if not 0 <= alpha <= 1:
            raise ConfigurationError(f"aggregation.alpha: expected a share in [0, 1], got {alpha}")
        if not 1 <= most_clips <= 100_000:
            raise ConfigurationError(f"aggregation.most_clips: expected 1 to 100000, got {most_clips}")
        self.gamma, self.alpha, self.most_clips, self.by_clips = gamma, alpha, most_clips, by_clips
        self.server_optimizer = server_optimizer or ServerOptimizer()
        self.privacy = privacy
        self.private_rounds: PrivateRounds | None = None
        """Of the run under way, once `begin` was called."""

    def begin(self, plan: Plan) -> None:
        """Prepare a run; everything that privacy can refuse is refused here.

        Raises:
            ConfigurationError: the run doesn't keep what ``privacy`` promises.
        """
        if self.privacy is not None:
            self.private_rounds = PrivateRounds(self.privacy, plan)
            self.private_rounds.announce()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.private_rounds is None else self.private_rounds.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what a run has spent.

        Raises:
            ArtifactError: its rounds promised another privacy than this callback does.
        """
        if self.private_rounds is None:
            check_same_promise(state_dict or None, False)
        else:
            self.private_rounds.load_state_dict(state_dict or None)

    def recall(self, folder: Path | None = None) -> None:
        """Go on with what was spent by a run that left its ledger in ``folder``; by default in this run's own.

        Raises:
            ArtifactError: the ledger can't be read.
        """
        if self.private_rounds is not None:
            self.private_rounds.recall(folder or self.private_rounds.plan.folder)

    def check_unspent(self) -> None:
        """Refuse to start afresh where a ledger says that these clients have given something already.

        Raises:
            ConfigurationError: the run's folder holds a ledger.
        """
        if self.private_rounds is not None and self.private_rounds.ledger is not None:
            self.private_rounds.ledger.check_unspent(self.private_rounds.plan.folder)

    # The client half

    @property
    def needs_reliability(self) -> bool:
        """Whether clients must measure themselves at all."""
        return self.gamma > 0

    def score(self, identity: float, stability: float) -> float:
        """``s_k`` in [0, 1] (PrivFedTalk, ISFA)."""
        return self.alpha * identity + (1 - self.alpha) * stability

    def weight(self, clips: int, score: float) -> float:
        return isfa_weight(clips if self.by_clips else self.most_clips, self.most_clips, score, self.gamma)

    def take_part(self, client: str) -> None:
        """The client's consent to one more round, which it keeps count of itself where its privacy rests on that.

        Raises:
            ParticipationRefused: it has given as often as it agreed to.
        """
        if self.private_rounds is not None:
            self.private_rounds.take_part(client)

    def contribution(self, update: Mapping[str, Tensor], weight: float) -> np.ndarray:
        """``u_k = (a_k * delta_k, a_k)``: the weight travels as one more coordinate of the same vector.

        With privacy the update is clipped first, and the vector is in units of the clipping bound (`PrivateRounds.vector`).
        """
        if self.private_rounds is not None:
            return self.private_rounds.vector(flatten(update), weight)
        return np.append(weight * flatten(update), weight)

    def open_round(self, round_number: int, cohort: Sequence[str], survivors: Sequence[str]) -> SealingRound:
        """The sealing of a round over ``cohort``, of which ``survivors`` have something to send."""
        if self.private_rounds is not None:
            return self.private_rounds.open_round(round_number, cohort, survivors)
        return PairwiseSealing(round_number, survivors)

    # The server half

    def build_server(self, state: dict[str, Tensor]) -> Server:
        return Server(state, self.server_optimizer)

    def step(self, server: Server, total: np.ndarray) -> float:
        """Take the server's step by an opened sum; returns the L2 norm of the mean update."""
        return server.step(total if self.private_rounds is None else self.private_rounds.released(total))


class FedAvg(Aggregation):
    """Federated averaging (McMahan et al. 2017): weights are the numbers of clips alone."""

    def __init__(
        self,
        most_clips: int = 8,
        server_optimizer: ServerOptimizer | None = None,
        privacy: Privacy | None = None,
    ) -> None:
        super().__init__(gamma=0.0, most_clips=most_clips, server_optimizer=server_optimizer, privacy=privacy)
