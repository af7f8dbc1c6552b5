#!/usr/bin/env python
"""How well the scores that a sweep's runs aggregated by tell reliable clients from unreliable ones, round by round.

    python scripts/scores_by_round.py runs/paper-small/rules-30 [--variation isfa_paper] [--alpha 0.6]

Reads the TensorBoard scalars of every run of the variation: each client's weight and quality, or identity and stability where a
run's config says ``scores: paper``. A number is the area under the ROC curve of the score over pairs of one reliable and one
unreliable client of the same run, by the fault of the latter: mean over seeds with Student's 95 % interval. The last column is
how much of the weight unreliable clients have together. Who is unreliable follows from the run's config; nothing is run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from score_quality import auc

from fedtalk.data.faults import ALL_FAULTS
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.report.collect import read_curves
from fedtalk.sweeps.statistics import estimate

PARTS = ("score", "identity", "stability")
ANY, WEIGHT = "any of them", "share of the weight"
Areas = dict[tuple[int, str, str], list[float]]
"""By round, part and fault, the area of each run."""


def faults_of(data: SynthTalkData, turn: Sequence[str]) -> dict[str, str]:
    """By client that was made faulty, its fault: in turn, from the last one backwards."""
    return {client: turn[place % len(turn)] for place, client in enumerate(reversed(data.unreliable_clients))}


def areas_of_run(folder: Path, alpha: float) -> Areas:
    """Of one run's folder."""
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    if "scores" not in config["trainer"]["aggregation"]["init_args"]:
        return {}
    data = SynthTalkData(**config["data"]["init_args"])
    data.follow_seed(config["seed_everything"])
    curves = read_curves(folder / "tensorboard")
    faults = faults_of(data, config["data"]["init_args"].get("faults", ALL_FAULTS))
    rounds = sorted({step for tag, curve in curves.items() if tag.startswith("client_identity/") for step in curve})
    found: Areas = {}
    for number in rounds:

        def logged(tag: str, number: int = number) -> dict[str, float]:
            of_clients = {client: curves.get(f"client_{tag}/{client}", {}).get(number) for client in data.clients}
            return {client: value for client, value in of_clients.items() if value is not None}

        if config["trainer"]["aggregation"]["init_args"]["scores"] == "quality":
            values = {"score": logged("quality")}
        else:
            identity, stability = logged("identity"), logged("stability")
            score = {c: alpha * identity[c] + (1 - alpha) * stability[c] for c in identity.keys() & stability.keys()}
            values = {"score": score, "identity": identity, "stability": stability}
        weights = logged("weight")
        if weights:
            found[number, "score", WEIGHT] = [
                sum(weights[c] for c in weights.keys() & faults.keys()) / sum(weights.values())
            ]
        for part, by_client in values.items():
            reliable = [value for client, value in by_client.items() if client not in faults]
            for fault in (*ALL_FAULTS, ANY):
                bad = [by_client[c] for c, kind in faults.items() if c in by_client and fault in (kind, ANY)]
                if reliable and bad:
                    found[number, part, fault] = [auc(reliable, bad)]
    return found


def markdown(areas: Mapping[tuple[int, str, str], list[float]]) -> str:
    """A line a round and part, a column a fault."""
    columns = [column for column in (*ALL_FAULTS, ANY, WEIGHT) if any(key[2] == column for key in areas)]
    lines = [
        "| round | | " + " | ".join(columns) + " |",
        "| ---: | --- |" + " ---: |" * len(columns),
    ]
    for number in sorted({key[0] for key in areas}):
        for part in (part for part in PARTS if any(key[:2] == (number, part) for key in areas)):
            cells = []
            for fault in columns:
                one = estimate(areas[number, part, fault]) if (number, part, fault) in areas else None
                inside = f" [{one.low:.2f}, {one.high:.2f}]" if one is not None and one.seeds > 1 else ""
                cells.append("" if one is None else f"{one.mean:.2f}{inside}")
            lines.append(f"| {number} | {part} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("sweep", type=Path)
    options.add_argument("--variation", default="isfa_paper", help="first part of its name (default: %(default)s)")
    options.add_argument(
        "--alpha", type=float, default=0.6, help="share of identity in the paper's score (default: %(default)s)"
    )
    chosen = options.parse_args()
    summary = json.loads((chosen.sweep / "sweep.json").read_text(encoding="utf-8"))
    runs = [run for run in summary["runs"] if run["variation"].split("+")[0] == chosen.variation]
    if not runs:
        names = ", ".join(summary["variations"])
        raise SystemExit(f"{chosen.sweep}: no finished run of {chosen.variation}; expected one of {names}")
    pooled: Areas = {}
    for run in runs:
        for key, value in areas_of_run(chosen.sweep / "runs" / run["folder"], chosen.alpha).items():
            pooled.setdefault(key, []).extend(value)
    if not pooled:
        raise SystemExit(
            f"{chosen.sweep}: runs of {chosen.variation} have logged no scores; expected a variation of ISFA"
        )
    print(f"{chosen.variation}, {len(runs)} runs\n\n{markdown(pooled)}")


if __name__ == "__main__":
    main()
