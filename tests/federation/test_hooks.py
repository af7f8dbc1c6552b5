"""Lightning's own callbacks in a federated fit: called as documented, or refused by name before any work."""

from __future__ import annotations

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint

from fedtalk.callbacks.hooks import CALLED
from fedtalk.errors import ConfigurationError


class Heard(Callback):
    """Writes down every hook that is documented."""

    def __init__(self) -> None:
        self.hooks: list[str] = []
        self.metrics: list[dict] = []


def _hear(name: str):
    def hook(self: Heard, trainer, *_: object, **__: object) -> None:
        self.hooks.append(name)
        if name == "on_validation_end":
            self.metrics.append({key: float(value) for key, value in trainer.callback_metrics.items()})

    return hook


for _name in CALLED:
    setattr(Heard, _name, _hear(_name))


def test_hooks_are_called_in_lightnings_order(run, people) -> None:
    heard = Heard()
    run(people, rounds=2, validate_every=2, callbacks=[heard])
    validation = ["on_validation_start", "on_validation_epoch_start", "on_validation_epoch_end", "on_validation_end"]
    epoch = ["on_train_epoch_start", "on_train_epoch_end"]
    assert heard.hooks == [
        "setup", "on_fit_start", "on_train_start", *epoch, epoch[0], *validation, epoch[1], "on_train_end", "on_fit_end",
        "teardown",
    ]  # fmt: skip
    assert set(heard.metrics[0]) == {"held_out/loss", "held_out/first", "held_out/second"}


def test_early_stopping_on_a_held_out_metric_stops_the_fit_and_remembers_over_a_restart(run, people) -> None:
    def stopping() -> EarlyStopping:  # no loss is ever lower than this one
        return EarlyStopping("held_out/loss", patience=3, min_delta=100.0)

    through = run(people, rounds=9, validate_every=1, callbacks=[stopping()], folder="through")
    assert through.trainer.round_number == 4  # the first sets the mark, three more don't reach it
    run(people, rounds=2, validate_every=1, callbacks=[stopping()], folder="stopped")
    again = run(people, rounds=9, validate_every=1, callbacks=[stopping()], folder="stopped", ckpt_path="last")
    assert again.trainer.round_number == 4


@pytest.mark.parametrize(
    ("callback", "settings", "message"),
    [
        (ModelCheckpoint(), {}, r"trainer\.callbacks: ModelCheckpoint waits for .*which no federated round calls"),
        (LearningRateMonitor(), {}, r"LearningRateMonitor waits for on_train_batch_start"),
        (EarlyStopping("nonsense"), {"validate_every": 1}, r"monitors 'nonsense', .*expected one of held_out/first"),
        (EarlyStopping("held_out/loss"), {}, r"EarlyStopping monitors held_out/loss, and trainer\.validate_every is 0"),
    ],
)  # fmt: skip
def test_what_would_do_nothing_is_refused_before_any_round(
    run, people, tmp_path, callback: Callback, settings: dict, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run(people, callbacks=[callback], **settings)
    assert not (tmp_path / "run" / "checkpoints").exists()
