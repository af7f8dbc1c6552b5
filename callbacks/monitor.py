"""TensorBoard by round: losses by term, client weights and scores, held-out metrics."""

from __future__ import annotations

from fedtalk.callbacks.base import RoundCallback, RoundOutcome, RoundTrainer
from fedtalk.training.module import FederatedModule


class RoundMonitor(RoundCallback):
    """Logs every round's outcome with the round as the step; with privacy, only what follows from the (noised) sum."""

    def on_round_end(self, trainer: RoundTrainer, module: FederatedModule, outcome: RoundOutcome) -> None:
        if outcome.privacy is not None:
            shown = {"round/update_norm": outcome.update_norm}  # how long it took would tell how many took part
            self._log(trainer, shown | {f"privacy/{name}": value for name, value in outcome.privacy.items()})
            return
        values: dict[str, float] = {
            "round/clients": len(outcome.reports),
            "round/failed": len(outcome.failures),
            "round/seconds": outcome.seconds,
            "round/update_norm": outcome.update_norm,
        }
        for report in outcome.reports:
            for name, value in report.losses.items():
                key = f"train/{name}"
                values[key] = values.get(key, 0.0) + value / len(outcome.reports)
            values[f"client_weight/{report.client}"] = report.weight
            values[f"client_quality/{report.client}"] = report.quality
            values[f"client_identity/{report.client}"] = report.identity
            values[f"client_stability/{report.client}"] = report.stability
        self._log(trainer, values)

    def on_held_out(
        self, trainer: RoundTrainer, module: FederatedModule, round_number: int, metrics: dict[str, float]
    ) -> None:
        self._log(trainer, {f"held_out/{name}": value for name, value in metrics.items()})

    def _log(self, trainer: RoundTrainer, values: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.round_number)
            logger.save()
