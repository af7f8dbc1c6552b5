"""The measurement of local steps on a tiny backbone: every arrangement does its work, in its processes too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_arrangement_is_measured_against_the_plain_loop(tiny_backbone: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "scripts/bench_step.py", "--backbone", str(tiny_backbone), "--batches", "1", "--steps", "1",
               "--repeats", "1", "--json"]  # fmt: skip
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    summary = json.loads(ended.stdout)
    speeds = summary["clips_per_second"]["1"]
    assert len(speeds) == 8 and min(speeds.values()) > 0 and summary["ratios"]["1"]["plain loop, 2 threads"] == 1.0
    assert summary["speedup"]["1"] == max(summary["ratios"]["1"].values()) >= 1.0
