"""A client among many, which shares its secrets with some of them and has masks with fewer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest

from fedtalk.privacy.secagg import (
    AggregationSettings,
    Assumptions,
    CollectingKeys,
    Enrolled,
    RefusedMessage,
    Shared,
    Stage,
    Submitted,
    run_round,
)
from fedtalk.privacy.secagg.envelope import SEALED_BYTES
from fedtalk.privacy.secagg.graph import neighbours
from fedtalk.privacy.secagg.keys import KeyPair
from fedtalk.privacy.secagg.messages import Invitation, KeyAdvertisement, RevealRequest, Roster, ShareDelivery

COUNT, OWN = 333, 21


class Sparse:
    """One client's view of the round."""

    def __init__(self, settings: AggregationSettings) -> None:
        self.settings, self.choice = settings, settings.graph(COUNT)
        self.near = neighbours(range(COUNT), self.choice.degree, b"g" * 32)[OWN]
        self.masking = neighbours(range(COUNT), self.choice.mask_degree, b"g" * 32)[OWN]
        self.others = tuple(peer for peer in self.near if peer not in self.masking)
        self.head = (OWN, settings.session, 0)
        self._keys = {peer: (KeyPair().public, KeyPair().public) for peer in self.near}

    def roster(self, masking: tuple[int, ...]) -> bytes:
        return Roster(*self.head, COUNT, b"g" * 32, self._keys, masking).encode()

    def join(self, masking: tuple[int, ...]) -> Shared:
        invitation = Invitation(*self.head, self.settings.fingerprint()).encode()
        return Enrolled(OWN, self.settings).join(invitation)[0].receive_roster(self.roster(masking))[0]

    def submit(self, delivered: Iterable[int]) -> Submitted:
        envelopes = {peer: bytes(SEALED_BYTES) for peer in sorted(delivered)}
        vector = np.zeros(self.settings.dimension, dtype="<u4")
        return self.join(self.masking).receive_shares(ShareDelivery(*self.head, envelopes).encode(), vector)[0]

    def request(self, dropped: Iterable[int]) -> bytes:
        dropped = tuple(sorted(dropped))
        survivors = tuple(peer for peer in self.near if peer not in dropped)
        return RevealRequest(*self.head, COUNT - len(dropped), survivors, dropped).encode()


@pytest.fixture
def sparse(settings_of: Callable[..., AggregationSettings]) -> Sparse:
    got = Sparse(settings_of(assumptions=Assumptions(0.2, 0.2)))
    assert 1 < got.choice.mask_threshold < got.choice.mask_degree < got.choice.degree < COUNT - 1
    return got


def test_has_masks_with_the_neighbours_that_the_roster_says(sparse: Sparse) -> None:
    shared = sparse.join(sparse.masking)
    assert len(shared._pair_masks(sparse.near)) == sparse.choice.mask_degree
    assert shared._pair_masks(sparse.others) == []


@pytest.mark.parametrize("wrong", ["fewer", "more", "a stranger", "none"])
def test_refuses_a_roster_with_other_than_so_many_of_its_neighbours(sparse: Sparse, wrong: str) -> None:
    stranger = next(peer for peer in range(COUNT) if peer not in sparse.near and peer != OWN)
    masking = {
        "fewer": sparse.masking[1:],
        "more": tuple(sorted((*sparse.masking, sparse.others[0]))),
        "a stranger": tuple(sorted((*sparse.masking[1:], stranger))),
        "none": (),
    }[wrong]
    with pytest.raises(RefusedMessage, match=f"masks with {sparse.choice.mask_degree} of the {sparse.choice.degree}"):
        sparse.join(masking)


def test_refuses_a_delivery_that_leaves_too_few_masks(sparse: Sparse) -> None:
    """A server that holds back the envelopes of those with masks would have the vector under its own mask alone."""
    few = sparse.masking[: sparse.choice.mask_threshold - 1]
    delivered = (*few, *sparse.others)
    assert len(delivered) >= sparse.choice.threshold
    with pytest.raises(RefusedMessage, match="too few masks to hide"):
        sparse.submit(delivered)
    sparse.submit((*delivered, sparse.masking[-1]))


def test_refuses_too_few_survivors_with_masks_beside_it(sparse: Sparse) -> None:
    dropped = sparse.masking[: sparse.choice.mask_degree - sparse.choice.mask_threshold + 1]
    submitted = sparse.submit(sparse.near)
    assert sparse.choice.degree - len(dropped) >= sparse.choice.threshold
    with pytest.raises(RefusedMessage, match=f"at least {sparse.choice.mask_threshold} survivors that have masks"):
        submitted.reveal(sparse.request(dropped))
    submitted.reveal(sparse.request(dropped[:-1]))


def test_refuses_too_few_surviving_neighbours(sparse: Sparse) -> None:
    """On a sparse graph enough may survive in all and too few beside this client."""
    choice = sparse.choice
    order = (*sparse.others, *sparse.masking)  # those without masks go first
    dropped = order[: choice.degree - choice.threshold + 1]
    submitted = sparse.submit(sparse.near)
    assert COUNT - len(dropped) >= sparse.settings.survivors_needed(COUNT)
    with pytest.raises(RefusedMessage, match=f"at least {choice.threshold} surviving neighbours"):
        submitted.reveal(sparse.request(dropped))
    submitted.reveal(sparse.request(dropped[:-1]))


def test_the_server_tells_both_ends_of_a_mask_of_it() -> None:
    settings = AggregationSettings(b"s" * 16, 4, 20)
    state = CollectingKeys(range(100), settings, 0)
    for client in range(100):
        pair = (KeyPair().public, KeyPair().public)
        state.receive(client, KeyAdvertisement(client, settings.session, 0, *pair).encode())
    rosters = {client: Roster.decode(data) for client, data in state.close()[1].items()}
    choice = settings.graph(100)
    assert choice.mask_degree < choice.degree
    for client, roster in rosters.items():
        assert len(roster.masking) == choice.mask_degree and set(roster.masking) < set(roster.neighbour_keys)
        assert all(client in rosters[peer].masking for peer in roster.masking)


def test_the_sum_is_exact_with_fewer_masks_than_shares_and_dropouts_at_every_stage() -> None:
    settings = AggregationSettings(b"s" * 16, 7, 20)
    assert settings.graph(95).mask_degree < settings.graph(95).degree
    generator, bound = np.random.default_rng(5), 2**19 // 100 - 1
    vectors = {client: generator.integers(-bound, bound + 1, 7) for client in range(100)}
    inputs = {client: settings.ring.from_signed(vector) for client, vector in vectors.items()}
    drops = {20 * place + number: stage for place, stage in enumerate(Stage) for number in range(5)}
    report = run_round(inputs, settings, drops=drops)
    expected = sum(vectors[client] for client in vectors if drops.get(client, Stage.REVEAL) == Stage.REVEAL)
    assert settings.ring.to_signed(report.total).tolist() == expected.tolist()


def test_an_older_side_is_told_to_run_the_same_version(sparse: Sparse) -> None:
    old = bytes([3]) + sparse.roster(sparse.masking)[1:]
    invitation = Invitation(*sparse.head, sparse.settings.fingerprint()).encode()
    with pytest.raises(RefusedMessage, match="protocol version 4, got 3"):
        Enrolled(OWN, replace(sparse.settings)).join(invitation)[0].receive_roster(old)
