"""The comparison with other toolkits: our side does the job that a bare loop does, and figures are read off what a side tells."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"


def test_our_side_does_the_job_of_a_bare_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS / "peers"))
    monkeypatch.setenv("PEERS_ROUNDS", "4")
    job, side = importlib.import_module("job"), importlib.import_module("fedtalk_side")
    side.main(1)
    told = json.loads(capsys.readouterr().out.split("RESULT ")[1])
    assert len(told["instants"]) == 4 and told["instants"] == sorted(told["instants"])
    state = job.Net().state_dict()
    for _ in range(4):
        ends = []
        for client in range(job.CLIENTS):
            net = job.Net()
            net.load_state_dict(state)
            job.train(net, client)
            ends.append(net.state_dict())
        state = {name: torch.stack([end[name] for end in ends]).mean(0) for name in state}
    job.Rounds().tell(state)
    expected = json.loads(capsys.readouterr().out.split("RESULT ")[1])["loss"]
    assert told["loss"] == pytest.approx(expected, abs=1e-4) and expected < 1.0


def test_figures_of_a_side(load_script) -> None:
    bench = load_script("bench_peers")
    told = {"instants": [100.0, 101.0, 103.0, 107.0], "loss": 0.5}
    code = f"print('RESULT ' + {json.dumps(json.dumps(told))})"
    found = bench.run([sys.executable, "-c", code], 4)
    assert found["rounds_per_s"] == pytest.approx(1 / 3) and found["loss"] == 0.5
    with pytest.raises(SystemExit, match="ended with 3"):
        bench.run([sys.executable, "-c", "raise SystemExit(3)"], 4)
