"""Personal adapters: after the last round every client goes on alone, and keeps what comes of it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from fedtalk.callbacks.base import RoundCallback, RoundTrainer
from fedtalk.checks import check_above, check_least
from fedtalk.errors import ConfigurationError, OutputError
from fedtalk.federation.engines.in_process import InProcess
from fedtalk.federation.local_work import Failure, LocalWork
from fedtalk.run_folder import personal_adapter, personal_adapters, released_adapter
from fedtalk.storage import atomic_path, write_json
from fedtalk.talker.module import Talker
from fedtalk.training.local import MOST_RATE
from fedtalk.training.module import FederatedModule, copy_state, load_state

log = logging.getLogger("fedtalk")


@dataclass
class PersonalTraining:
    """How clients go on alone after the last round."""

    steps: int = 40
    """Steps of personal training; 0 writes the global adapter only."""
    learning_rate: float | None = None
    """The clients' rate in rounds by default."""
    proximal: float = 0.0
    """Ditto (Li et al. 2021, eq. 1): lambda of lambda/2 * ||v - w||^2, where w is the global adapter that personal training
    starts from; 0 for plain fine-tuning."""
    most_clients: int = 100
    """Clients, from the first, that go on alone; a later run with a higher number makes the others'."""

    def __post_init__(self) -> None:
        check_least("trainer.personal", 0, steps=self.steps, proximal=self.proximal)
        check_least("trainer.personal", 1, most_clients=self.most_clients)
        check_above("trainer.personal", MOST_RATE, learning_rate=self.learning_rate)


class PersonalAdapters(RoundCallback):
    """Writes ``adapters/released`` and, for each client that goes on alone, ``adapters/personal/CLIENT``, in peft's format.

    A personal adapter starts from the global one and trains on its client's clips alone, by the client's placement and the
    trainer's workers as in a round; what its mouth looks like beside the puppet's goes with it (`fedtalk.talker.mouth_looks`).
    It never leaves the client. Each is written as soon as it is there, and one that is there
    already is not made again.
    """

    def __init__(self, personal: PersonalTraining | None = None) -> None:
        """
        Args:
            personal: how clients go on alone; they don't by default.
        """
        self.personal = personal

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and self.personal is not None and not _has_adapter(pl_module):
            raise ConfigurationError(
                f"trainer.personal: expected a Talker with an adapter, got {type(pl_module).__name__} without; set "
                "model.adapter, or leave trainer.personal out"
            )

    def on_fit_rounds_end(self, trainer: RoundTrainer, module: FederatedModule) -> None:
        if not isinstance(module, Talker) or not _has_adapter(module):
            return
        start, kept = copy_state(module.exchanged_parameters()), copy_state(module.kept_parameters())
        module.save_adapter(released_adapter(trainer.run_dir))
        if self.personal is not None and self.personal.steps:
            clients = trainer.data.clients
            chosen = clients[: self.personal.most_clients]
            if len(chosen) < len(clients):
                log.warning(
                    "personal adapters of %d of %d clients are made; trainer.personal.most_clients says how many",
                    len(chosen), len(clients),
                )  # fmt: skip
            self._personalise(trainer, module, self.personal, chosen, start)
        load_state(module.exchanged_parameters(), start)
        load_state(module.kept_parameters(), kept)
        module.looks = None

    def _personalise(
        self,
        trainer: RoundTrainer,
        module: Talker,
        personal: PersonalTraining,
        clients: Sequence[str],
        start: dict[str, Tensor],
    ) -> None:
        """
        Raises:
            OutputError: an adapter or a prepared clip can't be written.
        """
        local = replace(
            trainer.local, steps=personal.steps, proximal=personal.proximal,
            learning_rate=personal.learning_rate or trainer.local.learning_rate,
            schedule="cosine", warmup_steps=0, keep_optimizer=False, deadline_seconds=None,
        )  # fmt: skip
        # Nothing in there is noised.
        personal_adapters(trainer.run_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
        markers = {client: personal_adapter(trainer.run_dir, client) / "made_from.json" for client in clients}
        origin = f"{_digest(start)}/{local}"
        missing = []
        for client, marker in markers.items():
            if origin in _text(marker):
                log.info("personal adapter of %s is there already", client)
            else:
                missing.append(client)
        engine, work = trainer.engine, LocalWork(
            0, 1, local, after=trainer.round_number, personal=True, stream="personal/"
        )  # fmt: skip
        assert isinstance(engine, InProcess)  # a server without clips of its own has no steps to do
        done = len(clients) - len(missing)
        private = trainer.privacy is not None  # then what a client measures, or why it failed, isn't said
        with closing(engine.local_results(work, missing, start, lambda *_: trainer.stop_signals.check())) as arriving:
            for client, result in arriving:
                done += 1
                if isinstance(result, Failure):  # as in a round: a client's trouble costs nobody else
                    if result.kind == OutputError.__name__:
                        raise OutputError(result.message)
                    log.warning(
                        "personal adapter %d/%d  %s could not be made%s", done, len(clients), client,
                        "" if private else f": {result.message}",
                    )  # fmt: skip
                    continue
                load_state(module.exchanged_parameters(), result.state)
                load_state(module.kept_parameters(), result.kept or {})
                module.looks = result.looks
                write_json(markers[client], {"made_from": None})  # until all of it is there, whatever was there before
                module.save_adapter(markers[client].parent)
                module.looks = None
                write_json(markers[client], {"made_from": origin})
                loss = "" if private else f"  loss {result.report.losses['loss']:.4f}"
                log.info("personal adapter %d/%d  %s%s", done, len(clients), client, loss)
        for client, marker in markers.items():
            record = trainer.data.consent_record(client)
            if record is not None and marker.exists():
                with atomic_path(marker.with_name(record.name)) as temporary:
                    temporary.write_bytes(record.read_bytes())


def _has_adapter(module: object) -> bool:
    return isinstance(module, Talker) and module.adapter is not None


def _text(path: Path) -> str:
    """What a file says; nothing where it is absent or damaged."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _digest(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(state[name].numpy().tobytes())
    return digest.hexdigest()[:16]
