"""The ledger: bound to its sampler, stops before it would overspend, forgets nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import binom

from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.federation.cohort import CohortSampler, FixedCohort, PoissonCohort
from fedtalk.privacy.accounting import rdp_epsilon
from fedtalk.privacy.ledger import Ledger, void_probability

CLIENTS = [f"client-{number}" for number in range(50)]


def _ledger(**changes: object) -> Ledger:
    """RDP, which is quick; `test_accounting` covers PRV."""
    values: dict = {"sampler": PoissonCohort(0.2), "noise_multiplier": 1.5, "delta": 1e-3, "accountant": "rdp"}
    return Ledger(**{**values, **changes})


def test_it_charges_the_rate_of_the_sampler_that_it_draws_by() -> None:
    sampler = PoissonCohort(0.2)
    ledger = _ledger(sampler=sampler)
    ledger.charge()
    sampler.rate = 0.5
    ledger.charge()
    ledger.charge()
    assert ledger.history == [(1.5, 0.2, 1), (1.5, 0.5, 2)] and ledger.rounds == 3
    assert ledger.spent().rdp == rdp_epsilon(ledger.history, 1e-3)
    sizes = [len(ledger.draw(number, CLIENTS)) for number in range(200)]
    assert sum(sizes) / 200 == pytest.approx(25, abs=6 * (50 * 0.25 / 200) ** 0.5)


def test_cohorts_come_from_a_secret_that_is_kept_and_not_from_the_runs_seed() -> None:
    one, other = _ledger(), _ledger()
    assert [one.draw(n, CLIENTS) for n in range(4)] != [other.draw(n, CLIENTS) for n in range(4)]
    other.load_state_dict(one.state_dict())
    assert [one.draw(n, CLIENTS) for n in range(4)] == [other.draw(n, CLIENTS) for n in range(4)]
    assert one.draw(0, CLIENTS) != one.draw(1, CLIENTS)


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


def test_every_epsilon_is_told_with_delta_adjacency_and_accountant() -> None:
    ledger = _ledger(budget=9.0)
    ledger.charge()
    line = str(ledger.spent())
    for part in ("(PRV)", "(RDP)", "delta 0.001", "add or remove one client", "stops by RDP", "budget 9", "1 rounds"):
        assert part in line
    assert f"{ledger.spent().prv:.3f}" in line and 0 < ledger.spent().prv < ledger.spent().rdp + 0.02


def test_loading_never_drops_a_charge(tmp_path: Path) -> None:
    ledger = _ledger()
    for _ in range(2):
        ledger.charge()
    checkpoint = ledger.state_dict()
    ledger.charge()
    ledger.record(tmp_path)  # a third round was begun, and the run killed
    resumed = _ledger()
    resumed.load_state_dict(checkpoint)
    assert resumed.rounds == 2
    resumed.recall(tmp_path)
    assert resumed.rounds == 3 and resumed.cohort_seed == ledger.cohort_seed
    resumed.load_state_dict(checkpoint)
    assert resumed.rounds == 3
    resumed.noise_multiplier = 2.0
    resumed.charge()
    assert resumed.history == [(1.5, 0.2, 3), (2.0, 0.2, 1)]


def test_without_a_record_there_is_nothing_to_recall(tmp_path: Path) -> None:
    ledger = _ledger()
    ledger.recall(tmp_path)
    ledger.check_unspent(tmp_path)
    assert ledger.rounds == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"history": [[1]], "cohort_seed": 1}', '{"cohort_seed": 1}'])
def test_a_damaged_record_stops_the_run(text: str, tmp_path: Path) -> None:
    """Not knowing what was spent isn't the same as having spent nothing."""
    (tmp_path / "ledger.json").write_text(text)
    with pytest.raises(ArtifactError, match="what the run spent is not known"):
        _ledger().recall(tmp_path)


def test_starting_afresh_over_a_record_is_refused(tmp_path: Path) -> None:
    ledger = _ledger()
    ledger.charge()
    ledger.record(tmp_path)
    assert json.loads((tmp_path / "ledger.json").read_text())["history"] == [[1.5, 0.2, 1]]
    with pytest.raises(ConfigurationError, match="would forget it"):
        _ledger().check_unspent(tmp_path)


def test_rounds_void_for_want_of_clients_cost_delta_or_are_refused() -> None:
    """P[client drawn and exactly fewest - 1 of the others]: brute force over the sizes is the oracle."""
    probability = void_probability(0.2, 50, 4)
    assert probability == pytest.approx(0.2 * binom.cdf(3, 49, 0.2) - 0.2 * binom.cdf(2, 49, 0.2))
    with pytest.raises(ConfigurationError, match=r"minimum_clients: .*Lower minimum_clients"):
        _ledger(void_probability=probability, rounds=10)
    small = 4e-7
    ledger = _ledger(void_probability=small, rounds=20)
    ledger.charge()
    assert ledger.spent().rdp == rdp_epsilon(ledger.history, 1e-3 - 20 * small) > rdp_epsilon(ledger.history, 1e-3)
    assert ledger.spent().delta == 1e-3
