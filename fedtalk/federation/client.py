"""The client half of a round: train and measure. What it reads of clips stays here."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.federation.deadline import Deadline
from fedtalk.federation.federation import Federation
from fedtalk.federation.local_work import ClientReport, Failure, LocalResult, LocalWork, OnStep
from fedtalk.federation.scaffold import of_everybody, own_control
from fedtalk.machine import peak_bytes
from fedtalk.randomness import torch_generator
from fedtalk.training.local import train_locally
from fedtalk.training.module import Prepared, copy_state, load_state
from fedtalk.training.placement import Placement
from fedtalk.training.together import train_together

log = logging.getLogger(__name__)


class ClientHalf:
    """What clients do in a round, each on its own data."""

    def __init__(self, federation: Federation, fabric: Fabric | None = None, wrapped: Any = None) -> None:
        """
        Args:
            federation: whose clients; its module is trained in place.
            fabric: where it trains; one of its own on the federation's device by default.
            wrapped: what ``fabric`` made of the module, where several processes take a client together.
        """
        self.fabric, self.wrapped = fabric or federation.fabric(), wrapped
        federation = replace(federation, device=self.fabric.device)
        self.module, self.data, self.cache = federation.module, federation.data, federation.cache
        self.states, self.seed, self.most_held_out = federation.client_states, federation.seed, federation.most_held_out
        self.placements = federation.placements
        self._federation, self._fabrics = federation, dict[str, Fabric]()
        self._kept_start = copy_state(self.module.kept_parameters())

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

    def _own(self, client: str, work: LocalWork) -> tuple[list[Prepared], Any]:
        """A client's prepared clips; for personal work prepared with its looks, and these."""
        self.module.looks = None  # not those of who was saved before
        clips = self.prepared(client)
        if not work.personal:
            return clips, None
        looks = self.module.looks_of(clips)
        if looks is None:
            return clips, None
        try:
            self.module.looks = looks
            return self.prepared(client), looks
        finally:
            self.module.looks = None  # of nobody, whatever has happened

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
        clips, looks = self._own(client, work)
        kept = module.kept_parameters()
        own: Mapping[str, Any] = {}
        if local.keep_optimizer or kept or work.controls:
            own = self.states.load(client, work.round_number if work.after is None else work.after) or {}
        sums: dict[str, float] = {}
        after = _listener(client, sums, local.steps, on_step, deadline)
        common_control = of_everybody(start)
        control = own.get("control") or {name: torch.zeros_like(value) for name, value in common_control.items()}
        correction = {name: value - control[name] for name, value in common_control.items()}
        try:
            load_state(kept, own.get("kept", self._kept_start))
            with module.local_form() as common:
                optimizer = train_locally(
                    self._fabric_of(placement), module, clips, local, self.seed, work.stream + client, work.round_number,
                    work.rounds, own.get("optimizer") if local.keep_optimizer else None, after, placement, self.wrapped,
                    correction,
                )  # fmt: skip
                result = self._measured(client, work, clips, sums, deadline, started)
            result.kept, result.looks = copy_state(kept) if kept else None, looks
        finally:
            load_state(kept, self._kept_start)  # of nobody, whatever has happened
        result.state = common(result.state)
        if work.controls:
            result.control, sent = own_control(
                start, result.state, control, local.rates(work.round_number, work.rounds)
            )
            result.state |= sent
        result.optimizer = optimizer if local.keep_optimizer else None
        return result

    def work_together(
        self, clients: Sequence[str], work: LocalWork, start: Mapping[str, Tensor], on_step: OnStep
    ) -> Iterator[tuple[str, LocalResult | Failure]]:
        """The local work of clients that share a placement, in one batch where it says so.

        Yields:
            each client with what `work` returns, or its failure: a client's trouble costs the others nothing. Where a step fails
            (memory, clips of another shape) all start again apart, within the same deadline.
        """
        if len(clients) == 1:
            yield clients[0], self._tried(clients[0], work, start, on_step)
            return
        started, module, local = time.monotonic(), self.module, work.local
        deadline = Deadline(" and ".join(clients), local.deadline_seconds)
        placement = self.placements.of(clients[0])
        load_state(module.exchanged_parameters(), start)
        clips: dict[str, list[Prepared]] = {}
        looks: dict[str, Any] = {}
        for client in clients:
            try:
                clips[client], looks[client] = self._own(client, work)
                # Whoever's clips can't fill a batch is found out by itself.
                module.draw_batch(clips[client], local.batch_size, torch.Generator().manual_seed(0))
            except Exception as error:
                clips.pop(client, None)
                yield client, Failure.of(error)
        if not clips:
            return
        sums: dict[str, dict[str, float]] = {client: {} for client in clips}
        stopped = False

        def after(streamed: str, step: int, losses: dict[str, float]) -> None:
            nonlocal stopped
            client, stopped = streamed.removeprefix(work.stream), True
            _listener(client, sums[client], local.steps, on_step, deadline)(step, losses)
            stopped = False

        ends: dict[str, dict[str, Tensor]] | None = None
        try:
            with module.local_form():
                ends = train_together(
                    self._fabric_of(placement), module, {work.stream + client: own for client, own in clips.items()}, local,
                    self.seed, work.round_number, work.rounds, after, placement,
                )  # fmt: skip
        except Exception as error:
            if stopped:
                yield from ((client, Failure.of(error)) for client in clips)
                return
            log.warning("%s could not train in one batch and start again apart: %s", " and ".join(clips), error)
        if ends is None:  # and not in the handler, which keeps the memory of the failed step
            yield from ((client, self._tried(client, work, start, on_step, deadline)) for client in clips)
            return
        load_state(module.exchanged_parameters(), start)
        with module.local_form() as common:
            for client in clips:
                try:
                    load_state(module.exchanged_parameters(), ends[work.stream + client])
                    result = self._measured(client, work, clips[client], sums[client], deadline, started)
                    result.state, result.looks = common(result.state), looks[client]
                    yield client, result
                except Exception as error:
                    yield client, Failure.of(error)

    def _tried(self, client: str, work: LocalWork, *arguments: Any) -> LocalResult | Failure:
        try:
            return self.work(client, work, *arguments)
        except Exception as error:  # whatever a client's data or device does, it costs its own update only
            return Failure.of(error)

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
        quality = identity = stability = 1.0
        if work.measures == "clips":
            quality = module.quality(clips)
        elif work.measures == "estimates":
            held_out = self.prepared(client, held_out=True)
            generator = torch_generator(self.seed, "reliability", work.round_number, work.stream + client)
            identity, stability = module.reliability(held_out, clips, generator)
            deadline.check("measuring itself")
        if not math.isfinite(quality + identity + stability):
            raise FedTalkError(
                f"{client} measured quality {quality}, identity {identity} and stability {stability}; expected numbers"
            )
        state = copy_state(self._parameters(self.placements.of(client)))
        if not all(torch.isfinite(value).all() for value in state.values()):
            raise FedTalkError(f"the update of {client} holds values that are not finite")
        losses = {name: value / steps for name, value in sums.items()}
        report = ClientReport(client, len(clips), losses, quality, identity, stability, time.monotonic() - started)
        return LocalResult(report, state, peak_bytes(self.fabric.device))

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
            self._fabrics[placement.precision] = self._federation.fabric(placement.precision)
        return self._fabrics[placement.precision]


def _listener(
    client: str, sums: dict[str, float], steps: int, on_step: OnStep, deadline: Deadline
) -> Callable[[int, dict[str, float]], None]:
    """Adds a step's losses to their sums, passes them on and looks at the clock."""

    def after(step: int, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value
        on_step(client, step, losses)
        deadline.check(f"at local step {step + 1} of {steps}")

    return after
