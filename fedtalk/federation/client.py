"""The client half of a round: train, measure, weight. What it reads of clips stays here."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from torch import Tensor, nn

from fedtalk.data.source import ClipData, PreparedCache
from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.federation.client_states import ClientStates
from fedtalk.federation.deadline import Deadline
from fedtalk.federation.local import LocalTraining, train_locally
from fedtalk.federation.module import FederatedModule, Prepared, copy_state, load_state
from fedtalk.federation.placement import Placement, Placements
from fedtalk.federation.together import train_together
from fedtalk.privacy.sealing import to_ring
from fedtalk.randomness import torch_generator

if TYPE_CHECKING:
    from fedtalk.callbacks.aggregation import Aggregation

log = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class LocalWork:
    """What clients are asked for: their part of a round, or training that comes after the rounds."""

    round_number: int
    rounds: int
    """In all, for schedules of the learning rate."""
    local: LocalTraining
    measured: bool = False
    """Whether clients measure their reliability."""
    stream: str = ""
    """Goes before a client's name in the keys of its random streams, where a round's are not to be drawn again."""


@dataclass
class LocalResult:
    """What a client's local work comes to, before it is weighed. It may have been done in another process of the client's."""

    client: str
    state: dict[str, Tensor]
    """The exchanged parameters after the local steps, on the CPU."""
    clips: int
    losses: dict[str, float]
    identity: float
    stability: float
    seconds: float
    memory_bytes: int
    """The largest that its process had so far; of the device where that is a GPU."""
    optimizer: dict | None = None
    """Its state, where `LocalTraining.keep_optimizer` asks for it."""


def peak_bytes(device: torch.device) -> int:
    """Largest memory of this process so far: of the device where it is a GPU, else resident; 0 where no system tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts in bytes, Linux in KiB


class ClientHalf:
    """What clients do in a round, each on its own data."""

    def __init__(
        self,
        fabric: Fabric,
        module: FederatedModule,
        data: ClipData,
        cache: PreparedCache,
        aggregation: Aggregation | None,
        states: ClientStates,
        seed: int,
        most_held_out: int,
        placements: Placements | None = None,
        wrapped: Any = None,
    ) -> None:
        """
        Args:
            fabric: where it trains.
            module: trained in place; every client starts from the state that it is sent.
            data: whose clips.
            cache: of prepared clips.
            aggregation: weighs updates and turns them into contributions; a worker, which does the local work only, has none.
            states: optimizer states, where `LocalTraining.keep_optimizer` asks for them.
            seed: of the run.
            most_held_out: held-out clips of a client that are measured on, at most.
            placements: how each client trains; alike by default.
            wrapped: what ``fabric`` made of the module, where several processes take a client together.
        """
        self.fabric, self.module, self.data, self.cache = fabric, module, data, cache
        self.aggregation, self.states, self.seed, self.most_held_out = aggregation, states, seed, most_held_out
        self.placements, self.wrapped = placements or Placements(), wrapped
        self._fabrics: dict[str, Fabric] = {}

    def prepared(self, client: str, held_out: bool = False) -> list[Prepared]:
        """A client's prepared clips, from its cache. Of processes that take it together, the first one prepares.

        Raises:
            ConfigurationError: it has none.
        """
        data = self.data
        sources = data.held_out_clips(client)[: self.most_held_out] if held_out else data.training_clips(client)
        if not sources:
            kind = "held-out" if held_out else "training"
            raise ConfigurationError(f"client {client} has no {kind} clips; expected at least one")
        if self.wrapped is None:
            return self.cache.get(self.module, sources)
        if self.fabric.global_rank:
            self.fabric.barrier()
        try:
            return self.cache.get(self.module, sources)
        finally:
            if not self.fabric.global_rank:
                self.fabric.barrier()

    def work(
        self,
        client: str,
        work: LocalWork,
        start: Mapping[str, Tensor],
        on_step: OnStep,
        deadline: Deadline | None = None,
    ) -> LocalResult:
        """A client's local steps and measurements: all of its round that needs its clips.

        Args:
            client: whose.
            work: what it is asked for.
            start: the global state, on the CPU.
            on_step: after each local step.
            deadline: where some of its time has gone already.

        Raises:
            FedTalkError: the update is lost: not finite, too late, no clips.
        """
        started, module, local = time.monotonic(), self.module, work.local
        # Processes that go in step would part ways at a deadline that each looks up by itself; there the workers' pool does.
        deadline = deadline or Deadline(client, local.deadline_seconds if self.wrapped is None else None)
        placement = self.placements.of(client)
        load_state(self._parameters(placement), start)
        clips = self.prepared(client)
        sums: dict[str, float] = {}

        def after(step: int, losses: dict[str, float]) -> None:
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            on_step(client, step, losses)
            deadline.check(f"at local step {step + 1} of {local.steps}")

        optimizer = train_locally(
            self._fabric_of(placement), module, clips, local, self.seed, work.stream + client, work.round_number, work.rounds,
            self.states.load(client, work.round_number) if local.keep_optimizer else None, after, placement, self.wrapped,
        )  # fmt: skip
        result = self._measured(client, work, clips, sums, deadline, started)
        result.optimizer = optimizer if local.keep_optimizer else None
        return result

    def work_together(
        self, clients: Sequence[str], work: LocalWork, start: Mapping[str, Tensor], on_step: OnStep
    ) -> Iterator[tuple[str, LocalResult | Exception]]:
        """The local work of clients that share a placement, in one batch where it says so.

        Yields:
            each client with what `work` returns or raises: a client's trouble costs the others nothing. Where a step fails
            (memory, clips of another shape) all start again apart, within the same deadline.
        """
        if len(clients) == 1:
            try:
                yield clients[0], self.work(clients[0], work, start, on_step)
            except Exception as error:
                yield clients[0], error
            return
        started, module, local = time.monotonic(), self.module, work.local
        deadline = Deadline(" and ".join(clients), local.deadline_seconds)
        placement = self.placements.of(clients[0])
        load_state(module.exchanged_parameters(), start)
        clips: dict[str, list[Prepared]] = {}
        for client in clients:
            try:
                clips[client] = self.prepared(client)
                # Whoever's clips can't fill a batch is found out by itself.
                module.draw_batch(clips[client], local.batch_size, torch.Generator().manual_seed(0))
            except Exception as error:
                clips.pop(client, None)
                yield client, error
        if not clips:
            return
        sums: dict[str, dict[str, float]] = {client: {} for client in clips}
        stopped = False

        def after(streamed: str, step: int, losses: dict[str, float]) -> None:
            nonlocal stopped
            client = streamed.removeprefix(work.stream)
            for name, value in losses.items():
                sums[client][name] = sums[client].get(name, 0.0) + value
            stopped = True
            on_step(client, step, losses)
            deadline.check(f"at local step {step + 1} of {local.steps}")
            stopped = False

        ends: dict[str, dict[str, Tensor]] | None = None
        try:
            ends = train_together(
                self._fabric_of(placement), module, {work.stream + client: own for client, own in clips.items()}, local,
                self.seed, work.round_number, work.rounds, after, placement,
            )  # fmt: skip
        except Exception as error:
            if stopped:
                yield from ((client, error) for client in clips)
                return
            log.warning("%s could not train in one batch and start again apart: %s", " and ".join(clips), error)
        if ends is None:  # and not in the handler, which keeps the memory of the failed step
            for client in clips:
                try:
                    yield client, self.work(client, work, start, on_step, deadline)
                except Exception as error:
                    yield client, error
            return
        for client in clips:
            try:
                load_state(module.exchanged_parameters(), ends[work.stream + client])
                yield client, self._measured(client, work, clips[client], sums[client], deadline, started)
            except Exception as error:
                yield client, error

    def _measured(
        self,
        client: str,
        work: LocalWork,
        clips: list[Prepared],
        sums: Mapping[str, float],
        deadline: Deadline,
        started: float,
    ) -> LocalResult:
        """From the trained module to the result."""
        module, steps = self.module, work.local.steps
        identity = stability = 1.0
        if work.measured:
            held_out = self.prepared(client, held_out=True)
            generator = torch_generator(self.seed, "reliability", work.round_number, work.stream + client)
            identity, stability = module.reliability(held_out, clips, generator)
            deadline.check("measuring itself")
            if not math.isfinite(identity + stability):
                raise FedTalkError(f"{client} measured identity {identity} and stability {stability}; expected numbers")
        state = copy_state(self._parameters(self.placements.of(client)))
        if not all(torch.isfinite(value).all() for value in state.values()):
            raise FedTalkError(f"the update of {client} holds values that are not finite")
        return LocalResult(
            client, state, len(clips), {name: value / steps for name, value in sums.items()}, identity, stability,
            time.monotonic() - started, peak_bytes(self.fabric.device),
        )  # fmt: skip

    def weigh(self, result: LocalResult, start: Mapping[str, Tensor], round_number: int) -> ClientUpdate:
        """From the local work to the contribution.

        Args:
            result: of a round's work.
            start: what it began with.
            round_number: of the run.

        Raises:
            FedTalkError: the update can't be sealed, or the client gives no more, and it is lost.
        """
        assert self.aggregation is not None
        score = self.aggregation.score(result.identity, result.stability)
        weight = self.aggregation.weight(result.clips, score)
        contribution = self.aggregation.contribution({name: result.state[name] - start[name] for name in start}, weight)
        to_ring(contribution, result.client)  # an update that can't be sealed is lost here, and not the round later
        if result.optimizer is not None:  # not of an update that was lost: its moments may be as bad as it was
            self.states.save(result.client, round_number, result.optimizer)
        self.aggregation.take_part(result.client)
        return ClientUpdate(
            contribution,
            ClientReport(
                result.client, result.clips, result.losses, result.identity, result.stability, weight, result.seconds
            ),
        )

    def _parameters(self, placement: Placement) -> dict[str, nn.Parameter]:
        """What is exchanged; shards of it, where a forward pass has left some put together."""
        if placement.kind == "fsdp":
            for part in self.module.shards():
                part.reshard()  # type: ignore[operator]
        return self.module.exchanged_parameters()

    def _fabric_of(self, placement: Placement) -> Fabric:
        """This process's Fabric, in the placement's precision."""
        if self.wrapped is not None or placement.precision is None:
            return self.fabric
        if placement.precision not in self._fabrics:
            device = self.fabric.device
            self._fabrics[placement.precision] = Fabric(
                accelerator=device.type,
                devices=[device.index or 0] if device.type == "cuda" else 1,
                precision=placement.precision,  # type: ignore[arg-type]
                plugins=LightningEnvironment(),
            )
        return self._fabrics[placement.precision]
