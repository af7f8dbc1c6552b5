"""What workers are given of a machine or a cluster: cores, GPUs or shares of one, and custom resources."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from fedtalk.training.placement import SINGLE, Placement

TEAMS_SHARE = 0.6
"""Of a GPU, where other workers have the rest: more than half, so that no two processes of a team meet on one."""
PARTS = 10_000
"""Ray counts in ten-thousandths."""


@dataclass(frozen=True)
class Share:
    """What one process is given."""

    threads: int
    """CPU threads that it computes with."""
    cpus: float
    """That Ray sets aside for it."""
    gpus: float
    """1, or a part of one that others have the rest of; 0 to work on the CPU."""
    resources: dict[str, float] = field(default_factory=dict)
    """By the names that the cluster's nodes were started with."""

    @property
    def need(self) -> dict[str, float]:
        """In Ray's names."""
        return {name: amount for name, amount in
                {"CPU": self.cpus, "GPU": self.gpus, **self.resources}.items() if amount}  # fmt: skip

    def __str__(self) -> str:
        """
        >>> print(Share(2, 2, 0.25, {"big": 1}))
        2 CPU, 0.25 GPU, 1 big
        """
        return ", ".join(f"{amount:g} {name}" for name, amount in self.need.items()) or "nothing"


def worker_kind(placement: Placement) -> Placement:
    """What of a placement processes must be started for; the rest a process can do for each client as it likes."""
    own = {name: getattr(placement, name) for name in ("processors", "gpus", "resources")}
    if placement.kind != "single":
        own |= {name: getattr(placement, name) for name in ("kind", "processes", "precision", "cpu_offload")}
    return replace(SINGLE, **own)


def teams_of(placements: Iterable[Placement], workers: int) -> dict[Placement, int]:
    """How many teams of each kind there are: ``workers`` of single processes, one of several that take a client together."""
    kinds = sorted({worker_kind(placement) for placement in placements}, key=repr)
    return {kind: workers if kind.kind == "single" else 1 for kind in kinds}


def shares(
    teams: Mapping[Placement, int], threads: int | None, cores: float, gpus: float, on_gpu: bool, bounded: bool
) -> dict[Placement, Share]:
    """What a process of each kind is given.

    Kinds take turns, so cores are shared out among those that work at once. A placement's own numbers come first.

    Args:
        teams: by kind.
        threads: ``trainer.threads``.
        cores: there are.
        gpus: there are.
        on_gpu: whether workers use a GPU where their placement doesn't say.
        bounded: whether cores can't be promised twice, as on a cluster that others use too. On this machine alone they can,
            by kinds that take turns.
    """
    processes = {kind: count * kind.processes for kind, count in teams.items()}
    together = max(processes.values())
    part = _gpu_parts(teams, gpus) if on_gpu else dict.fromkeys(teams, 0.0)
    found = {}
    for kind in teams:
        own = threads or kind.processors or max(1, int(cores // together))
        aside = float(own)
        if bounded:
            room = cores / sum(processes.values())
            aside = min(own, float(int(room)) if room >= 1 else _rounded(room))
        found[kind] = Share(
            own,
            aside if kind.processors is None else float(kind.processors),
            part[kind] if kind.gpus is None else kind.gpus,
            dict(kind.resources or {}),
        )
    return found


def _gpu_parts(teams: Mapping[Placement, int], gpus: float) -> dict[Placement, float]:
    """Of a GPU, for the kinds that don't say: a whole one where there are enough, else equal parts."""
    silent: Counter[str] = Counter()
    for kind, count in teams.items():
        if kind.gpus is None:
            silent["single" if kind.kind == "single" else "team"] += count
    said = sum(kind.gpus * kind.processes * count for kind, count in teams.items() if kind.gpus is not None)
    left = max(1.0, math.floor(gpus - said + 1e-6))
    team = TEAMS_SHARE if silent["single"] else 1.0
    rest = 1.0 - TEAMS_SHARE if silent["team"] else 1.0
    single = _rounded(rest / math.ceil(silent["single"] / left)) if silent["single"] else 0.0
    return {kind: single if kind.kind == "single" else team for kind in teams}


def _rounded(amount: float) -> float:
    """Down to what Ray can count, so that equal parts make no more than the whole.

    >>> _rounded(1 / 3)
    0.3333
    """
    return math.floor(amount * PARTS) / PARTS
