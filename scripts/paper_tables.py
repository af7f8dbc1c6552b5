#!/usr/bin/env python
"""Every table of docs/results.md: an experiment each, which is a `fedtalk sweep` over seeds, and what is made of its JSON.

    python scripts/paper_tables.py [--quick] [--people CLIENTS] [--seeds 0-4] [--only methods-30 lora] [--tables]

What is finished is kept, by the hash of its config, seed and code. --tables runs nothing and writes the tables of what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sweep_markdown import table
from tiny_run import write_backbone

from fedtalk.storage import atomic_path

ROOT = Path(__file__).parents[1]
DIFFUSION = {"class_path": "fedtalk.talker.objectives.DiffusionLoss"}
SPATIAL = [f"attentions.{place}.transformer_blocks.0" for place in (0, 1)]
TEMPORAL = [f"motion_modules.{place}.transformer_blocks.0" for place in (0, 1)]
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def tdc(weight: float) -> dict[str, Any]:
    """An overlay: the objective with so much of the temporal term."""
    term = {"class_path": "fedtalk.talker.objectives.TemporalDenoisingConsistency", "init_args": {"weight": weight}}
    return {"model": {"init_args": {"objectives": [DIFFUSION, term] if weight else [DIFFUSION]}}}


def adapter(**settings: object) -> dict[str, Any]:
    """An overlay: other settings of the adapter."""
    return {"model": {"init_args": {"adapter": settings}}}


def targets(blocks: list[str], attention: str) -> dict[str, Any]:
    """An overlay: the adapter on one kind of attention."""
    return adapter(targets=[f"{block}.{attention}.{projection}" for block in blocks for projection in PROJECTIONS])


def data(**settings: object) -> dict[str, Any]:
    """An overlay: other settings of the data."""
    return {"data": {"init_args": settings}}


OVERLAYS: dict[str, dict[str, Any]] = {
    "unreliable": data(unreliable=0.3),
    "reliable": data(unreliable=0.0),
    "outsiders": data(unreliable=0.0, outsiders=8) | {"trainer": {"personal": None}},
    **{f"tdc-{weight:g}": tdc(weight) for weight in (0.0, 0.05, 0.1, 0.3, 1.0)},
    **{f"rank-{rank}": adapter(rank=rank, alpha=float(rank)) for rank in (2, 8, 16)},
    "cross-attention": targets(SPATIAL, "attn2"),
    "spatial": targets(SPATIAL, "attn1"),
    "temporal": targets(TEMPORAL, "attn1"),
    # Everybody in every round: of ten clients half would at times be too few to hide in.
    "small": adapter(rank=2, alpha=2.0, aggregation="freeze_a", targets=["to_v", "to_out.0"])
    | {
        "trainer": {
            "local": {"learning_rate": 0.03}, "validate_every": 0, "videos": None, "personal": None,
            "cohort": {"class_path": "fedtalk.federation.cohort.PoissonCohort", "init_args": {"rate": 1.0}},
        }
    },
    "dp": {
        "trainer": {
            "privacy": {
                "noise_multiplier": 0.3, "clip_norm": 1.0, "delta": 0.01,
                "assumptions": {"colluding_fraction": 0.0, "dropout_fraction": 0.1},
            }
        }
    },
}  # fmt: skip
"""Configs that only the tables need, by name; written beside the sweeps."""

QUICK = {
    "model": {"init_args": {"adapter": {"rank": 2, "alpha": 2.0}, "window": 4, "stride": 4}},
    "data": {"init_args": {"speakers": 10, "clips": 1, "held_out": 1, "frames": 12, "size": 32}},
    "trainer": {
        "rounds": 1, "local": {"steps": 1, "batch_size": 1}, "personal": {"steps": 1, "most_clients": 2}, "validate_every": 0,
        "evaluation": {"clients": 2, "clips": 1, "portrait": False, "videos": 1}, "videos": None, "accelerator": "cpu",
    },
}  # fmt: skip
"""The miniature: one round, one step, an untrained backbone of 32 px."""


@dataclass(frozen=True)
class Experiment:
    """One sweep and the table that is made of it."""

    title: str
    base: tuple[str, ...]
    """Overlays of all of its runs."""
    variations: tuple[str, ...]
    """Overlays, joined by ``+``; the first is what the others are compared with. ``base`` for none."""
    row: str = "personal"
    """Which row of a run's table is shown: with personal adapters, or with the released one."""
    measures: tuple[str, ...] = ("psnr_mouth", "mouth_corr_pooled", "identity", "flicker", "jitter")
    configs: tuple[str, ...] = ("isfa",)
    labels: tuple[str, ...] = ()
    """Names of the variations in the table; their own by default, ``isfa`` for ``base``."""

    @property
    def names(self) -> list[str]:
        return list(self.labels) or [variation.replace("base", "isfa") for variation in self.variations]


METHODS = ("fedavg", "base", "fedavg+fedprox", "local_only", "centralised", "fedavg+ditto", "fedavg+fedper")
RULES = ("fedavg", "base", "isfa_paper", "uniform", "median", "trimmed_mean", "krum", "oracle")

EXPERIMENTS = {
    "methods-0": Experiment("All clients reliable: with personal adapters", ("reliable",), METHODS),
    "methods-30": Experiment("30 % of the clients unreliable: with personal adapters", ("unreliable",), METHODS),
    "rules-30": Experiment("30 % unreliable: the released adapter, by rule", ("unreliable",), RULES, "trained"),
    "outsiders": Experiment("People who took no part: the released adapter", ("outsiders",), ("fedavg", "base"), "trained"),
    "ablation-30": Experiment(
        "Ablation, 30 % unreliable, small adapters: the released one", ("unreliable", "small"),
        ("fedavg+tdc-0", "tdc-0", "fedavg", "fedavg+tdc-0+dp", "dp"), "trained",
        labels=("adapters only", "+ ISFA", "+ TDC", "+ DP", "all of it"),
    ),
    "tdc": Experiment(
        "TDC by its weight: the released adapter", ("reliable",), ("tdc-0", "tdc-0.05", "tdc-0.1", "tdc-0.3", "tdc-1"), "trained",
        ("psnr_mouth", "flicker", "jitter", "warping_error", "mouth_corr_pooled"),
    ),
    "lora": Experiment(
        "LoRA by rank and targets: the released adapter", ("reliable",),
        ("rank-8", "rank-2", "rank-16", "cross-attention", "spatial", "temporal"), "trained",
    ),
    "people": Experiment(
        "Real people, 30 % unreliable: with personal adapters", ("unreliable",), ("fedavg", "base", "local_only", "oracle"),
        configs=("isfa", "people"),
    ),
}  # fmt: skip


def write_overlays(folder: Path, quick: bool, people: Path | None) -> None:
    """The configs of `OVERLAYS`, and ``scale.yaml``, which all runs end with."""
    folder.mkdir(parents=True, exist_ok=True)
    found = dict(OVERLAYS)
    if quick:
        backbone = folder.parent / "backbone"
        if not (backbone / "backbone.json").exists():
            write_backbone(backbone)
        found["scale"] = {**QUICK, "model": {"init_args": {**QUICK["model"]["init_args"], "backbone": str(backbone)}}}
        found |= {f"rank-{rank}": adapter(rank=min(rank, 4), alpha=1.0 * rank) for rank in (2, 8, 16)}
    else:
        found["scale"] = {"trainer": {"evaluation": {"portrait": False, "videos": 1}}}
    if people is not None:
        found["people_root"] = data(root=str(people))
    for name, content in found.items():
        with atomic_path(folder / f"{name}.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(content, sort_keys=False))


def run(name: str, experiment: Experiment, folder: Path, seeds: str, jobs: list[str], people: Path | None) -> bool:
    """Run what the experiment's folder doesn't hold yet; returns whether all of it came to an end."""

    def file(overlay: str) -> str:
        own = folder / "overlays" / f"{overlay}.yaml"
        return str(
            own if overlay in OVERLAYS or overlay in ("scale", "people_root") else ROOT / "configs" / f"{overlay}.yaml"
        )

    stacked = [
        *experiment.configs,
        "scale",
        *(["people_root"] if people and name == "people" else []),
        *experiment.base,
    ]
    varied = ",".join(
        part if part == "base" else "+".join(file(overlay) for overlay in part.split("+"))
        for part in experiment.variations
    )
    command = [
        sys.executable, "-m", "fedtalk.cli", "sweep", *(part for one in stacked for part in ("--config", file(one))),
        "--seeds", seeds, "--vary", f"config={varied}", "--folder", str(folder / name), *jobs,
    ]  # fmt: skip
    print(f"== {name}: {experiment.title}", flush=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    return subprocess.run(command, check=False, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL).returncode == 0


def write_tables(folder: Path) -> Path:
    """``tables.md`` of all sweeps that are there; names those that aren't."""
    lines = [
        f"Made by `bash scripts/paper_tables.sh`, {time.strftime('%Y-%m-%d')}. Mean ± half of the 95 % interval over seeds; "
        "after the semicolon the paired difference from the first row, * where its interval excludes 0.",
        "",
    ]
    for name, experiment in EXPERIMENTS.items():
        path = folder / name / "sweep.json"
        if path.exists():
            summary, shown = json.loads(path.read_text()), (experiment.row, experiment.measures, experiment.names)
            lines += table(summary, folder / name, experiment.title, *shown)
        else:
            lines += [f"**{experiment.title}**: not run.", ""]
    with atomic_path(folder / "tables.md") as temporary:
        temporary.write_text("\n".join(lines))
    return folder / "tables.md"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--people", type=Path)
    options.add_argument("--seeds")
    options.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    options.add_argument("--folder", type=Path)
    options.add_argument("--jobs", type=int)
    options.add_argument("--tables", action="store_true")
    chosen = options.parse_args()
    folder = (chosen.folder or ROOT / "runs" / ("paper-quick" if chosen.quick else "paper")).absolute()
    seeds = chosen.seeds or ("0" if chosen.quick else "0-4")
    failed = []
    if not chosen.tables:
        write_overlays(folder / "overlays", chosen.quick, chosen.people)
        jobs = [] if chosen.jobs is None else ["--jobs", str(chosen.jobs)]
        for name in chosen.only:
            if name == "people" and chosen.people is None:
                print("== people: left out; --people CLIENTS names a folder of `fedtalk prepare`")
                continue
            if not run(name, EXPERIMENTS[name], folder, seeds, jobs, chosen.people):
                failed.append(name)
    print(f"tables: {write_tables(folder)}")
    if failed:
        sys.exit(
            f"not all runs came to an end: {', '.join(failed)}; their folders below {folder} say why, the same command goes on"
        )


if __name__ == "__main__":
    main()
