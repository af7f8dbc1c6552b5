"""The measurement of local steps on a tiny backbone: every arrangement does its work, in its processes too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def test_arrangements_in_one_process_are_measured_against_the_plain_loop(
    load_script: Callable[[str], ModuleType], tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("bench_step")
    monkeypatch.setattr(script, "CLIENTS", 2)
    monkeypatch.setattr(script, "TOGETHER", (1, 2))
    bench = script.Bench.build(str(tiny_backbone), str(tmp_path), steps=1)
    found = script.measure(bench, [], 1, repeats=1, compiled=False)
    speeds = found["clips_per_second"]
    assert len(speeds) == 3 and min(speeds.values()) > 0 and found["ratios"]["plain loop, 2 threads"] == 1.0
    assert found["speedup"] == max(found["ratios"].values()) >= 1.0


@pytest.mark.slow
def test_every_arrangement_is_measured(tiny_backbone: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "scripts/bench_step.py", "--backbone", str(tiny_backbone), "--batches", "1", "--steps", "1",
               "--repeats", "1", "--json"]  # fmt: skip
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert len(json.loads(ended.stdout)["clips_per_second"]["1"]) == 8
