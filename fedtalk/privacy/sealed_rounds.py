"""What stands between clients' updates and the server in every round of a run, whether or not it promises privacy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedtalk.federation.cohort import CohortSampler
from fedtalk.privacy.sealing import SealingRound


@dataclass(frozen=True)
class AggregationTask:
    """What a run tells its sealing before the first round (a *task* in IETF's Distributed Aggregation Protocol)."""

    dimension: int
    """Coordinates of an update."""
    parameters: Sequence[str]
    """Names of the exchanged parameters."""
    clients: Sequence[str]
    """All who are registered."""
    sampler: CohortSampler
    rounds: int
    minimum_clients: int
    seed: int
    folder: Path
    """Where the ledger's record lies, beside the checkpoint."""
    session: bytes | None = None
    """16 public bytes that name the run to its clients; drawn by whoever opens the run, told to everybody else."""


class SealedRounds(ABC):
    """From a client's weighted update to the sum that the server may use, for all rounds of one run."""

    private: bool
    """Whether what single clients have must not be shown."""

    @abstractmethod
    def draw_cohort(self, round_number: int) -> list[str]:
        """Who takes part."""

    @abstractmethod
    def updates_needed(self, cohort: int) -> int:
        """Fewest updates of a cohort for which there is a sum at all."""

    @abstractmethod
    def allows_another(self) -> bool:
        """Whether another round may be run."""

    @abstractmethod
    def charge(self) -> None:
        """Account for a round before anything of it is released, on disk too."""

    @abstractmethod
    def consenting(self, clients: Iterable[str]) -> list[str]:
        """Client half: those that give something once more, each by the count that it keeps itself where privacy rests on it.

        To be asked right before something leaves them; it counts from then on, whatever becomes of it.
        """

    @abstractmethod
    def note_dropouts(self, cohort: int, survivors: int) -> None:
        """How many of a cohort gave something, for what is assumed of dropouts."""

    told: str
    """What the last round has brought the run's epsilons to, each with its adversary; empty where there is none."""

    @property
    @abstractmethod
    def shown(self) -> dict[str, float] | None:
        """Scalars of the last round that may be shown in place of the clients' own; None where those may."""

    @abstractmethod
    def vector(self, update: np.ndarray, weight: float) -> np.ndarray:
        """Client half: ``u_k = (a_k delta_k, a_k)``: the weight travels as one more coordinate of the same vector.

        Args:
            update: delta_k, (d,) float64.
            weight: a_k, in [0, 1].

        Returns:
            (d + 1,) or, with adaptive clipping, (d + 2,) float64.
        """

    @abstractmethod
    def open_round(self, round_number: int, cohort: Sequence[str], survivors: Sequence[str]) -> SealingRound:
        """The sealing of a round over ``cohort``, of which ``survivors`` have something to send.

        Raises:
            AbortedRound: too few clients.
        """

    @abstractmethod
    def released(self, total: np.ndarray) -> np.ndarray:
        """Server half: from the opened sum to (sum a_k delta_k, sum a_k), (d + 1,) float64, in the updates' own units."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep."""

    @abstractmethod
    def load_state_dict(self, saved: dict[str, Any] | None) -> None:
        """Go on with what a run has spent.

        Raises:
            ArtifactError: its rounds promised something else than the rounds to come.
        """

    @abstractmethod
    def recall(self, folder: Path | None = None) -> None:
        """Go on with what was spent by whoever left a ledger in ``folder``; by default in the run's own.

        Raises:
            ArtifactError: the ledger can't be read; what was spent is not known.
        """

    @abstractmethod
    def check_unspent(self) -> None:
        """Refuse to start afresh where a ledger says that these clients have given something already.

        Raises:
            ConfigurationError: the run's folder holds a ledger.
        """
