"""What a site's own ledger says of its people, over all runs and servers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedtalk.privacy.site_ledger import SiteLedger
from fedtalk.privacy.spent import ADAPTERS, ROSTERS


def site_report(folder: Path, accountant: str = "prv") -> dict[str, Any]:
    """A site's ledger as JSON; an epsilon that is null is infinite: something was given without noise.

    Args:
        folder: with the site's ledger.
        accountant: ``prv`` or ``rdp``, of the epsilons against whoever sees the adapters.

    Raises:
        ArtifactError: the ledger can't be read.
    """
    ledger = SiteLedger(folder)
    people = []
    for person in ledger.people:
        spent = ledger.spent(person, accountant)
        people.append({
            "person": person, "rounds": spent.rounds, "delta": spent.delta,
            "epsilon": [
                {"against": ADAPTERS, accountant: _finite(spent.adapters)},
                {"against": ROSTERS, "exact": _finite(spent.insiders)},
            ],
        })  # fmt: skip
    runs = [
        {
            "server": run.server, "agreement": run.agreement, "noise_multiplier": run.noise_multiplier, "rate": run.rate,
            "delta": run.delta, "rounds_agreed": run.rounds, "rounds": run.reached, "rounds_taken_again": run.retaken,
            "people": len(run.people),
        }
        for run in ledger.runs
    ]  # fmt: skip
    return {"kind": "site", "folder": str(folder), "people": people, "spent_on": runs}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def print_site_report(report: dict[str, Any], console: Console | None = None) -> None:
    """Print a site's report as tables; standard output, 110 columns wide, by default."""
    console = console or Console(width=110, highlight=False)
    table = Table(title="what this site's people have given, over all runs and servers")
    for column in ("person", "rounds", f"epsilon {ADAPTERS}", ROSTERS, "delta"):
        table.add_column(column, justify="left" if column == "person" else "right")
    for row in report["people"]:
        adapters, insiders = (next(iter(set(one) - {"against"})) for one in row["epsilon"])
        numbers = (row["epsilon"][0][adapters], row["epsilon"][1][insiders])
        table.add_row(Text(row["person"]), str(row["rounds"]), *map(_shown, numbers), f"{row['delta']:g}")
    console.print(table)
    spent = Table(title="spent on")
    for column in ("server", "agreement", "rounds", "agreed", "taken again", "noise multiplier", "rate", "people"):
        spent.add_column(column, justify="right" if column not in ("server", "agreement") else "left")
    for row in report["spent_on"]:
        spent.add_row(
            Text(row["server"][:12]), Text(row["agreement"][:12]), str(row["rounds"]), str(row["rounds_agreed"]),
            str(row["rounds_taken_again"]), "none" if row["noise_multiplier"] is None else f"{row['noise_multiplier']:.4f}",
            "" if row["rate"] is None else f"{row['rate']:g}", str(row["people"]),
        )  # fmt: skip
    console.print(spent)


def _shown(value: float | None) -> str:
    return "no bound" if value is None else f"{value:.3f}"
