"""Where a run stands: rich progress bars in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fedtalk.callbacks.base import RoundCallback, RoundOutcome, RoundTrainer
from fedtalk.training.module import FederatedModule


class RoundProgress(RoundCallback):
    """Rounds, clients and steps with the time left; one line a round where there is no terminal."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def on_fit_rounds_start(self, trainer: RoundTrainer, module: FederatedModule) -> None:
        self._started, self._first_round = time.monotonic(), trainer.round_number
        if not sys.stderr.isatty():
            return
        self._bars = Progress(
            TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False), console=Console(stderr=True),
        )  # fmt: skip
        self._tasks = {
            "rounds": self._bars.add_task("rounds", total=trainer.rounds, completed=trainer.round_number, note=""),
            "clients": self._bars.add_task("clients", total=1, note=""),
            "steps": self._bars.add_task("steps", total=trainer.local.steps, note=""),
        }
        self._bars.start()

    def on_round_start(
        self, trainer: RoundTrainer, module: FederatedModule, round_number: int, cohort: list[str]
    ) -> None:
        self._done = 0
        if self._bars:
            self._bars.reset(self._tasks["clients"], total=max(1, len(cohort)), note="")

    def on_local_step(
        self, trainer: RoundTrainer, client: str, step: int, steps: int, losses: dict[str, float]
    ) -> None:
        if self._bars:
            note = f"{client}  loss {losses['loss']:.4f}" if losses else client
            self._bars.update(self._tasks["steps"], completed=step + 1, total=steps, note=note)
            if step + 1 == steps:
                self._bars.advance(self._tasks["clients"])

    def on_round_end(self, trainer: RoundTrainer, module: FederatedModule, outcome: RoundOutcome) -> None:
        if outcome.privacy is not None:
            self._private_round_end(trainer, outcome)
            return
        losses = [report.losses["loss"] for report in outcome.reports]
        mean = f"loss {sum(losses) / len(losses):.4f}" if losses else "no update"
        lost = f", {len(outcome.failures)} lost" if outcome.failures else ""
        if self._bars:
            self._bars.update(self._tasks["rounds"], completed=trainer.round_number, note=mean + lost)
            return
        done = trainer.round_number - self._first_round
        left = (time.monotonic() - self._started) / done * (trainer.rounds - trainer.round_number)
        print(
            f"round {trainer.round_number}/{trainer.rounds}  {len(outcome.reports)} of {len(outcome.cohort)} clients{lost}  "
            f"{mean}  {outcome.seconds:.0f} s, {left / 60:.1f} min left",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    def _private_round_end(self, trainer: RoundTrainer, outcome: RoundOutcome) -> None:
        """The round without what single clients have; epsilon where there is one, by adversary."""
        note = outcome.told or "sealed"
        if self._bars:
            self._bars.update(self._tasks["rounds"], completed=trainer.round_number, note=note)
            return
        done = trainer.round_number - self._first_round
        left = (time.monotonic() - self._started) / done * (trainer.rounds - trainer.round_number)
        print(
            f"round {trainer.round_number}/{trainer.rounds}  {note}  {outcome.seconds:.0f} s, {left / 60:.1f} min left",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    def on_held_out(
        self, trainer: RoundTrainer, module: FederatedModule, round_number: int, metrics: dict[str, float]
    ) -> None:
        text = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        if self._bars:
            self._bars.console.print(f"round {round_number}: held out {text}", markup=False)
        else:
            print(f"round {round_number}: held out  {text}", file=sys.stderr, flush=True)

    def on_fit_rounds_end(self, trainer: RoundTrainer, module: FederatedModule) -> None:
        self._stop()

    def on_exception(self, trainer: RoundTrainer, module: FederatedModule, exception: BaseException) -> None:  # type: ignore[override]
        self._stop()

    def _stop(self) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None
