"""What goes wrong with a client costs its update, what goes wrong with too many costs the round, never the run."""

from __future__ import annotations

import gc
import itertools
import math
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.callbacks.base import RoundCallback
from fedtalk.errors import ArtifactError, ConfigurationError, FedTalkError
from fedtalk.federation.client import ClientHalf
from fedtalk.federation.cohort import CohortSampler, PoissonCohort
from fedtalk.privacy.rounds import ClearRounds
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy
from fedtalk.training.local import LocalTraining

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


class Rounds(RoundCallback):
    """Keeps what rounds came to, also of a run that ends with an error."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.states: list[dict] = []

    def on_round_end(self, trainer, module, outcome) -> None:
        self.numbers.append(outcome.round_number)
        self.states.append({name: value.detach().clone() for name, value in module.exchanged_parameters().items()})


@pytest.mark.parametrize("fault", FAILURES, ids=lambda fault: repr(next(iter(fault.values()))))
def test_a_client_that_fails_costs_its_update_only(run, people, fault: dict) -> None:
    without = run({name: people[name] for name in people if name != "bert"}, folder="without", rounds=2)
    failing = run({**people, "bert": replace(people["bert"], **fault)}, folder="failing", rounds=2)
    assert [list(outcome.failures) for outcome in failing.recorder.outcomes] == [["bert"]] * 2
    assert [report.client for report in failing.recorder.outcomes[0].reports] == ["anna", "cora", "dora"]
    for name in without.state:
        assert torch.equal(without.state[name], failing.state[name])
        assert torch.isfinite(failing.state[name]).all() and failing.state[name].abs().max() > 0


def test_an_update_too_large_to_seal_costs_itself_only(run, people, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finite but absurd update must not end the run when the round is sealed."""

    vector = ClearRounds.vector

    def exploding_vector(self: ClearRounds, update: np.ndarray, weight: float) -> np.ndarray:
        return vector(self, update, weight) * (1e9 if weight == 3 / 8 else 1)  # bert's, who has three clips

    without = run({name: people[name] for name in people if name != "bert"}, folder="without")
    monkeypatch.setattr(ClearRounds, "vector", exploding_vector)
    exploding = run(people, folder="exploding")
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


def test_no_more_clients_are_measured_than_asked(run, people, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    prepared = ClientHalf.prepared

    def watching(self: ClientHalf, client: str, held_out: bool = False) -> list:
        if held_out:
            opened.append(client)
        return prepared(self, client, held_out)

    monkeypatch.setattr(ClientHalf, "prepared", watching)
    got = run(people, validate_every=1, rounds=2, validate_clients=2)
    assert got.trainer.round_number == 2 and len(set(opened)) == 2 and opened[:2] == opened[2:]


def test_validating_nobody_is_an_error(run, people, colour_data, colours) -> None:
    got = run(people)
    broken = {name: replace(person, held_out_failure=OSError("gone")) for name, person in people.items()}
    with pytest.raises(ArtifactError, match="none of the clients could be measured"):
        got.trainer.validate(colours(), colour_data(broken))
    assert set(got.trainer.validate(colours(), colour_data(people))[0]) == {"loss", "first", "second"}


def test_the_failure_says_what_happened(run, people, caplog: pytest.LogCaptureFixture) -> None:
    got = run({**people, "bert": replace(people["bert"], failure=ArtifactError("clip 7 is damaged"))})
    assert got.recorder.outcomes[0].failures == {"bert": "ArtifactError: clip 7 is damaged"}
    assert "client bert failed and is left out: ArtifactError: clip 7 is damaged" in caplog.text


def test_an_error_without_words_is_named(run, people, caplog: pytest.LogCaptureFixture) -> None:
    failing = {**people, "bert": replace(people["bert"], failure=MemoryError(), held_out_failure=MemoryError())}
    got = run(failing, ISFA(gamma=0.0), validate_every=1)
    assert got.recorder.outcomes[0].failures == {"bert": "MemoryError"}
    assert "client bert failed and is left out: MemoryError\n" in caplog.text
    assert "client bert could not be measured: MemoryError\n" in caplog.text


def test_the_memory_of_a_failed_step_is_free_for_the_next_client(run, people) -> None:
    """Else one client that runs out of memory takes everybody after it along."""
    activations, held = [], []

    class Watch(RoundCallback):
        def on_local_step(self, trainer, client, step, steps, losses) -> None:
            if client == "bert":
                activation = torch.empty(1000)
                activations.append(weakref.ref(activation))
                raise torch.OutOfMemoryError("CUDA out of memory")
            if activations:
                held.append(activations[0]() is not None)

    gc.disable()
    try:
        run(people, callbacks=[Watch()])
    finally:
        gc.enable()
    assert len(held) == 6 and not any(held)


@pytest.mark.parametrize("allocate", [lambda: torch.empty(10**15), lambda: bytearray(10**16)], ids=["torch", "python"])
def test_an_allocation_that_really_fails_costs_one_update(run, people, allocate) -> None:
    class Allocate(RoundCallback):
        def on_local_step(self, trainer, client, step, steps, losses) -> None:
            if client == "bert":
                allocate()

    without = run({name: people[name] for name in people if name != "bert"}, folder="without")
    failing = run(people, folder="failing", callbacks=[Allocate()])
    assert list(failing.recorder.outcomes[0].failures) == ["bert"]
    assert all(torch.equal(without.state[name], failing.state[name]) for name in without.state)


@pytest.mark.parametrize("measured", [{"identity": math.nan}, {"stability": math.inf}, {"quality": math.nan}], ids=repr)
@pytest.mark.parametrize("privacy", [None, Privacy(assumptions=Assumptions(0.0, 0.3))], ids=["clear", "private"])
def test_a_reliability_that_is_no_number_costs_its_client(run, people, measured: dict, privacy) -> None:
    """Under privacy a weight is held within [0, 1], which nan and inf must not pass for."""
    scores = "quality" if "quality" in measured else "paper"
    got = run({**people, "bert": replace(people["bert"], **measured)}, ISFA(gamma=1.0, scores=scores), privacy=privacy)
    assert list(got.recorder.outcomes[0].failures) == ["bert"]


def test_held_out_metrics_that_are_not_finite_are_left_out(run, people, caplog: pytest.LogCaptureFixture) -> None:
    measured = []

    class Keep(RoundCallback):
        def on_held_out(self, trainer, module, round_number, metrics) -> None:
            measured.append(metrics)

    run({**people, "bert": replace(people["bert"], poison=math.nan)}, callbacks=[Keep()], validate_every=1)
    assert all(math.isfinite(value) for value in measured[0].values())
    assert "client bert could not be measured: ArtifactError: expected finite metrics" in caplog.text


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_too_few_survivors_void_the_round_and_change_nothing(run, people, optimizer: str) -> None:
    from fedtalk.federation.server import ServerOptimizer

    broken = {name: replace(people[name], failure=OSError("gone")) for name in ("anna", "bert", "cora")}
    aggregation = ISFA(gamma=0.0, server_optimizer=ServerOptimizer(optimizer, 0.1))
    record = Rounds()
    with pytest.raises(FedTalkError, match="none of the 3 rounds gave an update"):
        run({**people, **broken}, aggregation, minimum_clients=2, rounds=3, callbacks=[record])
    assert record.numbers == [0, 1, 2]
    for state in record.states:
        assert all(torch.equal(value, torch.zeros_like(value)) for value in state.values())
    enough = run({**people, **broken}, ISFA(gamma=0.0), minimum_clients=1, folder="enough")
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


def test_a_client_that_fails_in_mid_step_leaves_no_dropout_on(run, people) -> None:
    """The last of the cohort fails while it trains; what is measured next must not see training mode."""
    modes = []

    class Fail(RoundCallback):
        def on_local_step(self, trainer, client, step, steps, losses) -> None:
            if client == "dora":
                raise MemoryError

        def on_round_end(self, trainer, module, outcome) -> None:
            modes.append(module.training)

    run(people, callbacks=[Fail()])
    assert modes == [False]


def test_a_fit_without_any_update_ends_with_the_last_failures(run, people) -> None:
    broken = {name: replace(person, failure=OSError(f"{name}'s disk is gone")) for name, person in people.items()}
    record = Rounds()
    with pytest.raises(FedTalkError) as error:
        run(broken, rounds=2, callbacks=[record])
    assert record.numbers == [0, 1]  # it went on as long as there were rounds
    text = str(error.value)
    assert "OSError: anna's disk is gone" in text and "cora's" in text and "and 1 more" in text
    with pytest.raises(FedTalkError, match="none of the 2 rounds gave an update"):
        run(broken, rounds=2, ckpt_path="last")  # asked again, it does not call itself done


def test_one_update_in_any_round_is_enough(run, people, tmp_path) -> None:
    run(people, rounds=1)
    broken = {name: replace(person, failure=OSError("gone")) for name, person in people.items()}
    assert run(broken, rounds=2, ckpt_path="last").trainer.round_number == 2


def test_a_configuration_that_no_client_can_train_with_ends_the_run_at_once(run, people) -> None:
    wrong = ConfigurationError("model.window: expected at most 12 frames, got 16")
    broken = {name: replace(person, failure=wrong) for name, person in people.items()}
    record = Rounds()
    with pytest.raises(ConfigurationError, match=r"in round 0 anna: model\.window: expected at most 12 frames, got 16"):
        run(broken, rounds=3, callbacks=[record])
    assert record.numbers == []


def test_a_configuration_that_does_not_suit_one_client_costs_it_alone(run, people) -> None:
    wrong = replace(people["bert"], failure=ConfigurationError("clips of 9 frames, the window is 16"))
    got = run({**people, "bert": wrong}, rounds=2)
    assert [list(outcome.failures) for outcome in got.recorder.outcomes] == [["bert"]] * 2

    class BertAlone(CohortSampler):
        def draw(self, seed, round_number, clients):
            return ["bert"] if round_number == 0 else list(clients)

    alone = run({**people, "bert": wrong}, rounds=2, cohort=BertAlone(), folder="alone")
    assert len(alone.recorder.outcomes[1].reports) == 3


def test_a_client_past_its_deadline_costs_its_update_only(run, people) -> None:
    """bert hangs in his second step; the others' updates are those of a run without him."""
    without = run({name: people[name] for name in people if name != "bert"}, folder="without")
    steps = []

    class Hang(RoundCallback):
        def on_local_step(self, trainer, client, step, steps_, losses) -> None:
            steps.append((client, step))
            if client == "bert" and step == 1:
                time.sleep(allowed + 0.2)

    allowed = 1.0  # the others take milliseconds, on a busy machine tens of them
    local = LocalTraining(steps=3, batch_size=2, learning_rate=0.05, deadline_seconds=allowed)
    hung = run(people, folder="hung", local=local, callbacks=[Hang()])
    failure = hung.recorder.outcomes[0].failures["bert"]
    assert "DeadlineError" in failure and "local.deadline_seconds=1" in failure and "step 2 of 3" in failure
    assert ("bert", 2) not in steps and ("dora", 2) in steps
    assert all(torch.equal(without.state[name], hung.state[name]) for name in without.state)


def test_a_jump_of_the_systems_clock_changes_nothing(run, people, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day ahead and back at every other look: neither deadlines nor reported seconds see it."""
    clock, looks = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: clock() + 86_400 * (next(looks) % 2))
    local = LocalTraining(steps=3, batch_size=2, deadline_seconds=60.0)
    got = run(people, local=local)
    outcome = got.recorder.outcomes[0]
    assert outcome.failures == {} and 0 < outcome.seconds < 86_400 / 2
    assert all(0 < report.seconds < 86_400 / 2 for report in outcome.reports)


def test_a_user_who_interrupts_is_obeyed(run, people) -> None:
    with pytest.raises(KeyboardInterrupt):
        run({**people, "bert": replace(people["bert"], failure=KeyboardInterrupt())})


def test_a_client_without_clips_is_left_out(run, people) -> None:
    got = run({**people, "bert": replace(people["bert"], clips=0)})
    assert "client bert has no training clips" in got.recorder.outcomes[0].failures["bert"]


def test_a_failed_client_keeps_no_optimizer(run, people) -> None:
    local = LocalTraining(steps=2, batch_size=2, keep_optimizer=True)
    got = run({**people, "bert": replace(people["bert"], failure=OSError("gone"))}, local=local)
    assert sorted(path.name for path in (got.trainer.run_dir / "clients").iterdir()) == ["anna", "cora", "dora"]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"rounds": -1}, r"trainer\.rounds"),
        ({"minimum_clients": 0}, r"trainer\.minimum_clients"),
        ({"validate_clients": 0}, r"trainer\.validate_clients"),
        ({"callbacks": [ISFA()]}, r"trainer\.callbacks"),
    ],
)
def test_wrong_trainer_settings_name_their_key(run, people, settings: dict, key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{key}: expected .*got"):
        run(people, **settings)
