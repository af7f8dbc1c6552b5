"""Whole rounds: the sum, what the server sees of a vector, what is paid for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.secagg import (
    AbortedRound,
    AggregationSettings,
    Assumptions,
    CollectingKeys,
    Enrolled,
    Ring,
    Stage,
    run_round,
)
from fedtalk.privacy.secagg.messages import MaskedInput, SealedShares
from fedtalk.privacy.secagg.packing import unpack

SESSION = b"s" * 16


def vectors(clients: int, dimension: int, bits: int, seed: int = 0) -> dict[int, np.ndarray]:
    """Of either sign, and small enough for any sum of theirs to lie in the ring's range."""
    generator, bound = np.random.default_rng(seed), (2 ** (bits - 1) - 1) // clients
    ring = Ring(bits)
    return {client: ring.from_signed(generator.integers(-bound, bound + 1, dimension)) for client in range(clients)}


def plain_sum(inputs: dict[int, np.ndarray], clients: tuple[int, ...], bits: int) -> list[int]:
    """By Python's own integers."""
    return [sum(column) % (1 << bits) for column in zip(*(inputs[client].tolist() for client in clients), strict=True)]


@given(st.integers(3, 9), st.integers(1, 40), st.integers(5, 62), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_the_sum_is_exact(clients: int, dimension: int, bits: int, seed: int) -> None:
    inputs = vectors(clients, dimension, bits, seed)
    report = run_round(inputs, AggregationSettings(SESSION, dimension, bits))
    assert report.survivors == tuple(range(clients))
    assert report.total.tolist() == plain_sum(inputs, report.survivors, bits)
    assert not report.refused


@pytest.mark.parametrize("clients", [17, 40])
def test_the_sum_is_exact_on_a_sparse_graph_with_dropouts_at_every_stage(clients: int) -> None:
    settings_ = AggregationSettings(SESSION, 50, 20, Assumptions(0.1, 0.2))
    assert settings_.graph(clients).degree < clients - 1
    inputs = vectors(clients, 50, 20)
    drops = {1: Stage.KEYS, 5: Stage.SHARES, 9: Stage.INPUT, 11: Stage.REVEAL}
    report = run_round(inputs, settings_, drops=drops)
    gone = {client for client, stage in drops.items() if stage != Stage.REVEAL}
    assert set(report.survivors) == set(range(clients)) - gone  # who sent its vector is in, though it left then
    assert report.total.tolist() == plain_sum(inputs, report.survivors, 20)


def test_ids_may_be_any_numbers_and_their_order_is_nothing() -> None:
    inputs = vectors(6, 5, 20)
    renamed = {name: inputs[client] for client, name in enumerate([4_000_000_000, 7, 0, 2**32 - 1, 12, 3])}
    report = run_round(renamed, AggregationSettings(SESSION, 5, 20))
    assert report.total.tolist() == plain_sum(inputs, tuple(range(6)), 20)


def masked_vectors(inputs: dict[int, np.ndarray], settings_: AggregationSettings) -> dict[int, np.ndarray]:
    """What the server sees of each client's vector."""
    seen: dict[int, np.ndarray] = {}

    def look(stage: Stage, client: int, data: bytes) -> bytes:
        if stage == Stage.INPUT:
            words = settings_.words
            seen[client] = words.split(unpack(MaskedInput.decode(data).packed, words.count, words.width))
        return data

    run_round(inputs, settings_, transport=look)
    return seen


@pytest.mark.parametrize("bits", [8, 20, 40])
def test_a_masked_vector_looks_uniform(bits: int) -> None:
    """Chi-square of each of its lowest and highest 8 bits over 2**16 coordinates, for a vector that is all 3.

    256 cells of 256 expected hits each; refused below p = 1e-9 a test. Power: masks that leave the cells' probabilities
    off by 15 % (root mean square) have a non-centrality of 0.15**2 * 65536 = 1475, where the test's limit is about 410:
    they pass with probability below 1e-20. No masks at all, all in one cell, never pass.
    """
    dimension, settings_ = 1 << 16, AggregationSettings(SESSION, 1 << 16, bits)
    clear = np.full(dimension, 3, dtype=settings_.ring.dtype)
    for masked in masked_vectors(dict.fromkeys(range(3), clear), settings_).values():
        for part in (masked & 255, masked >> (bits - 8)):
            counts = np.bincount(part.astype(np.int64), minlength=256)
            assert len(counts) == 256 and scipy.stats.chisquare(counts).pvalue > 1e-9


def test_the_uniformity_test_has_its_stated_power() -> None:
    tilted = np.where(np.arange(256) % 2, 1.15, 0.85) / 256
    limit = scipy.stats.chi2(255).isf(1e-9)
    assert scipy.stats.ncx2(255, 65536 * 256 * ((tilted - 1 / 256) ** 2).sum()).cdf(limit) < 1e-20


def test_masks_hide_each_vector_and_cancel_in_the_sum() -> None:
    """Three equal vectors look unlike the clear one and unlike each other; without all masks gone no sum is right."""
    settings_ = AggregationSettings(SESSION, 1000, 20)
    clear = np.arange(1000, dtype="<u4")
    seen = masked_vectors(dict.fromkeys(range(3), clear), settings_)
    rows = [clear, *seen.values()]
    for index, row in enumerate(rows):
        for other in rows[index + 1 :]:
            assert np.count_nonzero(row == other) < 20  # by chance 0.001 expected
    still_masked = settings_.ring.reduce(sum(seen.values(), np.zeros(1000, dtype="<u4")))
    assert np.count_nonzero(still_masked == settings_.ring.reduce(3 * clear)) < 20  # the own masks are left
    again = masked_vectors(dict.fromkeys(range(3), clear), settings_)
    assert all(np.count_nonzero(seen[client] == again[client]) < 20 for client in seen)  # fresh masks each time


def test_no_randomness_but_the_operating_systems(monkeypatch) -> None:
    """Seeding every generator a program can seed doesn't make two rounds alike."""
    import random

    import torch

    inputs, settings_ = vectors(3, 64, 20), AggregationSettings(SESSION, 64, 20)
    seen = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        seen.append(masked_vectors(inputs, settings_))
    assert all(np.count_nonzero(seen[0][client] == seen[1][client]) < 5 for client in inputs)


def test_clients_take_part_in_one_round_after_another_and_refuse_a_repeated_one() -> None:
    settings_ = AggregationSettings(SESSION, 4, 20)
    clients = {client: Enrolled(client, settings_) for client in range(4)}
    inputs = vectors(4, 4, 20)
    for number in (0, 1, 5):
        report = run_round(inputs, settings_, number, clients=clients)
        assert report.total.tolist() == plain_sum(inputs, report.survivors, 20)
    with pytest.raises(AbortedRound, match="got 0"):
        run_round(inputs, settings_, 5, clients=clients)


def test_messages_of_an_earlier_round_are_of_no_use_in_a_later_one() -> None:
    """Each answer of client 2 replayed from round 0 into round 1, header corrected or not: it drops out, no more."""
    settings_ = AggregationSettings(SESSION, 4, 20, Assumptions(0.2, 0.25))
    inputs = vectors(5, 4, 20)
    recorded: dict[Stage, bytes] = {}

    def record(stage: Stage, client: int, data: bytes) -> bytes:
        if client == 2:
            recorded[stage] = data
        return data

    run_round(inputs, settings_, 0, transport=record)
    for replayed in (Stage.KEYS, Stage.SHARES, Stage.INPUT, Stage.REVEAL):

        def replay(stage: Stage, client: int, data: bytes, replayed: Stage = replayed) -> bytes:
            return recorded[stage] if (client, stage) == (2, replayed) else data

        report = run_round(inputs, settings_, 1, transport=replay)
        assert "forged, or from another round" in report.refused[2]
        assert (2 in report.survivors) == (replayed == Stage.REVEAL)
        assert report.total.tolist() == plain_sum(inputs, report.survivors, 20)


def test_a_replay_with_a_corrected_header_opens_nothing() -> None:
    """Round and roster are in every key: shares that were sealed for round 0 don't open in round 1."""
    settings_ = AggregationSettings(SESSION, 4, 20)
    inputs = vectors(4, 4, 20)
    recorded: dict[int, bytes] = {}

    def record(stage: Stage, client: int, data: bytes) -> bytes:
        if stage == Stage.SHARES:
            recorded[client] = data
        return data

    def replay(stage: Stage, client: int, data: bytes) -> bytes:
        if stage == Stage.SHARES and client == 2:
            return replace(SealedShares.decode(recorded[2]), round_number=1).encode()
        return data

    run_round(inputs, settings_, 0, transport=record)
    with pytest.raises(AbortedRound, match="seed of client 2"):
        run_round(inputs, settings_, 1, transport=replay)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_client_that_sends_garbage_costs_its_update_not_the_round(stage: Stage) -> None:
    settings_ = AggregationSettings(SESSION, 4, 20, Assumptions(0.2, 0.25))
    inputs = vectors(5, 4, 20)
    report = run_round(
        inputs, settings_, transport=lambda at, client, data: b"\x07" * 99 if (at, client) == (stage, 3) else data
    )
    assert "refused by the server" in report.refused[3]
    assert (3 in report.survivors) == (stage == Stage.REVEAL)
    assert report.total.tolist() == plain_sum(inputs, report.survivors, 20)


def test_ten_clients_of_twenty_bits_cost_at_most_a_third_more_than_clear_sixteen() -> None:
    inputs = vectors(10, 100_000, 20)
    report = run_round(inputs, AggregationSettings(SESSION, 100_000, 20))
    assert max(report.bytes_up.values()) <= 1.3 * 2 * 100_000
    assert min(report.bytes_up.values()) >= 100_000 * 20 / 8


@pytest.mark.parametrize("clients", [1, 2])
def test_one_or_two_clients_are_a_configuration_error(clients: int) -> None:
    with pytest.raises(ConfigurationError, match=f"at least .* got {clients}"):
        CollectingKeys(range(clients), AggregationSettings(SESSION, 4, 20), 0)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"session": b"short"}, "session"),
        ({"dimension": 0}, "dimension"),
        ({"bits": 63}, "bits"),
        ({"least_survivors": 2}, "least_survivors"),
    ],
)
def test_unsafe_settings_are_configuration_errors(settings_of, wrong, name) -> None:
    with pytest.raises(ConfigurationError, match=name):
        settings_of(**wrong)


def test_survivors_needed_covers_every_reason(settings_of) -> None:
    assert settings_of(assumptions=Assumptions(0.0, 0.5)).survivors_needed(4) == 3  # never fewer than three
    assert settings_of(assumptions=Assumptions(0.4, 0.5)).survivors_needed(20) == 10  # what the graph allows for
    assert settings_of(assumptions=Assumptions(0.6, 0.9)).survivors_needed(20) == 14  # two more than collude
    assert settings_of(least_survivors=9).survivors_needed(10) == 9
