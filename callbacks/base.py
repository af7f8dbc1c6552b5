"""Callbacks that follow rounds, and what they are told."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from lightning.pytorch import Callback, Trainer

from fedtalk.data.source import ClipData
from fedtalk.federation.engines.in_process import Engine
from fedtalk.federation.federation import Federation
from fedtalk.federation.local_work import ClientReport
from fedtalk.interruption import StopSignals
from fedtalk.privacy.settings import Privacy
from fedtalk.training.local import LocalTraining
from fedtalk.training.module import FederatedModule


@dataclass
class RoundOutcome:
    """What a round came to."""

    round_number: int
    cohort: list[str]
    reports: list[ClientReport] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """Clients whose update was lost, and why."""
    update_norm: float = 0.0
    seconds: float = 0.0
    privacy: dict[str, float] | None = None
    """With privacy: what may be shown of the round. Then there are no reports: clients keep them to themselves."""
    told: str = ""
    """With noise: epsilon so far, by adversary."""


class RoundTrainer(Trainer):
    """What callbacks may use of a `FederatedTrainer`."""

    data: ClipData
    run_dir: Path
    rounds: int
    """In all."""
    round_number: int
    """Rounds that are done."""
    local: LocalTraining
    privacy: Privacy | None
    validate_every: int
    engine: Engine
    stop_signals: StopSignals

    @abstractmethod
    def federate(self, model: FederatedModule, datamodule: ClipData) -> Federation:
        """This trainer's settings with a module and data."""


class RoundCallback(Callback):
    """A callback that follows rounds; every hook may be left out."""

    shows_clients = False
    """Whether it shows what single clients have, and so can't be used with privacy."""

    def on_fit_rounds_start(self, trainer: RoundTrainer, module: FederatedModule) -> None: ...

    def on_round_start(
        self, trainer: RoundTrainer, module: FederatedModule, round_number: int, cohort: list[str]
    ) -> None: ...

    def on_local_step(
        self, trainer: RoundTrainer, client: str, step: int, steps: int, losses: dict[str, float]
    ) -> None: ...

    def on_round_end(self, trainer: RoundTrainer, module: FederatedModule, outcome: RoundOutcome) -> None: ...

    def on_held_out(
        self, trainer: RoundTrainer, module: FederatedModule, round_number: int, metrics: dict[str, float]
    ) -> None: ...

    def on_fit_rounds_end(self, trainer: RoundTrainer, module: FederatedModule) -> None: ...
