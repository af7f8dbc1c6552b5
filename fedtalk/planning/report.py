"""What `fedtalk fit --dry_run` prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from fedtalk.federation.federation import Federation
from fedtalk.planning.estimate import Beside, Estimate, workload_of
from fedtalk.planning.trials import Trial
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.sealed_rounds import SealedRounds

CLIENTS, WORKERS = (100, 1000, 10_000), (1, 4, 16)
"""What the plan is extrapolated to."""


def report(found: Estimate, federation: Federation, sealed: SealedRounds, beside: Beside) -> str:
    """What `fedtalk fit --dry_run` prints; the last line is the same as JSON."""
    costs, plan, parts, workers = found.costs, found.plan, found.parts(beside.workers), beside.workers
    clients = len(federation.data.clients)
    ledger = sealed.ledger if isinstance(sealed, PrivateRounds) else None
    lines = [
        f"parameters             {costs.parameters:,}, of which {costs.exchanged:,} travel",
        f"a client's round       {costs.bytes_down:,} bytes down, {costs.bytes_up:,} bytes up, sealed",
        f"cohort                 {plan.cohort:.1f} of {clients} clients on average, {found.bytes_per_round / 1e6:.2f} MB a round",
        f"local step             {costs.step_s:.4f} s here, {plan.steps} a client and round",
        f"memory                 {found.memory_bytes / 1e9:.2f} GB of the main process on {federation.device}",
        *(f"{name:<22} {_duration(seconds)}" for name, seconds in parts.items()),
        f"whole run              {_duration(found.seconds(workers))} for {plan.rounds} rounds"
        + (f", {workers} workers, measured in one" if workers > 1 else ""),
        *([f"privacy                {line}" for line in ledger.planned().lines()] if ledger is not None else []),
        "not counted            videos and other monitors, network, clips that the cache holds already",
        "",
        *_trial_lines(found.trials),
        "",
        "the same settings      " + "".join(f"{f'{count} workers':>16}" for count in WORKERS),
    ]
    for count in (clients, *(count for count in CLIENTS if count > clients)):
        other = Estimate(costs, workload_of(federation, beside, count))
        cells = "".join(f"{_duration(other.seconds(size)):>16}" for size in WORKERS)
        lines.append(f"{count:>9,} clients      {cells}   cohort {other.plan.cohort:.0f}")
    summary = {
        **asdict(found),
        "seconds": found.seconds(workers),
        "workers": workers,
        "bytes_per_round": found.bytes_per_round,
    }
    return "\n".join([*lines, json.dumps(summary)])


def _trial_lines(trials: Sequence[Trial]) -> list[str]:
    """A table: the config's placements, then others."""
    width = max([22, *(len(trial.placement) for trial in trials)])
    lines = [f"{'placement':<{width}} {'clients':>9} {'step, a client':>16} {'memory, a process':>18}"]
    for trial in trials:
        count = f"{trial.clients:,}" if trial.clients else "-"
        if trial.step_s is None or trial.memory_bytes is None:
            lines.append(f"{trial.placement:<{width}} {count:>9}  not tried: {trial.reason}")
            continue
        memory = f"{trial.memory_bytes / 1e9:.2f} GB" if trial.memory_bytes else "unknown"
        first = (
            f"  the first step after {_duration(trial.first_s or 0.0)}"
            if (trial.first_s or 0) > 10 * trial.step_s + 5
            else ""
        )
        lines.append(f"{trial.placement:<{width}} {count:>9} {trial.step_s:>14.4f} s {memory:>18}{first}")
    return lines


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2f} s"
