"""Estimates before spending: a few real steps of one client, by placement, multiplied by the plan (`fedtalk fit --dry_run`).

The formula is written out in docs/deploy.md, "Estimates before spending"; its symbols are the fields' names here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fedtalk.errors import FedTalkError
from fedtalk.federation.client import ClientHalf
from fedtalk.federation.cohort import CohortSampler
from fedtalk.federation.federation import Federation
from fedtalk.federation.vector import flatten
from fedtalk.machine import peak_bytes
from fedtalk.planning.trials import Trial, try_placements
from fedtalk.privacy.sealed_rounds import SealedRounds
from fedtalk.privacy.sealing import to_ring
from fedtalk.randomness import torch_generator
from fedtalk.training.module import copy_state
from fedtalk.training.placement import SINGLE

DRAWN_ROUNDS = 200
"""Rounds whose cohorts are drawn to find the mean size of a longer run's."""


@dataclass(frozen=True)
class Costs:
    """What one client and the server take, measured on this machine. Seconds and bytes."""

    parameters: int
    """Of the whole module."""
    exchanged: int
    """Of the state that travels, d."""
    bytes_down: int
    """Of the global state to a client: 4 d."""
    bytes_up: int
    """Of a sealed update to the server: ring bits / 8 x (d + 1), by sealing one."""
    step_s: float
    """A client's local step, the mean over all clients' placements."""
    client_s: float
    """A client's round without its steps: opening its prepared clips, measuring its reliability, weighting."""
    prepare_s: float
    """Preparing a client's clips, once and for all runs with the same cache."""
    held_out_s: float
    """Measuring a client's held-out clips."""
    seal_s: float
    """Sealing and opening, for each client of a cohort of two."""
    pair_s: float
    """What every further client of the cohort adds to that for each client."""
    memory_bytes: int
    """Largest memory of the main process so far."""


@dataclass(frozen=True)
class Beside:
    """What of a trainer's settings counts beside the rounds themselves."""

    workers: int = 1
    threads: int | None = None
    validate_every: int = 0
    validate_clients: int = 1
    personal_steps: int = 0
    personal_clients: int = 0
    """That get personal adapters, at most."""


@dataclass(frozen=True)
class Workload:
    """What is done how often."""

    rounds: int
    steps: int
    cohort: float
    """Mean number of clients of a round."""
    drawn: float
    """Clients that are drawn at least once."""
    validations: int
    validated: int
    """Clients measured in each."""
    personal: int
    """Clients with personal training after the last round."""
    personal_steps: int


@dataclass(frozen=True)
class Estimate:
    """What a run will take."""

    costs: Costs
    plan: Workload
    trials: list[Trial] = field(default_factory=list)
    """By placement: the config's first."""

    def seconds(self, workers: int = 1) -> float:
        """Time of the whole run.

        Args:
            workers: machines or processes like this one that share the clients' work; sealing is counted with the clients,
                opening with the server, and each client is taken by one worker.
        """
        return sum(self.parts(workers).values())

    def parts(self, workers: int = 1) -> dict[str, float]:
        """Seconds by part of the run."""
        costs, plan = self.costs, self.plan
        at_once = min(workers, max(1.0, plan.cohort))  # no more than there are clients
        seal = costs.seal_s + costs.pair_s * max(0.0, plan.cohort - 2)
        return {
            "training": plan.rounds * plan.cohort * (plan.steps * costs.step_s + costs.client_s) / at_once,
            "sealing": plan.rounds * plan.cohort * seal,
            "preparing clips": plan.drawn * costs.prepare_s / at_once,
            "validating": plan.validations * plan.validated * costs.held_out_s,
            "personal adapters": plan.personal
            * plan.personal_steps
            * costs.step_s
            / min(workers, max(1, plan.personal)),
        }

    @property
    def bytes_per_round(self) -> float:
        """Of the whole cohort, both ways."""
        return self.plan.cohort * (self.costs.bytes_down + self.costs.bytes_up)

    @property
    def memory_bytes(self) -> float:
        """Of the process: measured, and a cohort's clear (8 bytes a coordinate) and sealed updates."""
        return self.costs.memory_bytes + self.plan.cohort * (8 * (self.costs.exchanged + 1) + self.costs.bytes_up)


def estimate_run(federation: Federation, sealed: SealedRounds, beside: Beside, own_processes: bool) -> Estimate:
    """Measure and plan. Writes nothing but the prepared clips of one client, into the cache.

    Args:
        federation: what is to be run, its placements checked.
        sealed: its sealing.
        beside: what else the run does.
        own_processes: whether the run's clients train in processes of their own.

    Raises:
        FedTalkError: what would end the run itself: the first client can't train.
    """
    trials = try_placements(federation, beside.workers, beside.threads, own_processes)
    costs = measure(federation, sealed, trials)
    return Estimate(costs, workload_of(federation, beside, len(federation.data.clients)), trials)


def measure(federation: Federation, sealed: SealedRounds, trials: Sequence[Trial]) -> Costs:
    """Costs of the first reliable client.

    Raises:
        FedTalkError: not one of the config's placements could be tried.
    """
    tried = [(trial.step_s, trial.clients) for trial in trials if trial.clients and trial.step_s is not None]
    if not tried:  # placements for other machines take at least what one process of this one does
        tried = [(trial.step_s, 1) for trial in trials if trial.placement == str(SINGLE) and trial.step_s is not None]
    if not tried:
        raise FedTalkError(
            "none of the placements could be tried: "
            + "; ".join(f"{trial.placement}: {trial.reason}" for trial in trials)
            + ". Expected one that works here, for a step to be measured: correct what they name, or estimate with another "
            "trainer.default_placement."
        )
    module, data, seed = federation.module, federation.data, federation.seed
    client, parameters = data.typical_client, module.exchanged_parameters()
    sources = [*data.training_clips(client), *data.held_out_clips(client)[: federation.most_held_out]]
    with torch.no_grad():
        prepare = _seconds(lambda: [module.prepare_clip(source.load()) for source in sources[:2]]) / len(sources[:2])
    half = ClientHalf(federation)
    clips, held_out = half.prepared(client), half.prepared(client, held_out=True)
    load_s = _seconds(lambda: half.prepared(client))  # from the cache, which holds both by now
    held_out_s = _seconds(lambda: module.held_out_metrics(held_out, torch_generator(seed, "estimate")))
    reliability_s = 0.0
    measures = federation.aggregation.measures
    if measures == "clips":
        reliability_s = _seconds(lambda: module.quality(clips))
    elif measures == "estimates":
        reliability_s = load_s + _seconds(
            lambda: module.reliability(held_out, clips, torch_generator(seed, "estimate"))
        )
    update = np.zeros_like(flatten(copy_state(parameters)))
    vector = sealed.vector(update, 1.0)
    weigh_s = _seconds(lambda: to_ring(sealed.vector(update, 1.0), client))
    small, large = _sealing_cohorts(federation, sealed)
    less, payload = _sealing_seconds(sealed, vector, data.clients[:small])
    pair_s = 0.0
    if large > small:
        more, _ = _sealing_seconds(sealed, vector, data.clients[:large])
        pair_s = max(0.0, (more - less) / (large - small))
    exchanged = sum(value.numel() for value in parameters.values())
    return Costs(
        parameters=sum(value.numel() for value in module.parameters()),
        exchanged=exchanged,
        bytes_down=4 * exchanged,
        bytes_up=payload,
        step_s=sum(seconds * count for seconds, count in tried) / sum(count for _, count in tried),
        client_s=load_s + reliability_s + weigh_s,
        prepare_s=prepare * len(sources),
        held_out_s=held_out_s + load_s,
        seal_s=max(0.0, less - (small - 2) * pair_s),
        pair_s=pair_s,
        memory_bytes=peak_bytes(federation.device),
    )


def workload_of(federation: Federation, beside: Beside, clients: int) -> Workload:
    """What the settings mean for ``clients`` clients."""
    every, rounds = beside.validate_every, federation.rounds
    cohort, drawn = _cohorts(federation.cohort, federation.seed, rounds, clients)
    return Workload(
        rounds=rounds,
        steps=federation.local.steps,
        cohort=cohort,
        drawn=drawn,
        validations=-(-rounds // every) if every else 0,
        validated=min(clients, beside.validate_clients),
        personal=min(clients, beside.personal_clients),
        personal_steps=beside.personal_steps,
    )


def _cohorts(sampler: CohortSampler, seed: int, rounds: int, clients: int) -> tuple[float, float]:
    """Mean size of a cohort and how many clients are drawn at least once, by drawing.

    A run of up to `DRAWN_ROUNDS` rounds gets its own cohorts exactly (up to clients' names, which no sampler looks at);
    of a longer one the clients drawn at all are those of independent rounds, ``N (1 - (1 - K / N)^R)``.
    """
    names = [str(index) for index in range(clients)]
    drawn = [sampler.draw(seed, number, names) for number in range(min(rounds, DRAWN_ROUNDS))]
    mean = sum(map(len, drawn)) / max(1, len(drawn))
    if rounds <= DRAWN_ROUNDS:
        return mean, float(len(set().union(*drawn)))
    return mean, clients * (1 - (1 - mean / clients) ** rounds)


def _sealing_cohorts(federation: Federation, sealed: SealedRounds) -> tuple[int, int]:
    """Sizes of the two cohorts that are sealed: with secure aggregation its own least and the expected one."""
    registered = len(federation.data.clients)
    if not sealed.private:
        return min(2, registered), min(6, registered)
    expected = round(_cohorts(federation.cohort, federation.seed, 20, registered)[0])
    least = next((size for size in range(2, registered) if sealed.updates_needed(size) <= size), registered)
    return least, max(least, min(expected, registered))


def _sealing_seconds(sealed: SealedRounds, vector: np.ndarray, names: Sequence[str]) -> tuple[float, int]:
    """Seconds for each client of the cohort ``names`` to seal and open, and the bytes of one sealed update."""
    cohort, payload = len(names), 0

    def work() -> None:
        nonlocal payload
        sealing = sealed.open_round(cohort, names, names)  # a number of its own: no round is sealed twice
        updates = [sealing.seal(name, vector) for name in names]
        sealing.open_sum(updates)
        payload = len(updates[0].payload)

    return _seconds(work) / cohort, payload


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
