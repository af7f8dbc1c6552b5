"""What goes wrong with a client costs its update, what goes wrong with too many costs the round, never the run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedtalk.callbacks.aggregation import Aggregation
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.local import LocalTraining
from fedtalk.federation.trainer import RoundCallback

FAILURES = [
    {"failure": ArtifactError("clip is damaged")},
    {"failure": RuntimeError("out of memory")},
    {"failure": OSError("disk gone")},
    {"failure": ValueError("nonsense in the file")},
    {"failure": MemoryError()},
    {"failure": KeyError("colour")},
    {"poison": float("nan")},
    {"poison": float("inf")},
]


@pytest.mark.parametrize("fault", FAILURES, ids=lambda fault: repr(next(iter(fault.values()))))
def test_a_client_that_fails_costs_its_update_only(run, people, fault: dict) -> None:
    without = run({name: people[name] for name in people if name != "bert"}, folder="without", rounds=2)
    failing = run({**people, "bert": replace(people["bert"], **fault)}, folder="failing", rounds=2)
    assert [list(outcome.failures) for outcome in failing.recorder.outcomes] == [["bert"]] * 2
    assert [report.client for report in failing.recorder.outcomes[0].reports] == ["anna", "cora", "dora"]
    for name in without.state:
        assert torch.equal(without.state[name], failing.state[name])
        assert torch.isfinite(failing.state[name]).all() and failing.state[name].abs().max() > 0


def test_an_update_too_large_to_seal_costs_itself_only(run, people) -> None:
    """A finite but absurd update must not end the run when the round is sealed."""

    class Exploding(Aggregation):
        def contribution(self, update, weight):
            vector = super().contribution(update, weight)
            return vector * 1e9 if weight == 3 / 8 else vector  # bert's, who has three clips

    without = run({name: people[name] for name in people if name != "bert"}, folder="without")
    exploding = run(people, Exploding(gamma=0.0), folder="exploding")
    assert "fixed-point range" in exploding.recorder.outcomes[0].failures["bert"]
    assert all(torch.equal(without.state[name], exploding.state[name]) for name in without.state)


def test_a_client_that_cant_be_measured_is_left_out_of_the_measurement_only(run, people, caplog) -> None:
    """A damaged held-out clip ends neither the run nor the measurement of the others."""
    measured = []

    class Keep(RoundCallback):
        def on_held_out(self, trainer, module, round_number, metrics) -> None:
            measured.append(metrics)

    broken = {**people, "bert": replace(people["bert"], held_out_failure=ArtifactError("clip 9 is damaged"))}
    run(
        {name: people[name] for name in people if name != "bert"},
        folder="without",
        callbacks=[Keep()],
        validate_every=1,
    )
    got = run(broken, folder="broken", callbacks=[Keep()], validate_every=1)
    assert [report.client for report in got.recorder.outcomes[0].reports] == list(people)
    assert "client bert could not be measured" in caplog.text and "clip 9 is damaged" in caplog.text
    assert set(measured[0]) == set(measured[1]) == {"loss", "first", "second"}
    assert 0 < measured[1]["loss"] < 2 * measured[0]["loss"]  # a mean over three, not a sum over four


def test_validating_nobody_is_an_error(run, people, colour_data, colours) -> None:
    got = run(people)
    broken = {name: replace(person, held_out_failure=OSError("gone")) for name, person in people.items()}
    with pytest.raises(ArtifactError, match="none of the clients could be measured"):
        got.trainer.validate(colours(), colour_data(broken))
    assert set(got.trainer.validate(colours(), colour_data(people))[0]) == {"loss", "first", "second"}


def test_the_failure_says_what_happened(run, people, caplog: pytest.LogCaptureFixture) -> None:
    got = run({**people, "bert": replace(people["bert"], failure=ArtifactError("clip 7 is damaged"))})
    assert got.recorder.outcomes[0].failures == {"bert": "ArtifactError: clip 7 is damaged"}
    assert "client bert failed and is left out: clip 7 is damaged" in caplog.text


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_too_few_survivors_void_the_round_and_change_nothing(run, people, optimizer: str) -> None:
    from fedtalk.federation.server import ServerOptimizer

    broken = {name: replace(people[name], failure=OSError("gone")) for name in ("anna", "bert", "cora")}
    aggregation = Aggregation(gamma=0.0, server_optimizer=ServerOptimizer(optimizer, 0.1))
    got = run({**people, **broken}, aggregation, minimum_clients=2, rounds=3)
    assert got.trainer.round_number == 3
    for state in got.recorder.states:
        assert all(torch.equal(value, torch.zeros_like(value)) for value in state.values())
    enough = run({**people, **broken}, Aggregation(gamma=0.0), minimum_clients=1, folder="enough")
    assert enough.state["second"].abs().max() > 0


def test_an_empty_cohort_is_a_round_without_effect(run, people) -> None:
    got = run(people, cohort=PoissonCohort(0.02), rounds=2)
    assert [outcome.cohort for outcome in got.recorder.outcomes] == [[], []]
    assert all(torch.equal(value, torch.zeros_like(value)) for value in got.state.values())


def test_a_void_round_leaves_later_rounds_as_they_would_be(run, people) -> None:
    """Randomness belongs to (seed, round, client): what failed before does not shift it."""
    through = run({"anna": people["anna"]}, folder="through", rounds=1).recorder.outcomes[0].reports[0].losses
    other = {"bert": replace(people["bert"], failure=OSError("gone")), "anna": people["anna"]}
    assert run(other, folder="other", rounds=1).recorder.outcomes[0].reports[0].losses == through


def test_a_user_who_interrupts_is_obeyed(run, people) -> None:
    with pytest.raises(KeyboardInterrupt):
        run({**people, "bert": replace(people["bert"], failure=KeyboardInterrupt())})


def test_a_client_without_clips_is_left_out(run, people) -> None:
    got = run({**people, "bert": replace(people["bert"], clips=0)})
    assert "client bert has no training clips" in got.recorder.outcomes[0].failures["bert"]


def test_a_failed_client_keeps_no_optimizer(run, people) -> None:
    local = LocalTraining(steps=2, batch_size=2, keep_optimizer=True)
    got = run({**people, "bert": replace(people["bert"], failure=OSError("gone"))}, local=local)
    assert sorted(got.trainer.kept_optimizers) == ["anna", "cora", "dora"]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"rounds": -1}, r"trainer\.rounds"),
        ({"minimum_clients": 0}, r"trainer\.minimum_clients"),
        ({"callbacks": [Aggregation()], "aggregation": Aggregation()}, r"trainer\.callbacks"),
    ],
)
def test_wrong_trainer_settings_name_their_key(run, people, settings: dict, key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{key}: expected .*got"):
        run(people, **settings)
