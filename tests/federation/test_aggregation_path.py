"""A whole round (client, seal, open, server) against the paper's equation for its result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedtalk.callbacks.aggregation import ISFA, FedAvg
from fedtalk.training.local import LocalTraining

LOCAL = LocalTraining(steps=3, batch_size=2, learning_rate=0.05)


def _flat(state: dict[str, torch.Tensor]) -> np.ndarray:
    return np.concatenate([state[name].double().numpy().ravel() for name in ("first", "second")])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_a_round_is_the_papers_isfa(run, people, clear_updates, gamma: float, alpha: float) -> None:
    """w_k proportional to n_k exp(gamma s_k), s_k = alpha id_k + (1 - alpha) temp_k, weights sum to one."""
    updates = clear_updates(people, LOCAL)
    numbers = np.array([people[name].clips for name in people])
    scores = np.array([alpha * people[name].identity + (1 - alpha) * people[name].stability for name in people])
    weights = numbers * np.exp(gamma * scores)
    weights = weights / weights.sum()
    expected = sum(weight * updates[name] for weight, name in zip(weights, people, strict=True))

    got = run(people, ISFA(gamma=gamma, scores="paper", alpha=alpha, most_clips=8), local=LOCAL)
    np.testing.assert_allclose(_flat(got.state), expected, rtol=0, atol=1e-7)
    assert np.abs(expected).max() > 0.01  # or nothing was tested


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_by_default_the_score_is_the_quality_of_the_clips(run, people, clear_updates, gamma: float) -> None:
    updates = clear_updates(people, LOCAL)
    weights = np.array([people[name].clips * np.exp(gamma * people[name].quality) for name in people])
    expected = sum(weight * updates[name] for weight, name in zip(weights / weights.sum(), people, strict=True))
    got = run(people, ISFA(gamma=gamma), local=LOCAL)
    np.testing.assert_allclose(_flat(got.state), expected, rtol=0, atol=1e-7)
    assert [report.quality for report in got.recorder.outcomes[0].reports] == pytest.approx(
        [person.quality for person in people.values()]
    )
    assert [report.identity for report in got.recorder.outcomes[0].reports] == [1.0] * 4  # nothing else is measured


def test_gamma_and_alpha_change_the_result(run, people) -> None:
    results = [
        _flat(run(people, ISFA(gamma=gamma, scores="paper", alpha=alpha), folder=f"{gamma}-{alpha}").state)
        for gamma, alpha in ((0.0, 0.5), (2.0, 0.0), (2.0, 1.0))
    ]
    for one in range(3):
        for other in range(one):
            assert np.abs(results[one] - results[other]).max() > 1e-3


def test_fedavg_is_isfa_without_gamma_and_measures_nobody(run, people) -> None:
    average = run(people, FedAvg(), folder="average")
    without = run(people, ISFA(gamma=0.0), folder="zero")
    assert all(torch.equal(average.state[name], without.state[name]) for name in average.state)
    assert [report.identity for report in average.recorder.outcomes[0].reports] == [1.0] * 4


def test_the_default_is_fedavg(run, people) -> None:
    default, average = run(people, folder="default"), run(people, FedAvg(), folder="average")
    assert all(torch.equal(default.state[name], average.state[name]) for name in default.state)


def test_clips_beyond_the_cap_add_no_weight_and_by_clips_can_be_off(run, people, clear_updates) -> None:
    updates = clear_updates(people, LOCAL)

    def mean(weights: dict[str, int]) -> np.ndarray:
        return sum(weights[name] * updates[name] for name in people) / sum(weights.values())

    capped = run(people, ISFA(gamma=0.0, most_clips=2), folder="capped", local=LOCAL)
    expected = mean({name: min(2, people[name].clips) for name in people})
    np.testing.assert_allclose(_flat(capped.state), expected, rtol=0, atol=1e-7)
    even = run(people, ISFA(gamma=0.0, by_clips=False), folder="even", local=LOCAL)
    np.testing.assert_allclose(_flat(even.state), mean(dict.fromkeys(people, 1)), rtol=0, atol=1e-7)


@pytest.mark.parametrize("client", ["anna", "bert"])
def test_one_client_is_the_identity(run, people, clear_updates, client: str) -> None:
    """Whatever its weight, the mean over one client is its own update."""
    alone = {client: people[client]}
    got = run(alone, ISFA(gamma=2.0), local=LOCAL)
    np.testing.assert_allclose(_flat(got.state), clear_updates(alone, LOCAL)[client], rtol=0, atol=1e-8)


def test_the_order_of_clients_changes_no_bit(run, people) -> None:
    turned = {name: people[name] for name in reversed(people)}
    one = run(people, ISFA(gamma=1.0), folder="one", rounds=2)
    other = run(turned, ISFA(gamma=1.0), folder="other", rounds=2)
    assert one.recorder.outcomes[0].cohort == other.recorder.outcomes[0].cohort[::-1]
    assert all(torch.equal(one.state[name], other.state[name]) for name in one.state)


def test_a_clients_work_does_not_depend_on_who_else_takes_part(run, people) -> None:
    """anna's losses and weight are the same alone, first and last."""
    alone = run({"anna": people["anna"]}, folder="alone")
    last = run({**{name: people[name] for name in ("dora", "bert")}, "anna": people["anna"]}, folder="last")
    lone, among = alone.recorder.outcomes[0].reports[0], last.recorder.outcomes[0].reports[2]
    assert (lone.client, lone.losses, lone.weight) == (among.client, among.losses, among.weight)


def test_clients_draw_from_streams_of_their_own(run, people, clear_updates) -> None:
    """Two clients with the same data still see other batches, and so does one client in another round or seed."""
    twins = {"anna": people["anna"], "berta": replace(people["anna"])}
    updates = clear_updates(twins, LOCAL)
    assert np.abs(updates["anna"] - updates["berta"]).max() > 1e-4
    other_seed = clear_updates(twins, LOCAL, seed=1)
    assert np.abs(updates["anna"] - other_seed["anna"]).max() > 1e-4
    rounds = run(twins, rounds=2).recorder.outcomes
    assert rounds[0].reports[0].losses != rounds[1].reports[0].losses


def test_broadcast_reaches_every_client_alike(run, people, clear_updates) -> None:
    """The third client starts from the global state, not from where the second one stopped."""
    updates = clear_updates(people, LOCAL)
    got = run(people, ISFA(gamma=0.0, by_clips=False), local=LOCAL)
    np.testing.assert_allclose(_flat(got.state), sum(updates.values()) / 4, rtol=0, atol=1e-7)


def test_frozen_parameters_stay(run, people) -> None:
    assert torch.equal(run(people, rounds=2).module.frozen, torch.ones(3))


def test_the_round_reports_the_norm_of_the_mean_update(run, people, clear_updates) -> None:
    got = run(people, ISFA(gamma=0.0, by_clips=False), local=LOCAL)
    expected = np.linalg.norm(sum(clear_updates(people, LOCAL).values()) / 4)
    assert got.recorder.outcomes[0].update_norm == pytest.approx(expected, abs=1e-7)
