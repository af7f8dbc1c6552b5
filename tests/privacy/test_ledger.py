"""The ledger: bound to its sampler, stops before it would overspend, forgets nothing."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.federation.cohort import CohortSampler, FixedCohort, PoissonCohort
from fedtalk.privacy.accounting import gaussian_epsilon, rdp_epsilon
from fedtalk.privacy.ledger import BudgetSpent, Ledger

CLIENTS = [f"client-{number}" for number in range(50)]


def _ledger(**changes: object) -> Ledger:
    """RDP, which is quick; `test_accounting` covers PRV."""
    values: dict = {
        "sampler": PoissonCohort(0.2), "clients": CLIENTS, "noise_multiplier": 1.5, "delta": 1e-3, "accountant": "rdp",
    }  # fmt: skip
    return Ledger(**{**values, **changes})


def _draws(ledger: Ledger, count: int) -> list[list[str]]:
    drawn = []
    for _ in range(count):
        drawn.append(ledger.draw())
        ledger.charge()
    return drawn


def test_it_charges_the_rate_of_the_sampler_that_it_draws_by() -> None:
    sampler = PoissonCohort(0.2)
    ledger = _ledger(sampler=sampler)
    ledger.charge()
    sampler.rate = 0.5
    ledger.charge()
    ledger.charge()
    assert ledger.history == [(1.5, 0.2, 1), (1.5, 0.5, 2)] and ledger.rounds == 3
    assert ledger.spent().rdp == rdp_epsilon(ledger.history, 1e-3)
    sizes = [len(cohort) for cohort in _draws(ledger, 200)]
    assert sum(sizes) / 200 == pytest.approx(25, abs=6 * (50 * 0.25 / 200) ** 0.5)


def test_each_client_is_drawn_with_the_rate_and_apart_from_the_others() -> None:
    """500 cohorts: every client's share within 5 deviations, and every neighbour's product of two."""
    drawn = np.array([[name in cohort for name in CLIENTS] for cohort in map(set, _draws(_ledger(), 500))])
    assert np.abs(drawn.mean(0) - 0.2).max() < 5 * (0.16 / 500) ** 0.5
    both = (drawn[:, 1:] & drawn[:, :-1]).mean()
    assert both == pytest.approx(0.04, abs=5 * (0.04 / 500 / 49) ** 0.5)


def test_no_cohort_is_drawn_twice_whatever_is_resumed(tmp_path: Path) -> None:
    """An older checkpoint, a copy, a killed process: each opening has a secret of its own, keyed by the charges."""
    first = _ledger()
    opening = first.state_dict()
    later = _draws(first, 4)
    first.write(tmp_path)
    cohorts = [tuple(cohort) for cohort in later]
    for state in (opening, first.state_dict()):
        for _ in range(2):
            again = _ledger()
            again.load_state_dict(state)
            cohorts += [tuple(cohort) for cohort in _draws(again, 4)]
    assert len(set(cohorts)) == len(cohorts) == 20
    ledger = _ledger()
    assert ledger.draw() == ledger.draw() != (ledger.charge(), ledger.draw())[1]


def test_the_secret_of_the_cohorts_is_256_bits_and_nowhere_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream is ChaCha20's: the primitive itself is the oracle."""
    asked = []
    real = secrets.token_bytes
    monkeypatch.setattr(secrets, "token_bytes", lambda size: asked.append(real(size)) or asked[-1])
    ledger = _ledger()
    ledger.charge()
    ledger.write(tmp_path)
    asked = [drawn for drawn in asked if len(drawn) > 16]  # the history's name is no secret
    assert len(asked) == 1 and len(asked[0]) == 32
    assert asked[0].hex() not in (tmp_path / "ledger.json").read_text() + json.dumps(ledger.state_dict())
    nonce = bytes(4) + (1).to_bytes(12, "little")
    stream = Cipher(algorithms.ChaCha20(asked[0], nonce), mode=None).encryptor().update(bytes(8 * len(CLIENTS)))
    words = [int.from_bytes(stream[at : at + 8], "little") for at in range(0, len(stream), 8)]
    assert ledger.draw() == [name for name, word in zip(CLIENTS, words, strict=True) if word < 0.2 * 2**64]


class _Round(CohortSampler):
    def draw(self, seed: int, round_number: int, clients: list) -> list:  # type: ignore[override]
        return clients[round_number % 2 :: 2]


class _Correlated(PoissonCohort):
    """A subclass may draw in any way; its rate says nothing."""


@pytest.mark.parametrize("sampler", [FixedCohort(4), _Round(), _Correlated(0.2)])
def test_poisson_accounting_of_other_samplers_is_refused(sampler: CohortSampler) -> None:
    with pytest.raises(ConfigurationError, match=rf"trainer\.cohort: .*PoissonCohort, got {type(sampler).__name__}"):
        _ledger(sampler=sampler)


def test_it_allows_no_round_that_would_overspend() -> None:
    budget = rdp_epsilon([(1.5, 0.2, 5)], 1e-3)
    ledger = _ledger(budget=budget)
    while ledger.allows_another():
        ledger.charge()
    assert ledger.rounds == 5 and ledger.spent().rdp == budget < ledger.epsilon_after_another()
    assert _ledger().allows_another()  # without a budget nothing stops


def test_every_epsilon_is_told_with_its_adversary_delta_adjacency_and_accountant() -> None:
    ledger = _ledger(budget=9.0)
    ledger.charge()
    ledger.charge()
    adapters, rosters = ledger.spent().lines()
    for part in (
        "(PRV)", "(RDP)", "against whoever sees the adapters", "delta 0.001", "add or remove one client", "stops by RDP",
        "budget 9", "2 rounds",
    ):  # fmt: skip
        assert part in adapters
    assert f"{ledger.spent().prv:.3f}" in adapters and 0 < ledger.spent().prv < ledger.spent().rdp + 0.02
    exact = gaussian_epsilon([(1.5, 1.0, 2)], 1e-3)
    assert ledger.spent().no_sampling == exact > ledger.spent().prv
    assert f"epsilon {exact:.3f} against server and sites (no sampling) at delta 0.001" in rosters
    assert "in 2 of 2 rounds" in rosters


def test_a_server_that_adds_the_noise_itself_is_promised_nothing_against() -> None:
    ledger = _ledger(central=True)
    ledger.charge()
    line = ledger.spent().lines()[1]
    assert "against sites (no sampling)" in line and "none against the server" in line


def test_loading_never_drops_a_charge(tmp_path: Path) -> None:
    ledger = _ledger()
    for _ in range(2):
        ledger.charge()
    checkpoint = ledger.state_dict()
    ledger.charge()
    ledger.write(tmp_path)  # a third round was begun, and the run killed
    resumed = _ledger()
    resumed.load_state_dict(checkpoint)
    assert resumed.rounds == 2
    resumed.recall(tmp_path)
    assert resumed.rounds == 3
    resumed.load_state_dict(checkpoint)
    resumed.recall(tmp_path)
    assert resumed.rounds == 3
    resumed.noise_multiplier = 2.0
    resumed.charge()
    assert sorted(resumed.history) == [(1.5, 0.2, 3), (2.0, 0.2, 1)]


def test_histories_of_other_runs_add_up(tmp_path: Path) -> None:
    """The maximum of the two would forget the shorter one."""
    one, other = _ledger(), _ledger(noise_multiplier=1.0)
    _draws(one, 3)
    _draws(other, 2)
    one.write(tmp_path / "one")
    other.recall(tmp_path / "one")
    assert other.rounds == 5 and sorted(other.history) == [(1.0, 0.2, 2), (1.5, 0.2, 3)]
    counts = {name: one.charges.times_drawn(name) for name in CLIENTS}
    assert all(other.charges.times_drawn(name) >= count for name, count in counts.items())


def test_copies_of_a_folder_count_each_others_rounds(tmp_path: Path) -> None:
    """A goes on, and so does its copy B, which knows of A; then A knows of B, whatever it was told."""
    a, b = tmp_path / "a", tmp_path / "b"
    first = _ledger()
    _draws(first, 2)
    first.write(a)
    shutil.copytree(a, b)
    in_a, in_b = _ledger(), _ledger()
    in_a.recall(a)
    in_b.recall(b)
    in_a.charge()
    in_a.write(a)
    in_b.charge()
    in_b.write(b)
    assert in_b.rounds == 4, "a's third round was found where the copy says that it came from"
    in_a.charge()
    in_a.write(a)
    assert in_a.rounds == 5, "b's round was written into a's record"
    reopened = _ledger()
    reopened.recall(b)
    assert reopened.rounds == 5


def test_copies_that_go_on_at_once_release_no_more_than_the_budget(tmp_path: Path) -> None:
    """Both find one round left and train for it: the one that charges second has nothing left and releases nothing."""
    budget = rdp_epsilon([(1.5, 0.2, 3)], 1e-3)
    a, b = tmp_path / "a", tmp_path / "b"
    first = _ledger(budget=budget)
    _draws(first, 2)
    first.write(a)
    shutil.copytree(a, b)
    copies = {folder: _ledger(budget=budget) for folder in (a, b)}
    for folder, ledger in copies.items():
        ledger.recall(folder)
    assert all(ledger.allows_another() for ledger in copies.values())
    for folder, ledger in copies.items():
        ledger.charge()
        ledger.write(folder)
    with pytest.raises(BudgetSpent, match=rf"expected at most epsilon {budget:g} with this round, got .*{a}"):
        copies[b].check_budget()
    copies[a].check_budget()  # as it was when its own round was released


def test_places_that_a_place_names_are_looked_at_too(tmp_path: Path) -> None:
    """B's record was lost sight of by A's copy C, but A's record names it; A itself could not be written then."""
    a, b, c = (tmp_path / name for name in "abc")
    first = _ledger()
    _draws(first, 2)
    first.write(a)
    shutil.copytree(a, b)
    shutil.copytree(a, c)
    in_b = _opened(b)
    in_b.charge()
    in_b.write(b)
    older = json.loads((a / "ledger.json").read_text())
    del older["history"][next(name for name in in_b.charges.histories if name not in first.charges.histories)]
    (a / "ledger.json").write_text(json.dumps(older))  # it names B, and hasn't B's charge
    assert _opened(c).rounds == 3


def test_a_folder_that_holds_another_run_by_now_is_left_alone(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    first = _ledger()
    _draws(first, 2)
    first.write(a)
    shutil.copytree(a, b)
    shutil.rmtree(a)
    new = _ledger()
    new.charge()
    new.write(a)
    copy = _ledger()
    copy.recall(b)
    copy.charge()
    copy.write(b)
    assert copy.rounds == 3 and (_opened(a)).rounds == 1


def _opened(folder: Path) -> Ledger:
    ledger = _ledger()
    ledger.recall(folder)
    return ledger


def test_records_that_contradict_each_other_stop_the_run(tmp_path: Path) -> None:
    ledger = _ledger()
    ledger.charge(CLIENTS[:2])
    ledger.write(tmp_path)
    path = tmp_path / "ledger.json"
    path.write_text(path.read_text().replace("client-1", "client-7"))
    with pytest.raises(ArtifactError, match="contradict each other; what the run spent is not known"):
        ledger.recall(tmp_path)


def test_the_record_is_for_its_owner_alone_and_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mode 0600; the file is synced, then renamed, then the folder is synced, before `write` returns."""
    events: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(handle: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_sync(handle)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("rename"), real_replace(*paths))[1])
    ledger = _ledger()
    ledger.charge()
    ledger.write(tmp_path)
    assert events == ["file", "rename", "folder"]
    assert (tmp_path / "ledger.json").stat().st_mode & 0o777 == 0o600


def test_without_a_record_there_is_nothing_to_recall(tmp_path: Path) -> None:
    ledger = _ledger()
    ledger.recall(tmp_path)
    ledger.check_unspent(tmp_path)
    assert ledger.rounds == 0


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "[" * 5000, '{"format": 2}', '{"history": [[1.5, 0.2, 1]], "cohort_seed": 1}',
        '{"format": 2, "terms": {"delta": 0.1}, "places": [], "history": {"x": []}}',
        '{"format": 2, "terms": {"delta": 0.1}, "places": [1], "history": {}}',
        '{"format": 2, "terms": {"delta": 7}, "places": [], "history": {}}',
    ],
)  # fmt: skip
def test_a_damaged_record_stops_the_run(text: str, tmp_path: Path) -> None:
    """Not knowing what was spent isn't the same as having spent nothing."""
    (tmp_path / "ledger.json").write_text(text)
    with pytest.raises(ArtifactError, match="what the run spent is not known"):
        _ledger().recall(tmp_path)


def test_starting_afresh_over_a_record_is_refused(tmp_path: Path) -> None:
    ledger = _ledger()
    ledger.charge()
    ledger.write(tmp_path)
    with pytest.raises(ConfigurationError, match="would forget it"):
        _ledger().check_unspent(tmp_path)


def test_delta_is_set_aside_for_void_rounds_or_they_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"minimum_clients: .*Lower minimum_clients"):
        _ledger(void_probability=2e-6, rounds=10)
    small = 4e-7
    ledger = _ledger(void_probability=small, rounds=20)
    ledger.charge()
    assert ledger.spent().rdp == rdp_epsilon(ledger.history, 1e-3 - 20 * small) > rdp_epsilon(ledger.history, 1e-3)
    assert ledger.spent().delta == 1e-3
    assert ledger.spent().no_sampling == gaussian_epsilon([(1.5, 1.0, 1)], 1e-3), (
        "who knows the roster learns nothing of it"
    )
