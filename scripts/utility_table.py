#!/usr/bin/env python
"""What privacy costs in quality: configs/private.yaml with and without it, at several epsilons and seeds.

    python scripts/utility_table.py --json

Each run is `fedtalk fit` in FOLDER/epsilon-E/seed-S; `off` is the same federation without secure aggregation, clipping and
noise. The adapter that it releases is measured on people who took no part, drawn like the clients, beside no adapter at all:

- error: the diffusion error on their held-out clips, at fixed noise and noise levels,
- psnr_mouth, in dB, and mouth_corr of their held-out clips, dubbed.

With ``--adapters freeze_a fedsvd`` every run is made with each of these aggregations of the adapter, rows are named by both, and
a row of differences is that of the second to the first, seed by seed:

    python scripts/utility_table.py --adapters freeze_a fedsvd --epsilons off 8 --json

At the same learning rate their steps are not alike: A's rows are of length 1 with fedsvd and about 0.57 with freeze_a, so that a
step on B, and noise on it, moves the product 1.7 times as far. ``--adapters freeze_a --set
trainer.local.learning_rate=5.2e-2``, in a folder of its own, tells how much of a difference is that.

``--set data.init_args.speakers=160 trainer.rounds=4`` makes it smaller, and ``--columns error`` leaves out the dubbing, which is
most of the measuring; give each size a ``--folder`` of its own.

Means are over people; the interval is Student's over the seeds (cohorts and noise come from the operating system, local
training from the seed; people are the same). Stopped, it goes on where it stopped: whole runs are kept, half ones resumed.
Size as it stands: 12 runs of 8 rounds, about 120 of 800 clients each, 2 local steps; the clips of 800 clients are prepared
once for all runs, in the first ones. One thread a run, as many runs at once as ``--jobs``.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import operator
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from scipy import stats

from fedtalk.cli import main as fedtalk
from fedtalk.storage import write_json

OFF = "off"
COLUMNS = ("error", "psnr_mouth", "mouth_corr")


def planned(
    config: Path, folder: Path, epsilon: str, seed: int, adapter: str | None = None, changes: Sequence[str] = ()
) -> dict[str, Any]:
    """The config of one run.

    Args:
        config: what all runs have in common.
        folder: of the run.
        epsilon: its target, or ``off``.
        seed: of everything but the people.
        adapter: how its adapter is aggregated, if not as the config says.
        changes: other settings, each ``path.to.setting=value`` with the value in YAML.
    """
    settings = yaml.safe_load(config.read_text())
    for change in changes:
        path, value = change.split("=", 1)
        *parents, name = path.split(".")
        functools.reduce(operator.getitem, parents, settings)[name] = yaml.safe_load(value)
    if adapter is not None:
        settings["model"]["init_args"]["adapter"]["aggregation"] = adapter
    trainer = settings["trainer"]
    trainer |= {"default_root_dir": str(folder), "threads": 1, "accelerator": "cpu"}
    if epsilon == OFF:
        trainer["privacy"] = None
    else:
        trainer["privacy"]["target_epsilon"] = float(epsilon)
    settings["data"]["init_args"]["seed"] = 0  # the same people for all seeds
    return {"seed_everything": seed, **settings}


def fit_and_measure(options: argparse.Namespace, adapter: str | None, epsilon: str, seed: int) -> dict[str, Any]:
    """One run from wherever it stands to its measurements."""
    place = options.folder
    folder = place / (adapter or "") / f"epsilon-{epsilon}" / f"seed-{seed}"
    result = folder / "utility.json"
    if not result.exists():
        plan = folder / "plan.yaml"
        if not plan.exists():
            folder.mkdir(parents=True, exist_ok=True)
            settings = planned(options.config, folder, epsilon, seed, adapter, options.set)
            plan.write_text(yaml.safe_dump(settings, sort_keys=False))
        with (folder / "log.txt").open("a") as log, redirect_stdout(log), redirect_stderr(log):
            ended = fedtalk(["fit", "--config", str(plan), "--ckpt_path", "last"])
            if not ended:
                measure(folder, options.people, place, options.columns)
        if ended:
            raise RuntimeError(f"fedtalk fit --config {plan} ended with {ended}; see {folder / 'log.txt'}")
    print(f"{folder.relative_to(place)}: done", file=sys.stderr, flush=True)
    return json.loads(result.read_text())


def measure(folder: Path, people: int, without: Path, columns: Sequence[str] = COLUMNS) -> None:
    """Write utility.json of a run: what its adapter is worth to people who took no part, one by one.

    Args:
        folder: of the run.
        people: how many.
        without: folder where their measurements without an adapter are kept.
        columns: what is measured.
    """
    from fedtalk.data.source import PreparedCache
    from fedtalk.data.synthtalk_data import SynthTalkData
    from fedtalk.evaluation.openness import openness_probe
    from fedtalk.evaluation.settings import EvaluationSettings
    from fedtalk.talker.module import Talker

    torch.set_num_threads(1)
    settings = yaml.safe_load((folder / "plan.yaml").read_text())
    data_settings, model = settings["data"]["init_args"], settings["model"]["init_args"]
    strangers = SynthTalkData(
        **{**data_settings, "speakers": people, "first": data_settings["speakers"], "unreliable": 0.0, "frames": 40}
    )
    # The adapter's settings come with it.
    talker = Talker(**{name: value for name, value in model.items() if name != "adapter"}).eval()
    probe = openness_probe(EvaluationSettings().openness)
    cache = PreparedCache(Path(settings["trainer"].get("cache_dir", ".cache/fedtalk")))

    def everybody() -> list[dict[str, float]]:
        return [_of_person(talker, strangers, name, cache, probe, columns) for name in strangers.clients]

    known = without / f"no_adapter-{people}-{'-'.join(columns)}.json"  # the same for all runs
    if not known.exists():
        write_json(known, everybody())
    rows = {"no_adapter": json.loads(known.read_text())}
    talker.load_adapter(folder / "adapters" / "released")
    rows["released"] = everybody()
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    record = folder / "checkpoints" / "ledger.json"
    write_json(
        folder / "utility.json",
        {
            "rounds": checkpoint["round"],
            "ledger": json.loads(record.read_text()) if record.exists() else None,
            **{row: {c: [person[c] for person in found] for c in columns} for row, found in rows.items()},
        },
    )


def _of_person(talker: Any, data: Any, name: str, cache: Any, probe: Any, columns: Sequence[str]) -> dict[str, float]:
    from fedtalk.evaluation import metrics
    from fedtalk.randomness import torch_generator

    held_out = data.held_out_clips(name)
    error = talker.held_out_metrics(cache.get(talker, held_out), torch_generator(0, "utility", name))["diffusion"]
    if set(columns) == {"error"}:
        return {"error": error}
    clip, reference = held_out[0].load(), data.training_clips(name)[0].load().reference(0)
    frames = np.stack([frame.numpy() for frame in talker.dub(clip, reference)])
    return {
        "error": error,
        "psnr_mouth": metrics.psnr_mouth(clip.frames, frames, clip.mouth, clip.eyes),
        "mouth_corr": metrics.mouth_corr(probe.measure(frames, clip.mouth, clip.eyes), clip.openness),
    }


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half-width of Student's 95 % interval.

    >>> interval([1.0, 2.0, 3.0])
    (2.0, 2.4841)
    """
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return round(float(np.mean(values)), 4), round(half, 4)


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Rows by epsilon: the released adapter's change against none, mean over people, interval over seeds."""
    any_run = next(iter(found.values()))[0]
    columns = list(any_run["no_adapter"])
    table: dict[str, Any] = {"no_adapter": {c: round(float(np.mean(any_run["no_adapter"][c])), 4) for c in columns}}
    for epsilon, runs in found.items():
        row: dict[str, Any] = {}
        for column in columns:
            changes = [np.array(run["released"][column]) - np.array(run["no_adapter"][column]) for run in runs]
            row[column], row[f"{column}_interval"] = interval([float(change.mean()) for change in changes])
            better = [float((change < 0).mean() if column == "error" else (change > 0).mean()) for change in changes]
            row[f"{column}_better_share"] = round(float(np.mean(better)), 3)
        table[epsilon] = row
    return table


def difference(found: dict[str, list[dict[str, Any]]], adapters: list[str], epsilon: str) -> dict[str, Any]:
    """By column, what the second adapter has more than the first, mean over people; interval over the seeds, which they share."""
    first, second = (found[row_name(adapter, epsilon)] for adapter in adapters[:2])
    row: dict[str, Any] = {}
    for column in first[0]["released"]:
        apart = [
            float(np.mean(np.array(two["released"][column]) - np.array(one["released"][column])))
            for one, two in zip(first, second, strict=True)
        ]
        row[column], row[f"{column}_interval"] = interval(apart)
    return row


def row_name(adapter: str | None, epsilon: str) -> str:
    return epsilon if adapter is None else f"{adapter} {epsilon}"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/private.yaml"))
    parser.add_argument("--folder", type=Path, default=Path("runs/utility"))
    parser.add_argument("--epsilons", nargs="+", default=[OFF, "16", "8", "4"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--adapters", nargs="+", help="aggregations of the adapter to compare; the config's by default")
    parser.add_argument("--set", nargs="+", default=[], metavar="PATH=VALUE", help="other settings of the config")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS), help="what to measure")
    parser.add_argument("--people", type=int, default=32, help="who took no part, measured on")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    if len(options.seeds) < 2:
        parser.error(f"--seeds: expected at least two, for an interval, got {options.seeds}")
    started, adapters = time.monotonic(), options.adapters or [None]
    kinds = [(adapter, epsilon) for epsilon in options.epsilons for adapter in adapters]
    # One import serves many runs; started anew, since torch doesn't outlive a fork.
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        work = {
            (adapter, epsilon, seed): pool.submit(fit_and_measure, options, adapter, epsilon, seed)
            for seed in options.seeds
            for adapter, epsilon in kinds
        }
        found = {row_name(*kind): [work[(*kind, seed)].result() for seed in options.seeds] for kind in kinds}
    table = summary(found)
    if len(adapters) > 1:
        table |= {f"difference {epsilon}": difference(found, adapters, epsilon) for epsilon in options.epsilons}
    about = {"people": options.people, "seeds": options.seeds, "seconds": round(time.monotonic() - started)}
    if options.json:
        print(json.dumps({**table, "about": about}))
        return
    print(
        "change against no adapter, mean over people +- 95 % interval over seeds (share of people for whom it is better)"
    )
    print(f"{'':>12}" + "".join(f"{column:>30}" for column in options.columns))
    print(f"{'no adapter':>12}" + "".join(f"{table['no_adapter'][column]:>30.4f}" for column in options.columns))
    for name in [name for name in table if name != "no_adapter"]:
        row = table[name]
        shares = (f" ({row[c + '_better_share']:.0%})" if c + "_better_share" in row else "" for c in options.columns)
        cells = (
            f"{row[c]:+.4f} +- {row[c + '_interval']:.4f}{share}"
            for c, share in zip(options.columns, shares, strict=True)
        )
        print(f"{name:>12}" + "".join(f"{cell:>30}" for cell in cells))
    print(about)


if __name__ == "__main__":
    main()
