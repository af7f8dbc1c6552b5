"""The one place that asks whether a run is private: its rounds are `PrivateRounds` or `ClearRounds`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedtalk.privacy.preconditions import check_same_promise
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.sealed_rounds import AggregationTask, SealedRounds
from fedtalk.privacy.sealing import PairwiseSealing, SealingRound
from fedtalk.privacy.settings import Privacy


def rounds_of(privacy: Privacy | None, task: AggregationTask) -> SealedRounds:
    """The rounds of a run as its settings promise them.

    Raises:
        ConfigurationError: the run doesn't keep what ``privacy`` promises.
    """
    if privacy is None:
        return ClearRounds(task)
    private = PrivateRounds(privacy, task)
    private.announce()
    return private


class ClearRounds(SealedRounds):
    """Updates under masks of this process: only their sum reaches the server half. Not safe against whoever reads the memory of
    the process, and neither clipped nor noised: sums may tell about single clients.
    """

    private = False
    shown, told = None, ""

    def __init__(self, task: AggregationTask) -> None:
        self.task = task

    def draw_cohort(self, round_number: int) -> list[str]:
        return self.task.sampler.draw(self.task.seed, round_number, self.task.clients)

    def updates_needed(self, cohort: int) -> int:
        return self.task.minimum_clients

    def allows_another(self) -> bool:
        return True

    def charge(self) -> None:
        """Nothing is accounted for."""

    def consenting(self, clients: Iterable[str]) -> list[str]:
        """All of them: nothing is promised that would rest on how often they give something."""
        return list(clients)

    def note_dropouts(self, cohort: int, survivors: int) -> None:
        """Nothing rests on it."""

    def vector(self, update: np.ndarray, weight: float) -> np.ndarray:
        return np.append(weight * update, weight)

    def open_round(self, round_number: int, cohort: Sequence[str], survivors: Sequence[str]) -> SealingRound:
        return PairwiseSealing(round_number, survivors)

    def released(self, total: np.ndarray) -> np.ndarray:
        return total

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, saved: dict[str, Any] | None) -> None:
        check_same_promise(saved, False)

    def recall(self, folder: Path | None = None) -> None:
        """Nothing was spent."""

    def check_unspent(self) -> None:
        """There is nothing to spend."""
