"""Whole runs under secure aggregation and differential privacy: what comes out, what never leaves, what is refused."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtalk.callbacks import ISFA, FedAvg, isfa_weight
from fedtalk.callbacks.base import RoundCallback
from fedtalk.callbacks.export import Export
from fedtalk.callbacks.video import Videos
from fedtalk.errors import ArtifactError, ConfigurationError, FedTalkError
from fedtalk.federation.cohort import FixedCohort, PoissonCohort, RotatingCohort
from fedtalk.privacy import private_rounds as private_rounds_module
from fedtalk.privacy.accounting import gaussian_epsilon, rdp_epsilon
from fedtalk.privacy.aggregators import Masked
from fedtalk.privacy.clipping import AdaptiveClipping, clip
from fedtalk.privacy.ledger import BudgetSpent, Ledger
from fedtalk.privacy.participation import ParticipationRefused
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.sealed_rounds import AggregationTask
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy
from fedtalk.training.local import LocalTraining

LOCAL = LocalTraining(steps=3, batch_size=2, learning_rate=0.05)
SEALED = {"clip_norm": 5.0, "assumptions": Assumptions(0.0, 0.3)}
NOISED = {**SEALED, "noise_multiplier": 2.0, "delta": 1e-2, "accountant": "rdp"}


def _flat(state: dict[str, torch.Tensor]) -> np.ndarray:
    return np.concatenate([state[name].double().numpy().ravel() for name in ("first", "second")])


def _task(folder: Path, **changes: object) -> AggregationTask:
    values: dict = {
        "dimension": 12, "parameters": ["lora_B"], "clients": [f"c{n}" for n in range(12)], "sampler": PoissonCohort(1.0),
        "rounds": 3, "minimum_clients": 3, "seed": 0, "folder": folder,
    }  # fmt: skip
    return AggregationTask(**{**values, **changes})


# Secure aggregation alone


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_a_secure_round_is_clear_isfa_to_within_the_quantisation(run, people, gamma: float) -> None:
    clear = run(people, ISFA(gamma=gamma), folder="clear", rounds=2)
    secure = run(people, ISFA(gamma=gamma), privacy=Privacy(**SEALED), folder="secure", rounds=2)
    np.testing.assert_allclose(_flat(secure.state), _flat(clear.state), atol=2e-3)
    assert np.abs(_flat(clear.state)).max() > 0.05  # or nothing was tested


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_score_private_isfa_equals_clear_isfa_for_any_cohort(data: st.DataObject, tmp_path: Path) -> None:
    """Random cohorts, clips, scores, updates, bounds and dropouts; the paper's weighted mean is the oracle.

    The bound: each coordinate of each of n vectors is rounded by less than one step, so a sum's error has an L2 norm of at
    most n sqrt(d) steps, over the sum of weights, twice: in the update and through the weight.
    """
    count = data.draw(st.integers(3, 12))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    gamma, bound = data.draw(st.floats(0, 2)), data.draw(st.floats(0.01, 100))
    names = [f"c{number}" for number in range(count)]
    rounds = PrivateRounds(Privacy(clip_norm=bound, assumptions=Assumptions(0.0, 0.3)), _task(tmp_path, clients=names))
    dropped = data.draw(st.integers(0, min(count - 3, int(0.3 * count + 1e-9))))
    clips, scores = generator.integers(1, 9, count), generator.random(count)
    updates = generator.normal(0, 1, (count, 12))
    updates *= bound * generator.random((count, 1)) / np.linalg.norm(updates, axis=1, keepdims=True)

    survivors = sorted(generator.permutation(count)[dropped:])
    sealing = rounds.open_round(0, names, [names[k] for k in survivors])
    sealed = [
        sealing.seal(names[k], rounds.vector(updates[k], isfa_weight(int(clips[k]), 8, float(scores[k]), gamma)))
        for k in survivors
    ]
    total = rounds.released(sealing.open_sum(sealed))

    weights = clips[survivors] * np.exp(gamma * scores[survivors])
    expected = weights @ updates[survivors] / weights.sum()
    own = sum(isfa_weight(int(clips[k]), 8, float(scores[k]), gamma) for k in survivors)
    allowed = 2.1 * len(survivors) * np.sqrt(13) * rounds.mechanism.step * bound / own
    assert np.linalg.norm(total[:-1] / total[-1] - expected) <= allowed


def test_a_failed_client_goes_through_the_protocols_dropout(run, people) -> None:
    """Its masks are in the survivors' vectors; the sum is right only if they were recovered."""
    failing = {**people, "bert": replace(people["bert"], failure=OSError("gone"))}
    without = run({name: people[name] for name in people if name != "bert"}, ISFA(gamma=1.0), folder="without")
    secure = run(failing, ISFA(gamma=1.0), privacy=Privacy(**SEALED), folder="secure")
    np.testing.assert_allclose(_flat(secure.state), _flat(without.state), atol=2e-3)


def test_too_few_survivors_void_the_round_and_not_the_run(run, people, caplog: pytest.LogCaptureFixture) -> None:
    broken = {name: replace(people[name], failure=OSError("gone")) for name in ("anna", "bert")}
    watch = _Watch()
    with pytest.raises(FedTalkError, match="none of the 2 rounds gave an update"):
        run({**people, **broken}, ISFA(), privacy=Privacy(**SEALED), callbacks=[watch], rounds=2)
    assert len(watch.outcomes) == 2 and all(outcome.update_norm == 0 for outcome in watch.outcomes)
    assert "round 0 is void: 2 of 4 updates, 3 needed" in caplog.text


def test_a_secure_run_without_noise_is_the_same_to_the_bit_and_when_killed(run, people, tmp_path: Path) -> None:
    def private() -> dict:
        return {"aggregation": ISFA(gamma=1.0), "privacy": Privacy(**SEALED)}

    through, again = run(people, **private(), folder="one", rounds=3), run(people, **private(), folder="two", rounds=3)
    run(people, **private(), folder="killed", rounds=2)
    resumed = run(people, **private(), folder="killed", rounds=3, ckpt_path="last")
    for other in (again, resumed):
        assert np.array_equal(_flat(through.state), _flat(other.state))


def test_an_update_above_the_bound_is_clipped(run, people, clear_updates) -> None:
    updates = clear_updates(people, LOCAL)
    got = run(people, FedAvg(), privacy=Privacy(**{**SEALED, "clip_norm": 0.05}), local=LOCAL)
    weights = np.array([people[name].clips for name in people])
    assert min(np.linalg.norm(updates[name]) for name in people) > 0.05
    expected = sum(w * clip(updates[name], 0.05) for w, name in zip(weights, people, strict=True)) / weights.sum()
    np.testing.assert_allclose(_flat(got.state), expected, atol=5e-5)


# Nothing clear leaves


class _Watch(RoundCallback):
    """Keeps whatever the trainer tells its callbacks."""

    def __init__(self) -> None:
        self.losses: list[dict] = []
        self.outcomes: list = []

    def on_local_step(self, trainer, client, step, steps, losses) -> None:  # type: ignore[no-untyped-def, override]
        self.losses.append(losses)

    def on_round_end(self, trainer, module, outcome) -> None:  # type: ignore[no-untyped-def, override]
        self.outcomes.append(outcome)


@pytest.mark.parametrize("privacy", [SEALED, NOISED], ids=["sealed", "noised"])
def test_no_number_score_loss_or_reason_leaves_a_client(run, people, privacy: dict, tmp_path: Path, capsys) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    more = {f"more{n}": replace(people["anna"], quality=0.31) for n in range(6)}
    crowd = {**people, **more, "bert": replace(people["bert"], failure=OSError("a secret of bert's"))}
    watch = _Watch()
    run(crowd, ISFA(gamma=2.0), privacy=Privacy(**privacy), callbacks=[watch], rounds=2)
    assert all(losses == {} for losses in watch.losses) and len(watch.losses) == 2 * 9 * 3
    for outcome in watch.outcomes:
        assert outcome.reports == [] and outcome.failures == {"bert": "dropped out"}
    allowed = {"clip_norm", "weight_sum"}
    if privacy is NOISED:
        allowed |= {
            "epsilon_adapters_prv",
            "epsilon_adapters_rdp",
            "epsilon_server_and_sites",
            "delta",
            "signal_to_noise_at_most",
        }
    assert set(watch.outcomes[0].privacy) == allowed
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    tags = {tag for tags in events.Tags().values() if isinstance(tags, list) for tag in tags}
    assert tags == {"round/update_norm", *(f"privacy/{name}" for name in allowed)}
    output = capsys.readouterr()
    assert "loss" not in output.err and "secret" not in output.err
    if privacy is NOISED:  # an epsilon without its adversary says nothing
        assert "against whoever sees the adapters, " in output.err
        assert "against server and sites (no sampling)" in output.err
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["keep_optimizer"] is False
    assert saved["faults"] == {"updates": 2, "updated_rounds": 2, "last_failures": {"bert": "dropped out"}}
    assert set(saved) == {
        "fedtalk", "round", "seed", "server", "keep_optimizer", "faults", "aggregation", "made_for", "meaning", "callbacks",
    }  # fmt: skip


def test_a_sealed_vector_says_nothing_about_its_client(tmp_path: Path) -> None:
    """Two extreme clients' messages are as uniform as each other: chi-square on the bytes, false alarm 1e-6."""
    from scipy.stats import chi2

    rounds = PrivateRounds(Privacy(**SEALED), _task(tmp_path, dimension=8000))
    names = rounds.task.clients
    sealing = rounds.open_round(0, names, names)
    for name, value in (("c0", 0.0), ("c1", 5 / np.sqrt(8000))):
        update = sealing.seal(name, rounds.vector(np.full(8000, value), 1.0))
        body = np.frombuffer(update.payload, np.uint8)[256:-256]
        counts = np.bincount(body, minlength=256)
        statistic = ((counts - len(body) / 256) ** 2 / (len(body) / 256)).sum()
        assert chi2.ppf(1e-6, 255) < statistic < chi2.ppf(1 - 1e-6, 255)


# Noise


@pytest.mark.parametrize(
    "settings_", [{"where": "distributed"}, {"where": "central"}, {"where": "central", "secure_aggregation": False}]
)
@pytest.mark.parametrize("dropped", [0, 3])
def test_the_opened_sum_carries_the_accounted_noise(settings_: dict, dropped: int, tmp_path: Path) -> None:
    """Through the real protocol, 0 or 3 of 12 dropping out: mean zero, the released deviation, at least the ledger's.

    Power: 20 000 numbers give the variance to 1 %; the window of 4.9 errors would miss a missing share (1 of 9 or more:
    11 % less) with probability below 1e-9.
    """
    dimension = 20_000
    rounds = PrivateRounds(Privacy(**{**NOISED, **settings_}), _task(tmp_path, dimension=dimension))
    names = list(rounds.task.clients)
    sealing = rounds.open_round(0, names, names[dropped:])
    total = sealing.open_sum([sealing.seal(name, rounds.vector(np.zeros(dimension), 1.0)) for name in names[dropped:]])
    noise = total[:dimension]
    deviation = rounds.mechanism.released_deviation
    window = 4.9 * np.sqrt(2 / dimension)
    assert np.mean(noise**2) == pytest.approx(deviation**2, rel=window)
    assert abs(noise.mean()) < 4.9 * deviation / np.sqrt(dimension)
    assert deviation >= 2.0 * np.sqrt(2) and total[dimension] == pytest.approx(12 - dropped, abs=4.9 * deviation)


def test_the_vector_is_what_the_sensitivity_proof_says(tmp_path: Path) -> None:
    """||u|| <= B = sqrt(2 + (c/2)^2) for any update, weight and count, and reached."""
    adaptive = Privacy(**{**NOISED, "adaptive_clipping": AdaptiveClipping(count_deviation=1.5)})
    for privacy, bound in ((Privacy(**NOISED), np.sqrt(2)), (adaptive, None)):
        rounds = PrivateRounds(privacy, _task(tmp_path))
        bound = bound or rounds.mechanism.norm_bound
        norms = [
            np.linalg.norm(rounds.vector(scale * np.ones(12), weight))
            for scale in (0.0, 0.01, 5 / np.sqrt(12), 1e6)
            for weight in (0.0, 0.3, 1.0, 7.0)  # a weight above 1 is a client's error and is cut off
        ]
        assert max(norms) == pytest.approx(bound, rel=1e-9)
    # the count's noise: z B / c = sigma_b, and the updates': z B / sqrt(2) = z_delta
    scale = 2 * np.sqrt(bound**2 - 2)
    assert 2.0 * bound / scale == pytest.approx(1.5)
    assert (2.0 * bound / np.sqrt(2)) ** -2 + 3.0**-2 == pytest.approx(2.0**-2)


def test_the_adaptive_bound_follows_the_updates(run, people) -> None:
    crowd = {f"{name}{n}": person for n in range(5) for name, person in people.items()}
    adaptive = AdaptiveClipping(rate=1.0)
    privacy = {**NOISED, "clip_norm": 50.0, "noise_multiplier": 0.7, "delta": 1e-3, "adaptive_clipping": adaptive}
    got = run(crowd, ISFA(), privacy=Privacy(**privacy), rounds=3)
    norms = [outcome.privacy["clip_norm"] for outcome in got.recorder.outcomes]
    assert norms[0] == 50.0 and norms == sorted(norms, reverse=True) and norms[2] < 25


def test_a_small_denominator_does_not_blow_up_the_noise(tmp_path: Path) -> None:
    rounds = PrivateRounds(Privacy(**NOISED), _task(tmp_path))
    deviation = rounds.mechanism.released_deviation
    for weight in (-3.0, 0.0, 1e-9):
        released = rounds.released(np.append(np.ones(12), weight))
        assert released[-1] == deviation and np.abs(released[:-1] / released[-1]).max() < 5 / deviation * 1.001
    assert rounds.released(np.append(np.ones(12), 1e3))[-1] == 1e3
    assert rounds.report["signal_to_noise_at_most"] == pytest.approx(1e3 / deviation / np.sqrt(12))


def test_noise_differs_from_run_to_run_unless_insecurely_seeded(run, people, caplog: pytest.LogCaptureFixture) -> None:
    def state(folder: str, **settings_: object) -> np.ndarray:
        crowd = {f"{name}{n}": people[name] for n in range(3) for name in people}
        return _flat(run(crowd, ISFA(), privacy=Privacy(**{**NOISED, **settings_}), folder=folder).state)

    assert np.abs(state("one") - state("two")).max() > 1e-3
    assert "INSECURE" not in caplog.text
    assert np.array_equal(state("three", insecure_noise_seed=7), state("four", insecure_noise_seed=7))
    assert "INSECURE" in caplog.text and "protects nobody" in caplog.text
    assert np.abs(state("three again", insecure_noise_seed=7) - state("five", insecure_noise_seed=8)).max() > 1e-3


# The ledger


class _Killed(BaseException):
    pass


def _crowd(people: dict) -> dict:
    return {f"{name}{n}": people[name] for n in range(3) for name in people}


def _seeded(**changes: object) -> dict:
    privacy = Privacy(**{**NOISED, "insecure_noise_seed": 3, **changes})
    return {"aggregation": ISFA(gamma=1.0), "privacy": privacy}


def test_every_round_is_told_with_its_epsilon(run, people, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fedtalk")
    run(_crowd(people), **_seeded(), rounds=2)
    lines = [message for message in caplog.messages if message.startswith("privacy: epsilon")]
    assert len(lines) == 4 and all("delta 0.01" in line and "INSECURE" in line for line in lines)
    adapters, rosters = lines[::2], lines[1::2]
    assert all("against whoever sees the adapters" in line for line in adapters)
    assert all(
        "adjacency: what a client contributes, or nothing" in line for line in adapters
    )  # at rate 1 all take part
    assert all("against server and sites (no sampling)" in line for line in rosters)
    assert "after 1 rounds" in adapters[0] and "after 2 rounds" in adapters[1] and "in 2 of 2 rounds" in rosters[1]


def test_the_run_stops_before_it_would_overspend(run, people, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fedtalk")
    budget = rdp_epsilon([(2.0, 1.0, 2)], 1e-2) + 0.01
    got = run(_crowd(people), **_seeded(epsilon_budget=budget), rounds=5)
    assert got.trainer.round_number == 2 and len(got.recorder.outcomes) == 2
    assert got.recorder.outcomes[-1].privacy["epsilon_adapters_rdp"] <= budget
    assert "stopped after 2 rounds: another one would take epsilon to" in caplog.text
    again = run(_crowd(people), **_seeded(epsilon_budget=budget), rounds=5, ckpt_path="last")
    assert again.recorder.outcomes == []  # and resuming doesn't get round it


def test_a_round_for_which_another_copy_left_nothing_is_not_released(
    run, people, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the second round is trained, a copy of the folder charges the last round that the budget has."""
    budget = rdp_epsilon([(2.0, 1.0, 2)], 1e-2) + 0.01
    opened, charge = [], PrivateRounds.charge
    released = PrivateRounds.released

    def charged_elsewhere_too(self: PrivateRounds) -> None:
        if self.ledger is not None and self.ledger.rounds == 1:
            copy = tmp_path / "copy"
            shutil.copytree(self.task.folder, copy)
            other = Ledger(self.task.sampler, self.task.clients, 2.0, 1e-2)
            other.recall(copy)
            other.charge()
            other.write(copy)
        charge(self)

    def counted(self: PrivateRounds, total: np.ndarray) -> np.ndarray:
        opened.append(total)
        return released(self, total)

    monkeypatch.setattr(PrivateRounds, "charge", charged_elsewhere_too)
    monkeypatch.setattr(PrivateRounds, "released", counted)
    with pytest.raises(BudgetSpent, match="let one copy go on at a time"):
        run(_crowd(people), **_seeded(epsilon_budget=budget), rounds=5)
    assert len(opened) == 1


def test_a_target_is_spent_by_the_last_round(run, people) -> None:
    privacy = Privacy(target_epsilon=4.0, delta=1e-2, accountant="rdp", clip_norm=1.0, assumptions=Assumptions(0, 0.3))
    got = run(_crowd(people), ISFA(), privacy=privacy, rounds=2)
    spent = [outcome.privacy["epsilon_adapters_rdp"] for outcome in got.recorder.outcomes]
    assert 0.99 * 4 < spent[1] <= 4.0 and spent[0] < spent[1]


def test_killed_and_resumed_keeps_every_charge(run, people, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the sum was opened and before the checkpoint: the round is taken, and charged, again."""
    through = run(_crowd(people), **_seeded(), folder="through", rounds=3)
    released, count = PrivateRounds.released, [0]

    def killing(self: PrivateRounds, total: np.ndarray) -> np.ndarray:
        count[0] += 1
        if count[0] == 2:
            raise _Killed
        return released(self, total)

    monkeypatch.setattr(private_rounds_module.PrivateRounds, "released", killing)
    with pytest.raises(_Killed):
        run(_crowd(people), **_seeded(), folder="killed", rounds=3)
    assert _stretches(json.loads((tmp_path / "killed" / "checkpoints" / "ledger.json").read_text())) == [(2.0, 1.0, 2)]
    resumed = run(_crowd(people), **_seeded(), folder="killed", rounds=3, ckpt_path="last")
    assert resumed.trainer.fit_rounds.sealed.ledger.rounds == 4
    assert np.array_equal(_flat(through.state), _flat(resumed.state))
    saved = torch.load(tmp_path / "killed" / "checkpoints" / "last.ckpt", weights_only=True)["aggregation"]
    assert sorted(_stretches(saved["ledger"])) == [(2.0, 1.0, 2), (2.0, 1.0, 2)] and saved["insecure_seeds"] == [3]
    for name in ("last.ckpt", "ledger.json"):
        assert (tmp_path / "killed" / "checkpoints" / name).stat().st_mode & 0o777 == 0o600


def _stretches(record: dict) -> list[tuple]:
    return [
        (stretch["noise_multiplier"], stretch["rate"], stretch["rounds"])
        for history in record["history"].values()
        for stretch in history
    ]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux to tell which file is synced")
def test_a_charge_is_on_the_disk_before_its_sum_is_opened(run, people, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger's file is renamed into place and its folder synced; only then is anything opened."""
    events: list[str] = []
    sync, opened = os.fsync, Masked.open_sum

    def syncing(handle: int) -> None:
        sync(handle)
        events.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)

    def opening(self: Masked, updates: list) -> np.ndarray:
        events.append("opened")
        return opened(self, updates)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(Masked, "open_sum", opening)
    run(_crowd(people), **_seeded(), rounds=2)
    rounds = " ".join(events).split("opened")
    assert len(rounds) == 3
    for before in rounds[:2]:
        ledger, folder = before.rindex(".part-ledger"), before.rindex("checkpoints")
        assert ledger < folder


def test_a_checkpoint_that_is_resumed_elsewhere_brings_its_folders_later_rounds(run, people, tmp_path: Path) -> None:
    """A's first checkpoint goes on in B: A's second round was released too. Then A goes on, and has B's rounds."""
    run(_crowd(people), **_seeded(), folder="a", rounds=1)
    early = tmp_path / "early.ckpt"
    shutil.copy(tmp_path / "a" / "checkpoints" / "last.ckpt", early)
    run(_crowd(people), **_seeded(), folder="a", rounds=2, ckpt_path="last")
    in_b = run(_crowd(people), **_seeded(), folder="b", rounds=3, ckpt_path=str(early))
    assert in_b.trainer.fit_rounds.sealed.ledger.rounds == 4
    in_a = run(_crowd(people), **_seeded(), folder="a", rounds=3, ckpt_path="last")
    assert in_a.trainer.fit_rounds.sealed.ledger.rounds == 5
    shutil.rmtree(tmp_path / "a")
    alone = run(_crowd(people), **_seeded(), folder="c", rounds=2, ckpt_path=str(early))
    assert alone.trainer.fit_rounds.sealed.ledger.rounds == 2, "nothing is left to be found but the checkpoint"


def test_a_client_keeps_count_itself_where_nothing_rests_on_sampling(run, people, tmp_path: Path) -> None:
    """Once in two rounds of four: two times each; no resumed checkpoint or server gets a third."""
    crowd, rotating = _crowd(people), RotatingCohort(2)
    got = run(crowd, **_seeded(), folder="turns", rounds=4, cohort=rotating)
    cohorts = [set(outcome.cohort) for outcome in got.recorder.outcomes]
    assert cohorts[0] == cohorts[2] == set(crowd) - cohorts[1] and cohorts[1] == cohorts[3]
    private = got.trainer.fit_rounds.sealed
    spent = private.ledger.spent()
    assert spent.prv == spent.no_sampling == gaussian_epsilon([(2.0, 1.0, 2)], 1e-2) == private.ledger.planned().prv
    assert not private.ledger.allows_another() and private.ledger.draw() == []
    record = tmp_path / "turns" / "checkpoints" / "participation.json"
    assert json.loads(record.read_text()) == dict.fromkeys(crowd, 2) and record.stat().st_mode & 0o777 == 0o600
    anna = next(iter(crowd))
    stubborn = PrivateRounds(private.privacy, private.task)  # of a server that knows nothing of a ledger
    assert stubborn.ledger.draw() != [] and stubborn.consenting(crowd) == []
    with pytest.raises(ParticipationRefused, match=f"client {anna} has taken part as often as it agreed to"):
        stubborn.encoding(9).elements(anna, np.zeros(10), 12)


def test_killed_before_the_first_checkpoint_is_charged_too(run, people, monkeypatch: pytest.MonkeyPatch) -> None:
    def killing(self: PrivateRounds, total: np.ndarray) -> np.ndarray:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(private_rounds_module.PrivateRounds, "released", killing)
        with pytest.raises(_Killed):
            run(_crowd(people), **_seeded(), rounds=2)
    with pytest.raises(ConfigurationError, match="would forget it"):
        run(_crowd(people), **_seeded(), rounds=2)
    resumed = run(_crowd(people), **_seeded(), rounds=2, ckpt_path="last")
    assert resumed.trainer.fit_rounds.sealed.ledger.rounds == 3


def test_a_void_round_is_charged(run, people, tmp_path: Path) -> None:
    broken = {name: replace(person, failure=OSError("gone")) for name, person in _crowd(people).items()}
    with pytest.raises(FedTalkError, match="none of the 2 rounds gave an update"):
        run(broken, **_seeded(), rounds=2)
    assert _stretches(json.loads((tmp_path / "run" / "checkpoints" / "ledger.json").read_text())) == [(2.0, 1.0, 2)]


def test_rounds_of_another_promise_are_not_continued(run, people) -> None:
    crowd = _crowd(people)
    run(crowd, ISFA(), folder="clear", rounds=1)
    with pytest.raises(ArtifactError, match="were without differential privacy"):
        run(crowd, **_seeded(), folder="clear", rounds=2, ckpt_path="last")
    run(crowd, **_seeded(), folder="noised", rounds=1)
    for other in ({}, {"privacy": Privacy(**SEALED)}):
        with pytest.raises(ConfigurationError, match="were differentially private"):
            run(crowd, **other, folder="noised", rounds=2, ckpt_path="last")


# Unsafe combinations


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"validate_every": 1}, r"trainer\.validate_every: .*expected 0 with privacy, got 1"),
        ({"local": LocalTraining(keep_optimizer=True)}, r"trainer\.local\.keep_optimizer: .*got true"),
        ({"videos": Videos()}, r"trainer\.callbacks: VideoMonitor shows"),
        ({"callbacks": [Export()]}, r"trainer\.callbacks: Export shows"),
        ({"cohort": PoissonCohort(0.1)}, r"trainer\.cohort: .*at least 3 with privacy, got 1\.2 of 12"),
        ({"cohort": FixedCohort(1)}, r"trainer\.cohort: .*at least 3 with privacy, got 1 of 12"),
    ],
)
def test_what_would_show_single_clients_is_refused(run, people, settings_: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run(_crowd(people), ISFA(), privacy=Privacy(**SEALED), **settings_)


def test_one_clients_data_cant_be_trained_privately(run, people) -> None:
    with pytest.raises(ConfigurationError, match="the sum over one client is that client's update"):
        run({"anna": people["anna"]}, ISFA(), privacy=Privacy(**SEALED))


@pytest.mark.parametrize(
    ("privacy", "settings_", "message"),
    [
        ({}, {"cohort": FixedCohort(5)}, r"trainer\.cohort: .*expected PoissonCohort, got FixedCohort"),
        ({"delta": 0.09}, {}, r"privacy\.delta: expected below 1 / clients"),
        ({"ring_bits": 16}, {}, r"ring bits: .*could wrap around\. Use at least"),
        ({}, {"cohort": PoissonCohort(0.5), "minimum_clients": 6}, r"minimum_clients: .*Lower minimum_clients"),
    ],
)
def test_what_the_accounts_dont_hold_for_is_refused(run, people, privacy: dict, settings_: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run(_crowd(people), ISFA(), privacy=Privacy(**{**NOISED, **privacy}), **settings_)


def test_noise_on_both_factors_needs_saying_so(run, people, colours, monkeypatch: pytest.MonkeyPatch) -> None:
    """(B + x)(A + y): accepted with `both_factors`, or with one factor frozen, or without noise."""

    def named(*names: str) -> dict:
        return {"parameters": names}

    both, frozen = named("q.lora_A.weight", "q.lora_B.weight"), named("q.lora_B.weight")
    with pytest.raises(ConfigurationError, match=r"adapter\.aggregation: .*expected 'freeze_a'.*both_factors: true"):
        PrivateRounds(Privacy(**NOISED), _task(Path("none"), **both))
    PrivateRounds(Privacy(**NOISED, both_factors=True), _task(Path("none"), **both))
    PrivateRounds(Privacy(**NOISED), _task(Path("none"), **frozen))
    PrivateRounds(Privacy(**SEALED), _task(Path("none"), **both))


def test_assumptions_that_small_cohorts_cant_withstand_ask_for_larger_ones(run, people, tmp_path: Path) -> None:
    """Of 4, two may collude and one drop out: one alone would be left. From 5 on two others are."""
    half = Assumptions(0.4, 0.3)
    rounds = PrivateRounds(Privacy(clip_norm=1.0, assumptions=half), _task(tmp_path))
    assert rounds.updates_needed(3) > 3 and rounds.updates_needed(4) > 4 and rounds.updates_needed(5) <= 5
    with pytest.raises(ConfigurationError, match=r"trainer\.cohort: .*at least 5"):
        run(people, ISFA(), privacy=Privacy(clip_norm=1.0, assumptions=half))


def test_refusals_come_before_any_clip_is_opened(run, people) -> None:
    class Opened(BaseException):
        pass

    crowd = {name: replace(person, failure=Opened()) for name, person in _crowd(people).items()}
    with pytest.raises(ConfigurationError, match="PoissonCohort"):
        run(crowd, ISFA(), privacy=Privacy(**NOISED), cohort=FixedCohort(5))
    with pytest.raises(Opened):  # so they would have been
        run(crowd, ISFA(), privacy=Privacy(**NOISED))
