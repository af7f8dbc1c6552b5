"""The federated loop, as a Lightning Trainer whose `fit` runs rounds on Fabric."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import Tensor

from fedtalk.callbacks.aggregation import Aggregation
from fedtalk.data.source import ClipData, PreparedCache
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.evaluation.settings import EvaluationSettings
from fedtalk.federation.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from fedtalk.federation.client import ClientHalf, ClientReport
from fedtalk.federation.client_states import ClientStates
from fedtalk.federation.cluster import Cluster, check_kinds, this_rank, work_for_coordinator
from fedtalk.federation.cohort import CohortSampler, PoissonCohort, measured_clients
from fedtalk.federation.engines.in_process import Engine, Failure, InProcess
from fedtalk.federation.fault_record import FaultRecord
from fedtalk.federation.interruption import StopSignals
from fedtalk.federation.local import LocalTraining
from fedtalk.federation.module import FederatedModule, Prepared, copy_state, load_state
from fedtalk.federation.placement import Placement, Placements, check_precision
from fedtalk.federation.run_lock import run_lock
from fedtalk.federation.server import Server
from fedtalk.federation.workers import Workers
from fedtalk.planning.estimate import Estimate, estimate_run, report
from fedtalk.privacy.preconditions import check_apart, check_nothing_clear
from fedtalk.privacy.private_rounds import Plan
from fedtalk.randomness import numpy_generator, torch_generator
from fedtalk.storage import remove_leftovers
from fedtalk.talker.talker import Talker

log = logging.getLogger(__name__)


@dataclass
class RoundOutcome:
    """What a round came to."""

    round_number: int
    cohort: list[str]
    reports: list[ClientReport] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """Clients whose update was lost, and why."""
    update_norm: float = 0.0
    seconds: float = 0.0
    privacy: dict[str, float] | None = None
    """With privacy: what may be shown of the round. Then there are no reports: clients keep them to themselves."""


class RoundCallback(Callback):
    """A callback that follows rounds; every hook may be left out."""

    shows_clients = False
    """Whether it shows what single clients have, and so can't be used with privacy."""

    def on_fit_rounds_start(self, trainer: FederatedTrainer, module: FederatedModule) -> None: ...

    def on_round_start(
        self, trainer: FederatedTrainer, module: FederatedModule, round_number: int, cohort: list[str]
    ) -> None: ...

    def on_local_step(
        self, trainer: FederatedTrainer, client: str, step: int, steps: int, losses: dict[str, float]
    ) -> None: ...

    def on_round_end(self, trainer: FederatedTrainer, module: FederatedModule, outcome: RoundOutcome) -> None: ...

    def on_held_out(
        self, trainer: FederatedTrainer, module: FederatedModule, round_number: int, metrics: dict[str, float]
    ) -> None: ...

    def on_fit_rounds_end(self, trainer: FederatedTrainer, module: FederatedModule) -> None: ...


class FederatedTrainer(Trainer):
    """Trains a `FederatedModule` on the clients of a `ClipData` by federated rounds."""

    def __init__(
        self,
        rounds: int = 10,
        cohort: CohortSampler | None = None,
        local: LocalTraining | None = None,
        validate_every: int = 1,
        minimum_clients: int = 1,
        enough: float = 1.0,
        most_held_out: int = 32,
        validate_clients: int = 32,
        evaluation: EvaluationSettings | None = None,
        seed: int = 0,
        accelerator: str = "auto",
        precision: str = "32-true",
        threads: int | None = None,
        workers: int = 1,
        default_placement: Placement | None = None,
        placements: dict[str, Placement] | None = None,
        callbacks: list[Callback] | None = None,
        logger: Logger | None = None,
        default_root_dir: str = "runs/default",
        cache_dir: str = ".cache/fedtalk",
    ) -> None:
        """
        Args:
            rounds: federated rounds in all.
            cohort: who takes part in a round; Poisson sampling with rate 0.5 by default.
            local: how a client trains.
            validate_every: rounds between measurements on held-out clips; 0 for none.
            minimum_clients: a round with fewer updates is void: the global state stays as it is.
            enough: share of a cohort whose updates close the round; the others' work is given up. For stragglers: draw a
                cohort that is larger by ``1 / enough``. Clients then start in an order drawn for the round. Who comes in
                time depends on the machine's speed, and so do results. Not with differential privacy: one client more would
                take another one's place, which is twice the change that is accounted for.
            most_held_out: held-out clips of a client that are measured on, at most.
            validate_clients: clients whose held-out clips are measured on, at most; the same ones throughout a run.
            evaluation: what `fedtalk test` measures.
            seed: seed of everything but privacy noise and masks.
            accelerator: ``auto``, ``cpu`` or ``cuda``.
            precision: of local training: ``32-true``, or ``bf16-mixed`` (autocast to bfloat16; the adapter stays float32).
            threads: CPU threads, of every process; by default all that torch finds, shared out among workers.
            workers: processes that train different clients at the same time; 1 trains one after the other in this process.
                The result has the same bits for any number, with the same threads each. Under torchrun or SLURM's srun the
                ranks but the first take their place.
            default_placement: how a client trains that ``placements`` doesn't name: alone in a process by default.
            placements: by client's name or pattern (``site-a-*``), the first that fits; see `Placement`.
            callbacks: an `Aggregation` (FedAvg if none is given), monitors, checkpoints, progress.
            logger: TensorBoard in ``default_root_dir`` by default.
            default_root_dir: folder of the run.
            cache_dir: folder of prepared clips (latents, audio features), shared by runs.
        """
        if rounds < 0:
            raise ConfigurationError(f"trainer.rounds: expected 0 or more, got {rounds}")
        if minimum_clients < 1:
            raise ConfigurationError(f"trainer.minimum_clients: expected at least 1, got {minimum_clients}")
        if not 0 < enough <= 1:
            raise ConfigurationError(f"trainer.enough: expected a share of the cohort above 0, at most 1, got {enough}")
        if validate_clients < 1:
            raise ConfigurationError(f"trainer.validate_clients: expected at least 1, got {validate_clients}")
        if workers < 1:
            raise ConfigurationError(f"trainer.workers: expected at least 1 process, got {workers}")
        check_precision("trainer.precision", precision)
        callbacks = list(callbacks or [])
        aggregations = [callback for callback in callbacks if isinstance(callback, Aggregation)]
        if len(aggregations) > 1:
            raise ConfigurationError(f"trainer.callbacks: expected one aggregation, got {len(aggregations)}")
        self.aggregation = aggregations[0] if aggregations else Aggregation(gamma=0.0)
        if self.aggregation.privacy is not None:
            if enough < 1 and self.aggregation.privacy.noised:
                raise ConfigurationError(
                    f"trainer.enough: with differential privacy expected 1, got {enough}: if the first to arrive close a round, "
                    "one client more or less also changes who else is in the sum, which is not accounted for. Use "
                    "trainer.local.deadline_seconds, which looks at one client at a time."
                )
            tolerated = self.aggregation.privacy.assumptions.dropout_fraction
            if enough < 1 - tolerated:
                raise ConfigurationError(
                    f"trainer.enough: secure aggregation opens no sum once more than privacy.assumptions.dropout_fraction = "
                    f"{tolerated:g} of a cohort is missing: expected at least {1 - tolerated:g}, got {enough:g}"
                )
            check_nothing_clear(validate_every, local is not None and local.keep_optimizer, callbacks)
        self.rank = this_rank()
        devices = 1 if self.rank is None else self.rank.devices(accelerator)
        super().__init__(
            accelerator=accelerator,
            devices=devices,
            plugins=LightningEnvironment(),  # the launcher's ranks are ours to use (`fedtalk.federation.cluster`)
            max_epochs=max(1, rounds),
            callbacks=callbacks,
            logger=logger
            if logger is not None
            else TensorBoardLogger(default_root_dir, name="tensorboard", version=""),
            default_root_dir=default_root_dir,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        self.rounds = rounds
        self.cohort_sampler = cohort or PoissonCohort()
        self.local = local or LocalTraining()
        self.validate_every = validate_every
        self.minimum_clients, self.enough = minimum_clients, enough
        self.most_held_out = most_held_out
        self.validate_clients = validate_clients
        self.evaluation = evaluation or EvaluationSettings()
        self.seed = seed
        self.cache = PreparedCache(Path(cache_dir))
        self.threads = threads
        if threads:
            torch.set_num_threads(threads)
        self.placements = Placements(default_placement, placements)
        if self.aggregation.privacy is not None:
            check_apart(self.aggregation.privacy, self.placements)
        self.workers = workers if self.rank is None else self.rank.size - 1
        self.engine: Engine
        if self.rank is not None:
            check_kinds(self.placements)
            self.engine = Cluster(self.rank)
        elif workers > 1 or any(placed.processes > 1 for _, placed in self.placements):
            self.engine = Workers(workers, threads)
        else:
            self.engine = InProcess()
        self.local_precision = precision
        self.fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            precision=precision,  # type: ignore[arg-type]
            plugins=LightningEnvironment(),
        )
        self.round_number = 0
        self.client_states = ClientStates(self.run_dir / "clients")
        self.faults = FaultRecord()
        self.stop_signals = StopSignals()

    @property
    def run_dir(self) -> Path:
        return Path(self.default_root_dir)

    def fit(  # type: ignore[override]
        self, model: FederatedModule, datamodule: ClipData, ckpt_path: str | None = None, dry_run: bool = False
    ) -> None:
        """Run the federated rounds.

        A round: (1) draw the cohort; (2) broadcast the global state; (3) each client trains on its own clips, measures
        itself, weights and seals its update; (4) the server opens the sum and steps; (5) the round is written down.

        Under torchrun or SLURM's srun all of this happens on rank 0; the other ranks do clients' local work for it, run no
        callbacks and write nothing but prepared clips.

        Args:
            model: what is trained.
            datamodule: whose clips.
            ckpt_path: ``last`` to go on where the run in this folder stopped, or a checkpoint file.
            dry_run: train nothing; measure a few steps and print what the run will take, here and with more clients and
                workers.

        Raises:
            OutputError: the folder can't be written, or another fit is running in it.
            FedTalkError: clients failed and no round gave an update.
            Interrupted: SIGTERM or SIGINT asked the run to stop; ``ckpt_path="last"`` goes on.
        """
        if dry_run:
            if self._left_to_coordinator("fit --dry_run"):
                return
            print(report(self.estimate(model, datamodule), self, len(datamodule.clients)))
            return
        if self.rank is not None and self.rank.number > 0:
            work_for_coordinator(self, model, datamodule)
            return
        try:
            if isinstance(self.engine, Cluster):
                self.engine.gather()
            # A folder that can't be written is found here, and not a round later.
            with run_lock(self.run_dir), self.stop_signals:
                # Of a run that was killed while writing; the lock says that nobody else writes.
                remove_leftovers(self.run_dir)
                self._begin(model, datamodule, "fit")
                try:
                    self._rounds(model, datamodule, ckpt_path)
                except BaseException as error:
                    for callback in self.callbacks:  # type: ignore[attr-defined]
                        callback.on_exception(self, model, error)
                    raise
                finally:
                    self.engine.stop()
                    for callback in self.callbacks:  # type: ignore[attr-defined]
                        callback.teardown(self, model, "fit")
        finally:
            self.engine.stop()  # also where the fit didn't begin: the ranks that were gathered wait for it

    def estimate(self, model: FederatedModule, datamodule: ClipData) -> Estimate:
        """What `fit` will take, by a few measured steps; writes nothing but one client's prepared clips."""
        self._begin(model, datamodule, "validate")  # a stage in which no callback writes into the run's folder
        self.check_placements(model, datamodule)
        self.aggregation.begin(self._plan(copy_state(model.exchanged_parameters()), datamodule))
        return estimate_run(self, model, datamodule)

    def _rounds(self, model: FederatedModule, datamodule: ClipData, ckpt_path: str | None) -> None:
        start = copy_state(model.exchanged_parameters())
        self.check_placements(model, datamodule)
        self.aggregation.begin(self._plan(start, datamodule))
        server = self.aggregation.build_server(start)
        states = None
        if ckpt_path is not None:
            states = self._restore(server, model, ckpt_path)
        else:
            self.aggregation.check_unspent()
        self.client_states.begin(self.round_number, states)
        self._notify("on_fit_rounds_start", model)
        private = self.aggregation.private_rounds
        self.employ(model, datamodule)
        while self.round_number < self.rounds and (private is None or private.allows_another()):
            self.stop_signals.check()
            outcome = self._run_round(model, datamodule, server)
            self.round_number += 1
            load_state(model.exchanged_parameters(), server.state)
            self._save(server, model)
            self._notify("on_round_end", model, outcome)
            if self.validate_every and (
                self.round_number % self.validate_every == 0 or self.round_number == self.rounds
            ):
                self._notify("on_held_out", model, self.round_number, self._held_out(model, datamodule))
        self.faults.close(self.rounds)
        load_state(model.exchanged_parameters(), server.state)
        self._notify("on_fit_rounds_end", model)
        for logger in self.loggers:
            logger.finalize("success")

    def _plan(self, start: dict[str, Tensor], datamodule: ClipData) -> Plan:
        """What privacy must know of the run before its first round."""
        return Plan(
            sum(value.numel() for value in start.values()), list(start), datamodule.clients, self.cohort_sampler,
            self.rounds, self.minimum_clients, self.seed, self.run_dir / "checkpoints",
        )  # fmt: skip

    def validate(  # type: ignore[override]
        self, model: FederatedModule, datamodule: ClipData, ckpt_path: str | None = None
    ) -> list[dict[str, float]]:
        """Print and return the held-out metrics of a trained state, mean over clients.

        Args:
            model: what was trained.
            datamodule: whose held-out clips.
            ckpt_path: ``last`` or a checkpoint file; without it the model is measured as it starts.
        """
        if self._left_to_coordinator("validate"):
            return []
        self._begin(model, datamodule, "validate")
        self._load_for_use(model, ckpt_path)
        metrics = self._held_out(model, datamodule)
        if not metrics:
            raise ArtifactError("none of the clients could be measured; the warnings above say why")
        print("\n".join(f"{name:>14}  {value:.4f}" for name, value in metrics.items()))
        return [metrics]

    def test(  # type: ignore[override]
        self, model: FederatedModule, datamodule: ClipData, ckpt_path: str | None = None
    ) -> list[dict]:
        """Measure a trained talker beside its controls; write metrics.json, contact_sheet.png and videos to the run.

        Args:
            model: a talker with an adapter.
            datamodule: whose held-out clips.
            ckpt_path: ``last`` or a checkpoint file; without it the model is measured as it starts.
        """
        from fedtalk.evaluation.evaluate import evaluate, print_table  # media and face libraries: not needed to train

        if self._left_to_coordinator("test"):
            return []
        self._begin(model, datamodule, "test")
        self._load_for_use(model, ckpt_path)
        result = evaluate(_talker(model, "test"), datamodule, self.run_dir, self.evaluation)
        print_table(result)
        print(f"metrics, contact sheet and videos are in {self.run_dir}")
        return [result]

    def predict(  # type: ignore[override]
        self, model: FederatedModule, datamodule: ClipData, ckpt_path: str | None = None
    ) -> list[Path]:
        """Write one video a client of its first held-out clip, truth on the left, dubbed with its adapter on the right.

        Args:
            model: a talker with an adapter.
            datamodule: whose held-out clips.
            ckpt_path: ``last`` or a checkpoint file; without it the model is used as it starts.
        """
        from fedtalk.evaluation.evaluate import write_predictions

        if self._left_to_coordinator("predict"):
            return []
        self._begin(model, datamodule, "predict")
        self._load_for_use(model, ckpt_path)
        written = write_predictions(_talker(model, "predict"), datamodule, self.run_dir)
        print("\n".join(str(path) for path in written))
        return written

    def _left_to_coordinator(self, command: str) -> bool:
        """Whether this is a launcher's rank that has nothing to do in a command."""
        if self.rank is None or self.rank.number == 0:
            return False
        log.info("rank %d: `fedtalk %s` is done by rank 0 alone", self.rank.number, command)
        return True

    def _load_for_use(self, model: FederatedModule, ckpt_path: str | None) -> None:
        if ckpt_path is None:
            return
        path = find_checkpoint(ckpt_path, self.run_dir)
        if path is None:
            raise ArtifactError(
                f"{self.run_dir} holds no checkpoint yet; run `fedtalk fit` first, with the same config"
            )
        load_state(model.exchanged_parameters(), load_checkpoint(path, model)["server"]["state"])

    def prepared(
        self, module: FederatedModule, datamodule: ClipData, client: str, held_out: bool = False
    ) -> list[Prepared]:
        """A client's prepared clips, from its cache."""
        return self._client_half(module, datamodule).prepared(client, held_out)

    def employ(self, model: FederatedModule, datamodule: ClipData) -> None:
        """Get the engine ready for rounds of these clients; it is to be stopped afterwards."""
        self.module, self.data = model, datamodule
        self.clients = self._client_half(model, datamodule)
        self.engine.start(self)

    def _client_half(self, module: FederatedModule, datamodule: ClipData) -> ClientHalf:
        return ClientHalf(
            self.fabric, module, datamodule, self.cache, self.aggregation, self.client_states, self.seed, self.most_held_out,
            self.placements,
        )  # fmt: skip

    def updates_enough(self, cohort: int) -> int:
        """Updates of a cohort that close its round."""
        return math.ceil(self.enough * cohort - 1e-9)

    def order(self, round_number: int, cohort: Sequence[str]) -> list[str]:
        """In which order clients start: as drawn, or shuffled where the first ones count."""
        if self.enough == 1:
            return list(cohort)
        shuffled = numpy_generator(self.seed, "order", round_number).permutation(len(cohort))
        return [cohort[index] for index in shuffled]

    def after_local_step(self, client: str, step: int, losses: dict[str, float]) -> None:
        """Tell monitors that a client took a step; the place where a run that was asked to stop does so."""
        shown = losses if self.aggregation.private_rounds is None else {}
        self._notify("on_local_step", client, step, self.local.steps, shown)
        self.stop_signals.check()

    def _run_round(self, module: FederatedModule, datamodule: ClipData, server: Server) -> RoundOutcome:
        started = time.monotonic()
        # 1. Cohort
        private = self.aggregation.private_rounds
        if private is None:
            cohort = self.cohort_sampler.draw(self.seed, self.round_number, datamodule.clients)
        else:
            cohort = private.draw_cohort(self.round_number)
        self._notify("on_round_start", module, self.round_number, cohort)
        # 2. Broadcast, 3. Client, and the opening of the sum
        result = self.engine.run_round(self.round_number, cohort, server.state)
        outcome = RoundOutcome(self.round_number, cohort, result.reports, result.failures)
        # 4. Server
        updated = result.total is not None
        if result.total is not None:
            outcome.update_norm = self.aggregation.step(server, result.total)
        known = result.updates if private is None else int(updated)  # how many gave one is not for the checkpoint
        self.faults.note(self.round_number, known, updated, outcome.failures, len(datamodule.clients))
        outcome.privacy = None if private is None else private.report
        outcome.seconds = time.monotonic() - started
        return outcome

    def _held_out(self, module: FederatedModule, datamodule: ClipData) -> dict[str, float]:
        """Held-out metrics of the global state, mean over at most `validate_clients` clients that could be measured."""
        measured: list[dict[str, float]] = []
        for client in measured_clients(self.seed, datamodule.clients, self.validate_clients):
            self.stop_signals.check()
            try:
                clips = self.prepared(module, datamodule, client, held_out=True)
                metrics = module.held_out_metrics(clips, torch_generator(self.seed, "held_out", client))
                if not all(map(math.isfinite, metrics.values())):
                    raise ArtifactError(f"expected finite metrics, got {metrics}")
                measured.append(metrics)
            except Exception as error:  # as in a round: a client's trouble is its own
                log.warning("client %s could not be measured: %s", client, Failure.of(error))
        names = measured[0] if measured else {}
        return {name: sum(metrics[name] for metrics in measured) / len(measured) for name in names}

    def _begin(self, model: FederatedModule, datamodule: ClipData, stage: str) -> None:
        self.connect(model, datamodule, stage)
        for callback in self.callbacks:  # type: ignore[attr-defined]
            callback.setup(self, model, stage)

    def connect(self, model: FederatedModule, datamodule: ClipData, stage: str) -> None:
        """Bring model, data and this trainer together; no callback hears of it.

        Raises:
            ConfigurationError: they are of other kinds.
        """
        if not isinstance(model, FederatedModule):
            raise ConfigurationError(f"model: expected a FederatedModule, got {type(model).__name__}")
        if not isinstance(datamodule, ClipData):
            raise ConfigurationError(f"data: expected a ClipData data module, got {type(datamodule).__name__}")
        self.data = datamodule
        datamodule.prepare_data()
        datamodule.setup(stage)
        model.trainer = self
        self.strategy.connect(model)
        model.to(self.fabric.device)
        model.eval()

    def check_placements(self, model: FederatedModule, datamodule: ClipData) -> None:
        """Refuse what can't be run; the module itself is asked for what only it knows.

        Raises:
            ConfigurationError: with the key that says so.
        """
        self.placements.check(datamodule.clients, self.local.batch_size, self.local.keep_optimizer, self.fabric.device)
        for key, placed in self.placements:
            if placed.together > 1 and not model.trains_together:
                raise ConfigurationError(
                    f"{key}: {type(model).__name__} can't train clients in one batch: expected together: 1 (a talker needs an "
                    f"adapter for it), got {placed.together}"
                )
            try:
                if placed.gradient_checkpointing:
                    model.set_gradient_checkpointing(False)
                if placed.compile:
                    model.set_compiled(False)
                if placed.kind == "fsdp":
                    model.shards()
            except ConfigurationError as error:
                raise ConfigurationError(f"{key}: {error}") from error

    def _notify(self, hook: str, *arguments: Any) -> None:
        for callback in self.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RoundCallback):
                getattr(callback, hook)(self, *arguments)

    def _save(self, server: Any, module: FederatedModule) -> None:
        save_checkpoint(
            self.run_dir / "checkpoints" / "last.ckpt",
            {
                "round": self.round_number,
                "seed": self.seed,
                "server": server.state_dict(),
                "aggregation": self.aggregation.state_dict(),
                "keep_optimizer": self.local.keep_optimizer,
                "faults": self.faults.state_dict(),
                "made_for": module.fingerprint(),
            },
        )

    def _restore(self, server: Any, module: FederatedModule, ckpt_path: str) -> Path | None:
        """Go on from a checkpoint; returns the folder of its clients' states, if it has any."""
        path = find_checkpoint(ckpt_path, self.run_dir)
        if path is None:
            log.info("no checkpoint in %s yet: starting from the beginning", self.run_dir)
            self.aggregation.recall()
            return None
        saved = load_checkpoint(path, module, self.seed)
        server.load_state_dict(saved["server"])
        self.round_number = saved["round"]
        self.aggregation.load_state_dict(saved.get("aggregation", {}))
        self.faults.load_state_dict(saved["faults"])
        log.info("going on after round %d of %s", self.round_number, path)
        needed = self.local.keep_optimizer and saved["keep_optimizer"] and self.faults.updates > 0
        return path.resolve().parents[1] / "clients" if needed else None


def _talker(model: FederatedModule, command: str) -> Talker:
    if not isinstance(model, Talker) or model.adapter is None:
        raise ConfigurationError(f"`fedtalk {command}` needs a Talker with an adapter; set model.adapter in the config")
    return model
