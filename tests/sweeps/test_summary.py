"""A summary is JSON that any reader takes, whatever a run measured."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import NoReturn

from fedtalk.sweeps.execution import Finished, SweepOutcome, flatten
from fedtalk.sweeps.plan import PlannedRun, Variation
from fedtalk.sweeps.summary import summarise, write


def test_what_is_no_number_is_null_and_in_no_mean(tmp_path: Path) -> None:
    runs = [PlannedRun(Variation("ä b&c+d", ()), seed, f"{seed}123456789") for seed in range(3)]
    values = (30.0, math.nan, math.inf)
    finished = [
        Finished(run, {"trained.psnr": value}, 1.0, tmp_path / run.folder_name)
        for run, value in zip(runs, values, strict=True)
    ]
    write(summarise(runs, SweepOutcome(finished), {"seeds": [0, 1, 2]}), tmp_path)

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is no JSON")

    read = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert [run["measures"]["trained.psnr"] for run in read["runs"]] == [30.0, None, None]
    found = read["variations"]["ä b&c+d"]["measures"]["trained.psnr"]
    assert found["mean"] == 30.0 and found["seeds"] == 1 and found["low"] is None
    with (tmp_path / "sweep.csv").open(encoding="utf-8", newline="") as stream:
        assert [line["value"] for line in csv.DictReader(stream)] == ["30.0", "", ""]


def test_a_measure_that_is_null_is_none() -> None:
    assert flatten({"trained": {"psnr": 30.0, "identity": None}}) == {"trained.psnr": 30.0}
