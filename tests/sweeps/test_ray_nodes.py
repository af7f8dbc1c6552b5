"""Runs of a sweep as Ray's tasks: with the threads and the GPU that they are counted with."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtalk.errors import ConfigurationError
from fedtalk.sweeps import ray_nodes

ray = pytest.importorskip("ray")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One node that says to have four cores and three GPUs: Ray counts them, nothing here uses them."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    ray.init(num_cpus=4, num_gpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_each_run_has_a_gpu_to_itself_where_there_are_any(cluster: None, tmp_path: Path) -> None:
    assert ray_nodes.gpus_of_a_run() == 1
    assert ray_nodes.usable_runs(threads=1) == 3 and ray_nodes.usable_runs(threads=2) == 2
    script = "import os, sys; print(os.environ.get('CUDA_VISIBLE_DEVICES'), os.environ['OMP_NUM_THREADS']); sys.exit(7)"
    said = []
    for gpus in (0, 1):
        log = tmp_path / f"log-{gpus}.txt"
        assert ray_nodes.run_on_a_node([sys.executable, "-c", script], str(log), 2, gpus, threading.Event()) == 7
        said.append(log.read_text().split())
    assert said[0][-1] == said[1][-1] == "2"
    assert said[1][0] in ("0", "1", "2") and said[0][0] not in ("0", "1", "2")


def test_a_cluster_that_is_not_named_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigurationError, match=r"RAY_ADDRESS.*leave out --ray, "):
        ray_nodes.connect()
