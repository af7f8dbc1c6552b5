"""What workers are given: a placement's own numbers first, then equal parts of what there is, which never make more than it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from fedtalk.errors import ConfigurationError
from fedtalk.federation.engines.ray.resources import Share, shares, teams_of, worker_kind
from fedtalk.training.placement import SINGLE, Placement

DDP = Placement("ddp", 2)


def _shares(placements: list[Placement], workers: int, *, bounded: bool = False, **settings: Any) -> list[Share]:
    teams = teams_of(placements, workers)
    given = {"threads": None, "cores": 8.0, "gpus": 0.0, "on_gpu": False, **settings}
    found = shares(teams, **given, bounded=bounded)
    if bounded:
        assert sum(found[kind].cpus * count * kind.processes for kind, count in teams.items()) <= given["cores"]
    return [found[worker_kind(placement)] for placement in placements]


def test_what_a_process_can_do_for_each_client_needs_no_other_process() -> None:
    alike = [SINGLE, Placement(accumulate=2, precision="bf16-mixed"), Placement(optimizer="adamw", together=4)]
    assert {worker_kind(placement) for placement in alike} == {SINGLE}
    apart = [SINGLE, Placement(gpus=0.5), Placement(resources={"a": 1}), Placement(resources={"b": 1}), DDP]
    assert list(teams_of([*apart, *alike], 3).values()).count(3) == 4 and len(teams_of(apart, 3)) == 5
    assert teams_of([DDP], 3) == {DDP: 1}


def test_cores_are_shared_out_among_those_that_work_at_once() -> None:
    assert [share.threads for share in _shares([SINGLE, DDP], 4)] == [2, 2]
    assert [share.threads for share in _shares([SINGLE, DDP], 4, threads=1)] == [1, 1]
    own = _shares([Placement(processors=3), SINGLE], 1)
    assert [(share.threads, share.cpus) for share in own] == [(3, 3.0), (8, 8.0)]
    assert _shares([SINGLE], 100)[0].threads == 1


def test_on_a_cluster_no_core_is_promised_twice() -> None:
    assert _shares([SINGLE], 4, bounded=True)[0] == Share(2, 2.0, 0.0)
    assert [share.cpus for share in _shares([SINGLE, DDP], 6, bounded=True)] == [1.0, 1.0]
    assert _shares([SINGLE], 12, bounded=True)[0].cpus == pytest.approx(8 / 12, abs=1e-4)


@pytest.mark.parametrize(
    ("placements", "workers", "gpus", "expected"),
    [
        ([SINGLE], 2, 2, [1.0]),
        ([SINGLE], 1, 4, [1.0]),
        ([SINGLE], 6, 2, [0.3333]),
        ([SINGLE], 3, 2, [0.5]),
        ([DDP], 2, 2, [1.0]),
        ([DDP, SINGLE], 4, 2, [0.6, 0.2]),
        ([Placement(gpus=0.25), SINGLE], 4, 2, [0.25, 0.25]),
        ([Placement(gpus=0), SINGLE], 2, 1, [0.0, 0.5]),
    ],
)
def test_gpus_are_shared_out(placements: list[Placement], workers: int, gpus: int, expected: list[float]) -> None:
    found = [share.gpus for share in _shares(placements, workers, gpus=gpus, on_gpu=True)]
    assert found == pytest.approx(expected)
    teams = teams_of(placements, workers)
    needed = sum(found[n] * teams[worker_kind(p)] * p.processes for n, p in enumerate(placements))
    assert needed <= gpus + 1e-9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gpus": 2}, r"placement\.gpus: expected 0, a part of one, or 1 for single, got 2"),
        (
            {"kind": "ddp", "processes": 2, "gpus": 0.5},
            r"placement\.gpus: expected 0, or more than 0\.5 .* for ddp, got 0\.5",
        ),
        ({"processors": 0}, r"placement\.processors: expected at least 1, got 0"),
        ({"resources": {"GPU": 1}}, r"placement\.resources: expected custom resources .* got GPU: 1"),
        ({"resources": {"site_a": 0}}, r"placement\.resources: .* amounts above 0 .* got site_a: 0"),
    ],
)
def test_what_ray_could_not_give_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Placement(**settings)


def test_without_ray_one_process_works_and_more_say_what_to_install(
    worker_parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else find(name, *more))
    worker_parts.trainer(tmp_path, workers=1)
    for settings in ({"workers": 2}, {"default_placement": DDP}, {"default_placement": Placement(gpus=0.5)}):
        with pytest.raises(
            ConfigurationError, match=r'needs Ray, which is not installed: expected pip install "fedtalk\[ray\]"'
        ):
            worker_parts.trainer(tmp_path, **settings)
