#!/usr/bin/env python
"""Every table of docs/results.md: an experiment each, which is a `fedtalk sweep` over seeds, and what is made of its JSON.

    python scripts/paper_tables.py [--small | --quick] [--people CLIENTS] [--seeds 0-4] [--only methods-30 lora] [--tables]
                                   [--page docs/results.md]

What is finished is kept, by the hash of its config, seed and code. --tables runs nothing and writes the tables of what is there.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from paper_experiments import EXPERIMENTS, FULL, QUICK, ROOT, SMALL, Experiment, Scale, data, merged, overlays
from sweep_markdown import ADAPTERS, gains, over_people, table
from tiny_run import write_backbone

from fedtalk.data.partition import MANIFEST
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import FedTalkError
from fedtalk.interruption import Interrupted
from fedtalk.report.charts import differences_chart
from fedtalk.storage import atomic_path
from fedtalk.sweeps.sweep import run_sweep


def draw_people(folder: Path) -> Path:
    """Write what stands for real people in the miniature: a folder as `fedtalk prepare` leaves it, with a clip of two seconds at
    32 px of each of twelve drawn people."""
    rows = []
    for index in range(12):
        clip = make_clip(Speaker.draw(0, "public", index), take=0, frames=50, size=32)
        clip.save(folder / f"person-{index:02d}" / "clip-0000.npz")
        rows.append([f"person-{index:02d}", "clip", "clip-0000.npz", 0.0, 2.0])
    with atomic_path(folder / MANIFEST) as temporary, temporary.open("w", newline="") as stream:
        csv.writer(stream).writerows([["client", "source", "clip", "start", "seconds"], *rows])
    return folder


def write_overlays(folder: Path, scale: Scale, people: Path | None) -> dict[str, Path]:
    """Write the configs that only the tables need to ``folder``; by name."""
    folder.mkdir(parents=True, exist_ok=True)
    found = overlays(scale)
    if scale is QUICK:
        backbone = folder.parent / "backbone"
        if not (backbone / "backbone.json").exists():
            write_backbone(backbone)
        found["scale"] = merged(found["scale"], {"model": {"init_args": {"backbone": str(backbone)}}})
    if people is not None:
        found["people_root"] = data(root=str(people), **({"size": 32} if scale is QUICK else {}))
    written = {name: folder / f"{name}.yaml" for name in found}
    for name, path in written.items():
        with atomic_path(path) as temporary:
            temporary.write_text(yaml.safe_dump(found[name], sort_keys=False))
    return written


def stack(experiment: Experiment, written: dict[str, Path]) -> tuple[list[str], str]:
    """Configs of an experiment's sweep, and what it varies."""

    def file(overlay: str) -> str:
        return str(written.get(overlay) or ROOT / "configs" / f"{overlay}.yaml")

    of_data = "people_root" if "people" in experiment.configs else "scale_data"
    varied = ",".join(
        part if part == "base" else "+".join(file(overlay) for overlay in part.split("+"))
        for part in experiment.variations
    )
    stacked = (*experiment.configs, "scale", *([of_data] if of_data in written else []), *experiment.base)
    return [file(one) for one in stacked], f"config={varied}"


def run(name: str, folder: Path, written: dict[str, Path], seeds: str, jobs: int | None) -> bool:
    """Run what the experiment's folder doesn't hold yet; returns whether all of it came to an end."""
    experiment = EXPERIMENTS[name]
    print(f"== {name}: {experiment.title}", flush=True)
    configs, varied = stack(experiment, written)
    try:
        return not run_sweep(configs, seeds, [varied], folder / name, jobs)["failed"]
    except FedTalkError as error:
        print(error, file=sys.stderr)
        return False


def draw(summary: dict[str, Any], experiment: Experiment, sweep: Path) -> None:
    """``NAME-ROW.svg`` beside a sweep's folder: how far each variation's mouth PSNR is from the first one's."""
    first, *others = experiment.names
    for row in experiment.rows:
        entries = [entry["measures"].get(f"{row}.psnr_mouth", {}) for entry in summary["variations"].values()]
        found = {
            name: one["against_first"] for name, one in zip(others, entries[1:], strict=True) if "against_first" in one
        }
        if found:
            svg = differences_chart(f"{ADAPTERS[row]}: mouth PSNR less {first}'s", "dB", found)
            with atomic_path(sweep.with_name(f"{sweep.name}-{row}.svg")) as temporary:
                temporary.write_text(svg)


def lines_of(name: str, folder: Path) -> list[str]:
    """An experiment's tables in Markdown, and its plots beside its folder; says so where it hasn't been run."""
    experiment, path = EXPERIMENTS[name], folder / name / "sweep.json"
    if not path.exists():
        return [f"**{experiment.title}**: not run.", ""]
    summary = json.loads(path.read_text())
    if len(summary["variations"]) != len(experiment.names):
        return [f"**{experiment.title}**: {path} is of other variations; run it again.", ""]
    lines = []
    for row in experiment.rows:
        lines += table(summary, folder / name, experiment.title, row, experiment.measures, experiment.names)
        if experiment.same_people:
            lines += over_people(summary, folder / name, row, experiment.names)
    draw(summary, experiment, folder / name)
    return [*lines, *gains(summary, experiment.names)]


def write_tables(folder: Path, how: str = "") -> Path:
    """``tables.md`` of all sweeps that are there; names those that aren't."""
    lines = [
        f"Made by `bash scripts/paper_tables.sh{how}`, {time.strftime('%Y-%m-%d')}. Mean ± half of the 95 % interval over seeds; "
        "after the semicolon the paired difference from the first row, * where its interval excludes 0.",
        "",
    ]
    for name in EXPERIMENTS:
        lines += lines_of(name, folder)
    with atomic_path(folder / "tables.md") as temporary:
        temporary.write_text("\n".join(lines))
    return folder / "tables.md"


def write_into(page: Path, folder: Path) -> list[str]:
    """Put the tables that are there where ``page`` has a place for them, between ``<!-- NAME -->`` and ``<!-- /NAME -->``.

    Returns:
        names of the experiments whose tables were written.
    """
    text, written = page.read_text(encoding="utf-8"), []
    for name in EXPERIMENTS:
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin in text and (folder / name / "sweep.json").exists():
            before, rest = text.split(begin, 1)
            if end not in rest:
                raise SystemExit(f"{page}: {begin} has no {end} after it")
            table_lines = "\n".join(lines_of(name, folder)).strip()
            text = f"{before}{begin}\n\n{table_lines}\n\n{end}{rest.split(end, 1)[1]}"
            written.append(name)
    with atomic_path(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return written


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    scales = options.add_mutually_exclusive_group()
    scales.add_argument(
        "--small", action="store_const", dest="scale", const=SMALL, default=FULL, help="short rounds: hours"
    )
    scales.add_argument("--quick", action="store_const", dest="scale", const=QUICK, help="the miniature: minutes")
    options.add_argument(
        "--people", type=Path, metavar="CLIENTS", help="folder of `fedtalk prepare`, for the tables of real people"
    )
    options.add_argument("--seeds", help="for instance 0-4, the default; 0 of the miniature")
    options.add_argument(
        "--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS), help="these tables alone"
    )
    options.add_argument("--folder", type=Path, help=f"where they land; {FULL.folder} and the like by default")
    options.add_argument("--jobs", type=int, help="runs at a time; by default as many as there are cores or GPUs")
    options.add_argument("--tables", action="store_true", help="run nothing, write the tables of what is there")
    options.add_argument("--page", type=Path, help="and put them into this Markdown file, where it has places for them")
    chosen = options.parse_args()
    scale: Scale = chosen.scale
    folder, people = (chosen.folder or ROOT / scale.folder).absolute(), chosen.people and chosen.people.absolute()
    chosen.page = chosen.page and chosen.page.absolute()
    failed = []
    os.chdir(ROOT)
    if scale is QUICK:
        if people is not None:
            sys.exit(
                "--people: the miniature is of 32 px and draws people of its own; leave out one of --people and --quick"
            )
        people = folder / "people"
        if not (people / MANIFEST).exists():
            draw_people(people)
    if not chosen.tables:
        written = write_overlays(folder / "overlays", scale, people)
        seeds = chosen.seeds or ("0" if scale is QUICK else "0-4")
        for name in chosen.only:
            if "people" in EXPERIMENTS[name].configs and people is None:
                print(f"== {name}: left out; --people CLIENTS names a folder of `fedtalk prepare`")
            elif not run(name, folder, written, seeds, chosen.jobs):
                failed.append(name)
            write_tables(folder, scale.flag)
    print(f"tables: {write_tables(folder, scale.flag)}")
    if chosen.page is not None:
        print(f"{chosen.page}: {', '.join(write_into(chosen.page, folder)) or 'no place for any table that is there'}")
    if failed:
        sys.exit(
            f"not all runs came to an end: {', '.join(failed)}; their folders below {folder} say why, the same command goes on"
        )


if __name__ == "__main__":
    try:
        main()
    except Interrupted as stop:
        sys.exit(f"{stop}; what is done is kept, the same command goes on")
