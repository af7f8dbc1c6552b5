"""Trials: what a client's local step takes under each placement, by a few real steps in processes of their own."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import torch

from fedtalk.data.source import ClipData, ClipSource
from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.federation.engines.in_process import InProcess
from fedtalk.federation.engines.ray.engine import RayEngine
from fedtalk.federation.engines.ray.session import open_session
from fedtalk.federation.federation import Federation
from fedtalk.federation.local_work import Failure, LocalWork
from fedtalk.machine import usable_cores
from fedtalk.planning.preconditions import check_placements
from fedtalk.training.module import copy_state, load_state
from fedtalk.training.placement import Placement, Placements

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


def try_placements(federation: Federation, workers: int, threads: int | None, own_processes: bool) -> list[Trial]:
    """The placements of the config, then others that this machine could use.

    Args:
        federation: its placements checked; its module is left as it is. The first reliable client is asked; its prepared clips
            are left in the cache.
        workers: of the run.
        threads: of each of its processes.
        own_processes: whether the run's clients train in processes of their own.
    """
    counts = Counter(federation.placements.of(client) for client in federation.data.clients)
    with ExitStack() as ending:
        shared = (workers, threads, ending)
        trials = [_try(placed, count, federation, own_processes, *shared) for placed, count in counts.items()]
        if all(trial.step_s is None or trial.step_s < LONG_SECONDS for trial in trials):
            for placed in _alternatives(federation, own_processes):
                if placed not in counts:
                    trials.append(_try(placed, 0, federation, placed.processes > 1, *shared))
    return trials


def _alternatives(federation: Federation, own_processes: bool) -> list[Placement]:
    """Those that settings, module and machine allow; of several processes only where the run itself has some."""
    wanted: list[dict[str, Any]] = [
        {}, {"together": 4}, {"precision": "bf16-mixed"}, {"optimizer": "adamw8bit"}, {"gradient_checkpointing": True},
        {"kind": "ddp", "processes": 2}, {"kind": "fsdp", "processes": 2},
    ]  # fmt: skip
    if importlib.util.find_spec("bitsandbytes") is None:
        wanted.remove({"optimizer": "adamw8bit"})
    allowed = []
    for settings in wanted:
        try:
            placed = Placement(**settings)
            check_placements(replace(federation, placements=Placements(placed)))
        except ConfigurationError:
            continue
        if placed.processes == 1 or (own_processes and placed.processes <= _devices(federation)):
            allowed.append(placed)
    return allowed


def _try(
    placed: Placement,
    clients: int,
    federation: Federation,
    apart: bool,
    workers: int,
    threads: int | None,
    ending: ExitStack,
) -> Trial:
    """
    Args:
        apart: in processes of its own, not in this one.
        ending: gets what ends a Ray that was started for this trial, and serves those after it.
    """
    devices = _devices(federation)
    if placed.processes > devices:
        return Trial(
            str(placed), clients, reason=f"it needs {placed.processes} devices or cores, this machine has {devices}"
        )
    log.info("trying placement %s", placed)
    engine: InProcess = InProcess()
    if apart:
        engine = RayEngine(1, threads or max(1, devices // max(workers, placed.processes)))
        ending.callback(open_session([_room(federation, devices)]).close)
    on_gpu = federation.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    local = replace(federation.local, steps=WARM_UP + MEASURED, keep_optimizer=False, deadline_seconds=None)
    module, data = federation.module, federation.data
    one = OneClient(data, data.typical_client, placed.together)
    start, instants, memory = copy_state(module.exchanged_parameters()), list[float](), 0
    try:
        engine.start(replace(federation, data=one, placements=Placements(placed)), lambda: None)
        began = time.perf_counter()
        results = engine.local_results(
            LocalWork(0, 1, local), one.clients, start, lambda *_: instants.append(time.perf_counter())
        )
        with closing(results):
            for _, result in results:
                if isinstance(result, Failure):
                    return Trial(str(placed), clients, reason=str(result))
                if clients or apart or on_gpu:  # else that of other trials is in it
                    memory = max(memory, result.memory_bytes)
    except FedTalkError as error:
        return Trial(str(placed), clients, reason=str(error))
    finally:
        engine.stop()
        load_state(module.exchanged_parameters(), start)
    instants = instants[placed.together - 1 :: placed.together]
    step_s = (instants[-1] - instants[WARM_UP - 1]) / MEASURED / placed.together
    return Trial(str(placed), clients, step_s, instants[0] - began, memory)


def _devices(federation: Federation) -> int:
    if federation.device.type == "cuda":
        return torch.cuda.device_count()
    return usable_cores()


def _room(federation: Federation, devices: int) -> dict[str, float]:
    """What a Ray on this machine must have for one team of any placement, in Ray's names."""
    room = {"CPU": float(devices)}
    for _, placed in federation.placements:
        asked = {"CPU": float(placed.processors or 0), **(placed.resources or {})}
        room |= {name: max(room.get(name, 0.0), placed.processes * amount) for name, amount in asked.items()}
    return room
