"""The federated loop, as a Lightning Trainer whose `fit` runs rounds."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn

from fedtalk.callbacks.aggregation import Aggregation, FedAvg
from fedtalk.callbacks.base import RoundCallback
from fedtalk.callbacks.hooks import check_callbacks, check_monitored
from fedtalk.callbacks.monitor import RoundMonitor
from fedtalk.callbacks.personal import PersonalAdapters, PersonalTraining
from fedtalk.callbacks.progress import RoundProgress
from fedtalk.callbacks.video import VideoMonitor, Videos
from fedtalk.checks import check_choice, check_least
from fedtalk.data.consent import forget
from fedtalk.data.source import ClipData, PreparedCache
from fedtalk.evaluation.settings import EvaluationSettings
from fedtalk.evaluation.trainer import MeasuringTrainer
from fedtalk.federation.cohort import CohortSampler, PoissonCohort
from fedtalk.federation.engines.in_process import Engine, InProcess
from fedtalk.federation.engines.ray.engine import RayEngine
from fedtalk.federation.engines.ray.session import check_alone
from fedtalk.federation.federation import Federation
from fedtalk.federation.rounds import Rounds
from fedtalk.interruption import StopSignals
from fedtalk.planning import preconditions
from fedtalk.planning.estimate import Beside, Estimate, estimate_run
from fedtalk.planning.report import report
from fedtalk.privacy.preconditions import check_nothing_clear
from fedtalk.privacy.rounds import rounds_of
from fedtalk.privacy.sealed_rounds import SealedRounds
from fedtalk.privacy.settings import Privacy
from fedtalk.run_folder import check_clients
from fedtalk.run_lock import run_lock
from fedtalk.storage import remove_leftovers
from fedtalk.training.local import LocalTraining
from fedtalk.training.module import FederatedModule, load_state
from fedtalk.training.placement import Placement, Placements, Precision

log = logging.getLogger(__name__)

Monitor = Literal["progress", "scalars", "videos", "adapters"]


class FederatedTrainer(MeasuringTrainer):
    """Trains a `FederatedModule` on the clients of a `ClipData` by federated rounds."""

    def __init__(
        self,
        rounds: int = 10,
        aggregation: Aggregation | None = None,
        privacy: Privacy | None = None,
        cohort: CohortSampler | None = None,
        local: LocalTraining | None = None,
        personal: PersonalTraining | None = None,
        validate_every: int = 1,
        minimum_clients: int = 1,
        enough: float = 1.0,
        most_held_out: int = 32,
        validate_clients: int = 32,
        evaluation: EvaluationSettings | None = None,
        seed: int = 0,
        accelerator: Literal["auto", "cpu", "cuda", "gpu"] = "auto",
        precision: Precision = "32-true",
        threads: int | None = None,
        workers: int = 1,
        default_placement: Placement | None = None,
        placements: dict[str, Placement] | None = None,
        videos: Videos | None = None,
        switch_off: list[Monitor] | None = None,
        callbacks: list[Callback] | None = None,
        logger: Logger | None = None,
        default_root_dir: str = "runs/default",
        cache_dir: str = ".cache/fedtalk",
        allow_unprivate: bool = False,
    ) -> None:
        """
        Args:
            rounds: federated rounds in all.
            aggregation: the rule that weighs clients, ``ISFA`` or ``FedAvg``; FedAvg by default.
            privacy: secure aggregation and differential privacy; neither by default.
            cohort: who takes part in a round; Poisson sampling with rate 0.5 by default.
            local: how a client trains.
            personal: personal training of every client after the last round; none by default.
            validate_every: rounds between measurements on held-out clips; 0 for none.
            minimum_clients: a round with fewer updates is void: the global state stays as it is.
            enough: share of a cohort whose updates close the round; the others' work is given up. For stragglers: draw a
                cohort that is larger by ``1 / enough``. Clients then start in an order drawn for the round. Who comes in
                time depends on the machine's speed, and so do results. Not with differential privacy: one client more would
                take another one's place, which is twice the change that is accounted for.
            most_held_out: held-out clips of a client that are measured on, at most.
            validate_clients: clients whose held-out clips are measured on, at most; the same ones throughout a run.
            evaluation: what `fedtalk test` measures.
            seed: seed of everything but privacy noise and masks; on the command line ``--seed_everything``.
            accelerator: ``auto``, ``cpu`` or ``cuda``.
            precision: of local training: ``32-true``, or ``bf16-mixed`` (autocast to bfloat16; the adapter stays float32).
            threads: CPU threads, of every process; by default all that torch finds, shared out among workers.
            workers: processes that train different clients at the same time; 1 trains one after the other in this process.
                The result has the same bits for any number, with the same threads each. More than one are Ray's: of the
                cluster that RAY_ADDRESS names, or started here.
            default_placement: how a client trains that ``placements`` doesn't name: alone in a process by default.
            placements: by client's name or pattern (``site-a-*``), the first that fits; see `Placement`.
            videos: which videos the monitor shows; at each validation by default, none with privacy.
            switch_off: what is not wanted of ``progress`` (bars, or a line a round), ``scalars`` (of rounds, to the logger),
                ``videos`` and ``adapters`` (the run's adapters as folders).
            callbacks: Lightning callbacks beside these.
            logger: TensorBoard in ``default_root_dir`` by default.
            default_root_dir: folder of the run.
            cache_dir: folder of prepared clips (latents, audio features), shared by runs.
            allow_unprivate: run without the privacy that an earlier config, or an earlier run in the folder, has promised.
        """
        check_least("trainer", 0, rounds=rounds, validate_every=validate_every)
        check_least("trainer", 1, minimum_clients=minimum_clients, validate_clients=validate_clients, workers=workers,
                    most_held_out=most_held_out, threads=threads)  # fmt: skip
        check_choice("trainer.precision", precision, Precision)
        check_alone()
        preconditions.check_enough(enough, privacy)
        self.personal_adapters = PersonalAdapters(personal)
        usual: dict[str, RoundCallback] = {"progress": RoundProgress(), "scalars": RoundMonitor()}
        if videos is not None or privacy is None:
            usual["videos"] = VideoMonitor(videos)
        usual["adapters"] = self.personal_adapters
        monitors = [callback for name, callback in usual.items() if name not in (switch_off or [])]
        self.aggregation, self.privacy = aggregation or FedAvg(), privacy
        preconditions.check_in_the_clear(self.aggregation, privacy)
        preconditions.check_no_aggregation(callbacks or [])
        followers: list[Callback] = [self.aggregation, *monitors, *(callbacks or [])]
        if privacy is not None:
            check_nothing_clear(validate_every, local is not None and local.keep_optimizer, followers)
        check_callbacks(followers, validate_every)
        super().__init__(
            accelerator=accelerator,
            devices=1,
            plugins=LightningEnvironment(),  # whatever job this is part of, it is one process; others are Ray's
            max_epochs=max(1, rounds),
            callbacks=followers,
            logger=logger
            if logger is not None
            else TensorBoardLogger(default_root_dir, name="tensorboard", version=""),
            default_root_dir=default_root_dir,
            enable_checkpointing=False,
            check_val_every_n_epoch=max(1, validate_every),  # callbacks look at it
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        self.rounds, self.round_number, self.seed = rounds, 0, seed
        self.allow_unprivate = allow_unprivate
        self.cohort_sampler, self.local = cohort or PoissonCohort(), local or LocalTraining()
        self.minimum_clients, self.enough = minimum_clients, enough
        self.validate_every, self.validate_clients, self.most_held_out = validate_every, validate_clients, most_held_out
        self.evaluation = evaluation or EvaluationSettings()
        self.run_dir = Path(default_root_dir)
        self.cache = PreparedCache(Path(cache_dir))
        self.threads = threads
        if threads:
            torch.set_num_threads(threads)
        self.placements = Placements(default_placement, placements)
        self.workers = workers
        beyond = workers > 1 or any(placed.needs_ray for _, placed in self.placements)
        self.engine: Engine = RayEngine(workers, threads) if beyond else InProcess()
        self.local_precision = precision
        self.stop_signals = StopSignals()

    def fit(  # type: ignore[override]
        self,
        model: FederatedModule,
        datamodule: ClipData,
        ckpt_path: str | None = None,
        dry_run: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Run the federated rounds (`fedtalk.federation.rounds`).

        Args:
            model: what is trained.
            datamodule: whose clips.
            ckpt_path: ``last`` to go on where the run in this folder stopped, or a checkpoint file.
            overwrite: begin anew in a folder that holds a run, whose checkpoint and adapters are then replaced.
            dry_run: train nothing; measure a few steps and print what the run will take, here and with more clients and
                workers.

        Raises:
            OutputError: the folder can't be written, or another fit is running in it.
            FedTalkError: clients failed and no round gave an update.
            Interrupted: SIGTERM or SIGINT asked the run to stop; ``ckpt_path="last"`` goes on.
        """
        if dry_run:
            print(report(*self._estimated(model, datamodule)))
            return
        # A folder that can't be written is found here, and not a round later.
        with run_lock(self.run_dir), self.stop_signals:
            # Of a run that was killed while writing; the lock says that nobody else writes.
            remove_leftovers(self.run_dir)
            preconditions.check_folders(self.run_dir, self.cache.folder, afresh=ckpt_path is None and not overwrite)
            if not self.allow_unprivate:
                preconditions.check_ledger(self.run_dir, self.privacy)
            forget(self.run_dir, datamodule.revoked)
            federation = self._begin(model, datamodule, "fit")
            check_clients(datamodule.clients, self.run_dir)
            preconditions.check_placements(federation)
            beyond = type(self.engine) is not InProcess
            preconditions.check_kept(federation, beyond)
            preconditions.check_controls(federation, beyond)
            try:
                self._rounds(federation, ckpt_path)
            except BaseException as error:
                for callback in self.callbacks:  # type: ignore[attr-defined]
                    callback.on_exception(self, model, error)
                raise
            finally:
                self.engine.stop()
                for callback in self.callbacks:  # type: ignore[attr-defined]
                    callback.teardown(self, model, "fit")

    def estimate(self, model: FederatedModule, datamodule: ClipData) -> Estimate:
        """What `fit` will take, by a few measured steps; writes nothing but one client's prepared clips."""
        return self._estimated(model, datamodule)[0]

    def _estimated(
        self, model: FederatedModule, datamodule: ClipData
    ) -> tuple[Estimate, Federation, SealedRounds, Beside]:
        federation = self._begin(
            model, datamodule, "validate"
        )  # a stage in which no callback writes into the run's folder
        preconditions.check_placements(federation)
        sealed, personal = rounds_of(self.privacy, federation.aggregation_task()), self.personal_adapters.personal
        beside = Beside(self.workers, self.threads, self.validate_every, self.validate_clients)
        if personal is not None:
            beside = replace(beside, personal_steps=personal.steps, personal_clients=personal.most_clients)
        return estimate_run(federation, sealed, beside, type(self.engine) is not InProcess), federation, sealed, beside

    def _rounds(self, federation: Federation, ckpt_path: str | None) -> None:
        sealed, module = rounds_of(self.privacy, federation.aggregation_task()), federation.module

        def on_round_start(number: int, cohort: list[str]) -> None:
            self.call("on_train_epoch_start", module)
            self.notify("on_round_start", module, number, cohort)

        def on_step(client: str, step: int, losses: dict[str, float]) -> None:
            self.notify("on_local_step", client, step, self.local.steps, {} if sealed.private else losses)
            self.stop_signals.check()  # the place where a run that was asked to stop does so

        run = self.fit_rounds = Rounds(federation, sealed, self.engine, on_round_start, on_step)
        run.begin(ckpt_path)
        self.round_number, self.should_stop, self.state.fn = run.round_number, False, TrainerFn.FITTING
        self.restore_callbacks(run.kept["callbacks"])
        if any(hasattr(callback, "monitor") for callback in self.callbacks):  # type: ignore[attr-defined]
            measured = self._held_out(federation, 1) if self.validate_every else {}
            check_monitored(self.callbacks, self.named(measured))  # type: ignore[attr-defined]
        for hook in ("on_fit_start", "on_train_start"):
            self.call(hook, module)
        self.notify("on_fit_rounds_start", module)
        self.engine.sealed = sealed
        self.engine.start(federation, self.stop_signals.check)
        while self.round_number < self.rounds and not self.should_stop and sealed.allows_another():
            self.stop_signals.check()
            outcome = run.run_round()
            self.round_number = run.round_number
            self.notify("on_round_end", module, outcome)
            if self.validate_every and (
                self.round_number % self.validate_every == 0 or self.round_number == self.rounds
            ):
                self._validate(federation)
            self.call("on_train_epoch_end", module)
            run.kept = {"callbacks": self.callback_states()}
            if run.kept["callbacks"]:  # else the round's own checkpoint says it all
                run.save()
        if not self.rounds:
            run.save()  # of a run without rounds: what they would have begun with
        run.faults.close(self.rounds)
        load_state(module.exchanged_parameters(), run.server.state)
        self.notify("on_fit_rounds_end", module)
        for hook in ("on_train_end", "on_fit_end"):
            self.call(hook, module)
        for logger in self.loggers:
            logger.finalize("success")
