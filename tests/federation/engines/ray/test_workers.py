"""Workers: the same bits as one process, and whatever happens to one of them costs the updates it was at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fedtalk.federation.local_work import Failure, LocalResult, LocalWork

GOOD = ["client-0", "client-1", "client-2", "client-3"]


def _same(one: LocalResult | Failure, other: LocalResult | Failure) -> bool:
    assert isinstance(one, LocalResult) and isinstance(other, LocalResult), (one, other)
    told = [replace(result.report, seconds=0.0) for result in (one, other)]
    return told[0] == told[1] and all(torch.equal(one.state[name], other.state[name]) for name in one.state)


def test_two_workers_give_the_bits_of_one_process(alone: Any, pool: Any) -> None:
    """With dropout, FedProx, measured reliability and clients' own optimizers, which come with a task and go back with it."""
    local = replace(pool.local, keep_optimizer=True)
    former = alone.results(GOOD[:1], local)[GOOD[0]].optimizer
    for side in (alone, pool):
        side.federation.client_states.save(GOOD[0], 0, {"optimizer": former})
    first, other = alone.results(GOOD, local), pool.results(GOOD, local)
    assert sorted(alone.steps) == sorted(pool.steps) and len(pool.steps) == 3 * len(GOOD)
    for name in GOOD:
        assert _same(first[name], other[name])
        theirs, ours = (found[name].optimizer["state"] for found in (first, other))
        assert all(torch.equal(theirs[n][key], ours[n][key]) for n in theirs for key in theirs[n])
    assert first[GOOD[0]].optimizer["state"][0]["step"] == 6


@pytest.mark.parametrize(("kind", "team"), [("ddp", "pool"), pytest.param("fsdp", "fsdp_pool", marks=pytest.mark.slow)])
def test_several_workers_that_take_a_client_together_give_its_adapter(
    alone: Any, request: pytest.FixtureRequest, kind: str, team: str
) -> None:
    """Up to rounding; without dropout, of which each draws its own."""
    name = f"{kind}: steady"
    one, two = alone.results([name, GOOD[0]]), request.getfixturevalue(team).results([name, GOOD[0]])
    assert isinstance(one[name], LocalResult) and isinstance(two[name], LocalResult), two[name]
    for parameter, value in one[name].state.items():
        torch.testing.assert_close(two[name].state[parameter], value, atol=1e-5, rtol=0)
        assert not torch.equal(value, alone.start[parameter])


@pytest.mark.slow
def test_what_happens_to_a_worker_costs_its_client_only(
    alone: Any, pool: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed, hanging past the deadline, raising, without its device; and then the same workers, started again, go on."""
    bad = ["die", "raise", "hang in step", "lose device", "die in step"]
    found = pool.results([*bad, *GOOD, "warn"], replace(pool.local, deadline_seconds=8.0))
    assert found.keys() == {*bad, *GOOD, "warn"}
    for name in ("die", "die in step"):
        assert str(found[name]).startswith("WorkerError: the worker that trained it ended (Actor"), found[name]
        assert "\n" not in str(found[name])
    assert str(found["raise"]) == "ArtifactError: clip 7 is damaged"
    assert str(found["lose device"]) == "RuntimeError: CUDA error: device-side assert triggered"
    assert str(found["hang in step"]).startswith("DeadlineError: client hang in step was still at work after 9.")
    assert "can't use its device any more; it is started again" in caplog.text
    assert "clip 0 is short" in caplog.text  # a worker's own warning
    expected = alone.results(GOOD)
    assert all(_same(found[name], expected[name]) for name in GOOD)


@pytest.mark.slow
def test_of_workers_that_take_a_client_together_one_may_die(pool: Any) -> None:
    found = pool.results(["ddp: die in step", "ddp: raise", "ddp: steady"])
    assert str(found["ddp: die in step"]).startswith("WorkerError: the worker that trained it ended")
    assert str(found["ddp: raise"]) == "ArtifactError: clip 7 is damaged"
    assert isinstance(found["ddp: steady"], LocalResult), found["ddp: steady"]


@pytest.mark.slow
def test_work_that_nobody_wants_any_more_is_given_up(pool: Any, caplog: pytest.LogCaptureFixture) -> None:
    """One hangs for ever, its worker is killed a little later; one ends after its step, its worker is not."""
    assert pool.results(["hang in step", *GOOD], most=len(GOOD)).keys() == set(GOOD)
    assert pool.results(GOOD).keys() == set(GOOD)
    pool.settle()
    assert caplog.text.count("a task that was given up 5 s ago; it is started again") == 1
    long = replace(pool.local, steps=1000)
    assert pool.results(["go on", "raise"], long, most=1).keys() == {"raise"}
    pool.settle()
    assert pool.results(GOOD).keys() == set(GOOD)
    assert caplog.text.count("it is started again") == 1


@pytest.mark.slow
def test_a_callback_that_fails_costs_the_clients_update(pool: Any) -> None:
    def fail(name: str, step: int, losses: dict[str, float]) -> None:
        if name == GOOD[1]:
            raise ValueError("no such monitor")

    found = dict(pool.engine.local_results(LocalWork(0, 1, pool.local), GOOD, pool.start, fail))
    assert str(found[GOOD[1]]) == "ValueError: no such monitor"
    assert all(isinstance(found[name], LocalResult) for name in GOOD if name != GOOD[1])
