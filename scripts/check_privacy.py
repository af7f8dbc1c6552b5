#!/usr/bin/env python
"""Check the privacy layer against independent arithmetic, case by case; nothing is trained.

    python scripts/check_privacy.py --json               # about a minute of processor time
    python scripts/check_privacy.py --json --thorough    # three times as many random cases

- dropout: rounds of secure aggregation in which random clients vanish, at every subset of its four exchanges (about 130 rounds
  each; 400 with ``--thorough``): each ends with the exact sum over the survivors or with a clean refusal; ``wrong`` counts the
  others. One round in twenty is on a sparse graph, one in five hundred among 100 clients, who have masks with fewer than hold
  their shares.
- ledger: epsilon of a grid of (rate, multiplier, rounds, delta) over that of dp-accounting's privacy loss distributions
  (test extra); ``prv_min`` and ``rdp_min`` are the smallest ratios, to be at least 0.99. The grid is always the whole one.
- memory: random sequences of fit, kill, resume and copy (`ledger_memory.py`; 20, or 60): ``below`` counts prints of epsilon
  below an independent log of all releases, ``repeated`` cohorts that were drawn twice.
- noise: variance of the sum's noise over the one that the ledger assumes, measured for 0 to t dropouts with the colluding
  clients' shares left out, to be at least 1 up to the stated standard error. Always the same 200,000 coordinates.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from typing import Any

import numpy as np

from fedtalk.privacy.accounting import prv_epsilon, rdp_epsilon
from fedtalk.privacy.discrete_gaussian import operating_system
from fedtalk.privacy.mechanism import UNITS_BOUND, Mechanism, Noise
from fedtalk.privacy.secagg import AbortedRound, AggregationSettings, Assumptions, Stage, run_round

BITS = 20
CASES, SEQUENCES = 2000, 20
THOROUGH = 3
"""How many times as many with ``--thorough``."""
FRACTIONS = ((0.0, 0.3), (0.2, 0.2), (0.2, 0.4), (0.1, 0.5))
RATES, MULTIPLIERS, ROUNDS, DELTAS = (0.01, 0.1, 0.5), (0.7, 1.0, 3.0), (1, 30, 300), (1e-3, 1e-5)


def dropouts(cases: int, seed: int) -> dict[str, int]:
    """Random dropouts at every subset of the exchanges, on complete graphs (5 to 9 clients) and sparse ones (17 to 30, 100)."""
    generator = random.Random(seed)
    subsets = [subset for size in range(1, 5) for subset in itertools.combinations(Stage, size)]
    ended = {"cases": 0, "sums": 0, "refusals": 0, "wrong": 0}
    for case in range(cases):
        stages = subsets[case % len(subsets)]
        sizes = (100, 100) if case % 500 == 0 else (17, 30) if case % 20 == 0 else (5, 9)
        clients = generator.randint(*sizes)
        assumptions = Assumptions(*generator.choice(FRACTIONS[:2] if clients > 9 else FRACTIONS))
        most = min(clients - 1, assumptions.dropouts(clients) + 2)
        gone = generator.sample(range(clients), generator.randint(min(len(stages), most), most))
        drops = {
            client: stages[place] if place < len(stages) else generator.choice(stages)
            for place, client in enumerate(gone)
        }
        inputs = {client: np.array([generator.getrandbits(BITS)], "<u4") for client in range(clients)}
        ended["cases"] += 1
        try:
            report = run_round(inputs, AggregationSettings(bytes(16), 1, BITS, assumptions), drops=drops)
        except AbortedRound:
            ended["refusals"] += 1
            continue
        survivors = [client for client in inputs if drops.get(client, Stage.REVEAL) == Stage.REVEAL]
        total = sum(int(inputs[client][0]) for client in survivors) % (1 << BITS)
        exact = list(report.survivors) == survivors and report.total.tolist() == [total]
        ended["sums" if exact else "wrong"] += 1
    return ended


def ledger() -> dict[str, Any]:
    """The ledger's two numbers over an independent one; points at which that is above 50 are left out, none below."""
    from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
    from dp_accounting.pld.pld_privacy_accountant import PLDAccountant

    prv, rdp = [], []
    for rate, multiplier, rounds, delta in itertools.product(RATES, MULTIPLIERS, ROUNDS, DELTAS):
        accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=2e-3)
        accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(multiplier)), rounds)
        independent = accountant.get_epsilon(delta)
        if not 0.05 < independent < 50:
            continue
        history = [(multiplier, rate, rounds)]
        prv.append(prv_epsilon(history, delta) / independent)
        rdp.append(rdp_epsilon(history, delta) / independent)
    return {
        "points": len(prv),
        **{f"{name}_{which.__name__}": round(float(which(values)), 4)
           for name, values in (("prv", prv), ("rdp", rdp)) for which in (min, max)},
    }  # fmt: skip


def memory(sequences: int, seed: int) -> dict[str, int]:
    """What the ledger forgets, if anything."""
    from ledger_memory import forgets  # beside this script

    return forgets(sequences, seed)


def noise(clients: int, coordinates: int) -> dict[str, Any]:
    """Variance over the ledger's, by number of dropouts; the server's top-up is left out, the clients' own noise must do."""
    protocol = AggregationSettings(bytes(16), coordinates, 32, Assumptions(0.1, 0.2))
    mechanism = Mechanism(coordinates, UNITS_BOUND, 5, clients, protocol, Noise(1.0, True))
    deviations = mechanism.client_deviations(clients)
    shares = [mechanism.draw(deviations, operating_system).astype(float) for _ in range(clients)]
    colluding, most = protocol.assumptions.colluding(clients), protocol.assumptions.dropouts(clients)
    ratios = {}
    for dropped in range(most + 1):
        total = np.sum(shares[: clients - dropped - colluding], axis=0)
        ratios[str(dropped)] = round(float(np.mean(total**2)) / mechanism.accounted_variance, 4)
    return {"clients": clients, "colluding": colluding, "variance_ratio_by_dropouts": ratios,
            "standard_error": round((2 / coordinates) ** 0.5, 4)}  # fmt: skip


def main() -> None:
    """Run the checks; exit status 1 if one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, help=f"rounds with dropouts, {CASES} by default")
    parser.add_argument("--sequences", type=int, help=f"of fit, kill, resume and copy, {SEQUENCES} by default")
    parser.add_argument("--thorough", action="store_true", help=f"{THOROUGH} times as many of both by default")
    parser.add_argument("--coordinates", type=int, default=200_000, help="of the noise that is measured")
    parser.add_argument("--seed", type=int, default=0, help="of the dropouts")
    parser.add_argument("--json", action="store_true", help="one JSON line")
    options = parser.parse_args()
    times = THOROUGH if options.thorough else 1
    found = {
        "dropout": dropouts(options.cases or times * CASES, options.seed),
        "ledger": ledger(),
        "memory": memory(options.sequences or times * SEQUENCES, options.seed),
        "noise": noise(20, options.coordinates),
    }
    least = min(found["noise"]["variance_ratio_by_dropouts"].values())
    sound = {
        "dropout": found["dropout"]["wrong"] == 0 < min(found["dropout"]["sums"], found["dropout"]["refusals"]),
        "ledger": min(found["ledger"]["prv_min"], found["ledger"]["rdp_min"]) >= 0.99,
        "memory": found["memory"]["below"] == found["memory"]["repeated"] == 0 < found["memory"]["kills"],
        "noise": least >= 1 - 5 * found["noise"]["standard_error"],
    }
    print(json.dumps({**found, "sound": sound}) if options.json else json.dumps({**found, "sound": sound}, indent=2))
    if not all(sound.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
