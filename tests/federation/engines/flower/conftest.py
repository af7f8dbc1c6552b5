"""Sites and a server in one process, with nothing but bytes between them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from fedtalk.callbacks import ISFA
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.engines.flower.agreement import agreement_of
from fedtalk.federation.engines.flower.engine import FlowerEngine, gather
from fedtalk.federation.engines.flower.messages import SiteMessage
from fedtalk.federation.engines.flower.roster import SiteClients
from fedtalk.federation.engines.flower.site import Site
from fedtalk.federation.engines.flower.site_session import SiteAccount
from fedtalk.federation.engines.flower.transport import Transport
from fedtalk.federation.engines.in_process import Engine, InProcess
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy
from fedtalk.training.local import LocalTraining

SEALED = {"clip_norm": 5.0, "assumptions": Assumptions(0.0, 0.3)}


class Apart(InProcess):
    """In process, for what is tested here of clients that work in processes of their own: what becomes of their vectors."""

    isolates = True


class DirectTransport(Transport):
    """Hands requests to the sites of this process; keeps all that passed, and loses what ``lost`` says."""

    def __init__(self, sites: Mapping[str, Site]) -> None:
        self.sites = dict(sites)
        self.lost: Callable[[str, SiteMessage], str | None] = lambda site, request: None
        """By site and request: ``request`` or ``answer`` where that is lost, None where both arrive."""
        self.spoil: Callable[[str, SiteMessage, bytes], bytes] = lambda site, request, answer: answer
        """By site and request: what arrives in place of an answer."""
        self.passed: list[tuple[str, SiteMessage, SiteMessage | None]] = []

    def connected(self) -> list[str]:
        return list(self.sites)

    def ask(self, requests: Mapping[str, bytes], seconds: float, check: Callable[[], None]) -> dict[str, bytes]:
        answers = {}
        for site, data in requests.items():
            check()
            request = SiteMessage.decode(data)
            what = self.lost(site, request)
            answer = None if what == "request" else self.sites[site].answer(data)
            self.passed.append((site, request, None if answer is None else SiteMessage.decode(answer)))
            if answer is not None and what is None:
                answers[site] = self.spoil(site, request, answer)
        return answers


class Federation:
    """A federation of `Colours` over sites, and the same one in process."""

    def __init__(self, folder: Path, colours: type, colour_data: type) -> None:
        self.folder, self._colours, self._colour_data = folder, colours, colour_data

    @staticmethod
    def split(people: dict) -> dict[str, dict]:
        """North has one person, south one, east two."""
        names = sorted(people)
        return {
            "north": {names[0]: people[names[0]]}, "south": {names[1]: people[names[1]]},
            "east": {name: people[name] for name in names[2:]},
        }  # fmt: skip

    def trainer(self, name: str, privacy: Privacy | None, **changes: object) -> FederatedTrainer:
        values: dict = {
            "rounds": 2, "validate_every": 0, "cohort": PoissonCohort(1.0), "accelerator": "cpu",
            "local": LocalTraining(steps=3, batch_size=2, learning_rate=0.05), "aggregation": ISFA(gamma=1.0),
        }  # fmt: skip
        return FederatedTrainer(
            **{**values, **changes}, privacy=privacy,
            default_root_dir=str(self.folder / name), cache_dir=str(self.folder / "cache"),
        )  # fmt: skip

    def site(self, name: str, people: dict, privacy: Privacy | None, **changes: object) -> Site:
        trainer = self.trainer(name, privacy, **changes)
        engine = Apart() if privacy is not None and privacy.noised else trainer.engine
        federation = trainer.connect(self._colours(), self._colour_data(people), "fit")
        account = SiteAccount(self.folder / f"ledger_{name}", "a server")
        return Site(federation, engine, account, trainer.stop_signals.check)

    def transport(self, sites: Mapping[str, dict], privacy: Privacy, **changes: object) -> DirectTransport:
        return DirectTransport({name: self.site(name, people, privacy, **changes) for name, people in sites.items()})

    def over_sites(
        self,
        transport: DirectTransport,
        privacy: Privacy | None,
        folder: str = "server",
        ckpt_path: str | None = None,
        **changes: object,
    ) -> tuple[FederatedTrainer, dict[str, torch.Tensor]]:
        trainer, module, data = self.trainer(folder, privacy, **changes), self._colours(), SiteClients()
        agreement = agreement_of(trainer.federate(module, data))
        data.enter(gather(transport, agreement, transport.connected(), 1.0, lambda: None))
        trainer.engine = engine = FlowerEngine(transport, 1000.0, 1.0)
        trainer.fit(module, data, ckpt_path)
        state = {name: value.detach().clone() for name, value in module.exchanged_parameters().items()}
        engine.finish(state)
        return trainer, state

    def in_process(
        self, people: dict, privacy: Privacy, folder: str = "alone", engine: Engine | None = None, **changes: object
    ) -> dict[str, torch.Tensor]:
        trainer, module = self.trainer(folder, privacy, **changes), self._colours()
        trainer.engine = engine or trainer.engine
        trainer.fit(module, self._colour_data(dict(sorted(people.items()))))
        return {name: value.detach().clone() for name, value in module.exchanged_parameters().items()}


@pytest.fixture
def federation(tmp_path: Path, colours: type, colour_data: type) -> Federation:
    return Federation(tmp_path, colours, colour_data)


@pytest.fixture
def sealed() -> Privacy:
    return Privacy(**SEALED)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
