"""The trainer's commands around training: held-out metrics, the table with its controls, videos."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from fedtalk.callbacks.aggregation import Aggregation
from fedtalk.callbacks.hooks import HookTrainer
from fedtalk.data.source import ClipData, PreparedCache
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.evaluation.settings import EvaluationSettings
from fedtalk.federation.checkpoint import find_checkpoint, load_checkpoint
from fedtalk.federation.client import ClientHalf
from fedtalk.federation.client_states import ClientStates
from fedtalk.federation.cohort import CohortSampler
from fedtalk.federation.federation import Federation
from fedtalk.federation.local_work import Failure
from fedtalk.privacy.settings import Privacy
from fedtalk.randomness import numpy_generator, torch_generator
from fedtalk.talker.module import Talker
from fedtalk.training.module import FederatedModule, load_state
from fedtalk.training.placement import Placements

log = logging.getLogger(__name__)


def measured_clients(seed: int, clients: Sequence[str], most: int) -> Sequence[str]:
    """The clients whose held-out clips a run measures: all of them, or the same ``most`` throughout, drawn by the seed.

    >>> measured_clients(0, ["anna", "bert"], 2)
    ['anna', 'bert']
    """
    if len(clients) <= most:
        return clients
    chosen = numpy_generator(seed, "measured").choice(len(clients), most, replace=False)
    return [clients[index] for index in sorted(chosen)]


def held_out_means(
    federation: Federation, clients: ClientHalf, most: int, check_stop: Callable[[], None]
) -> dict[str, float]:
    """Held-out metrics of the module as it is, mean over the clients that could be measured.

    Args:
        federation: whose clients.
        clients: who measure.
        most: clients that are measured on, at most.
        check_stop: called before each; may raise to stop.
    """
    measured: list[dict[str, float]] = []
    for client in measured_clients(federation.seed, federation.data.clients, most):
        check_stop()
        try:
            clips = clients.prepared(client, held_out=True)
            metrics = federation.module.held_out_metrics(clips, torch_generator(federation.seed, "held_out", client))
            if not all(map(math.isfinite, metrics.values())):
                raise ArtifactError(f"expected finite metrics, got {metrics}")
            measured.append(metrics)
        except Exception as error:  # as in a round: a client's trouble is its own
            log.warning("client %s could not be measured: %s", client, Failure.of(error))
    names = measured[0] if measured else {}
    return {name: sum(metrics[name] for metrics in measured) / len(measured) for name in names}


class MeasuringTrainer(HookTrainer):
    """`validate`, `test` and `predict`."""

    evaluation: EvaluationSettings
    validate_clients: int
    aggregation: Aggregation
    privacy: Privacy | None
    cohort_sampler: CohortSampler
    placements: Placements
    cache: PreparedCache
    seed: int
    minimum_clients: int
    enough: float
    most_held_out: int
    local_precision: str

    def _begin(self, model: FederatedModule, datamodule: ClipData, stage: str) -> Federation:
        federation = self.connect(model, datamodule, stage)
        for callback in self.callbacks:  # type: ignore[attr-defined]
            callback.setup(self, model, stage)
        return federation

    def connect(self, model: FederatedModule, datamodule: ClipData, stage: str) -> Federation:
        """Bring model, data and this trainer together; no callback hears of it.

        Raises:
            ConfigurationError: they are of other kinds.
        """
        if not isinstance(model, FederatedModule):
            raise ConfigurationError(f"model: expected a FederatedModule, got {type(model).__name__}")
        if not isinstance(datamodule, ClipData):
            raise ConfigurationError(f"data: expected a ClipData data module, got {type(datamodule).__name__}")
        self.data = datamodule
        datamodule.follow_seed(self.seed)
        datamodule.prepare_data()
        datamodule.setup(stage)
        model.trainer = self
        self.strategy.connect(model)
        model.to(self.strategy.root_device)
        model.eval()
        return self.federate(model, datamodule)

    def federate(self, model: FederatedModule, datamodule: ClipData) -> Federation:
        """This trainer's settings with a module and data."""
        return Federation(
            model, datamodule, self.aggregation, self.privacy, self.cohort_sampler, self.local, self.placements, self.cache,
            ClientStates(self.run_dir / "clients"), self.run_dir, self.rounds, self.seed, self.minimum_clients, self.enough,
            self.most_held_out, self.strategy.root_device, self.local_precision,
        )  # fmt: skip

    def _held_out(self, federation: Federation, most: int | None = None) -> dict[str, float]:
        most = self.validate_clients if most is None else most
        return held_out_means(federation, ClientHalf(federation), most, self.stop_signals.check)

    def _validate(self, federation: Federation) -> None:
        module = federation.module
        for hook in ("on_validation_start", "on_validation_epoch_start"):
            self.call(hook, module)
        metrics = self._held_out(federation)
        self.measured = self.named(metrics)
        self.notify("on_held_out", module, self.round_number, metrics)
        for hook in ("on_validation_epoch_end", "on_validation_end"):
            self.call(hook, module)

    def validate(  # type: ignore[override]
        self, model: FederatedModule, datamodule: ClipData, ckpt_path: str | None = None
    ) -> list[dict[str, float]]:
        """Print and return the held-out metrics of a trained state, mean over clients.

        Args:
            model: what was trained.
            datamodule: whose held-out clips.
            ckpt_path: ``last`` or a checkpoint file; without it the model is measured as it starts.
        """
        federation = self._begin(model, datamodule, "validate")
        self._load_for_use(model, ckpt_path)
        metrics = self._held_out(federation)
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
        from fedtalk.evaluation.evaluate import evaluate  # media and face libraries: not needed to train
        from fedtalk.evaluation.tables import print_table

        result = evaluate(self._talker(model, datamodule, ckpt_path, "test"), datamodule, self.run_dir, self.evaluation)
        print_table(result)
        written = "metrics, contact sheet and videos" if self.evaluation.videos else "metrics"
        print(f"{written} are in {self.run_dir}")
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

        talker = self._talker(model, datamodule, ckpt_path, "predict")
        written = write_predictions(talker, datamodule, self.run_dir)
        print("\n".join(str(path) for path in written))
        return written

    def _load_for_use(self, model: FederatedModule, ckpt_path: str | None) -> None:
        if ckpt_path is None:
            return
        path = find_checkpoint(ckpt_path, self.run_dir)
        if path is None:
            raise ArtifactError(
                f"{self.run_dir} holds no checkpoint yet; run `fedtalk fit` first, with the same config"
            )
        load_state(model.exchanged_parameters(), load_checkpoint(path, model)["server"]["state"])

    def _talker(self, model: FederatedModule, datamodule: ClipData, ckpt_path: str | None, command: str) -> Talker:
        """The model as a checkpoint leaves it, for a command that needs a talker."""
        self._begin(model, datamodule, command)
        self._load_for_use(model, ckpt_path)
        if not isinstance(model, Talker) or model.adapter is None:
            raise ConfigurationError(
                f"`fedtalk {command}` needs a Talker with an adapter; set model.adapter in the config"
            )
        return model
