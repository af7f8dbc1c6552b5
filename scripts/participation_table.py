#!/usr/bin/env python
"""Taking turns or secret sampling: the noise that either needs for the same epsilon, against either adversary.

    python scripts/participation_table.py [--json]

Both have the same rounds and, on average, the same clients a round, so the same signal; what differs is the noise multiplier z:

- ``poisson, adapters``: Poisson sampling at rate cohort / clients, accounted with amplification: against whoever sees the
  adapters and doesn't know who took part.
- ``poisson, rosters``: the same sampling against server and sites, who know: by the client drawn most often, which is drawn m
  times or less with probability 0.99 (union over all clients).
- ``turns``: RotatingCohort, each client once in clients / cohort rounds; against both.

``snr`` is cohort / (sqrt(2) z): weights of a usual round over the noise of one coordinate, in units of the clipping bound.
Nothing is trained, and nothing is drawn at random.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from scipy.stats import binom

from fedtalk.federation.cohort import RotatingCohort
from fedtalk.privacy.accounting import gaussian_multiplier, solve_noise_multiplier

CLIENTS, EPSILONS = (100, 1000, 10_000), (2.0, 4.0, 8.0)


def compare(clients: int, epsilon: float, rounds: int, cohort: int) -> dict[str, Any]:
    """One row.

    Args:
        clients: registered.
        epsilon: that all rounds may spend, at delta 1 / (10 clients).
        rounds: of the run.
        cohort: clients of a usual round; divides ``clients``.
    """
    rate, delta = cohort / clients, 0.1 / clients
    turns = RotatingCohort(clients // cohort).participations(rounds)
    most = int(binom.isf(0.01 / clients, rounds, rate))
    noise = {
        "poisson, adapters": solve_noise_multiplier(epsilon, rate, rounds, delta),
        "poisson, rosters": gaussian_multiplier(epsilon, most, delta),
        "turns": gaussian_multiplier(epsilon, turns, delta),
    }
    return {
        "clients": clients, "epsilon": epsilon, "delta": delta, "rate": rate, "turns": turns, "most_drawn": most,
        "z": {name: round(z, 3) for name, z in noise.items()},
        "snr": {name: round(cohort / (math.sqrt(2) * z), 1) for name, z in noise.items()},
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    lines = [
        "| clients | epsilon | turns | most drawn | z: Poisson, adapters | Poisson, rosters | turns, both | turns over Poisson: "
        "adapters | rosters |",
        "| " + " | ".join(["---"] * 9) + " |",
    ]
    for row in rows:
        z = row["z"]
        cells = [
            f"{row['clients']:,}", f"{row['epsilon']:g}", str(row["turns"]), str(row["most_drawn"]),
            *(f"{z[name]:.2f}" for name in ("poisson, adapters", "poisson, rosters", "turns")),
            *(f"x {z['turns'] / z[name]:.2f}" for name in ("poisson, adapters", "poisson, rosters")),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--cohort", type=int, default=50, help="clients a round")
    parser.add_argument("--json", action="store_true", help="one JSON line")
    options = parser.parse_args()
    rows = [compare(clients, epsilon, options.rounds, options.cohort) for clients in CLIENTS for epsilon in EPSILONS]
    print(json.dumps(rows) if options.json else table(rows))


if __name__ == "__main__":
    main()
