"""A federation small enough for closed forms: two small tensors that move towards a client's colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtalk.callbacks.aggregation import Aggregation, FedAvg
from fedtalk.callbacks.base import RoundCallback, RoundOutcome
from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip
from fedtalk.data.source import ClipData, ClipSource, PreparedCache
from fedtalk.federation.client_states import ClientStates
from fedtalk.federation.cohort import CohortSampler, PoissonCohort
from fedtalk.federation.federation import Federation
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.training.local import LocalTraining
from fedtalk.training.module import FederatedModule, Prepared
from fedtalk.training.placement import Placements

HELD_OUT = 1000
"""Number of the held-out clip."""


@dataclass
class Client:
    """What the test says about one client."""

    colour: tuple[float, float, float] = (0.5, 0.5, 0.5)
    clips: int = 2
    quality: float = 1.0
    identity: float = 1.0
    stability: float = 1.0
    failure: BaseException | None = None
    """Raised when a training clip is opened."""
    held_out_failure: BaseException | None = None
    """Raised when its held-out clip is opened."""
    poison: float = 0.0
    """Added to the loss times the parameters: nan for an update that is not finite."""


class Colours(FederatedModule):
    """Two tensors pulled to a client's colour: ``sum ||dropout(theta - colour - noise)||^2 / 2``.

    Batches draw their noise from the generator and dropout from torch's global one, as a real module does.
    """

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(width, 3))
        self.second = nn.Parameter(torch.zeros(3))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def exchanged_parameters(self) -> dict[str, nn.Parameter]:
        return {"first": self.first, "second": self.second}

    def cache_key(self) -> str:
        return "colours"

    def prepare_clip(self, clip: Clip) -> Prepared:
        signs = torch.tensor([clip.info[name] for name in ("identity", "stability", "poison", "quality")])
        return {"colour": torch.tensor(clip.info["colour"]), "signs": signs}

    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        chosen = torch.randint(len(clips), (size,), generator=generator)
        colour = torch.stack([clips[int(index)]["colour"] for index in chosen])
        return {"colour": colour + 0.1 * torch.randn(size, 3, generator=generator), "signs": clips[0]["signs"]}

    def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
        first = F.dropout(self.first[None] - batch["colour"][:, None], 0.5, self.training)
        terms = {"first": first.square().mean() / 2, "second": (self.second - batch["colour"]).square().mean() / 2}
        poison = batch["signs"][2]
        if not bool(poison == 0):
            terms["poison"] = (poison * self.first).sum()
        return terms

    def reliability(
        self, held_out: Sequence[Prepared], training: Sequence[Prepared], generator: torch.Generator
    ) -> tuple[float, float]:
        return float(held_out[0]["signs"][0]), float(held_out[0]["signs"][1])

    def quality(self, training: Sequence[Prepared]) -> float:
        return float(training[0]["signs"][3])


class ColourData(ClipData):
    """Clips of one frame, whose information carries what `Client` says."""

    def __init__(self, people: dict[str, Client]) -> None:
        super().__init__()
        self.people = people

    @property
    def clients(self) -> list[str]:
        return list(self.people)

    def training_clips(self, client: str) -> list[ClipSource]:
        return [self._source(client, take) for take in range(self.people[client].clips)]

    def held_out_clips(self, client: str) -> list[ClipSource]:
        return [self._source(client, HELD_OUT)]

    def _source(self, client: str, take: int) -> ClipSource:
        person = self.people[client]

        def load() -> Clip:
            failure = person.held_out_failure if take == HELD_OUT else person.failure
            if failure is not None:
                raise failure
            info = {
                "colour": [value + 0.01 * (take % 7) for value in person.colour], "poison": person.poison,
                "identity": person.identity, "stability": person.stability, "quality": person.quality,
            }  # fmt: skip
            return Clip(
                np.zeros((1, 2, 2, 3), np.uint8), np.zeros(SAMPLES_PER_FRAME, np.float32),
                np.zeros((1, 2, 2), np.float32), np.zeros((1, 2), np.float32), None, info,
            )  # fmt: skip

        return ClipSource(f"{client}/{take}/{person}", load)


@dataclass
class Recorder(RoundCallback):
    """Keeps what the rounds came to."""

    outcomes: list[RoundOutcome] = field(default_factory=list)
    states: list[dict[str, Tensor]] = field(default_factory=list)

    def on_round_end(self, trainer: FederatedTrainer, module: FederatedModule, outcome: RoundOutcome) -> None:
        self.outcomes.append(outcome)
        self.states.append({name: value.detach().clone() for name, value in module.exchanged_parameters().items()})


@dataclass
class Run:
    """A finished run."""

    trainer: FederatedTrainer
    module: Colours
    recorder: Recorder

    @property
    def state(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.module.exchanged_parameters().items()}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    """Run a federation of `Colours`; everybody in every round, three local steps, unless told otherwise."""

    def fit(
        people: dict[str, Client],
        aggregation: Aggregation | None = None,
        folder: str = "run",
        ckpt_path: str | None = None,
        callbacks: Sequence[object] = (),
        local: LocalTraining | None = None,
        cohort: CohortSampler | None = None,
        trainer_class: type[FederatedTrainer] = FederatedTrainer,
        kind: type[Colours] = Colours,
        **settings: object,
    ) -> Run:
        recorder = Recorder()
        trainer = trainer_class(
            cohort=cohort or PoissonCohort(1.0),
            local=local or LocalTraining(steps=3, batch_size=2, learning_rate=0.05),
            aggregation=aggregation,
            callbacks=[recorder, *callbacks],  # type: ignore[list-item]
            accelerator="cpu",
            default_root_dir=str(tmp_path / folder),
            cache_dir=str(tmp_path / "cache"),
            **{"rounds": 1, "validate_every": 0, **settings},  # type: ignore[arg-type]
        )
        module = kind()
        trainer.fit(module, ColourData(people), ckpt_path, overwrite=True)
        return Run(trainer, module, recorder)

    return fit


@pytest.fixture
def federation(tmp_path: Path) -> Callable[..., Federation]:
    """The settings of a federation of a module and data; everybody in every round, alone in this process."""

    def make(module: FederatedModule, data: ClipData | None = None, **changes: object) -> Federation:
        values: dict = {
            "aggregation": FedAvg(), "privacy": None, "cohort": PoissonCohort(1.0), "local": LocalTraining(),
            "placements": Placements(), "cache": PreparedCache(tmp_path / "cache"), "run_dir": tmp_path,
            "client_states": ClientStates(tmp_path / "clients"), "rounds": 1, "seed": 0, "minimum_clients": 1,
            "enough": 1.0, "most_held_out": 1, "device": torch.device("cpu"), "precision": "32-true",
        }  # fmt: skip
        return Federation(module=module, data=data or ColourData({}), **{**values, **changes})

    return make


@pytest.fixture
def people() -> dict[str, Client]:
    """Four clients who differ in everything that ISFA weighs."""
    return {
        "anna": Client((0.9, 0.1, 0.4), clips=1, quality=0.2, identity=0.9, stability=0.95),
        "bert": Client((0.1, 0.8, 0.2), clips=3, quality=0.9, identity=0.4, stability=0.7),
        "cora": Client((-0.6, 0.3, 0.9), clips=5, quality=0.6, identity=0.75, stability=0.2),
        "dora": Client((0.2, -0.7, -0.5), clips=2, identity=1.0, stability=1.0),
    }


@pytest.fixture
def colours() -> type[Colours]:
    return Colours


@pytest.fixture
def colour_data() -> type[ColourData]:
    return ColourData


@pytest.fixture
def clear_updates() -> Callable[..., dict[str, np.ndarray]]:
    """What each client's first round comes to, computed without aggregation, sealing or server."""
    from lightning.fabric import Fabric

    from fedtalk.training.local import train_locally

    def compute(people: dict[str, Client], local: LocalTraining, seed: int = 0, rounds: int = 1) -> dict:
        data, updates = ColourData(people), {}
        for client in data.clients:
            module = Colours()
            clips = [module.prepare_clip(source.load()) for source in data.training_clips(client)]
            train_locally(Fabric(accelerator="cpu", devices=1), module, clips, local, seed, client, 0, rounds)
            moved = [value.detach().numpy().astype(np.float64).ravel() for value in (module.first, module.second)]
            updates[client] = np.concatenate(moved)  # the start is zero
        return updates

    return compute


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch):
    """The module that worker processes import too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import worker_parts

    return worker_parts
