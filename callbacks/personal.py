"""Personal adapters: after the last round every client goes on alone, and keeps what comes of it."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace

from torch import Tensor

from fedtalk.errors import ConfigurationError, OutputError
from fedtalk.federation.local import LocalTraining, train_locally
from fedtalk.federation.module import FederatedModule, copy_state, load_state
from fedtalk.federation.trainer import FederatedTrainer, RoundCallback
from fedtalk.storage import write_json
from fedtalk.talker.talker import Talker

log = logging.getLogger("fedtalk")

GLOBAL = "global"


class PersonalAdapters(RoundCallback):
    """Writes ``adapters/global`` and, for each client, ``adapters/CLIENT``, in peft's format.

    A personal adapter starts from the global one and trains on its client's clips alone; it never leaves the client.
    """

    def __init__(self, steps: int = 40, learning_rate: float | None = None, most_clients: int = 100) -> None:
        """
        Args:
            steps: steps of personal training; 0 writes the global adapter only.
            learning_rate: of personal training; the clients' rate by default.
            most_clients: clients, from the first, that go on alone; a later run with a higher number makes the others'.
        """
        if steps < 0:
            raise ConfigurationError(f"personal.steps: expected 0 or more, got {steps}")
        if most_clients < 1:
            raise ConfigurationError(f"personal.most_clients: expected at least 1, got {most_clients}")
        self.steps, self.learning_rate, self.most_clients = steps, learning_rate, most_clients

    def on_fit_rounds_end(self, trainer: FederatedTrainer, module: FederatedModule) -> None:
        if not isinstance(module, Talker) or module.adapter is None:
            raise ConfigurationError("callback PersonalAdapters needs a Talker with an adapter; set model.adapter")
        start = copy_state(module.exchanged_parameters())
        folder = trainer.run_dir / "adapters"
        module.save_adapter(folder / GLOBAL)
        if self.steps:
            local = replace(
                trainer.local, steps=self.steps, proximal=0.0, learning_rate=self.learning_rate or trainer.local.learning_rate,
                schedule="cosine", warmup_steps=0, deadline_seconds=None,
            )  # fmt: skip
            clients = trainer.data.clients
            chosen = clients[: self.most_clients]
            if len(chosen) < len(clients):
                log.warning(
                    "personal adapters of %d of %d clients are made; personal.most_clients says how many",
                    len(chosen), len(clients),
                )  # fmt: skip
            for number, client in enumerate(chosen):
                place = f"{number + 1}/{len(chosen)}"
                try:
                    self._personalise(trainer, module, client, local, start, place)
                except OutputError:
                    raise
                except Exception as error:  # as in a round: a client's trouble costs nobody else
                    log.warning("personal adapter %s  %s could not be made: %s", place, client, error)
        load_state(module.exchanged_parameters(), start)

    def _personalise(
        self,
        trainer: FederatedTrainer,
        module: Talker,
        client: str,
        local: LocalTraining,
        start: dict[str, Tensor],
        place: str,
    ) -> None:
        folder = trainer.run_dir / "adapters" / client
        marker = folder / "made_from.json"
        origin = f"{_digest(start)}/{local}"
        if marker.exists() and marker.read_text().find(origin) >= 0:
            log.info("personal adapter of %s is there already", client)
            return
        load_state(module.exchanged_parameters(), start)
        sums: dict[str, float] = {}

        def on_step(step: int, losses: dict[str, float]) -> None:
            sums["loss"] = sums.get("loss", 0.0) + losses["loss"] / local.steps
            trainer.stop_signals.check()

        clips = trainer.prepared(module, trainer.data, client)
        train_locally(trainer.fabric, module, clips, local, trainer.seed, f"personal/{client}", 0, 1, None, on_step)
        module.save_adapter(folder)
        write_json(marker, {"made_from": origin})
        log.info("personal adapter %s  %s  loss %.4f", place, client, sums["loss"])


def _digest(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(state[name].numpy().tobytes())
    return digest.hexdigest()[:16]
