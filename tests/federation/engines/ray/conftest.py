"""Workers that several tests give clients to: one of each kind of team, started once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.federation.local_work import Failure, LocalResult, LocalWork
from fedtalk.training.local import LocalTraining
from fedtalk.training.module import copy_state
from fedtalk.training.placement import Placement


class Pool:
    """An engine at work for clients by name: what they do to their process stands in their names."""

    local = LocalTraining(steps=3, batch_size=4, learning_rate=0.05, proximal=0.2, gradient_clip=0.3)

    def __init__(self, parts: Any, folder: Path, **settings: object) -> None:
        self.people = parts.people()
        for does in ("raise", "die", "die in step", "hang in step", "lose device", "warn", "go on"):
            self.people |= {f"{kind}{does}": parts.Person(does=does) for kind in ("", "ddp: ", "fsdp: ")}
        for n, kind in enumerate(("ddp", "fsdp")):
            self.people[f"{kind}: steady"] = parts.Person((0.2 * n, 0.5, -0.3), clips=2, does="steady")
        self.module, self.data = parts.Pull(dropout=0.3), parts.People(self.people)
        self.trainer = parts.trainer(folder, [ISFA(gamma=1.0)], **settings)
        self.federation = self.trainer.connect(self.module, self.data, "fit")
        self.engine = self.trainer.engine
        self.engine.start(self.federation, lambda: None)
        self.start = copy_state(self.module.exchanged_parameters())
        self.steps: list[tuple[str, int]] = []

    def results(
        self, clients: Sequence[str], local: LocalTraining | None = None, most: int = 1000
    ) -> dict[str, LocalResult | Failure]:
        """What the clients come to, of the first ``most`` that do."""
        self.steps, found = [], {}
        work = LocalWork(1, 3, local or self.local, measures="estimates")
        arriving = self.engine.local_results(
            work, clients, self.start, lambda name, step, _: self.steps.append((name, step))
        )
        with closing(arriving):
            for client, result in arriving:
                found[client] = result
                if len(found) == most:
                    break
        return found

    def settle(self) -> None:
        """Until no worker is at a task that was given up."""
        while any(team.endings for team in self.engine._all):
            list(self.engine._hear())


@pytest.fixture(scope="session")
def worker_parts() -> Iterator[Any]:
    folder = str(Path(__file__).parents[2])
    sys.path.insert(0, folder)
    import worker_parts

    yield worker_parts
    sys.path.remove(folder)


@pytest.fixture(scope="session")
def alone(worker_parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """All in this process."""
    return Pool(worker_parts, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def pool(worker_parts: Any, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Two workers, and a team of two for clients named ``ddp: ...``."""
    placed = {"ddp: *": Placement("ddp", 2, accumulate=2)}
    pool = Pool(worker_parts, tmp_path_factory.mktemp("pool"), workers=2, placements=placed)
    yield pool
    pool.engine.stop()


@pytest.fixture(scope="module")
def fsdp_pool(worker_parts: Any, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A team of two for clients named ``fsdp: ...``."""
    pool = Pool(worker_parts, tmp_path_factory.mktemp("fsdp"), placements={"*": Placement("fsdp", 2, accumulate=2)})
    yield pool
    pool.engine.stop()
