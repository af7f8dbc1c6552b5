"""A bounded few kills at random instants; `python scripts/kill_harness.py --kills 100` is the whole of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ready import run_script

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kills", "rounds"), [(1, 2), pytest.param(5, 4, marks=pytest.mark.slow)])
def test_a_few_kills_leave_the_bits_of_an_uninterrupted_fit(kills: int, rounds: int, tmp_path: Path) -> None:
    how = ("--kills", str(kills), "--rounds", str(rounds), "--json")
    ended = run_script(ROOT / "scripts" / "kill_harness.py", *how, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    summary = json.loads(ended.stdout)
    assert summary["kills"] == kills and summary["wrong"] == [] and sum(summary["killed"].values()) == kills
    assert summary["compared_values"] > 100
