"""Whole runs with workers: what they come to is what one process comes to, and what can't be started ends them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedtalk.callbacks.aggregation import ISFA, FedAvg
from fedtalk.federation.engines.ray.session import WorkerError
from fedtalk.privacy.settings import AdaptiveClipping, Privacy
from fedtalk.training.local import LocalTraining


@pytest.mark.slow
def test_a_private_run_keeps_its_promise_with_workers(local_ray: None, parts, tmp_path: Path) -> None:
    """Secrets stay in the main process, and the clipping bound that moves there is the one that counts."""
    people = parts.people(8)
    private = Privacy(
        noise_multiplier=0.5, delta=1e-3, clip_norm=0.05, adaptive_clipping=AdaptiveClipping(), insecure_noise_seed=3
    )
    one, _ = parts.fitted(tmp_path / "one", people, FedAvg(), rounds=2, privacy=private)
    two, rounds = parts.fitted(tmp_path / "two", people, FedAvg(), rounds=2, privacy=private, workers=2)
    assert parts.same(one, two)
    assert rounds.outcomes[1].reports == [] and rounds.outcomes[1].privacy["clip_norm"] != 0.05


@pytest.mark.slow
def test_the_same_bits_for_any_number_of_workers(local_ray: None, parts, tmp_path: Path) -> None:
    """With dropout, ISFA and clients' kept optimizers; reports in the cohort's order, every step told."""
    people = parts.people()
    local = LocalTraining(steps=3, batch_size=4, learning_rate=0.05, proximal=0.1, keep_optimizer=True)
    runs = {
        workers: parts.fitted(tmp_path / str(workers), people, local=local, rounds=2, workers=workers)
        for workers in (1, 2, 4)
    }
    state, rounds = runs[1]
    for workers in (2, 4):
        other, seen = runs[workers]
        assert parts.same(state, other)
        assert sorted(seen.steps) == sorted(rounds.steps)
        for one, two in zip(rounds.outcomes, seen.outcomes, strict=True):
            assert [(r.client, r.losses, r.weight, r.identity) for r in one.reports] == [
                (r.client, r.losses, r.weight, r.identity) for r in two.reports
            ]


@pytest.mark.slow
def test_a_straggler_is_not_waited_for_once_there_are_enough(local_ray: None, parts, tmp_path: Path) -> None:
    """One of six hangs for ever and there is no deadline: five of six are enough, and its worker takes nothing more."""
    people = parts.people()
    people["client-3"].does = "hang"
    _, rounds = parts.fitted(tmp_path, people, workers=2, enough=0.8)
    for outcome in rounds.outcomes:
        assert outcome.failures == {"client-3": "Late: the round was closed with 5 of 6 updates"}
        assert [report.client for report in outcome.reports] == [name for name in people if name != "client-3"]


@pytest.mark.slow
def test_a_worker_that_cant_start_again_at_once_is_no_configuration_error(
    local_ray: None, parts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After it was killed for want of memory there may be none yet to start it in."""
    people = {**{name: parts.Person(does="die in step") for name in ("dies", "too")}, **parts.people(2)}
    rounds = parts.Kept()
    (starts := tmp_path / "starts").mkdir()
    parts.trainer(tmp_path, [ISFA(gamma=1.0), rounds], workers=2).fit(parts.Forgetful(starts), parts.People(people))
    assert [list(outcome.failures) for outcome in rounds.outcomes] == [["dies", "too"]] * 2
    assert "a worker could not start again: MemoryError" in caplog.text


@pytest.mark.slow
def test_a_worker_that_never_gets_ready_is_not_waited_for(
    local_ray: None, parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedtalk.federation.engines.ray.team.START_SECONDS", 1.0)
    with pytest.raises(
        WorkerError, match=r"ended 3 times before it was ready, the last time after 1 s of getting ready"
    ):
        parts.trainer(tmp_path, [ISFA(gamma=1.0)], workers=2).fit(parts.Stuck(), parts.People(parts.people()))
