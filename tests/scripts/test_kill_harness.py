"""A bounded few kills at random instants; `python scripts/kill_harness.py --kills 100` is the whole of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_few_kills_leave_the_bits_of_an_uninterrupted_fit(kills: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "scripts/kill_harness.py", "--kills", str(kills), "--json"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    summary = json.loads(ended.stdout)
    assert summary["kills"] == kills and summary["wrong"] == [] and sum(summary["killed"].values()) == kills
    assert summary["compared_values"] > 100
