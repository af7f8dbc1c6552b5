"""What worker processes must be able to import: a tiny module whose clients do to their process what the test says."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtalk.callbacks.base import RoundCallback
from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip
from fedtalk.data.source import ClipData, ClipSource
from fedtalk.errors import ArtifactError
from fedtalk.training.module import FederatedModule, Prepared, copy_state


@dataclass
class Person:
    """What happens when a clip of a client is opened, in a round."""

    colour: tuple[float, float, float] = (0.5, 0.5, 0.5)
    clips: int = 2
    does: str = "nothing"
    """``raise``, ``die`` (its process is killed), ``hang``, ``warn``; in the step: ``hang in step``, ``die in step``, ``lose
    device``, ``go on`` (a little longer), ``steady`` (no dropout)."""


class Pull(FederatedModule):
    """Two layers, one of them sharded as a block of the other, and one that is frozen; outputs pulled to a client's colours."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
        with torch.no_grad():
            for value in self.net.parameters():
                value.copy_(0.5 * torch.randn(value.shape, generator=generator))
        self.net[0].requires_grad_(False)
        self.dropout = dropout

    def exchanged_parameters(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.net.named_parameters() if value.requires_grad}

    def shards(self) -> list[nn.Module]:
        return [self.net[2], self.net]

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        self.recomputed = enabled

    def cache_key(self) -> str:
        return "pull"

    def prepare_clip(self, clip: Clip) -> Prepared:
        return {"colour": torch.tensor(clip.info["colour"]), "does": torch.tensor(clip.info["does"])}

    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        chosen = torch.randint(len(clips), (size,), generator=generator)
        colour = torch.stack([clips[int(index)]["colour"] for index in chosen])
        does = torch.stack([clips[int(index)]["does"] for index in chosen])
        return {"colour": colour, "input": torch.randn(size, 3, generator=generator), "does": does}

    def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
        if int(batch["does"][0]) == STEP.index("hang in step"):
            time.sleep(600)
        if int(batch["does"][0]) == STEP.index("die in step"):
            os.kill(os.getpid(), signal.SIGKILL)
        if int(batch["does"][0]) == STEP.index("lose device"):
            raise RuntimeError("CUDA error: device-side assert triggered")
        if int(batch["does"][0]) == STEP.index("go on"):
            time.sleep(0.5)
        steady = int(batch["does"][0]) == STEP.index("steady")
        given = F.dropout(batch["input"], 0.0 if steady else self.dropout, self.training)
        return {"pull": (self.net(given) - batch["colour"]).square().mean()}

    def reliability(
        self, held_out: Sequence[Prepared], training: Sequence[Prepared], generator: torch.Generator
    ) -> tuple[float, float]:
        return float(held_out[0]["colour"].sigmoid().mean()), float(torch.rand((), generator=generator))


class Layers(nn.Sequential):
    """torch.compile leaves alone what is torch's own class."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class CompiledPull(Pull):
    """Each process that trains it writes to ``told`` how many graphs it has compiled."""

    def __init__(self, told: Path, backend: str) -> None:
        super().__init__()
        self.net = Layers(*self.net)
        self.told, self.backend = told, backend

    def set_compiled(self, enabled: bool) -> None:
        from torch._dynamo.utils import counters

        if enabled:
            self.net.compile(dynamic=False, backend=self.backend)
        elif self.net._compiled_call_impl is not None:
            self.net._compiled_call_impl = None
            (self.told / str(os.getpid())).write_text(str(counters["stats"]["unique_graphs"]))


class Stuck(Pull):
    """A process that is started with it never gets ready."""

    def __setstate__(self, state: dict) -> None:
        time.sleep(600)


class Forgetful(Pull):
    """The third process that is started with it finds no memory to start in."""

    def __init__(self, starts: Path) -> None:
        super().__init__()
        self.starts = starts

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        for number in count(1):
            with contextlib.suppress(
                FileExistsError
            ):  # of processes that start at the same time each has its own number
                (self.starts / str(number)).touch(exist_ok=False)
                break
        if number == 3:
            raise MemoryError


STEP = ("nothing", "hang in step", "die in step", "lose device", "go on", "steady")


class People(ClipData):
    """Clients by name."""

    def __init__(self, people: dict[str, Person]) -> None:
        super().__init__()
        self.people = people

    @property
    def clients(self) -> list[str]:
        return list(self.people)

    def training_clips(self, client: str) -> list[ClipSource]:
        person = self.people[client]
        return [self._source(client, take) for take in range(person.clips)]

    def held_out_clips(self, client: str) -> list[ClipSource]:
        return [self._source(client, 1000)]

    def _source(self, client: str, take: int) -> ClipSource:
        person = self.people[client]
        return ClipSource(f"{client}/{take}/{person}", partial(_open, person, take))


def _open(person: Person, take: int) -> Clip:
    if person.does == "raise":
        raise ArtifactError("clip 7 is damaged")
    if person.does == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if person.does == "warn":
        logging.getLogger("fedtalk.clips").warning("clip %d is short", take)
    if person.does == "hang":
        time.sleep(600)
    does = STEP.index(person.does) if person.does in STEP else 0
    info = {"colour": [value + 0.01 * (take % 7) for value in person.colour], "does": does}
    return Clip(
        np.zeros((1, 2, 2, 3), np.uint8), np.zeros(SAMPLES_PER_FRAME, np.float32), np.zeros((1, 2, 2), np.float32),
        np.zeros((1, 2), np.float32), None, info,
    )  # fmt: skip


def fit(folder: Path, people: dict[str, Person], **settings: object) -> None:
    """A fit in this process, for tests that start one of their own and kill it."""
    torch.set_num_threads(1)
    trainer(folder, **settings).fit(Pull(), People(people))


class Kept(RoundCallback):
    """Keeps outcomes and steps."""

    def __init__(self) -> None:
        self.outcomes: list = []
        self.steps: list[tuple[str, int]] = []

    def on_local_step(self, trainer, client, step, steps, losses) -> None:
        self.steps.append((client, step))

    def on_round_end(self, trainer, module, outcome) -> None:
        self.outcomes.append(outcome)


def people(count: int = 6) -> dict[str, Person]:
    """Clients who differ in colour and number of clips."""
    return {f"client-{n}": Person((0.2 * n, 0.5, -0.3 * n), clips=1 + n % 3) for n in range(count)}


def fitted(folder: Path, people: dict[str, Person], aggregation: object = None, **settings: object):
    """What a fit with dropout and measured reliability comes to: its state, and what was kept of its rounds."""
    from fedtalk.callbacks.aggregation import ISFA

    kept, module = Kept(), Pull(dropout=0.3)
    trainer(folder, [aggregation or ISFA(gamma=1.0, scores="paper"), kept], **settings).fit(module, People(people))
    return copy_state(module.exchanged_parameters()), kept


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def local(**settings: object):
    from fedtalk.training.local import LocalTraining

    make: Callable[..., LocalTraining] = LocalTraining
    return make(**{"steps": 3, "batch_size": 4, "learning_rate": 0.05, **settings})


def trainer(folder: Path, callbacks: Sequence[object] = (), **settings: object):
    from fedtalk.callbacks.aggregation import Aggregation
    from fedtalk.federation.cohort import PoissonCohort
    from fedtalk.federation.trainer import FederatedTrainer

    rules = [callback for callback in callbacks if isinstance(callback, Aggregation)]
    make: Callable[..., FederatedTrainer] = FederatedTrainer
    return make(**{
        "aggregation": rules[0] if rules else None,
        "cohort": PoissonCohort(1.0), "local": local(), "rounds": 2,
        "validate_every": 0, "accelerator": "cpu", "threads": 1, "callbacks": [one for one in callbacks if one not in rules],
        "default_root_dir": str(folder / "run"), "cache_dir": str(folder / "cache"), **settings,
    })  # fmt: skip
