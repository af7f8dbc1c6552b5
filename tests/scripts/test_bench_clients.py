"""The measurement of many clients, on a small scale: it counts what it says it counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType

import pytest

from fedtalk.data.synthtalk import Speaker


def test_server_work_memory_and_start_of_many_clients(
    load_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand clients, two rounds: whoever is not drawn is never made, memory stays."""
    bench = load_script("bench_clients")
    drawn = []
    draw = Speaker.draw
    monkeypatch.setattr(Speaker, "draw", lambda *arguments: drawn.append(arguments[2]) or draw(*arguments))
    bench.measure(10, 1, 3000, time.process_time)  # what is loaded once, on first use
    drawn.clear()
    found = bench.measure(10_000, 2, 3000, time.process_time)
    assert 5 <= found["sampled"] <= 40 and found["clients"] == 10_000
    assert len(set(drawn)) <= 1 + found["sampled"] + 32  # the first, the cohorts, those that are validated
    assert found["server_s_per_client"] > 0 and found["start_s"] > 0
    assert found["grown_mb"] < 30
