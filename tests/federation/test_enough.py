"""How many updates close a round."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedtalk.callbacks.aggregation import ISFA, Aggregation
from fedtalk.callbacks.base import RoundCallback
from fedtalk.errors import ConfigurationError
from fedtalk.federation.module import copy_state
from fedtalk.privacy.settings import Privacy


class Rounds(RoundCallback):
    """Keeps outcomes and steps."""

    def __init__(self) -> None:
        self.outcomes: list = []
        self.steps: list[tuple[str, int]] = []

    def on_local_step(self, trainer, client, step, steps, losses) -> None:
        self.steps.append((client, step))

    def on_round_end(self, trainer, module, outcome) -> None:
        self.outcomes.append(outcome)


def _fit(parts, people: dict, folder: Path, aggregation: Aggregation | None = None, **settings: object):
    rounds, module = Rounds(), parts.Pull(dropout=0.3)
    aggregation = aggregation or ISFA(gamma=1.0)
    parts.trainer(folder, [aggregation, rounds], **settings).fit(module, parts.People(people))
    return copy_state(module.exchanged_parameters()), rounds


def _people(parts, count: int = 6) -> dict:
    return {
        f"client-{number}": parts.Person((0.2 * number, 0.5, -0.3 * number), clips=1 + number % 3)
        for number in range(count)
    }


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_in_one_process_those_who_start_first_close_the_round(parts, tmp_path: Path) -> None:
    """Drawn anew for each round, and the same in a run that is the same."""
    found = [_fit(parts, _people(parts), tmp_path / str(number), enough=0.5, rounds=4) for number in range(2)]
    assert _same(found[0][0], found[1][0])
    taken = [[report.client for report in outcome.reports] for outcome in found[0][1].outcomes]
    assert all(len(clients) == 3 for clients in taken) and len({tuple(clients) for clients in taken}) > 1
    assert all(set(outcome.failures) | set(clients) == set(outcome.cohort)
               for outcome, clients in zip(found[0][1].outcomes, taken, strict=True))  # fmt: skip


@pytest.mark.parametrize(
    ("enough", "privacy", "message"),
    [
        (0.0, None, r"trainer\.enough: expected a share"),
        (0.9, {"noise_multiplier": 1.0}, r"trainer\.enough: with differential privacy expected 1, got 0\.9"),
        (0.5, {}, r"trainer\.enough: secure aggregation opens no sum .*at least 0\.8, got 0\.5"),
    ],
)
def test_enough_that_cannot_be_is_refused(
    parts, tmp_path: Path, enough: float, privacy: dict | None, message: str
) -> None:
    settings = None if privacy is None else Privacy(**privacy)
    with pytest.raises(ConfigurationError, match=message):
        parts.trainer(tmp_path, privacy=settings, enough=enough)


def test_no_workers_is_a_wrong_setting(parts, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"trainer\.workers: expected at least 1, got 0"):
        parts.trainer(tmp_path, workers=0)
