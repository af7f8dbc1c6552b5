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

from collections.abc import Iterable

from lightning.pytorch import Callback

from fedtalk.errors import ConfigurationError

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
