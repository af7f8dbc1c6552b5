"""Lightning's callbacks in a federated fit: which hooks are called when, and who is refused for waiting for another one.

======================================================  ==================================================================
``setup``, ``on_fit_start``, ``on_train_start``         before the first round
``on_train_epoch_start``, ``on_train_epoch_end``        around a round, which is an epoch: ``trainer.current_epoch`` counts
``on_validation_start``, ``on_validation_epoch_start``  before held-out clips are measured
``on_validation_epoch_end``, ``on_validation_end``      after it, their means in ``trainer.callback_metrics`` (``held_out/loss``)
``on_train_end``, ``on_fit_end``, ``teardown``          after the last round
``on_exception``                                        where the fit is ended by an error
======================================================  ==================================================================

What a callback's ``state_dict`` gives is kept in the checkpoint. ``trainer.should_stop`` ends the fit after the round under
way, so that `EarlyStopping` on a held-out metric works. The hooks of `RoundCallback` tell more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor

from fedtalk.callbacks.base import RoundCallback, RoundTrainer
from fedtalk.errors import ConfigurationError
from fedtalk.training.module import FederatedModule

CALLED = {
    "setup", "teardown", "on_fit_start", "on_fit_end", "on_train_start", "on_train_end", "on_train_epoch_start",
    "on_train_epoch_end", "on_validation_start", "on_validation_epoch_start", "on_validation_epoch_end",
    "on_validation_end", "on_exception",
}  # fmt: skip


def check_callbacks(callbacks: Iterable[Callback], validate_every: int) -> None:
    """Refuse callbacks that wait for hooks which no round calls, or for metrics that are never measured.

    Raises:
        ConfigurationError: with the callback's name.
    """
    for callback in callbacks:
        kind = type(callback)
        waits = sorted(
            name
            for name in dir(Callback)
            if (name.startswith("on_") or name in ("setup", "teardown"))
            and name not in CALLED
            and getattr(kind, name) is not getattr(Callback, name)
        )
        if waits:
            raise ConfigurationError(
                f"trainer.callbacks: {kind.__name__} waits for {', '.join(waits)}, which no federated round calls: expected a "
                f"callback of {', '.join(sorted(CALLED - {'setup', 'teardown'}))}. Leave it out; rounds are checkpointed, logged "
                "and shown by the trainer itself"
            )
        monitored = getattr(callback, "monitor", None)
        if isinstance(monitored, str) and monitored.startswith("held_out/") and not validate_every:
            raise ConfigurationError(
                f"trainer.callbacks: {kind.__name__} monitors {monitored}, and trainer.validate_every is 0: expected "
                "1 or more, or no such callback"
            )


def check_monitored(callbacks: Iterable[Callback], known: Iterable[str]) -> None:
    """Refuse callbacks that monitor what is not measured.

    Args:
        callbacks: of the fit.
        known: names of the metrics that there will be.

    Raises:
        ConfigurationError: with the callback's name, and the names that there are.
    """
    names = sorted(known)
    for callback in callbacks:
        monitored = getattr(callback, "monitor", None)
        if isinstance(monitored, str) and monitored not in names:
            raise ConfigurationError(
                f"trainer.callbacks: {type(callback).__name__} monitors {monitored!r}, which is not measured: expected one of "
                f"{', '.join(names)}"
            )


class HookTrainer(RoundTrainer):
    """Calls callbacks, Lightning's and our own, and shows them what they look for."""

    def __init__(self, **settings: Any) -> None:
        self.round_number = 0
        self.measured: dict[str, Tensor] = {}
        super().__init__(**settings)

    def call(self, hook: str, module: FederatedModule) -> None:
        """One of Lightning's hooks."""
        for callback in self.callbacks:  # type: ignore[attr-defined]
            getattr(callback, hook)(self, module)

    def notify(self, hook: str, *arguments: Any) -> None:
        """One of `RoundCallback`'s hooks."""
        for callback in self.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RoundCallback):
                getattr(callback, hook)(self, *arguments)

    def callback_states(self) -> dict[str, Any]:
        """What callbacks want to be kept, by their keys."""
        states = {callback.state_key: callback.state_dict() for callback in self.callbacks}  # type: ignore[attr-defined]
        return {key: state for key, state in states.items() if state}

    def restore_callbacks(self, states: Mapping[str, Any]) -> None:
        """Give callbacks what was kept of them."""
        for callback in self.callbacks:  # type: ignore[attr-defined]
            if callback.state_key in states:
                callback.load_state_dict(states[callback.state_key])

    @staticmethod
    def named(metrics: Mapping[str, float]) -> dict[str, Tensor]:
        """Held-out metrics as callbacks know them."""
        return {f"held_out/{name}": torch.tensor(value) for name, value in metrics.items()}

    @property
    def callback_metrics(self) -> dict[str, Tensor]:
        """The latest held-out metrics, ``held_out/NAME``: what `EarlyStopping` and its like may monitor."""
        return self.measured

    @property
    def current_epoch(self) -> int:
        """Rounds that are done."""
        return self.round_number

    @property
    def global_step(self) -> int:
        """Rounds that are done: the server takes one step in each."""
        return self.round_number
