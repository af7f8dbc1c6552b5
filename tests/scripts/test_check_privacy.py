"""The privacy checks on a small scale, and that they find what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from fedtalk.privacy.mechanism import Mechanism


@pytest.fixture(scope="module")
def check(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("check_privacy")


def test_rounds_with_dropouts_end_in_both_ways(check: ModuleType) -> None:
    found = check.dropouts(90, 3)
    assert found["cases"] == found["sums"] + found["refusals"] == 90 and found["wrong"] == 0
    assert min(found["sums"], found["refusals"]) > 20


def test_a_wrong_sum_is_counted(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    run = check.run_round

    def off_by_one(*arguments: object, **settings: object) -> object:
        report = run(*arguments, **settings)
        report.total[0] ^= 1
        return report

    monkeypatch.setattr(check, "run_round", off_by_one)
    found = check.dropouts(45, 3)
    assert found["sums"] == 0 < found["wrong"]


def test_noise_of_each_number_of_dropouts_is_measured(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    found = check.noise(20, 5000)
    ratios = found["variance_ratio_by_dropouts"]
    assert list(ratios) == ["0", "1", "2", "3", "4"] and found["colluding"] == 2
    assert min(ratios.values()) >= 1 - 5 * found["standard_error"]
    # Shares sized for two more survivors than the protocol makes sure of come out too small.
    fewest = Mechanism.fewest_honest
    monkeypatch.setattr(Mechanism, "fewest_honest", lambda self, cohort: fewest(self, cohort) + 2)
    assert min(check.noise(20, 5000)["variance_ratio_by_dropouts"].values()) < 0.95
