"""Clients whose mutual masks are left out change no sum: the benchmark checks every one."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.mark.parametrize("measured", ["2", "100"])
def test_the_benchmark_checks_its_sums(
    measured: str,
    load_script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = "--clients 30 --dim 100 --repeats 1 --json --measured"
    monkeypatch.setattr("sys.argv", ["bench_secagg.py", *arguments.split(), measured])
    load_script("bench_secagg").main()
    result = json.loads(capsys.readouterr().out)
    assert result["dropped"] == 3 and result["measured"] == min(27, int(measured))
    assert result["client_s"] > 0 and result["server_s_dropout"] > 0
