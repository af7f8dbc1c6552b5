"""Dropout at every subset of stages: the sum is exact, or the round is refused cleanly, and which is foretold."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping

import numpy as np
import pytest

from fedtalk.privacy.secagg import AbortedRound, AggregationSettings, Assumptions, Stage, run_round

DIMENSION, BITS = 2, 20
SESSION = b"d" * 16
SUBSETS = [subset for size in range(1, 5) for subset in itertools.combinations(Stage, size)]


def run_case(clients: int, assumptions: Assumptions, drops: Mapping[int, Stage], seed: int) -> bool:
    """Run one round; True if it gave a sum, which is checked. The only other end is a clean refusal."""
    generator, bound = np.random.default_rng(seed), (1 << (BITS - 1)) // clients - 1
    settings = AggregationSettings(SESSION, DIMENSION, BITS, assumptions)
    inputs = {
        client: settings.ring.from_signed(generator.integers(-bound, bound + 1, DIMENSION)) for client in range(clients)
    }
    try:
        report = run_round(inputs, settings, drops=drops)
    except AbortedRound:
        return False
    expected_survivors = [client for client in inputs if drops.get(client, Stage.REVEAL) == Stage.REVEAL]
    assert list(report.survivors) == expected_survivors
    columns = zip(*(inputs[client].tolist() for client in expected_survivors), strict=True)
    assert report.total.tolist() == [sum(column) % (1 << BITS) for column in columns]
    return True


def must_succeed(clients: int, assumptions: Assumptions, drops: Mapping[int, Stage]) -> bool | None:
    """By the promise alone: True within its dropouts, False where a minimum is broken, None where it is silent.

    The promise is counted over the roster: who never sent keys isn't on it.
    """
    counts = {stage: sum(at == stage for at in drops.values()) for stage in Stage}
    roster = clients - counts[Stage.KEYS]
    colluding = math.ceil(assumptions.colluding_fraction * roster - 1e-9)
    tolerated = math.floor(assumptions.dropout_fraction * roster + 1e-9)
    if roster < 3 or roster < colluding + 2 or colluding + tolerated > roster - 2:
        return False
    survivors = roster - counts[Stage.SHARES] - counts[Stage.INPUT]
    if survivors < max(3, colluding + 2, roster - tolerated):
        return False
    return True if roster - survivors + counts[Stage.REVEAL] <= tolerated else None


def draw_drops(generator: random.Random, clients: int, stages: tuple[Stage, ...], most: int) -> dict[int, Stage]:
    """Up to ``most`` random clients that drop out at the ``stages``, at each of them where there is room."""
    gone = generator.sample(range(clients), generator.randint(min(len(stages), most), most))
    return {client: stages[i] if i < len(stages) else generator.choice(stages) for i, client in enumerate(gone)}


def sweep(cases_each: int, sizes: tuple[int, ...], fractions: list[tuple[float, float]], seed: int) -> dict[str, int]:
    """Random cases over all subsets of stages; how they ended."""
    generator = random.Random(seed)
    ended = {"sum": 0, "refusal": 0}
    for subset in SUBSETS:
        for _ in range(cases_each):
            clients, assumptions = generator.choice(sizes), Assumptions(*generator.choice(fractions))
            drops = draw_drops(generator, clients, subset, assumptions.dropouts(clients) + 2)
            succeeded = run_case(clients, assumptions, drops, generator.getrandbits(32))
            promised = must_succeed(clients, assumptions, drops)
            assert promised is None or succeeded == promised, (clients, assumptions, drops)
            ended["sum" if succeeded else "refusal"] += 1
    return ended


def test_hundreds_of_random_dropouts_on_small_cohorts() -> None:
    """Complete graphs, where the outcome is certain: 15 subsets of stages, 300 cases."""
    ended = sweep(20, (5, 6, 7), [(0.2, 0.2), (0.2, 0.4), (0.1, 0.5)], seed=0)
    assert sum(ended.values()) == 300 and min(ended.values()) > 40


def test_random_dropouts_on_a_sparse_graph() -> None:
    ended = sweep(2, (18,), [(0.1, 0.2)], seed=1)
    assert min(ended.values()) > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_more_random_dropouts() -> None:
    small = sweep(400, (5, 6, 7, 8, 9), [(0.0, 0.3), (0.2, 0.2), (0.2, 0.4), (0.1, 0.5)], seed=2)
    sparse = sweep(20, (17, 20, 26, 33), [(0.1, 0.2), (0.2, 0.2), (0.05, 0.3)], seed=3)
    assert sum(small.values()) == 6000 and min(small.values()) > 1000  # both ends are well covered
    assert sum(sparse.values()) == 300 and min(sparse.values()) > 20


def test_every_single_dropout_and_every_pair() -> None:
    """Exhaustively for five clients of which one may vanish: 20 singles give a sum, most pairs are refused."""
    assumptions = Assumptions(0.2, 0.2)
    for client, stage in itertools.product(range(5), Stage):
        promised = must_succeed(5, assumptions, {client: stage})
        assert promised is True or stage == Stage.KEYS
        assert run_case(5, assumptions, {client: stage}, seed=client) or promised is not True
    for first, second in itertools.product(Stage, repeat=2):
        drops = {1: first, 3: second}
        promised = must_succeed(5, assumptions, drops)
        assert promised is None or run_case(5, assumptions, drops, seed=1) == promised


def test_lost_messages_are_dropouts() -> None:
    """What a client sent and nobody received is as good as never sent."""
    inputs = {client: np.array([client], dtype="<u4") for client in range(5)}
    settings = AggregationSettings(SESSION, 1, BITS, Assumptions(0.2, 0.2))
    for lost in Stage:

        def lose(stage: Stage, client: int, data: bytes, lost: Stage = lost) -> bytes | None:
            return None if (stage, client) == (lost, 4) else data

        assert run_round(inputs, settings, transport=lose).total.tolist() == [10 if lost == Stage.REVEAL else 6]
