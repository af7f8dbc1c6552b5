"""What a run learns, from whom and how: all that engines and clients are told of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment

from fedtalk.callbacks.aggregation import Aggregation
from fedtalk.data.source import ClipData, PreparedCache
from fedtalk.federation.client_states import ClientStates
from fedtalk.federation.cohort import CohortSampler
from fedtalk.privacy.sealed_rounds import AggregationTask
from fedtalk.privacy.settings import Privacy
from fedtalk.randomness import numpy_generator
from fedtalk.training.local import LocalTraining
from fedtalk.training.module import FederatedModule
from fedtalk.training.placement import Placements


@dataclass(frozen=True)
class Federation:
    """The settings of a run with its module and data. It holds no secret and can be sent to other processes."""

    module: FederatedModule
    """Trained in place; every client starts from the state that it is sent."""
    data: ClipData
    aggregation: Aggregation
    privacy: Privacy | None
    """What is promised; None for nothing."""
    cohort: CohortSampler
    local: LocalTraining
    placements: Placements
    cache: PreparedCache
    """Of prepared clips."""
    client_states: ClientStates
    """What clients keep from round to round: optimizer states, where `LocalTraining.keep_optimizer` asks for them, and kept
    parameters, where the module has any."""
    run_dir: Path
    rounds: int
    """In all."""
    seed: int
    minimum_clients: int
    """A round with fewer updates is void."""
    enough: float
    """Share of a cohort whose updates close the round."""
    most_held_out: int
    """Held-out clips of a client that are measured on, at most."""
    device: torch.device
    precision: str
    """Of local training."""

    def fabric(self, precision: str | None = None) -> Fabric:
        """A Fabric for one process on the federation's device.

        Args:
            precision: of a placement; the federation's own by default.
        """
        return Fabric(
            accelerator=self.device.type,
            devices=[self.device.index or 0] if self.device.type == "cuda" else 1,
            precision=precision or self.precision,  # type: ignore[arg-type]
            plugins=LightningEnvironment(),  # a launcher's ranks are ours to use
        )

    def aggregation_task(self, clients: Sequence[str] | None = None, session: bytes | None = None) -> AggregationTask:
        """What the sealing of the rounds must know.

        Args:
            clients: all who are registered; those of the data by default.
            session: 16 public bytes that name the run; drawn where there are none.
        """
        exchanged = self.module.exchanged_parameters()
        return AggregationTask(
            sum(value.numel() for value in exchanged.values()), list(exchanged), clients or self.data.clients, self.cohort,
            self.rounds, self.minimum_clients, self.seed, self.run_dir / "checkpoints", session,
        )  # fmt: skip

    def updates_enough(self, cohort: int) -> int:
        """Updates of a cohort that close its round."""
        return math.ceil(self.enough * cohort - 1e-9)

    def start_order(self, round_number: int, cohort: Sequence[str]) -> list[str]:
        """In which order clients start: as drawn, or shuffled where the first ones count."""
        if self.enough == 1:
            return list(cohort)
        shuffled = numpy_generator(self.seed, "order", round_number).permutation(len(cohort))
        return [cohort[index] for index in shuffled]
