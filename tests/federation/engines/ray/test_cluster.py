"""Ray on several nodes, here all of them on this machine's loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedtalk.errors import ConfigurationError
from fedtalk.federation.engines.ray.session import check_alone, open_session

pytest.importorskip("ray")


@pytest.mark.timeout(1100)
@pytest.mark.slow
def test_a_lost_node_costs_updates_and_another_one_is_used(tmp_path: Path) -> None:
    script = Path(__file__).with_name("cluster_fit.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads((tmp_path / "told.json").read_text())
    before, during, after = told["failures"]
    assert before == {} == after
    assert 1 <= len(during) <= 2  # of the single worker there, and of the pair where that had a process there too
    assert all("WorkerError: the worker that trained it ended" in failure for failure in during.values())
    assert told["ready"] == [3, 3, 3]
    assert "it is started again" in done.stderr


def test_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    check_alone()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="expected fedtalk to be started once, got 2 processes of torchrun"):
        check_alone()


def test_rays_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ConfigurationError, match=r"RAY_ADDRESS: expected host:port .*got ray://head:10001"):
        open_session([])
