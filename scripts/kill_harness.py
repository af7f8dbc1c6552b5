"""Kill a tiny fit at random instants, go on, and compare what comes of it with a fit that was never stopped.

    python scripts/kill_harness.py --kills 100 --json

A trial is one run folder: a fit is started in it, killed by SIGKILL after a random time, started again with
``--ckpt_path last``, killed again, and so on until one start comes to its end before its kill. Then every value of the
checkpoint and every byte of the adapters must be those of the uninterrupted fit. Trials go on until there were that many
kills. Starts are forks of this process, which has imported everything: most of an ordinary start is imports, and kills
would fall there. Each start runs the command line from its arguments on, as a user's does.

With ``--workers 2`` the fits have workers, and a Ray of their own, whose start then takes most of a fit; whatever processes a
killed fit has had must be gone soon (Linux).

The exit status is 1 if any trial ended with other bits or with an error, or left processes behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import torch
from tiny_run import write_backbone, write_config

from fedtalk.cli import main as fedtalk
from fedtalk.federation import trainer as _trainer  # noqa: F401  imported before the forks, not in each of them


def start(arguments: list[str], log: Path) -> int:
    """Fork a fit; returns the child's process number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:  # whatever happens, the child must not run the harness's own code on
        with log.open("a") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            sys.argv = ["fedtalk", *arguments]
            code = fedtalk(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def descendants(process: int) -> list[int]:
    """Processes that a process has started, and those that these have."""
    found = []
    with contextlib.suppress(OSError):  # it may end meanwhile
        for task in Path(f"/proc/{process}/task").iterdir():
            for other in map(int, (task / "children").read_text().split()):
                found += [other, *descendants(other)]
    return found


def left(processes: list[int], seconds: float = 300.0) -> int:
    """How many of them there are still after so many seconds."""
    end = time.monotonic() + seconds
    while processes and time.monotonic() < end:
        time.sleep(0.05)
        alive = []
        for process in processes:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                    alive.append(process)
        processes = alive
    return len(processes)


def await_end(child: int, kill_after: float | None, others: list[int]) -> int | None:
    """The exit code of a child, or None if it was killed after ``kill_after`` seconds; ``others`` gets what it had started."""
    end = None if kill_after is None else time.monotonic() + kill_after
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() >= end:
            others += descendants(child)
            os.kill(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            return None if code == -signal.SIGKILL else code  # it may have ended in the last moment
        time.sleep(0.001)


def result(run: Path) -> dict[str, object]:
    """Everything that a fit leaves for use: the checkpoint's values and the adapters' bytes, by name."""
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    found: dict[str, object] = {}

    def walk(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                walk(f"{name}/{key}", part)
        elif isinstance(value, (list, tuple)):
            for index, part in enumerate(value):
                walk(f"{name}/{index}", part)
        else:
            found[name] = value.numpy().tobytes() if isinstance(value, torch.Tensor) else value

    walk("checkpoint", saved)
    for path in sorted((run / "adapters").rglob("*")):
        if path.is_file():
            found[str(path.relative_to(run))] = path.read_bytes()
    return found


def stage(run: Path, rounds: int) -> str:
    """Where a killed fit stood."""
    last = run / "checkpoints" / "last.ckpt"
    if not last.exists():
        return "before the first checkpoint"
    done = torch.load(last, weights_only=True)["round"]
    return f"after checkpoint {done}" + (", personal adapters" if done == rounds else "")


def main() -> int:
    """Run trials until there were enough kills; print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the instants; they still depend on the machine's load")
    parser.add_argument("--rounds", type=int, default=4, help="of each fit")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a fork copies no threads, so this process must not have started any
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    generator, began = random.Random(options.seed), time.monotonic()
    kills, trials, wrong, stages, leftovers, orphans = 0, 0, [], Counter(), 0, 0
    with tempfile.TemporaryDirectory(prefix="fedtalk-kill-") as name:
        place = Path(name)
        write_backbone(place / "backbone")
        write_config(place / "config.yaml", place / "backbone", options.rounds)

        def arguments(folder: str) -> list[str]:
            return ["fit", "--config", str(place / "config.yaml"), "--ckpt_path", "last", "--trainer.default_root_dir",
                    str(place / folder), "--trainer.cache_dir", str(place / "cache"),
                    "--trainer.workers", str(options.workers)]  # fmt: skip

        log, lengths = place / "log.txt", []
        for folder in ("warm", "through"):  # the first one fills the cache and is not timed
            started = time.monotonic()
            if await_end(start(arguments(folder), log), None, []) != 0:
                print(log.read_text()[-4000:], file=sys.stderr)
                return 1
            lengths.append(time.monotonic() - started)
        expected = result(place / "through")
        if result(place / "warm") != expected:
            wrong.append("two uninterrupted fits differ")
        while kills < options.kills:
            folder, trials, code = f"trial{trials}", trials + 1, None
            while code is None:
                longest, others = 1.1 * lengths[-1], list[int]()
                kill_after = generator.uniform(0, longest) if kills < options.kills else None
                code = await_end(start(arguments(folder), log), kill_after, others)
                orphans += left(others)
                if code is None:
                    kills += 1
                    stages[stage(place / folder, options.rounds)] += 1
                    leftovers += len(list((place / folder).rglob(".part-*")))
            got = result(place / folder) if code == 0 else {}
            if code != 0 or got != expected or list((place / folder).rglob(".part-*")):
                differing = sorted(key for key in expected.keys() | got.keys() if got.get(key) != expected.get(key))
                wrong.append(f"trial {trials}: exit {code}, differs in {differing[:5]}")
                print(log.read_text()[-4000:], file=sys.stderr)
            shutil.rmtree(place / folder)
    summary = {
        "kills": kills, "trials": trials, "wrong": wrong, "orphans": orphans, "compared_values": len(expected),
        "fit_s": round(lengths[-1], 2), "killed": dict(sorted(stages.items())), "half_written_files_removed": leftovers,
        "total_s": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print(json.dumps(summary) if options.json else "\n".join(f"{key:>28}  {value}" for key, value in summary.items()))
    return 1 if wrong or orphans else 0


if __name__ == "__main__":
    sys.exit(main())
