"""The client half of a round: train, measure, weight. What it reads of clips stays here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from fedtalk.data.source import ClipData, PreparedCache
from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.federation.client_states import ClientStates
from fedtalk.federation.deadline import Deadline
from fedtalk.federation.local import LocalTraining, train_locally
from fedtalk.federation.module import FederatedModule, Prepared, load_state
from fedtalk.privacy.sealing import to_ring
from fedtalk.randomness import torch_generator

if TYPE_CHECKING:
    from fedtalk.callbacks.aggregation import Aggregation

OnStep = Callable[[str, int, dict[str, float]], None]
"""Called after a client's local step with its name, the step and the terms of its loss; may raise to stop."""


@dataclass
class ClientReport:
    """What a client tells about its round in the clear; monitors show it, aggregation does not need it."""

    client: str
    clips: int
    losses: dict[str, float]
    """Means over the local steps, by term."""
    identity: float
    stability: float
    weight: float
    seconds: float


@dataclass
class ClientUpdate:
    """What comes of a client's round, before it is sealed; it stays in the client half."""

    contribution: np.ndarray
    """(d + 1,) or (d + 2,) float64: `Aggregation.contribution`."""
    report: ClientReport


class ClientHalf:
    """What clients do in a round, each on its own data."""

    def __init__(
        self,
        fabric: Fabric,
        module: FederatedModule,
        data: ClipData,
        cache: PreparedCache,
        local: LocalTraining,
        aggregation: Aggregation,
        states: ClientStates,
        seed: int,
        rounds: int,
        most_held_out: int,
    ) -> None:
        """
        Args:
            fabric: where it trains.
            module: trained in place; every client starts from the state that it is sent.
            data: whose clips.
            cache: of prepared clips.
            local: how a client trains.
            aggregation: weighs updates and turns them into contributions.
            states: optimizer states, where `LocalTraining.keep_optimizer` asks for them.
            seed: of the run.
            rounds: of the run, for schedules of the learning rate.
            most_held_out: held-out clips of a client that are measured on, at most.
        """
        self.fabric, self.module, self.data, self.cache = fabric, module, data, cache
        self.local, self.aggregation, self.states = local, aggregation, states
        self.seed, self.rounds, self.most_held_out = seed, rounds, most_held_out

    def prepared(self, client: str, held_out: bool = False) -> list[Prepared]:
        """A client's prepared clips, from its cache.

        Raises:
            ConfigurationError: it has none.
        """
        data = self.data
        sources = data.held_out_clips(client)[: self.most_held_out] if held_out else data.training_clips(client)
        if not sources:
            kind = "held-out" if held_out else "training"
            raise ConfigurationError(f"client {client} has no {kind} clips; expected at least one")
        return self.cache.get(self.module, sources)

    def run(self, client: str, round_number: int, start: Mapping[str, Tensor], on_step: OnStep) -> ClientUpdate:
        """A client's round.

        Args:
            client: whose.
            round_number: of the run.
            start: the global state, on the CPU.
            on_step: after each local step.

        Raises:
            FedTalkError: the update is lost: not finite, too late, no clips.
        """
        started, module = time.monotonic(), self.module
        deadline = Deadline(client, self.local.deadline_seconds)
        load_state(module.exchanged_parameters(), start)
        clips = self.prepared(client)
        sums: dict[str, float] = {}

        def after(step: int, losses: dict[str, float]) -> None:
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            on_step(client, step, losses)
            deadline.check(f"at local step {step + 1} of {self.local.steps}")

        optimizer = train_locally(
            self.fabric, module, clips, self.local, self.seed, client, round_number, self.rounds,
            self.states.load(client, round_number) if self.local.keep_optimizer else None, after,
        )  # fmt: skip
        losses = {name: value / self.local.steps for name, value in sums.items()}
        update = self._finish(client, round_number, start, clips, losses, deadline, started)
        if self.local.keep_optimizer:  # not of an update that was lost: its moments may be as bad as it was
            self.states.save(client, round_number, optimizer)
        return update

    def _finish(
        self,
        client: str,
        round_number: int,
        start: Mapping[str, Tensor],
        clips: list[Prepared],
        losses: dict[str, float],
        deadline: Deadline,
        started: float,
    ) -> ClientUpdate:
        """From the trained module to the contribution: measure, weight, check."""
        module = self.module
        end = module.exchanged_parameters()
        identity = stability = 1.0
        if self.aggregation.needs_reliability:
            held_out = self.prepared(client, held_out=True)
            generator = torch_generator(self.seed, "reliability", round_number, client)
            identity, stability = module.reliability(held_out, clips, generator)
            deadline.check("measuring itself")
        weight = self.aggregation.weight(len(clips), self.aggregation.score(identity, stability))
        update = {name: end[name].detach().cpu() - start[name] for name in start}
        if not all(torch.isfinite(value).all() for value in update.values()):
            raise FedTalkError(f"the update of {client} holds values that are not finite")
        report = ClientReport(client, len(clips), losses, identity, stability, weight, time.monotonic() - started)
        contribution = self.aggregation.contribution(update, weight)
        to_ring(contribution, client)  # an update that can't be sealed is lost here, and not the round later
        return ClientUpdate(contribution, report)
