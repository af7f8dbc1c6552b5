"""The table's rows against the accountants: each of its multipliers spends the epsilon that it is listed under."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from fedtalk.privacy.accounting import gaussian_epsilon, rdp_epsilon


def test_every_multiplier_spends_the_epsilon_of_its_row(load_script: Callable[[str], ModuleType]) -> None:
    script = load_script("participation_table")
    row = script.compare(100, 4.0, 20, 25)
    assert (row["rate"], row["turns"]) == (0.25, 5) and row["most_drawn"] > 5
    z, delta = row["z"], row["delta"]
    assert gaussian_epsilon([(z["turns"], 1.0, 5)], delta) == pytest.approx(4, rel=2e-3)
    assert gaussian_epsilon([(z["poisson, rosters"], 1.0, row["most_drawn"])], delta) == pytest.approx(4, rel=2e-3)
    assert 4 < rdp_epsilon([(z["poisson, adapters"], 0.25, 20)], delta) < 5.5  # PRV's 4
    assert z["poisson, adapters"] < z["turns"] < z["poisson, rosters"]
    assert row["snr"]["turns"] == pytest.approx(25 / 2**0.5 / z["turns"], rel=1e-2)
    assert script.table([row]).splitlines()[2].startswith("| 100 | 4 | 5 |")
