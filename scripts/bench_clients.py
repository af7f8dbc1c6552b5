"""Server work, memory and start-up by the number of registered clients.

    python scripts/bench_clients.py --json

Each number of clients runs in a process of its own, with the same expected cohort of 10 (Poisson), one server. The local
work is nothing: two vectors pulled to a clip's mean colour, one step, so that what is left is the engine: drawing the
cohort, broadcast, sealing, opening the sum, the server's step, checkpoint and monitor. Clips are SynthTalk's, drawn and
cached when a client is first sampled.

Reported by number of clients: ``server_s_per_client``, the median over rounds of (time of the round and its bookkeeping,
less the time inside the clients) / clients in it; ``peak_mb``, the largest resident memory of the process; ``start_s``,
from building the data to the first cohort, without Python's imports. ``flatness`` is the largest over the smallest
server time, ``memory`` the largest peak over that of 10 clients.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from fedtalk.callbacks.base import RoundCallback, RoundOutcome, RoundTrainer
from fedtalk.data.clip import Clip
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.federation.client import ClientHalf
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.engines import in_process
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.training.local import LocalTraining
from fedtalk.training.module import FederatedModule, Prepared

COHORT = 10


class MeanColour(FederatedModule):
    """A vector that is pulled to the mean colour of a client's clips, beside many that stay: an update of its size."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.colour = nn.Parameter(torch.zeros(3))
        self.rest = nn.Parameter(torch.zeros(dimension - 3))

    def exchanged_parameters(self) -> dict[str, nn.Parameter]:
        return {"colour": self.colour, "rest": self.rest}

    def cache_key(self) -> str:
        return "mean colour"

    def prepare_clip(self, clip: Clip) -> Prepared:
        return {"colour": torch.from_numpy(clip.frames).float().mean((0, 1, 2)) / 255}

    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        return {"colour": clips[int(torch.randint(len(clips), (), generator=generator))]["colour"]}

    def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
        return {"pull": (self.colour - batch["colour"]).square().sum() + self.rest.square().sum()}


class Stopwatch:
    """When the latest round began, which is with the draw, and the time since then inside the clients."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.first: float | None = None
        self.began = self.in_clients = 0.0

    def round_begins(self) -> None:
        self.began, self.in_clients = self.clock(), 0.0
        self.first = self.first or time.perf_counter()

    def of_clients(self, part: Callable[..., Any]) -> Callable[..., Any]:
        """A part of the clients' half whose time is not the server's."""

        def timed(*arguments: Any, **named: Any) -> Any:
            before = self.clock()
            try:
                return part(*arguments, **named)
            finally:
                self.in_clients += self.clock() - before

        return timed


class TimedCohort(PoissonCohort):
    """Tells the stopwatch of each draw."""

    def __init__(self, rate: float, watch: Stopwatch) -> None:
        super().__init__(rate)
        self.watch = watch

    def draw(self, seed: int, round_number: int, clients: Sequence[str]) -> list[str]:
        self.watch.round_begins()
        return super().draw(seed, round_number, clients)


class ServerTime(RoundCallback):
    """The server's seconds a client, by round; listed last, so that they hold checkpoint, monitor and other callbacks."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch
        self.seconds: list[float] = []
        self.sampled = 0

    def on_round_end(self, trainer: RoundTrainer, module: object, outcome: RoundOutcome) -> None:
        if outcome.reports:
            self.seconds.append((self.watch.clock() - self.watch.began - self.watch.in_clients) / len(outcome.reports))
            self.sampled += len(outcome.reports)


def measure(clients: int, rounds: int, dimension: int, clock: Callable[[], float]) -> dict[str, float]:
    """Run ``rounds`` rounds in this process."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    watch = Stopwatch(clock)
    times, imported_mb = ServerTime(watch), peak_mb()
    with tempfile.TemporaryDirectory(prefix="fedtalk-clients-") as folder:
        began = time.perf_counter()
        data = SynthTalkData(speakers=clients, clips=1, held_out=1, frames=8, size=32)
        trainer = FederatedTrainer(
            rounds=rounds, cohort=TimedCohort(COHORT / clients, watch), local=LocalTraining(steps=1, batch_size=1),
            validate_every=rounds, switch_off=["progress", "videos", "adapters"], callbacks=[times], accelerator="cpu", threads=1,
            default_root_dir=f"{folder}/run", cache_dir=f"{folder}/cache",
        )  # fmt: skip
        with (
            patch.object(ClientHalf, "work", watch.of_clients(ClientHalf.work)),
            patch.object(in_process, "weigh", watch.of_clients(in_process.weigh)),
        ):
            trainer.fit(MeanColour(dimension), data)
    return {
        "clients": clients,
        "sampled": times.sampled,
        "server_s_per_client": round(statistics.median(times.seconds), 6),
        "peak_mb": round(peak_mb(), 1),
        "grown_mb": round(peak_mb() - imported_mb, 1),
        "start_s": round((watch.first or 0.0) - began, 3),
    }


def peak_mb() -> float:
    """Largest resident memory of this process so far, in MB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """One process a size; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--dimension", type=int, default=30_000, help="coordinates of an update")
    parser.add_argument("--repeats", type=int, default=3, help="processes a size, of which the quickest counts")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of the server work, on a busy machine")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        clock = time.process_time if options.cpu_time else time.perf_counter
        print(json.dumps(measure(options.one, options.rounds, options.dimension, clock)))
        return
    found: dict[int, dict[str, float]] = {}
    for _ in range(options.repeats):  # sizes take turns: a load that comes and goes hits all of them
        for clients in options.clients:
            command = [sys.executable, str(Path(__file__)), "--one", str(clients), "--rounds", str(options.rounds),
                       "--dimension", str(options.dimension), *["--cpu-time"] * options.cpu_time]  # fmt: skip
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            new = json.loads(output.splitlines()[-1])
            old = found.setdefault(clients, new)
            quickest = {name: min(old[name], new[name]) for name in ("server_s_per_client", "start_s")}
            largest = {name: max(old[name], new[name]) for name in ("peak_mb", "grown_mb")}
            found[clients] = {**new, **quickest, **largest}
    times = [row["server_s_per_client"] for row in found.values()]
    peaks = [row["peak_mb"] for row in found.values()]
    summary = {
        "sizes": list(found.values()),
        "flatness": round(max(times) / min(times), 3),
        "memory": round(max(peaks) / peaks[0], 3),
        "start_s": max(row["start_s"] for row in found.values()),
    }
    if options.json:
        print(json.dumps(summary))
        return
    names = list(summary["sizes"][0])
    print("  ".join(f"{name:>20}" for name in names))
    for row in summary["sizes"]:
        print("  ".join(f"{row[name]:>20}" for name in names))
    print(f"flatness {summary['flatness']}, memory {summary['memory']}, start-up at most {summary['start_s']} s")


if __name__ == "__main__":
    main()
