"""The server half gets sealed updates and sums, never a single client's clear update."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import fedtalk.federation.server as server_module
from fedtalk.callbacks.aggregation import Aggregation
from fedtalk.federation.server import Server
from fedtalk.privacy.sealing import PairwiseSealing, SealedUpdate, SealingRound


class Watched(Aggregation):
    """Keeps what passes from the client half to the server half, and what the clients had."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.clear: list[np.ndarray] = []
        self.passed: list[tuple[Any, ...]] = []

    def contribution(self, update: Mapping[str, Any], weight: float) -> np.ndarray:
        self.clear.append(super().contribution(update, weight))
        return self.clear[-1]

    def open_round(self, round_number: int, cohort: Sequence[str], survivors: Sequence[str]) -> SealingRound:
        sealing = super().open_round(round_number, cohort, survivors)
        open_sum = sealing.open_sum

        def watched(updates: Sequence[SealedUpdate]) -> np.ndarray:
            total = open_sum(updates)
            self.passed.append((sealing, updates, total))
            return total

        sealing.open_sum = watched  # type: ignore[method-assign]
        return sealing

    def step(self, server: Server, total: np.ndarray) -> float:
        assert (
            type(server) is Server and total is self.passed[-1][2]
        )  # the server steps by what was opened, and nothing else
        return super().step(server, total)


def test_signatures_of_the_server_half_take_no_clear_update() -> None:
    assert get_type_hints(Aggregation.step) == {"server": Server, "total": np.ndarray, "return": float}
    step = inspect.signature(Server.step)
    assert list(step.parameters) == ["self", "total"]
    opened = get_type_hints(PairwiseSealing.open_sum)
    assert opened["updates"] == Sequence[SealedUpdate] and opened["return"] is np.ndarray
    assert {field.name for field in fields(SealedUpdate)} == {"client", "round_number", "payload"}
    public = {name for name, _ in inspect.getmembers(Server, inspect.isfunction) if not name.startswith("_")}
    assert public == {"step", "state_dict", "load_state_dict"}  # another way in would have to be looked at here


def test_the_server_module_knows_no_client_data_or_training() -> None:
    tree = ast.parse(Path(server_module.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {name for name in imported if name and name.startswith("fedtalk")}
    assert ours == {"fedtalk.errors", "fedtalk.federation.vector"}


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_what_reaches_the_server_is_sealed_and_unrelated_to_what_clients_had(run, people, gamma: float) -> None:
    watched = Watched(gamma=gamma)
    run(people, watched, rounds=2)
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


def test_the_weight_travels_as_a_coordinate_of_the_sealed_vector(run, people) -> None:
    """a_k = min(n_k, 8) / 8 * exp(gamma (s_k - 1)) in (0, 1], last in the vector; nothing else carries it."""
    watched = Watched(gamma=2.0, alpha=0.6)
    got = run(people, watched)
    expected = [
        person.clips / 8 * np.exp(2 * (0.6 * person.identity + 0.4 * person.stability - 1))
        for person in people.values()
    ]
    np.testing.assert_allclose([vector[-1] for vector in watched.clear], expected, rtol=1e-6)
    assert all(0 < vector[-1] <= 1 for vector in watched.clear)
    assert [report.weight for report in got.recorder.outcomes[0].reports] == pytest.approx(expected)
    sealing, updates, _ = watched.passed[0]
    assert sealing.open_sum(updates)[-1] == pytest.approx(sum(expected), abs=1e-8)
