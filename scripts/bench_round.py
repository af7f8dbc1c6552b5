"""What a federated round costs beside its local steps, and what workers gain.

    python scripts/bench_round.py --json

Three comparisons on the shipped backbone and SynthTalk, clips prepared beforehand:

* ``ratio``: a fedtalk round over the same local steps in a bare loop (PyTorch, a peft adapter, AdamW, clipping of gradients;
  no fedtalk code but the model's own loss), both with ``--threads`` threads in one process. A round here is all that `fit`
  does for it: broadcast, local steps, weighing, sealing, opening, the server's step, checkpoint, TensorBoard. It is FedAvg
  (gamma 0): measuring reliability is work that the bare loop has no part of, so it is left out. Bare and fedtalk take turns;
  the figure is the median of the ratios of neighbours, which a load that comes and goes hits alike.
* ``ray_ratio``: the same with the clients in one worker of Ray's with as many threads; while one side works the other waits.
* ``workers_speedup``: clients a second of two workers with one thread each over one worker with two threads, in rounds of
  the same clients, again taking turns. Starting the workers is left out: they are started once a fit.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path

import torch
from tiny_run import write_backbone
from torch import nn

from fedtalk.callbacks.base import RoundCallback, RoundOutcome
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.federation.client import ClientHalf
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.engines.ray.engine import RayEngine
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.module import Talker
from fedtalk.training.local import LocalTraining
from fedtalk.training.module import FederatedModule, Prepared, copy_state


class RoundTimes(RoundCallback):
    """Seconds of every round with its bookkeeping, and what to do between two of them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.between = lambda: None

    def on_round_start(
        self, trainer: FederatedTrainer, module: FederatedModule, round_number: int, cohort: list[str]
    ) -> None:
        self._began = time.perf_counter()

    def on_round_end(self, trainer: FederatedTrainer, module: FederatedModule, outcome: RoundOutcome) -> None:
        assert not outcome.failures, outcome.failures
        self.seconds.append(time.perf_counter() - self._began)
        self.between()


class Bench:
    """One size of model and data, prepared once."""

    def __init__(self, place: Path, quick: bool, clients: int, steps: int, rounds: int) -> None:
        self.place, self.quick, self.clients, self.rounds = place, quick, clients, rounds
        self.local = LocalTraining(steps=steps, batch_size=2 if quick else 4)
        if quick:
            write_backbone(place / "backbone")
        size = self.talker().backbone.architecture.size
        self.data = SynthTalkData(speakers=clients, clips=2, held_out=1, frames=16 if quick else 40, size=size)

    def talker(self) -> Talker:
        if self.quick:
            return Talker(str(self.place / "backbone"), adapter=Adapter(rank=2), window=4, stride=4)
        return Talker("shipped", adapter=Adapter(rank=8))

    def trainer(
        self, name: str, workers: int, threads: int, times: RoundTimes, on_ray: bool = False
    ) -> FederatedTrainer:
        trainer = FederatedTrainer(
            rounds=self.rounds + 1, cohort=PoissonCohort(1.0), local=self.local, validate_every=0, accelerator="cpu",
            workers=workers, threads=threads, callbacks=[times], switch_off=["progress", "videos", "adapters"],
            default_root_dir=str(self.place / name), cache_dir=str(self.place / "cache"),
        )  # fmt: skip
        if on_ray:  # one worker is nobody's setting: the main process does as well
            trainer.engine = RayEngine(workers, threads)
        return trainer

    def against_bare(self, threads: int, on_ray: bool) -> tuple[list[float], list[float]]:
        """Seconds of bare loops and of rounds, by turns; the first pair warms up and is dropped."""
        torch.set_num_threads(threads)
        talker, times, bare = self.talker(), RoundTimes(), []
        start = copy_state(talker.exchanged_parameters())
        trainer = self.trainer(f"one-{on_ray}", 1, threads, times, on_ray)
        half = ClientHalf(trainer.connect(talker, self.data, "fit"))
        clips = {name: half.prepared(name) for name in self.data.clients}

        def loop() -> None:
            bare.append(bare_round(talker, list(clips.values()), self.local, start))

        times.between = loop
        trainer.fit(talker, self.data)
        return bare[1:], times.seconds[1:]

    def with_workers(self) -> tuple[list[float], list[float]]:
        """Seconds of rounds: one worker with two threads, two workers with one; a run of each, by turns."""
        one, two = [], []
        for number in range(2 if not self.quick else 1):
            for workers, threads, found in ((1, 2, one), (2, 1, two)):
                times = RoundTimes()
                self.trainer(f"workers-{workers}-{number}", workers, threads, times).fit(self.talker(), self.data)
                found += times.seconds[1:]
        return one, two


def bare_round(talker: Talker, clients: list[list[Prepared]], local: LocalTraining, start: dict) -> float:
    """Seconds that the local steps of all clients take without a federation."""
    parameters: dict[str, nn.Parameter] = talker.exchanged_parameters()
    kept = copy_state(parameters)
    began = time.perf_counter()
    for clips in clients:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(start[name])
        optimizer = torch.optim.AdamW(parameters.values(), lr=local.learning_rate, weight_decay=0.0, betas=(0.9, 0.99))
        talker.train()
        for _ in range(local.steps):
            terms = talker.loss_terms(talker.draw_batch(clips, local.batch_size, generator))
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            torch.nn.utils.clip_grad_norm_(parameters.values(), local.gradient_clip)
            optimizer.step()
        talker.eval()
    seconds = time.perf_counter() - began
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(kept[name])
    return seconds


def _median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Of neighbours."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def measure(
    quick: bool = False, clients: int = 4, steps: int = 10, rounds: int = 5, threads: int = 2, alone: bool = False
) -> dict[str, float]:
    """The comparisons.

    Args:
        quick: a random backbone at 32 px, to see that it runs; its figures mean nothing.
        clients: of a round.
        steps: of a client.
        rounds: that are measured.
        threads: of the comparisons with the bare loop.
        alone: without those that need Ray.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="fedtalk-round-") as folder:
        bench = Bench(Path(folder), quick, clients, steps, rounds)
        bare, rounds_s = bench.against_bare(threads, on_ray=False)
        found = {
            "bare_s": round(statistics.median(bare), 4),
            "fedtalk_s": round(statistics.median(rounds_s), 4),
            "ratio": round(_median_ratio(rounds_s, bare), 4),
        }
        if alone:
            return found
        beside, on_ray = bench.against_bare(threads, on_ray=True)
        one, two = (statistics.median(seconds) for seconds in bench.with_workers())
    return found | {
        "ray_s": round(statistics.median(on_ray), 4),
        "ray_ratio": round(_median_ratio(on_ray, beside), 4),
        "clients_per_second_one_worker_two_threads": round(clients / one, 4),
        "clients_per_second_two_workers_one_thread": round(clients / two, 4),
        "workers_speedup": round(one / two, 4),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of the comparison with the bare loop")
    parser.add_argument("--quick", action="store_true", help="a tiny random backbone: does it run?")
    parser.add_argument("--alone", action="store_true", help="without the comparisons that need Ray")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    found = measure(options.quick, options.clients, options.steps, options.rounds, options.threads, options.alone)
    print(json.dumps(found) if options.json else "\n".join(f"{key:>45}  {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()
