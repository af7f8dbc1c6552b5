#!/usr/bin/env python
"""Clips a second of local training: clients in one batch and in two processes, against a plain loop over clients.

    python scripts/bench_step.py --json
    python scripts/bench_step.py --compile --batches 4        # and with the network compiled, which takes minutes

The plain loop is bare PyTorch and peft: client by client a fresh AdamW, a batch, the objective, backward, clipped, stepped, with
both threads. Against it: `train_locally`, and `train_together` with 2, 4 and 8 clients in a batch, each in one process of two
threads and in two processes of one thread. A clip is one training window of eight frames. Shipped backbone, the adapter of
configs/isfa.yaml, prepared SynthTalk clips, FedAvg's objective.

All arrangements take turns, ``--repeats`` times; a speed-up is the median of an arrangement's ratios to the plain loop of the
same turn, so that another load on the machine, which slows both, matters less.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from fedtalk.data.source import PreparedCache
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.randomness import torch_generator
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.module import Talker
from fedtalk.training.local import LocalTraining, train_locally
from fedtalk.training.module import Prepared, copy_state, load_state
from fedtalk.training.placement import Placement
from fedtalk.training.together import train_together

PLAIN = "plain loop, 2 threads"
TOGETHER = (1, 2, 4, 8)
CLIENTS = 8


@dataclass
class Bench:
    """A talker, its clients' clips, and the work of one turn on them."""

    talker: Talker
    clips: dict[str, list[Prepared]]
    fabric: Fabric
    steps: int

    @classmethod
    def build(cls, backbone: str, cache: str, steps: int) -> Bench:
        talker = Talker(backbone, adapter=Adapter(rank=8, alpha=8.0)).eval()
        size = talker.backbone.architecture.size
        data = SynthTalkData(speakers=CLIENTS, clips=1, held_out=1, frames=24, size=size)
        prepared = PreparedCache(Path(cache))
        clips = {client: prepared.get(talker, data.training_clips(client)) for client in data.clients}
        return cls(talker, clips, Fabric(accelerator="cpu", devices=1), steps)

    def plain(self, batch_size: int) -> None:
        """The baseline: nothing of ours but the talker's own batches and objective."""
        parameters = self.talker.exchanged_parameters()
        start = copy_state(parameters)
        self.talker.train()
        for client, clips in self.clips.items():
            load_state(parameters, start)
            optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
            generator = torch_generator(0, client)
            for _ in range(self.steps):
                batch = self.talker.draw_batch(clips, batch_size, generator)
                loss = torch.stack(list(self.talker.loss_terms(batch).values())).sum()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
                optimizer.step()
        self.talker.eval()
        load_state(parameters, start)

    def ours(self, batch_size: int, together: int, compiled: bool, clients: Sequence[str]) -> None:
        """`train_locally` for one client at a time, else `train_together`."""
        local = LocalTraining(steps=self.steps, batch_size=batch_size)
        placement = Placement(together=together, compile=compiled)
        start = copy_state(self.talker.exchanged_parameters())
        if together == 1:
            for client in clients:
                load_state(self.talker.exchanged_parameters(), start)
                train_locally(self.fabric, self.talker, self.clips[client], local, 0, client, 0, 1, placement=placement)
            load_state(self.talker.exchanged_parameters(), start)
            return
        for first in range(0, len(clients), together):
            group = {client: self.clips[client] for client in clients[first : first + together]}
            train_together(self.fabric, self.talker, group, local, 0, 0, 1, placement=placement)


def helper(connection: Connection, backbone: str, cache: str, steps: int, half: int) -> None:
    """A process of one thread that trains its half of the clients whenever it is told how."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    bench = Bench.build(backbone, cache, steps)
    own = list(bench.clips)[half::2]
    connection.send(None)
    while True:
        task = connection.recv()
        if task is None:
            return
        bench.ours(*task, own)
        connection.send(None)


def measure(
    bench: Bench, helpers: Sequence[Connection], batch_size: int, repeats: int, compiled: bool
) -> dict[str, Any]:
    """Clips a second by arrangement (median) and speed-up over the plain loop (median of ratios within a turn)."""

    def in_two_processes(together: int, compiled: bool = False) -> None:
        for connection in helpers:
            connection.send((batch_size, together, compiled))
        for connection in helpers:
            connection.recv()

    arrangements: dict[str, Callable[[], None]] = {PLAIN: lambda: bench.plain(batch_size)}
    for together in TOGETHER:
        name = f"{together} together" if together > 1 else "apart"
        arrangements[f"{name}, 2 threads"] = lambda k=together: bench.ours(batch_size, k, False, list(bench.clips))  # type: ignore[misc]
        if helpers and together <= CLIENTS // 2:
            arrangements[f"{name}, 2 processes"] = lambda k=together: in_two_processes(k)  # type: ignore[misc]
    if compiled:
        for together in (1, CLIENTS // 2):
            name = f"{together} together" if together > 1 else "apart"
            arrangements[f"{name}, 2 processes, compiled"] = lambda k=together: in_two_processes(k, True)  # type: ignore[misc]
    clips = CLIENTS * bench.steps * batch_size
    first: dict[str, float] = {}
    speeds: dict[str, list[float]] = {name: [] for name in arrangements}
    for turn in range(repeats + 1):
        for name, work in arrangements.items():
            started = time.perf_counter()
            work()
            seconds = time.perf_counter() - started
            if turn:  # the first one warms up, and compiles
                speeds[name].append(clips / seconds)
            else:
                first[name] = seconds
    ratios = {
        name: statistics.median(one / plain for one, plain in zip(found, speeds[PLAIN], strict=True))
        for name, found in speeds.items()
    }
    fastest = max(ratios, key=lambda name: ratios[name])
    return {
        "speedup": round(ratios[fastest], 3),
        "fastest": fastest,
        "clips_per_second": {name: round(statistics.median(found), 2) for name, found in speeds.items()},
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "compiling_s": {name: round(seconds, 1) for name, seconds in first.items() if name.endswith("compiled")},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4], help="windows of a client's step")
    parser.add_argument("--steps", type=int, default=4, help="steps a client and turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--backbone", default="shipped")
    parser.add_argument("--compile", action="store_true", help="and two processes with compiled networks")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory(prefix="fedtalk-step-") as cache:
        bench = Bench.build(options.backbone, cache, options.steps)
        context = multiprocessing.get_context("spawn")
        helpers, processes = [], []
        for half in (0, 1):
            own, other = context.Pipe()
            processes.append(
                context.Process(target=helper, args=(other, options.backbone, cache, options.steps, half), daemon=True)
            )
            processes[-1].start()
            helpers.append(own)
        for connection in helpers:
            connection.recv()
        found = {str(size): measure(bench, helpers, size, options.repeats, options.compile) for size in options.batches}
        for connection in helpers:
            connection.send(None)
        for process in processes:
            process.join()
    summary = {
        "speedup": {size: one["speedup"] for size, one in found.items()},
        "fastest": {size: one["fastest"] for size, one in found.items()},
        "clips_per_second": {size: one["clips_per_second"] for size, one in found.items()},
        "ratios": {size: one["ratios"] for size, one in found.items()},
        **({"compiling_s": {size: one["compiling_s"] for size, one in found.items()}} if options.compile else {}),
    }
    if options.json:
        print(json.dumps(summary))
        return
    for size, one in found.items():
        print(f"batch {size}: {one['speedup']:.2f}x by {one['fastest']}")
        for name, speed in one["clips_per_second"].items():
            note = f", {one['compiling_s'][name]:.0f} s to compile" if name in one["compiling_s"] else ""
            print(f"  {name:<34} {speed:7.2f} clips/s   {one['ratios'][name]:.2f}x{note}")


if __name__ == "__main__":
    main()
