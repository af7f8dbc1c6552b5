"""The measurement of a round, on a small scale: both sides do the same work, and the figures are of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def bench(load_script: Callable[[str], ModuleType]) -> Iterator[ModuleType]:
    threads = torch.get_num_threads()
    yield load_script("bench_round")
    torch.set_num_threads(threads)


def test_a_round_against_a_bare_loop(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    loss_terms = bench.Talker.loss_terms
    monkeypatch.setattr(bench.Talker, "loss_terms", lambda self, batch: calls.append(1) or loss_terms(self, batch))
    found = bench.measure(quick=True, clients=2, steps=2, rounds=1, threads=1, alone=True)
    assert len(calls) == 4 * (2 + 2)  # two rounds and two bare loops of 2 x 2 steps
    assert found["bare_s"] > 0 and found["ratio"] == pytest.approx(found["fedtalk_s"] / found["bare_s"], rel=1e-2)
    assert found.keys() == {"bare_s", "fedtalk_s", "ratio"}


@pytest.mark.slow
def test_workers_against_the_loop_and_each_other(local_ray: None, bench: ModuleType) -> None:
    found = bench.measure(quick=True, clients=2, steps=2, rounds=1, threads=1)
    assert found["bare_s"] > 0 and found["ratio"] == pytest.approx(found["fedtalk_s"] / found["bare_s"], rel=1e-2)
    assert found["ray_s"] > 0 and found["ray_ratio"] > 0
    one, two = (found[f"clients_per_second_{name}"] for name in ("one_worker_two_threads", "two_workers_one_thread"))
    assert found["workers_speedup"] == pytest.approx(two / one, rel=1e-2)
