"""What a ledger says: what was spent, on what, and against whom."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedtalk.errors import ArtifactError
from fedtalk.privacy.accounting import HIDDEN, History, adjacency, gaussian_epsilon
from fedtalk.privacy.ledger import epsilon_of
from fedtalk.privacy.ledger_record import RECORD, LedgerRecord, read_record
from fedtalk.privacy.spent import ADAPTERS, ROSTERS, SITES

_MOST_OFTEN = "the client drawn most often"


def run_report(folder: Path) -> dict[str, Any]:
    """The ledger of a run as JSON; an epsilon that is null is infinite: nothing is promised.

    Unlike what a run prints, it tells how often the client was drawn that was drawn most often, which whoever only sees the
    adapters must not know: it is for those who keep the ledger.

    Args:
        folder: of the run, or of its checkpoints.

    Raises:
        ArtifactError: there is no ledger, or it can't be read.
    """
    record = next((found for place in (folder / "checkpoints", folder) if (found := read_record(place))), None)
    if record is None:
        raise ArtifactError(
            f"{folder} holds no ledger: expected the folder of a differentially private run, with checkpoints/{RECORD}. Runs "
            "without noise spend no epsilon: what their sums tell is not bounded."
        )
    terms, charges = record.terms, record.charges
    drawn: dict[str, int] = {}
    for stretch in charges.stretches:
        for client, times in stretch.drawn.items():
            drawn[client] = drawn.get(client, 0) + times
    return {
        "kind": "run", "folder": str(folder), "rounds": charges.rounds, "planned": terms.planned, "delta": terms.delta,
        "set_aside_for_void_rounds": terms.void_probability * max(terms.planned, charges.rounds),
        "accountant": terms.accountant, "budget": terms.budget, "insecure": terms.insecure,
        "spent_on": [
            {"opening": number, "rounds": stretch.rounds, "noise_multiplier": stretch.multiplier, "rate": stretch.rate}
            for number, name in enumerate(sorted(charges.histories), 1) for stretch in charges.histories[name]
        ],
        "clients_drawn": len(drawn), "most_often_drawn": max(drawn.values(), default=0),
        "epsilon": _epsilons(record), "places": sorted(record.places),
    }  # fmt: skip


def shown_epsilons(folder: Path) -> list[dict[str, Any]]:
    """What may be shown to anybody of a run's ledger, by adversary: nothing of it tells who was drawn. Empty without a ledger.

    Raises:
        ArtifactError: the ledger can't be read.
    """
    record = read_record(folder / "checkpoints")
    return [] if record is None else [row for row in _epsilons(record) if _MOST_OFTEN not in row["against"]]


def _epsilons(record: LedgerRecord) -> list[dict[str, Any]]:
    terms, charges = record.terms, record.charges
    adapters, most, always = charges.against_adapters(), charges.most_often_drawn(), charges.drawn_every_time()

    def by(accountant: str) -> float | None:
        return _finite(epsilon_of(adapters, charges.rounds, terms, accountant))

    def row(against: str, compares: str, **epsilons: float | None) -> dict[str, Any]:
        return {"against": against, "adjacency": compares, **epsilons}

    rosters = SITES if terms.central else ROSTERS
    rows = [
        row(ADAPTERS, adjacency(adapters), prv=by("prv"), rdp=by("rdp")),
        row(f"{rosters}, {_MOST_OFTEN}, {_times(most)}", HIDDEN, exact=gaussian_epsilon(most, terms.delta)),
        row(f"{rosters}, a client as often as there can be, {_times(always)}", HIDDEN,
            exact=gaussian_epsilon(always, terms.delta)),
    ]  # fmt: skip
    return (
        [*rows, row("against the server, which adds the noise itself", HIDDEN, exact=None)] if terms.central else rows
    )


def _times(history: History) -> str:
    times = sum(rounds for _, _, rounds in history)
    return f"in {times} round{'' if times == 1 else 's'}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def print_report(report: dict[str, Any], console: Console | None = None) -> None:
    """Print a run's report as tables; standard output, 110 columns wide, by default."""
    console = console or Console(width=110, highlight=False)
    table = Table(title=f"epsilon at delta {report['delta']:g}, after {report['rounds']} of {report['planned']} rounds")
    for column in ("", "PRV", "RDP", "exact", "adjacency"):
        table.add_column(column, justify="right" if column in ("PRV", "RDP", "exact") else "left")
    for row in report["epsilon"]:
        numbers = ["" if key not in row else _shown(row[key]) for key in ("prv", "rdp", "exact")]
        table.add_row(row["against"], *numbers, row["adjacency"])
    console.print(table)
    spent = Table(title="spent on")
    for column in ("opening", "rounds", "noise multiplier", "sampling"):
        spent.add_column(column, justify="right")
    for row in report["spent_on"]:
        sampling = "none: clients take turns" if row["rate"] is None else f"Poisson, rate {row['rate']:g}"
        spent.add_row(str(row["opening"]), str(row["rounds"]), f"{row['noise_multiplier']:.4f}", sampling)
    console.print(spent)
    budget = "none" if report["budget"] is None else f"{report['budget']:g}, by {report['accountant'].upper()}"
    lines = [
        f"budget {budget}, {ADAPTERS}",
        f"{report['clients_drawn']} clients were drawn, the most often drawn one {report['most_often_drawn']} times: keep this "
        "to yourself, sampling protects from those who don't know it",
    ]
    if report["insecure"]:
        lines.append("INSECURE: noise was seeded (privacy.insecure_noise_seed); this run protects nobody")
    for line in lines:
        console.print(line, markup=False)


def _shown(value: float | None) -> str:
    return "no bound" if value is None else f"{value:.3f}"
