"""The server half gets sealed updates and sums, never a single client's clear update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.federation.server import Server
from fedtalk.privacy.rounds import ClearRounds
from fedtalk.privacy.sealing import PairwiseSealing, SealedUpdate, SealingRound


class Watched:
    """Keeps what passes from the client half to the server half, and what the clients had."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.clear: list[np.ndarray] = []
        self.passed: list[tuple[Any, ...]] = []
        vector, open_round, step = ClearRounds.vector, ClearRounds.open_round, Server.step

        def watched_vector(rounds: ClearRounds, update: np.ndarray, weight: float) -> np.ndarray:
            self.clear.append(vector(rounds, update, weight))
            return self.clear[-1]

        def watched_round(
            rounds: ClearRounds, number: int, cohort: Sequence[str], survivors: Sequence[str]
        ) -> SealingRound:
            sealing = open_round(rounds, number, cohort, survivors)
            open_sum = sealing.open_sum

            def watched(updates: Sequence[SealedUpdate]) -> np.ndarray:
                total = open_sum(updates)
                self.passed.append((sealing, updates, total))
                return total

            sealing.open_sum = watched  # type: ignore[method-assign]
            return sealing

        def watched_step(server: Server, total: np.ndarray) -> float:
            assert total is self.passed[-1][2]  # the server steps by what was opened, and nothing else
            return step(server, total)

        patch.setattr(ClearRounds, "vector", watched_vector)
        patch.setattr(ClearRounds, "open_round", watched_round)
        patch.setattr(Server, "step", watched_step)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_what_reaches_the_server_is_sealed_and_unrelated_to_what_clients_had(
    run, people, watched: Watched, gamma: float
) -> None:
    run(people, ISFA(gamma=gamma), rounds=2)
    assert len(watched.passed) == 2 and len(watched.clear) == 8
    for sealing, updates, _ in watched.passed:
        assert isinstance(sealing, PairwiseSealing)
        assert [type(update) for update in updates] == [SealedUpdate] * 4
    for number, (_, updates, _) in enumerate(watched.passed):
        for update, clear in zip(updates, watched.clear[4 * number : 4 * number + 4], strict=True):
            words = np.frombuffer(update.payload, "<i8") * 2.0**-32
            assert len(words) == len(clear)
            # Clear coordinates are below 1; masked ones uniform in +-2**31, so one below 1000 has odds of 5e-7.
            assert np.abs(clear).max() <= 1.0 < 1000 < np.abs(words).min()


def test_the_weight_travels_as_a_coordinate_of_the_sealed_vector(run, people, watched: Watched) -> None:
    """a_k = min(n_k, 8) / 8 * exp(gamma (s_k - 1)) in (0, 1], last in the vector; nothing else carries it."""
    got = run(people, ISFA(gamma=2.0, scores="paper", alpha=0.6))
    expected = [
        person.clips / 8 * np.exp(2 * (0.6 * person.identity + 0.4 * person.stability - 1))
        for person in people.values()
    ]
    np.testing.assert_allclose([vector[-1] for vector in watched.clear], expected, rtol=1e-6)
    assert all(0 < vector[-1] <= 1 for vector in watched.clear)
    assert [report.weight for report in got.recorder.outcomes[0].reports] == pytest.approx(expected)
    sealing, updates, _ = watched.passed[0]
    assert sealing.open_sum(updates)[-1] == pytest.approx(sum(expected), abs=1e-8)
