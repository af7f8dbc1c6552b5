"""Trials: what a client's local step takes under each placement, by a few real steps in processes of their own."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from fedtalk.data.source import ClipData, ClipSource
from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.federation.client import ClientHalf, LocalWork
from fedtalk.federation.engines.in_process import Failure, InProcess
from fedtalk.federation.engines.ray.engine import RayEngine
from fedtalk.federation.engines.ray.session import open_session
from fedtalk.federation.module import FederatedModule, copy_state, load_state
from fedtalk.federation.placement import Placement, Placements, usable_cores

if TYPE_CHECKING:
    from fedtalk.federation.trainer import FederatedTrainer

log = logging.getLogger(__name__)

WARM_UP, MEASURED = 2, 8
"""Local steps that are run; the first ones allocate memory, and compile, and are not counted."""
LONG_SECONDS = 5.0
"""Where a step takes longer, only the placements of the config are tried."""


@dataclass(frozen=True)
class Trial:
    """A placement on this machine."""

    placement: str
    clients: int
    """That have it; none have an alternative to the config's."""
    step_s: float | None = None
    """Of one client; its share, where clients train in one batch. None where it could not be tried."""
    first_s: float | None = None
    """Until the first step was done, clips opened and network compiled."""
    memory_bytes: int | None = None
    """Largest of a process: on the GPU where there is one, resident otherwise."""
    reason: str = ""
    """Why it could not be tried."""


class OneClient(ClipData):
    """One client's clips under several names."""

    def __init__(self, data: ClipData, client: str, count: int) -> None:
        super().__init__()
        self.data, self.client, self.count = data, client, count

    @property
    def clients(self) -> list[str]:
        return [f"{self.client}/{number}" for number in range(self.count)]

    def training_clips(self, client: str) -> Sequence[ClipSource]:
        return self.data.training_clips(self.client)

    def held_out_clips(self, client: str) -> Sequence[ClipSource]:
        return self.data.held_out_clips(self.client)


def try_placements(trainer: FederatedTrainer, module: FederatedModule, data: ClipData) -> list[Trial]:
    """The placements of the config, then others that this machine could use.

    Args:
        trainer: connected to module and data, its placements checked.
        module: left as it is.
        data: of whom the first reliable client is asked; its prepared clips are left in the cache.
    """
    counts = Counter(trainer.placements.of(client) for client in data.clients)
    with ExitStack() as ending:
        trials = [_try(placed, count, trainer, module, data, ending) for placed, count in counts.items()]
        if all(trial.step_s is None or trial.step_s < LONG_SECONDS for trial in trials):
            others = [placed for placed in _alternatives(trainer, module, data) if placed not in counts]
            trials += [_try(placed, 0, trainer, module, data, ending) for placed in others]
    return trials


def _alternatives(trainer: FederatedTrainer, module: FederatedModule, data: ClipData) -> list[Placement]:
    """Those that trainer, module and machine allow; of several processes only where the run itself has some."""
    wanted: list[dict[str, Any]] = [
        {}, {"together": 4}, {"precision": "bf16-mixed"}, {"optimizer": "adamw8bit"}, {"gradient_checkpointing": True},
        {"kind": "ddp", "processes": 2}, {"kind": "fsdp", "processes": 2},
    ]  # fmt: skip
    if importlib.util.find_spec("bitsandbytes") is None:
        wanted.remove({"optimizer": "adamw8bit"})
    allowed, configured = [], trainer.placements
    try:
        for settings in wanted:
            try:
                trainer.placements = Placements(Placement(**settings))
                trainer.check_placements(module, data)
            except ConfigurationError:
                continue
            placed = trainer.placements.default
            several = isinstance(trainer.engine, RayEngine) and placed.processes <= _devices(trainer)
            if placed.processes == 1 or several:
                allowed.append(placed)
    finally:
        trainer.placements = configured
    return allowed


def _try(
    placed: Placement,
    clients: int,
    trainer: FederatedTrainer,
    module: FederatedModule,
    data: ClipData,
    ending: ExitStack,
) -> Trial:
    """
    Args:
        ending: gets what ends a Ray that was started for this trial, and serves those after it.
    """
    devices = _devices(trainer)
    if placed.processes > devices:
        return Trial(
            str(placed), clients, reason=f"it needs {placed.processes} devices or cores, this machine has {devices}"
        )
    log.info("trying placement %s", placed)
    # As the run itself: where it has processes of its own, so have its placements.
    apart = isinstance(trainer.engine, RayEngine) and (clients > 0 or placed.processes > 1)
    threads = trainer.threads or max(1, devices // max(trainer.workers, placed.processes))
    engine: InProcess = RayEngine(1, threads) if apart else InProcess()
    if apart:
        ending.callback(open_session([_room(trainer, devices)]).close)
    if trainer.fabric.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    local = replace(trainer.local, steps=WARM_UP + MEASURED, keep_optimizer=False, deadline_seconds=None)
    one = OneClient(data, data.evaluation_clients[0], placed.together)
    start, instants, memory = copy_state(module.exchanged_parameters()), list[float](), 0
    # As much of a trainer as these engines look at.
    stand_in: Any = SimpleNamespace(
        module=module, data=one, placements=Placements(placed), cache=trainer.cache, fabric=trainer.fabric,
        client_states=trainer.client_states, seed=trainer.seed, most_held_out=trainer.most_held_out,
        local_precision=trainer.local_precision, stop_signals=trainer.stop_signals,
    )  # fmt: skip
    stand_in.clients = ClientHalf(
        trainer.fabric, module, one, trainer.cache, None, trainer.client_states, trainer.seed, trainer.most_held_out,
        stand_in.placements,
    )  # fmt: skip
    try:
        engine.start(stand_in)
        began = time.perf_counter()
        results = engine.local_results(
            LocalWork(0, 1, local), one.clients, start, lambda *_: instants.append(time.perf_counter())
        )
        with closing(results):
            for _, result in results:
                if isinstance(result, Failure):
                    return Trial(str(placed), clients, reason=str(result))
                if clients or apart or trainer.fabric.device.type == "cuda":  # else other trials' is in it
                    memory = max(memory, result.memory_bytes)
    except FedTalkError as error:
        return Trial(str(placed), clients, reason=str(error))
    finally:
        engine.stop()
        load_state(module.exchanged_parameters(), start)
    instants = instants[placed.together - 1 :: placed.together]
    step_s = (instants[-1] - instants[WARM_UP - 1]) / MEASURED / placed.together
    return Trial(str(placed), clients, step_s, instants[0] - began, memory)


def _devices(trainer: FederatedTrainer) -> int:
    if trainer.fabric.device.type == "cuda":
        return torch.cuda.device_count()
    return usable_cores()


def _room(trainer: FederatedTrainer, devices: int) -> dict[str, float]:
    """What a Ray on this machine must have for one team of any placement, in Ray's names."""
    room = {"CPU": float(devices)}
    for _, placed in trainer.placements:
        asked = {"CPU": float(placed.processors or 0), **(placed.resources or {})}
        room |= {name: max(room.get(name, 0.0), placed.processes * amount) for name, amount in asked.items()}
    return room
