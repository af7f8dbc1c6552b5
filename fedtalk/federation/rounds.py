"""The federated rounds.

A round:

1. *Cohort*: who takes part is drawn; under privacy by the sampler that the ledger accounts for.
2. *Broadcast*: the global state goes to each client of the cohort, and nothing else; all that is frozen is with them already.
3. *Clients*: each takes its local steps on its own clips, measures itself, weights its update, clips it and adds its share of
   noise where there is privacy, and seals it (`fedtalk.federation.client`, `fedtalk.privacy`). The ledger is charged before
   anything leaves a client. Only the sum of the sealed updates is opened; who fails, is late or sends garbage is left out.
4. *Server*: divides the sum by the sum of weights and takes one step of its optimizer (`fedtalk.federation.server`).
5. *Record*: the state, the server's optimizer, the ledger and the round's number are written down at once or not at all.

Steps 2 and 3 are an engine's (`fedtalk.federation.engines`): in this process, in others, or at other organisations.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedtalk.callbacks.base import RoundOutcome
from fedtalk.federation.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from fedtalk.federation.engines.in_process import Engine
from fedtalk.federation.fault_record import FaultRecord
from fedtalk.federation.federation import Federation
from fedtalk.federation.local_work import OnStep
from fedtalk.privacy.sealed_rounds import SealedRounds
from fedtalk.training.module import copy_state, load_state

log = logging.getLogger(__name__)

OnRoundStart = Callable[[int, list[str]], None]
"""Called with a round's number and its cohort."""

RESTORED = ("round", "server", "aggregation", "keep_optimizer", "faults", "callbacks")
"""What of a checkpoint a run goes on from."""


class Rounds:
    """The rounds of one fit: the global state, and all that moves it."""

    def __init__(
        self,
        federation: Federation,
        sealed: SealedRounds,
        engine: Engine,
        on_round_start: OnRoundStart,
        on_step: OnStep,
    ) -> None:
        """
        Args:
            federation: what is learned, from whom and how.
            sealed: what stands between clients and server.
            engine: takes cohorts through rounds; started before the first one.
            on_round_start: before a cohort's work.
            on_step: after each local step that is seen from here; may raise to stop.
        """
        self._federation, self.sealed, self._engine = federation, sealed, engine
        self._on_round_start, self._on_step = on_round_start, on_step
        self.server = federation.aggregation.build_server(
            copy_state(federation.module.exchanged_parameters()), len(federation.data.clients)
        )
        kept = federation.local.keep_optimizer or federation.aggregation.controls
        self._clients_keep = kept or bool(federation.module.kept_parameters())
        self.round_number = 0
        self.faults = FaultRecord()
        self.kept: dict[str, Any] = {"callbacks": {}}
        """What else a checkpoint keeps."""

    def run_round(self) -> RoundOutcome:
        """One round; its steps are those of the module's docstring.

        Raises:
            ConfigurationError: no client can train with this configuration.
        """
        federation, sealed, number, started = self._federation, self.sealed, self.round_number, time.monotonic()
        # 1. Cohort
        cohort = sealed.draw_cohort(number)
        self._on_round_start(number, cohort)
        # 2. Broadcast, 3. Clients
        result = self._engine.run_round(number, cohort, self.server.broadcast, self._on_step)
        outcome = RoundOutcome(number, cohort, result.reports, result.failures)
        # 4. Server
        if result.total is not None:
            outcome.update_norm = self.server.step(sealed.released(result.total))
        outcome.privacy, outcome.told = sealed.shown, sealed.told
        sealed.note_dropouts(len(cohort), result.updates)
        # 5. Record
        updated = result.total is not None
        known = int(updated) if sealed.private else result.updates  # how many gave one is not for the checkpoint
        self.faults.note(number, known, updated, outcome.failures, len(federation.data.clients))
        self.round_number += 1
        load_state(federation.module.exchanged_parameters(), self.server.state)
        outcome.seconds = time.monotonic() - started
        self.save()
        return outcome

    def save(self) -> None:
        """Write the checkpoint, atomically."""
        federation = self._federation
        save_checkpoint(
            federation.run_dir / "checkpoints" / "last.ckpt",
            {
                "round": self.round_number,
                "seed": federation.seed,
                "server": self.server.state_dict(),
                "aggregation": self.sealed.state_dict(),
                "keep_optimizer": self._clients_keep,
                "faults": asdict(self.faults),
                "made_for": federation.module.fingerprint(),
                "meaning": federation.module.meaning(),
                **self.kept,
            },
        )

    def begin(self, ckpt_path: str | None) -> None:
        """Start afresh, or go on from a checkpoint.

        Args:
            ckpt_path: None, ``last`` or a file.

        Raises:
            ArtifactError: the checkpoint is damaged, or of another run.
            ConfigurationError: afresh, where a ledger says that these clients have given something already.
        """
        states = None
        if ckpt_path is None:
            self.sealed.check_unspent()
        else:
            path = find_checkpoint(ckpt_path, self._federation.run_dir)
            if path is None:
                log.info("no checkpoint in %s yet: starting from the beginning", self._federation.run_dir)
                self.sealed.recall()
            else:
                states = self._restore(path)
        self._federation.client_states.begin(self.round_number, states)

    def _restore(self, path: Path) -> Path | None:
        """Go on from a checkpoint; returns the folder of its clients' states, if it has any."""
        federation = self._federation
        saved = load_checkpoint(path, federation.module, federation.seed, RESTORED)
        self.server.load_state_dict(saved["server"])
        self.round_number = saved["round"]
        self.sealed.recall(path.resolve().parent)  # rounds that were charged after this checkpoint was written
        self.sealed.load_state_dict(saved["aggregation"] or None)
        self.faults = FaultRecord(**saved["faults"])
        self.kept = {"callbacks": saved["callbacks"]}
        log.info("going on after round %d of %s", self.round_number, path)
        needed = self._clients_keep and saved["keep_optimizer"] and self.faults.updates > 0
        return path.resolve().parents[1] / "clients" if needed else None
