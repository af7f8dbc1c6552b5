from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping

import numpy as np
import pytest
import scipy.stats

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.secagg.graph import (
    COMPLETE_UP_TO,
    Assumptions,
    choose_graph,
    dropout_failure_bound,
    hypergeometric_tail,
    neighbours,
    secrecy_failure_bound,
)

SEED = b"g" * 32


def connected(near: Mapping[int, Iterable[int]], members: set[int]) -> bool:
    """Breadth-first search within ``members``."""
    seen, edge = set(), {min(members)}
    while edge:
        seen |= edge
        edge = {peer for client in edge for peer in near[client] if peer in members} - seen
    return seen == members


@pytest.mark.parametrize(("population", "marked", "drawn"), [(9, 3, 4), (29, 6, 14), (999, 200, 98), (999, 20, 998)])
def test_the_tail_is_scipys(population: int, marked: int, drawn: int) -> None:
    for least in range(drawn + 2):
        expected = scipy.stats.hypergeom(population, marked, drawn).sf(least - 1)
        assert hypergeometric_tail(population, marked, drawn, least) == pytest.approx(expected, rel=1e-8, abs=1e-250)


def test_the_tail_is_exact_on_a_small_case() -> None:
    count = sum(sum(item < 3 for item in chosen) >= 2 for chosen in itertools.combinations(range(8), 4))
    assert hypergeometric_tail(8, 3, 4, 2) == pytest.approx(count / math.comb(8, 4))


@pytest.mark.parametrize(("count", "degree"), [(20, 6), (21, 14), (9, 8), (2, 1), (100, 40)])
def test_every_client_has_degree_mutual_neighbours(count: int, degree: int) -> None:
    clients = [5 * client + 2 for client in range(count)]
    near = neighbours(clients, degree, SEED)
    assert sorted(near) == clients
    for client, peers in near.items():
        assert len(peers) == degree and list(peers) == sorted(set(peers)) and client not in peers
        assert all(client in near[peer] for peer in peers)


def test_the_seed_draws_the_graph_alone() -> None:
    clients = list(range(40))
    assert neighbours(clients, 6, SEED) == neighbours(clients, 6, SEED)
    assert neighbours(clients, 6, SEED) != neighbours(clients, 6, b"h" * 32)


def test_neighbours_are_uniform() -> None:
    """Over many seeds, each of the 19 others is a neighbour of client 0 equally often (chi-square, p > 1e-6)."""
    counts = np.zeros(20)
    for seed in range(4000):
        counts[list(neighbours(range(20), 4, seed.to_bytes(32, "big"))[0])] += 1
    # Drawn without replacement, so the statistic is smaller than chi-square's by (19 - 4) / (19 - 1) on average.
    statistic = ((counts[1:] - 4000 * 4 / 19) ** 2 / (4000 * 4 / 19)).sum()
    assert counts[0] == 0 and scipy.stats.chi2(18).sf(statistic) > 1e-6


@pytest.mark.parametrize("fractions", [(0.0, 0.0), (0.1, 0.1), (0.2, 0.2), (0.05, 0.3), (1 / 3, 1 / 3)])
@pytest.mark.parametrize("clients", [6, 10, 16, 17, 30, 100, 333, 1000])
def test_the_choice_keeps_its_probabilities_by_scipys_count(clients: int, fractions: tuple[float, float]) -> None:
    assumptions = Assumptions(*fractions)
    choice = choose_graph(clients, assumptions)
    colluding, dropouts = math.ceil(clients * fractions[0] - 1e-9), math.floor(clients * fractions[1] + 1e-9)
    others, degree, threshold = clients - 1, choice.degree, choice.threshold
    masks, least = choice.mask_degree, choice.mask_threshold
    assert degree == others or degree % 2 == 0
    assert masks == degree or (masks % 2 == 0 and 1 <= least <= masks < degree)
    opened = clients * scipy.stats.hypergeom(others, colluding, degree).sf(threshold - 1)
    lost = clients * scipy.stats.hypergeom(others, dropouts, degree).sf(degree - threshold)
    if masks < degree:  # else one event is the other
        lost += clients * scipy.stats.hypergeom(others, dropouts, masks).sf(masks - least)
    else:
        assert least == threshold
    # Two runs of half as many places out of the colluding and the dropped, anywhere on the circle.
    gaps = math.comb(clients, 2) * math.comb(colluding + dropouts, masks) / math.comb(clients, masks)
    split = 0.0 if masks == others else gaps
    assert opened + split <= 2**-40 * (1 + 1e-9)
    assert lost <= 2**-20 * (1 + 1e-9)
    assert choice.security_failure == pytest.approx(opened + split, rel=1e-6, abs=1e-200)
    assert choice.dropout_failure == pytest.approx(lost, rel=1e-6, abs=1e-200)


def test_no_smaller_degree_would_do() -> None:
    assumptions = Assumptions(0.2, 0.2)
    choice = choose_graph(300, assumptions)
    smaller = choice.degree - 2
    assert not any(
        secrecy_failure_bound(300, smaller, threshold, smaller, assumptions) <= 2**-40
        and dropout_failure_bound(300, smaller, threshold, assumptions) <= 2**-20
        for threshold in range(1, smaller + 1)
    )


def test_no_fewer_masks_would_do() -> None:
    assumptions = Assumptions(0.2, 0.2)
    choice = choose_graph(300, assumptions)
    assert choice.mask_degree < 0.6 * choice.degree
    fewer = choice.mask_degree - 2
    assert secrecy_failure_bound(300, choice.degree, choice.threshold, fewer, assumptions) > 2**-40


def test_masks_run_to_the_nearest_of_the_neighbours() -> None:
    near, masking = neighbours(range(50), 12, SEED), neighbours(range(50), 6, SEED)
    for client, peers in masking.items():
        assert set(peers) < set(near[client])
        # Of two clients that are m places apart, the neighbourhoods (each 13 places) have 13 - m places in common.
        apart = {peer: 13 - len({client, *near[client]} & {peer, *near[peer]}) for peer in near[client]}
        assert {peer for peer in near[client] if apart[peer] <= 3} == set(peers)


def test_small_cohorts_use_the_complete_graph_and_large_ones_do_not() -> None:
    assert choose_graph(COMPLETE_UP_TO, Assumptions()).degree == COMPLETE_UP_TO - 1
    assert choose_graph(1000, Assumptions()).degree < 100


def test_the_bounds_hold_for_random_graphs() -> None:
    """By simulation where failure is frequent enough to be seen: the bound is never below the measured frequency."""
    assumptions = Assumptions(0.2, 0.2)
    count, degree, masks, threshold, trials = 20, 6, 4, 4, 1500
    generator = np.random.default_rng(3)
    opened = split = lost = 0
    for trial in range(trials):
        near = neighbours(range(count), degree, trial.to_bytes(32, "big"))
        masking = neighbours(range(count), masks, trial.to_bytes(32, "big"))
        places = generator.permutation(count)
        colluding, dropped = set(places[:4].tolist()), set(places[4:8].tolist())
        honest = set(range(count)) - colluding
        opened += any(len(colluding.intersection(near[client])) >= threshold for client in honest)
        split += not connected(masking, honest - dropped)
        lost += any(len(dropped.intersection(near[client])) > degree - threshold for client in range(count))
    assert opened > 0 and split > 0 and lost > 0
    deviation = 4 * math.sqrt(0.25 / trials)
    assert (opened + split) / trials <= secrecy_failure_bound(count, degree, threshold, masks, assumptions) + deviation
    assert lost / trials <= dropout_failure_bound(count, degree, threshold, assumptions) + deviation


def test_the_circle_never_splits_below_two_gaps() -> None:
    """Exhaustively: no degree - 1 clients cut the graph, and some ``degree`` do."""
    near = neighbours(range(10), 4, SEED)
    everyone = set(range(10))
    for lost in range(1, 4):
        assert all(connected(near, everyone - set(gone)) for gone in itertools.combinations(range(10), lost))
    assert not all(connected(near, everyone - set(gone)) for gone in itertools.combinations(range(10), 4))


def test_too_many_colluders_and_dropouts_are_a_configuration_error_with_the_numbers() -> None:
    with pytest.raises(ConfigurationError, match=r"among 5 clients .* 3 colluding and 2 dropping"):
        choose_graph(5, Assumptions(0.5, 0.4))


def test_fractions_that_are_a_little_off_in_binary_count_whole_clients() -> None:
    assert Assumptions(colluding_fraction=0.1).colluding(30) == 3
    assert Assumptions(dropout_fraction=0.29).dropouts(100) == 29
    assert (
        Assumptions(colluding_fraction=0.2).colluding(11) == 3 and Assumptions(dropout_fraction=0.2).dropouts(11) == 2
    )


@pytest.mark.parametrize(
    "wrong",
    [{"colluding_fraction": 1.0}, {"dropout_fraction": -0.1}, {"security_bits": 0}, {"failure_bits": 500}],
)
def test_assumptions_out_of_range_are_configuration_errors(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Assumptions(**wrong)  # type: ignore[arg-type]
