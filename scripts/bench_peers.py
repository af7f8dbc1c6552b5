"""The same small federated job on fedtalk, on Flower's simulation and on pfl-research, side by side.

    python scripts/bench_peers.py --json

The job is scripts/peers/job.py: 8 clients, all of them in every round, ten full-batch steps of AdamW each on a network of 136,714
parameters; one thread a process. Sides: fedtalk in process, fedtalk on Ray with two workers, Flower's simulation with two clients
at a time, pfl-research in one process. The peers have an environment of their own, which this script makes on its first
run from the package registry (``--environment``; some GB). Sides take turns, ``--repeats`` times; figures are medians over turns,
ratios those of the same turn. All sides must come to the same model: the loss that each ends with is compared.

* ``rounds_per_s``: of the rounds after the first two, by their median;
* ``start_s``: from the start of the process to the first round, imports included;
* ``peak_mb``: the largest memory of the process and all that it has started, pages that they share counted once (PSS; Linux).

fedtalk does more in a round than the others: it writes a checkpoint, seals and opens the sum, and logs to TensorBoard.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PINNED = ["flwr[simulation]==1.42.0", "pfl==0.6.0"]
SAME = 1e-3
"""Of the loss: so far sides may differ, by the order in which they sum."""


def environment(folder: Path) -> Path:
    """The interpreter of the peers' environment, made where it is missing, with the torch of this one."""
    import torch

    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = folder / "done"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [python, "-m", "pip", "install", "--quiet", f"torch=={torch.__version__.split('+')[0]}", *PINNED]
        subprocess.run([str(part) for part in command], check=True)
        done.touch()
    return python


def sides(peers: Path) -> dict[str, list[str]]:
    """Commands by name."""
    return {
        "fedtalk, in process": [sys.executable, str(HERE / "peers" / "fedtalk_side.py"), "1"],
        "fedtalk, Ray, 2 workers": [sys.executable, str(HERE / "peers" / "fedtalk_side.py"), "2"],
        "Flower, simulation, 2 at a time": [str(peers), str(HERE / "peers" / "flower_side.py")],
        "pfl-research": [str(peers), str(HERE / "peers" / "pfl_side.py")],
    }


def run(command: list[str], rounds: int) -> dict[str, float]:
    """One side, once."""
    settings = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PEERS_ROUNDS": str(rounds)}
    began, peak = time.time(), 0.0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **settings})
        while process.poll() is None:
            peak = max(peak, memory_mb(process.pid))
            time.sleep(0.2)
        output.seek(0)
        text = output.read()
    told = [line.split("RESULT ", 1)[1] for line in text.splitlines() if "RESULT " in line]
    if process.returncode or not told:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{text[-3000:]}")
    result = json.loads(told[-1])
    instants = result["instants"]
    seconds = [later - earlier for earlier, later in itertools.pairwise(instants[1:])]
    return {
        "rounds_per_s": 1 / statistics.median(seconds),
        "start_s": instants[0] - began - statistics.median(seconds),
        "peak_mb": peak,
        "loss": result["loss"],
    }


def memory_mb(process: int) -> float:
    """PSS of a process and its descendants; 0 where no system tells."""
    total = 0.0
    with contextlib.suppress(OSError):  # it may end meanwhile
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) / 1024
        for task in Path(f"/proc/{process}/task").iterdir():
            total += sum(map(memory_mb, map(int, (task / "children").read_text().split())))
    return total


def measure(peers: Path, rounds: int, repeats: int) -> dict[str, Any]:
    """All sides, by turns."""
    commands = sides(peers)
    turns = [{name: run(command, rounds) for name, command in commands.items()} for _ in range(repeats)]
    losses = [turn[name]["loss"] for turn in turns for name in commands]
    if max(losses) - min(losses) > SAME:
        raise SystemExit(f"the sides did not do the same job: losses {losses}")
    keys = ("rounds_per_s", "start_s", "peak_mb")
    figures = {
        name: {key: round(statistics.median(turn[name][key] for turn in turns), 3) for key in keys} for name in commands
    }
    ours, on_ray, flower, pfl = commands

    def over(one: str, *others: str) -> float:
        ratios = [turn[one]["rounds_per_s"] / max(turn[other]["rounds_per_s"] for other in others) for turn in turns]
        return round(statistics.median(ratios), 3)

    return {
        "sides": figures,
        "in_process_over_fastest_peer": over(ours, flower, pfl),
        "ray_over_flower": over(on_ray, flower),
        "rounds": rounds,
        "repeats": repeats,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--environment", type=Path, default=Path(".cache/peers"), help="of Flower and pfl-research")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    if options.rounds < 4:
        parser.error("--rounds: expected at least 4")
    found = measure(environment(options.environment.resolve()), options.rounds, options.repeats)
    if options.json:
        print(json.dumps(found))
        return
    for name, figures in found["sides"].items():
        print(f"{name:>32}  " + "  ".join(f"{key} {value}" for key, value in figures.items()))
    for key in ("in_process_over_fastest_peer", "ray_over_flower"):
        print(f"{key:>32}  {found[key]}")


if __name__ == "__main__":
    main()
