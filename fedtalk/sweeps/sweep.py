"""`fedtalk sweep`: plan, execute, summarise, with a progress bar."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.machine import usable_cores
from fedtalk.run_lock import run_lock
from fedtalk.storage import write_json
from fedtalk.sweeps.execution import Sweep, SweepOutcome
from fedtalk.sweeps.plan import code_version, parse_seeds, plan
from fedtalk.sweeps.summary import summarise, tables, write
from fedtalk.version import __version__

UNFINISHED = "unfinished.json"
"""Beside sweep.json and of the same form, while runs are missing: what the finished ones say so far."""

OnChange = Callable[[SweepOutcome, list[str]], None]


def run_sweep(
    configs: Sequence[str],
    seeds: str,
    vary: Sequence[str] = (),
    folder: Path = Path("runs/sweep"),
    jobs: int | None = None,
    threads: int = 1,
    on_ray: bool = False,
) -> dict[str, Any]:
    """Run all seeds of all variations that ``folder`` doesn't hold yet, and write the summary.

    Args:
        configs: config files, stacked as for `fedtalk fit`.
        seeds: such as ``0-4`` or ``0,3,7-9``.
        vary: ``KEY=A,B`` each; see `fedtalk.sweeps.plan.variations`.
        folder: of the sweep; finished runs in it are kept by the hash of their config, seed and code.
        jobs: runs at the same time; by default one a GPU, or as many as there are cores for their threads.
        threads: CPU threads of each run. Bits depend on it.
        on_ray: run on the nodes of the Ray cluster that RAY_ADDRESS names.

    Returns:
        the content of ``sweep.json``.

    Raises:
        ConfigurationError: something that `fedtalk fit` would refuse, before anything runs.
        FedTalkError: no run came to an end.
        Interrupted: stopped by a signal; the same command goes on.
    """
    if threads < 1 or (jobs is not None and jobs < 1):
        raise ConfigurationError(f"sweep: expected --jobs and --threads of at least 1, got {jobs} and {threads}")
    runs = plan(configs, parse_seeds(seeds), vary, threads)
    gpus = _gpus()
    if on_ray:
        from fedtalk.sweeps import ray_nodes

        ray_nodes.connect()
        jobs, gpus = jobs or ray_nodes.usable_runs(threads), []
    jobs = jobs or (len(gpus) if gpus else max(1, usable_cores() // threads))
    sweep = Sweep(folder, configs, jobs, threads, gpus, on_ray)
    began = time.monotonic()

    def summary_of(outcome: SweepOutcome) -> dict[str, Any]:
        about = {
            "configs": list(configs), "seeds": parse_seeds(seeds), "vary": list(vary), "threads": threads,
            "fedtalk": __version__, "torch": torch.__version__, "code": code_version()[:16], "kept": outcome.kept,
            "seconds": round(time.monotonic() - began, 1), "date": time.strftime("%Y-%m-%d"),
        }  # fmt: skip
        return summarise(runs, outcome, about)

    with (
        run_lock(folder, "sweep", "give this one its own folder with --folder"),
        _progress(len(runs), jobs) as show,
    ):
        ended = 0

        def on_change(outcome: SweepOutcome, started: list[str]) -> None:
            nonlocal ended
            show(outcome, started)
            done = len(outcome.finished) + len(outcome.failed)
            if outcome.finished and ended != done < len(runs):
                write_json(folder / UNFINISHED, summary_of(outcome))
            ended = done

        outcome = sweep.execute(runs, on_change)
        if not outcome.finished:
            raise FedTalkError(
                f"sweep: none of {len(runs)} runs came to an end. The first one: {outcome.failed[0].reason} "
                f"(all of it in {outcome.failed[0].folder}/log.txt)"
            )
        summary = summary_of(outcome)
        write(summary, folder)
        (folder / UNFINISHED).unlink(missing_ok=True)
    return summary


def print_summary(summary: dict[str, Any], measures: Sequence[str] = ()) -> None:
    """Print the tables of a sweep."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables(summary, measures):
        console.print(table)


def _gpus() -> list[str]:
    """Devices that runs may have, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip() and part.strip() != "-1"]
    return [str(number) for number in range(torch.cuda.device_count())]


@contextmanager
def _progress(total: int, jobs: int) -> Iterator[OnChange]:
    """A bar on a terminal, else a line whenever a run ends."""
    if sys.stderr.isatty():
        with Progress(
            TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        ) as bars:  # fmt: skip
            task = bars.add_task("runs", total=total, note="")

            def show(outcome: SweepOutcome, started: list[str]) -> None:
                lost = f"{len(outcome.failed)} failed; " if outcome.failed else ""
                note = lost + ", ".join(escape(name) for name in started[:jobs])
                bars.update(task, completed=len(outcome.finished) + len(outcome.failed), note=note)

            yield show
        return
    told = -1

    def tell(outcome: SweepOutcome, started: list[str]) -> None:
        nonlocal told
        done = len(outcome.finished) + len(outcome.failed)
        if done != told:
            told = done
            kept = f", {outcome.kept} of them from before" if outcome.kept else ""
            print(f"sweep: {done} of {total} runs{kept}, {len(outcome.failed)} failed", file=sys.stderr, flush=True)

    yield tell
