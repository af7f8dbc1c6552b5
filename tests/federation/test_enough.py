"""How many updates close a round."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.settings import Privacy


def test_in_one_process_those_who_start_first_close_the_round(parts, tmp_path: Path) -> None:
    """Drawn anew for each round, and the same in a run that is the same."""
    found = [parts.fitted(tmp_path / str(number), parts.people(), enough=0.5, rounds=4) for number in range(2)]
    assert parts.same(found[0][0], found[1][0])
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
