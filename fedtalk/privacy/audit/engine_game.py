"""The run's own rounds, played by made-up clients.

Nothing is rebuilt here: the rounds are `fedtalk.federation.rounds.Rounds` over the in-process engine, with the run's settings,
its cohort draw, its clipping, noise from the operating system, seals and ledger (in a folder of its own). What is made up is what
clients' local work comes to. Every client claims a weight far above what any may have, so that a missing limit would show.
Besides the opened sum, which is what an adversary sees, the auditor writes down what clients put into it, and the sum before
the server adds its part of the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from fedtalk.callbacks.aggregation import Aggregation, Standing
from fedtalk.data.source import ClipData, ClipSource
from fedtalk.federation.client_states import ClientStates
from fedtalk.federation.engines.in_process import Engine, InProcess, RoundSum
from fedtalk.federation.federation import Federation
from fedtalk.federation.local_work import ClientReport, ClientUpdate, Failure, LocalResult, LocalWork, OnStep
from fedtalk.federation.rounds import Rounds
from fedtalk.federation.vector import unflatten
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.rounds import ClearRounds
from fedtalk.privacy.sealed_rounds import SealedRounds
from fedtalk.privacy.sealing import RingSum, SealedUpdate, SealingRound
from fedtalk.privacy.settings import Privacy
from fedtalk.randomness import derive_seed

CLAIMED_WEIGHT = 100.0
"""What clients of a private run say that their update weighs; 1 is the most that counts."""
UpdateOf = Callable[[str], np.ndarray]
"""A client's clear update (d,) by its name."""


@dataclass(frozen=True)
class PlayedRound:
    """What a round came to."""

    cohort: list[str]
    total: np.ndarray | None
    """(d + 1,) or (d + 2,) float64, the opened sum in units of the clipping bound; None where the round is void."""
    contributions: dict[str, np.ndarray]
    """What each client put into the sum, before it was rounded, noised and masked."""
    before_server: np.ndarray | None
    """The sum as it was opened, with the clients' noise and not yet the server's; None without privacy."""


class EngineGame:
    """One run of the engine."""

    def __init__(
        self, federation: Federation, privacy: Privacy | None, names: Sequence[str], rounds: int, folder: Path
    ) -> None:
        """
        Args:
            federation: of the run under audit; its module's exchanged parameters are overwritten.
            privacy: the run's, with its noise multiplier, or None for the control.
            names: of the made-up clients; their number is a setting of the mechanism.
            rounds: that will be played.
            folder: empty, for checkpoint and ledger.

        Raises:
            ConfigurationError: so few rounds or clients can't be private.
        """
        self.federation = replace(
            federation, data=_MadeUp(names), aggregation=_Claiming(1.0 if privacy is None else CLAIMED_WEIGHT),
            privacy=privacy, rounds=rounds, run_dir=folder, client_states=ClientStates(folder / "clients"), enough=1.0,
        )  # fmt: skip
        task = self.federation.aggregation_task()
        self.dimension = task.dimension
        self.sealed: SealedRounds = ClearRounds(task) if privacy is None else _WatchedRounds(privacy, task)
        self._engine = _CanaryEngine()
        self._engine.sealed = self.sealed
        self._engine.start(self.federation, lambda: None)
        self._rounds = Rounds(self.federation, self.sealed, self._engine, self._note_cohort, lambda *_: None)
        self._rounds.begin(None)
        self._cohort: list[str] = []
        self.refused: str | None = None
        """Why the engine could not go on, where it could not."""

    def play(self, update_of: UpdateOf) -> PlayedRound:
        """One round, from the draw of its cohort to the opened sum."""
        engine, number = self._engine, self._rounds.round_number
        engine.update_of, engine.contributions, engine.total = update_of, {}, None
        self._cohort = []
        if self.refused is None:
            try:
                self._rounds.run_round()
            except ValueError as error:  # a vector beyond the norm bound, which the encoding refuses
                self.refused = str(error)
        opened = self.sealed.opened if isinstance(self.sealed, _WatchedRounds) else None
        before = None if opened is None or engine.total is None else self._decoded(opened, number)
        return PlayedRound(self._cohort, engine.total, engine.contributions, before)

    def _note_cohort(self, number: int, cohort: list[str]) -> None:
        self._cohort = list(cohort)

    def _decoded(self, opened: np.ndarray, number: int) -> np.ndarray:
        assert isinstance(self.sealed, PrivateRounds)
        point = self.sealed.mechanism.fixed_point
        rotation = point.rotation(derive_seed(self.federation.seed, "rotation", number))
        return point.decode(point.ring.reduce(opened.astype(point.ring.dtype)), rotation)


class _MadeUp(ClipData):
    """Clients without clips."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._names = list(names)

    @property
    def clients(self) -> list[str]:
        return self._names

    def training_clips(self, client: str) -> Sequence[ClipSource]:
        return []

    def held_out_clips(self, client: str) -> Sequence[ClipSource]:
        return []


class _Claiming(Aggregation):
    """Clients that all claim the same weight."""

    def __init__(self, claim: float) -> None:
        super().__init__()
        self._claim = claim

    def weight(self, standing: Standing) -> float:
        return self._claim


class _CanaryEngine(InProcess):
    """The in-process engine, whose clients' local work comes to what the auditor says."""

    update_of: UpdateOf
    contributions: dict[str, np.ndarray]
    total: np.ndarray | None = None

    def start(self, federation: Federation, check_stop: Callable[[], None]) -> None:
        Engine.start(self, federation, check_stop)  # there is no client half, for there are no clips

    def run_round(
        self, round_number: int, cohort: Sequence[str], state: Mapping[str, Tensor], on_step: OnStep
    ) -> RoundSum:
        result = super().run_round(round_number, cohort, state, on_step)
        self.total = result.total
        return result

    def updates(
        self, round_number: int, cohort: Sequence[str], state: Mapping[str, Tensor], on_step: OnStep
    ) -> Generator[tuple[str, ClientUpdate | Failure], None, None]:
        for client, update in super().updates(round_number, cohort, state, on_step):
            if isinstance(update, ClientUpdate):
                self.contributions[client] = update.contribution
            yield client, update

    def local_results(
        self, work: LocalWork, clients: Sequence[str], state: Mapping[str, Tensor], on_step: OnStep
    ) -> Generator[tuple[str, LocalResult | Failure], None, None]:
        for client in clients:
            update = unflatten(self.update_of(client), state)
            moved = {name: value + update[name] for name, value in state.items()}
            yield client, LocalResult(ClientReport(client, clips=1, losses={}), moved)


class _WatchedRounds(PrivateRounds):
    """Private rounds that write down the last sum as it was opened."""

    opened: np.ndarray | None = None

    def open_round(self, round_number: int, cohort: Sequence[str], survivors: Sequence[str]) -> SealingRound:
        sealing = super().open_round(round_number, cohort, survivors)
        self.opened = None
        sealing._ring_sum = _WatchedSum(sealing._ring_sum, self)  # type: ignore[attr-defined]
        return sealing


class _WatchedSum(RingSum):
    def __init__(self, inner: RingSum, rounds: _WatchedRounds) -> None:
        self._inner, self._rounds = inner, rounds

    def seal_ring(self, client: str, elements: np.ndarray) -> SealedUpdate:
        return self._inner.seal_ring(client, elements)

    def open_ring(self, updates: Sequence[SealedUpdate]) -> np.ndarray:
        opened = self._inner.open_ring(updates)
        self._rounds.opened = opened.copy()
        return opened
