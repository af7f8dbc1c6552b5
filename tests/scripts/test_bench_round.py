"""The measurement of a round, on a small scale: both sides do the same work, and the figures are of each other."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"


def test_a_round_against_a_bare_loop_and_workers(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("bench_round", SCRIPTS / "bench_round.py")
    assert spec is not None and spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_round", bench)
    spec.loader.exec_module(bench)
    calls = []
    loss_terms = bench.Talker.loss_terms
    monkeypatch.setattr(bench.Talker, "loss_terms", lambda self, batch: calls.append(1) or loss_terms(self, batch))
    threads = torch.get_num_threads()
    try:
        found = bench.measure(quick=True, clients=2, steps=2, rounds=1, threads=1)
    finally:
        torch.set_num_threads(threads)
    # Here: two rounds and two bare loops of 2 x 2 steps, two loops beside a worker of Ray's, two rounds of one worker.
    assert len(calls) == 4 * (2 + 2 + 2 + 2)
    assert found["bare_s"] > 0 and found["ratio"] == pytest.approx(found["fedtalk_s"] / found["bare_s"], rel=1e-2)
    assert found["ray_s"] > 0 and found["ray_ratio"] > 0
    one, two = (found[f"clients_per_second_{name}"] for name in ("one_worker_two_threads", "two_workers_one_thread"))
    assert found["workers_speedup"] == pytest.approx(two / one, rel=1e-2)
