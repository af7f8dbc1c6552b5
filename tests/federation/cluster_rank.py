"""One rank of a launcher, for tests: ``python cluster_rank.py FOLDER SETTINGS``; the same fit without one in this process.

Every rank has a run folder of its own, as on machines that share none.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
import worker_parts as parts

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.federation.callback import RoundCallback
from fedtalk.federation.local import LocalTraining
from fedtalk.federation.local_work import LocalWork
from fedtalk.federation.module import copy_state, load_state


class Outcomes(RoundCallback):
    """Writes down each round: a line of JSON in FOLDER/outcomes; and what clients come to alone afterwards: FOLDER/alone.pt."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_round_end(self, trainer, module, outcome) -> None:
        told = {"failures": outcome.failures, "clients": [report.client for report in outcome.reports]}
        with self.path.open("a") as file:
            file.write(json.dumps(told) + "\n")

    def on_fit_rounds_end(self, trainer, module) -> None:
        work = LocalWork(0, 1, replace(trainer.local, keep_optimizer=False), stream="personal/")
        start = copy_state(module.exchanged_parameters())
        results = trainer.engine.local_results(work, trainer.data.clients, start, lambda *_: None)
        states = {f"{client}/{name}": value for client, result in results for name, value in result.state.items()}
        torch.save(states, self.path.parent / "alone.pt")
        load_state(module.exchanged_parameters(), start)


def fit(folder: Path, does: dict[str, str], rounds: int = 2, **local: object) -> None:
    """
    Args:
        folder: gets the run, ``outcomes`` and ``state.pt``.
        does: clients by name, with what they do to their process (`worker_parts.Person`).
        rounds: of the run.
        local: settings of `LocalTraining`.
    """
    torch.set_num_threads(1)
    people = {
        name: parts.Person((0.2 * number, 0.5, -0.3 * number), clips=1 + number % 3, does=what)
        for number, (name, what) in enumerate(sorted(does.items()))
    }
    people = {name: people[name] for name in does}
    module = parts.Pull(dropout=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    number = os.environ.get("RANK", "0")
    trainer = parts.trainer(
        folder / number, [ISFA(gamma=1.0), Outcomes(folder / "outcomes")], rounds=rounds,
        local=LocalTraining(**{"steps": 3, "batch_size": 4, "learning_rate": 0.05, "proximal": 0.1, **local}),
    )  # fmt: skip
    trainer.fit(module, parts.People(people))
    if number == "0":
        torch.save(copy_state(module.exchanged_parameters()), folder / "state.pt")


def run(folder: Path, environment: dict[str, str], settings: dict) -> None:
    """What a rank's process runs, where the test is the launcher; its log is FOLDER/log-RANK."""
    os.environ.update(environment)
    log = os.open(folder / f"log-{environment['RANK']}", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 2)
    fit(folder, **settings)


if __name__ == "__main__":
    fit(Path(sys.argv[1]), **json.loads(sys.argv[2]))
