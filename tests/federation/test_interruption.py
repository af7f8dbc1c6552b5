"""SIGTERM and SIGINT: the round under way is abandoned, the checkpoint whole, the resumed run that of one never stopped."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
import torch

from fedtalk.callbacks.base import RoundCallback
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.interruption import Interrupted, StopSignals


class Signal(RoundCallback):
    """Sends this process a signal at a step of a client, or at the end of a round."""

    def __init__(self, number: int, client: str | None, times: int = 1) -> None:
        self.number, self.client, self.times = number, client, times
        self.after: list[str] = []

    def on_local_step(self, trainer: FederatedTrainer, client: str, step: int, steps: int, losses: dict) -> None:
        if trainer.round_number == 1:
            self.after.append(f"{client} {step}")
            if client == self.client and step == 1:
                for _ in range(self.times):
                    os.kill(os.getpid(), self.number)
                self.after.append("sent")

    def on_round_end(self, trainer: FederatedTrainer, module: object, outcome: object) -> None:
        if self.client is None and trainer.round_number == 2:
            os.kill(os.getpid(), self.number)
            self.after.append("sent")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("client", ["bert", None], ids=["in a step", "between rounds"])
def test_stopped_by_a_signal_and_resumed_is_uninterrupted(
    run, people, tmp_path: Path, number: int, client: str | None
) -> None:
    through = run(people, folder="through", rounds=3)
    before, sender = signal.getsignal(number), Signal(number, client)
    with pytest.raises(Interrupted, match=f"stopped by {signal.Signals(number).name}") as stop:
        run(people, folder="stopped", rounds=3, callbacks=[sender])
    assert stop.value.signal_number == number
    assert signal.getsignal(number) is before
    assert sender.after[-1] == "sent"  # no step of a client after it
    saved = torch.load(tmp_path / "stopped" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["round"] == (1 if client else 2)
    resumed = run(people, folder="stopped", rounds=3, ckpt_path="last")
    assert all(torch.equal(through.state[name], resumed.state[name]) for name in through.state)


def test_the_second_signal_interrupts_at_once(run, people) -> None:
    sender = Signal(signal.SIGINT, "bert", times=2)
    with pytest.raises(Interrupted):
        run(people, rounds=3, callbacks=[sender])
    assert sender.after[-1] == "bert 1"  # it did not come to the end of the hook


def test_another_thread_leaves_signals_alone() -> None:
    seen = []

    def work() -> None:
        with StopSignals() as stop:
            seen.append(signal.getsignal(signal.SIGTERM))
            stop.check()

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
