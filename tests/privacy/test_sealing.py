"""Sealed updates: one alone says nothing, the whole set opens exactly, anything else is refused."""

from __future__ import annotations

import inspect
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from fedtalk.errors import FedTalkError
from fedtalk.privacy import sealing
from fedtalk.privacy.sealing import STEP, PairwiseSealing, SealedUpdate, SealingError

NAMES = ["anna", "bert", "cora", "dora", "emil"]


def _vectors(count: int, dimension: int = 4096) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {name: generator.normal(0, 0.01, dimension) for name in NAMES[:count]}


def _words(update: SealedUpdate) -> np.ndarray:
    return np.frombuffer(update.payload, "<u8")


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_sum_opens_exactly(count: int) -> None:
    """Sums of fixed-point numbers by Python's integers are the oracle: not a bit may differ."""
    vectors = _vectors(count, 64)
    exact = [sum(round(value / STEP) for value in column) * STEP for column in zip(*vectors.values(), strict=True)]
    round_ = PairwiseSealing(3, list(vectors))
    opened = round_.open_sum([round_.seal(name, vector) for name, vector in vectors.items()])
    assert opened.tolist() == exact
    np.testing.assert_allclose(opened, sum(vectors.values()), atol=count * STEP)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=1, max_size=5),
    order=st.randoms(use_true_random=False),
)
def test_any_vectors_in_any_order(values: list[list[float]], order: random.Random) -> None:
    vectors = dict(zip(NAMES, map(np.array, values), strict=False))
    round_ = PairwiseSealing(0, list(vectors))
    updates = [round_.seal(name, vector) for name, vector in vectors.items()]
    first = round_.open_sum(updates)
    order.shuffle(updates)
    assert np.array_equal(round_.open_sum(updates), first)
    np.testing.assert_allclose(first, sum(vectors.values()), rtol=0, atol=len(vectors) * STEP)


@pytest.mark.parametrize("vector", [np.zeros(4096), np.full(4096, 1.0), np.linspace(-1, 1, 4096)])
def test_a_sealed_update_is_uniform_noise(vector: np.ndarray) -> None:
    """Bytes are uniform (chi-square, false alarm below 1e-6) and do not correlate with the clear vector."""
    round_ = PairwiseSealing(0, NAMES[:2])
    for name in NAMES[:2]:
        update = round_.seal(name, vector)
        counts = np.bincount(np.frombuffer(update.payload, np.uint8), minlength=256)
        expected = len(update.payload) / 256
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert chi2.ppf(1e-6, 255) < statistic < chi2.ppf(1 - 1e-6, 255)
        if vector.std() > 0:
            assert abs(np.corrcoef(_words(update).astype(np.float64), vector)[0, 1]) < 6 / np.sqrt(4096)


def test_every_word_of_a_sealed_update_differs_from_the_clear_one() -> None:
    vectors = _vectors(3)
    round_ = PairwiseSealing(0, list(vectors))
    for name, vector in vectors.items():
        clear = np.rint(vector / STEP).astype(np.int64).view(np.uint64)
        assert (_words(round_.seal(name, vector)) != clear).all()


def test_a_sum_that_misses_one_client_stays_noise() -> None:
    """Masks cancel over the whole set only: three of four say nothing about their sum."""
    vectors = _vectors(4)
    round_ = PairwiseSealing(0, list(vectors))
    updates = [round_.seal(name, vector) for name, vector in vectors.items()]
    partial = sum((_words(update) for update in updates[1:]), np.zeros(4096, np.uint64))
    clear = sum(vectors[name] for name in list(vectors)[1:])
    assert np.abs(partial.view(np.int64) * STEP - clear).min() > 1.0  # true values are about 0.02
    assert abs(np.corrcoef(partial.astype(np.float64), clear)[0, 1]) < 6 / np.sqrt(4096)


def test_secrets_are_fresh_every_round_and_come_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    vector = np.ones(16)
    payloads = set()
    for _ in range(4):
        random.seed(0)
        np.random.seed(0)
        payloads.add(PairwiseSealing(0, NAMES).seal("anna", vector).payload)
    assert len(payloads) == 4
    drawn: list[int] = []
    monkeypatch.setattr(sealing.secrets, "token_bytes", lambda size: drawn.append(size) or bytes(size))
    same = {PairwiseSealing(0, NAMES).seal("anna", vector).payload for _ in range(2)}
    assert drawn == [32] * 20  # one secret of 256 bits for each of ten pairs, twice
    assert len(same) == 1  # and nothing else is random
    source = inspect.getsource(sealing)
    assert "np.random" not in source and "import random" not in source and "torch" not in source


def _sealed(round_number: int = 5) -> tuple[PairwiseSealing, list[SealedUpdate]]:
    vectors = _vectors(3, 8)
    round_ = PairwiseSealing(round_number, list(vectors))
    return round_, [round_.seal(name, vector) for name, vector in vectors.items()]


def test_a_missing_update_is_refused() -> None:
    round_, updates = _sealed()
    for index in range(3):
        with pytest.raises(SealingError, match="expected one sealed update of each"):
            round_.open_sum(updates[:index] + updates[index + 1 :])
    with pytest.raises(SealingError):
        round_.open_sum([])


def test_a_duplicated_update_is_refused() -> None:
    round_, updates = _sealed()
    for wrong in ([*updates, updates[0]], [updates[0], updates[0], updates[2]]):
        with pytest.raises(SealingError, match="expected one sealed update of each"):
            round_.open_sum(wrong)


def test_an_update_of_another_round_is_refused() -> None:
    round_, updates = _sealed(5)
    old = _sealed(4)[1]
    with pytest.raises(SealingError, match=r"rounds \[4, 5\]"):
        round_.open_sum([old[0], *updates[1:]])


def test_a_stranger_or_a_cut_update_is_refused() -> None:
    round_, updates = _sealed()
    with pytest.raises(SealingError, match="zoe"):
        round_.open_sum([*updates[:2], replace(updates[2], client="zoe")])
    with pytest.raises(SealingError, match=f"{updates[1].client}: expected 8 coordinates, got 7"):
        round_.open_sum([updates[0], replace(updates[1], payload=updates[1].payload[:-8]), updates[2]])


def test_a_client_outside_the_round_seals_nothing() -> None:
    """It shares no mask with anybody, so its update would leave in the clear."""
    with pytest.raises(SealingError, match="zoe is not among the survivors"):
        PairwiseSealing(0, NAMES).seal("zoe", np.ones(4))


def test_a_client_named_twice_is_refused() -> None:
    with pytest.raises(SealingError, match="named twice"):
        PairwiseSealing(0, ["anna", "anna"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**20, -(2.0**21)])
def test_what_does_not_fit_the_ring_is_refused(value: float) -> None:
    vector = np.zeros(4)
    vector[2] = value
    with pytest.raises(SealingError, match="the update of anna"):
        PairwiseSealing(0, NAMES).seal("anna", vector)


def test_sealing_errors_are_fedtalks_own() -> None:
    assert issubclass(SealingError, FedTalkError)
