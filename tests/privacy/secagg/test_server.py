"""Each state of the server: what it takes, what it refuses at the sender's cost, and when it gives the round up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.secagg import AbortedRound, AggregationSettings, Assumptions, CollectingKeys, RefusedMessage
from fedtalk.privacy.secagg.envelope import SEALED_BYTES
from fedtalk.privacy.secagg.keys import KeyPair
from fedtalk.privacy.secagg.messages import (
    KeyAdvertisement,
    MaskedInput,
    Message,
    RevealedShares,
    Roster,
    SealedShares,
    ShareDelivery,
)
from fedtalk.privacy.secagg.packing import PackedSum
from fedtalk.privacy.secagg.shamir import SHARE_BYTES

OWN = 21
IDS = (3, 8, 21, 40, 77)
WRONG_HEADERS = [{"client": 3}, {"session": b"z" * 16}, {"round_number": 6}]


def altered(data: bytes, kind: type[Message], **changes: object) -> bytes:
    return replace(kind.decode(data), **changes).encode()  # type: ignore[arg-type]


def refuses_what_every_state_refuses(state, good: bytes, kind: type[Message]) -> None:
    """Garbage, a stranger, and headers that name another client, session or round."""
    for garbage in (b"", b"\xff" * 100, good[:-1] if kind is not MaskedInput else b""):
        with pytest.raises(RefusedMessage):
            state.receive(OWN, garbage)
    with pytest.raises(RefusedMessage, match="got from 99"):
        state.receive(99, good)
    with pytest.raises(RefusedMessage, match="forged"):
        state.receive(40, good)  # what client 21 wrote, under client 40's name
    for wrong in WRONG_HEADERS:
        with pytest.raises(RefusedMessage, match="forged"):
            state.receive(OWN, altered(good, kind, **wrong))


def refuses_a_second(state, good: bytes) -> None:
    state.receive(OWN, good)
    with pytest.raises(RefusedMessage, match="second"):
        state.receive(OWN, good)


class TestCollectingKeys:
    def test_gives_a_roster_of_those_who_answered(self, cohort) -> None:
        cohort.to_roster(without=[8])
        rosters = {client: Roster.decode(data) for client, data in cohort.rosters.items()}
        assert all(roster.count == 4 for roster in rosters.values())
        assert all(set(roster.neighbour_keys) == {3, 21, 40, 77} - {client} for client, roster in rosters.items())

    def test_refuses(self, cohort) -> None:
        good = cohort.enrolled[OWN].join(cohort.invitations[OWN])[1]
        refuses_what_every_state_refuses(cohort.collecting_keys, good, KeyAdvertisement)
        assert cohort.collecting_keys.waiting_for == frozenset(IDS)
        refuses_a_second(cohort.collecting_keys, good)

    def test_refuses_copied_and_degenerate_keys(self, cohort) -> None:
        state, session = cohort.collecting_keys, cohort.settings.session
        first, second = KeyPair().public, KeyPair().public
        state.receive(3, KeyAdvertisement(3, session, 7, first, second).encode())
        for pair in [(first, KeyPair().public), (KeyPair().public, first), (second, first), (KeyPair().public,) * 2]:
            with pytest.raises(RefusedMessage, match="in use"):
                state.receive(8, KeyAdvertisement(8, session, 7, *pair).encode())
        for pair in [(bytes(32), KeyPair().public), (KeyPair().public, bytes(32))]:
            with pytest.raises(RefusedMessage, match="large order"):
                state.receive(8, KeyAdvertisement(8, session, 7, *pair).encode())

    def test_aborts_with_too_few(self, cohort) -> None:
        with pytest.raises(AbortedRound, match="at least 3 clients, got 2"):
            cohort.to_roster(without=[3, 8, 77])

    def test_aborts_where_those_who_answered_are_too_few_for_any_graph(self) -> None:
        settings = AggregationSettings(b"s" * 16, 4, 20, Assumptions(0.5, 0.3))  # 4: 2 colluding, 1 dropping
        state = CollectingKeys(range(9), settings, 0)
        for client in range(4):
            keys = (KeyPair().public, KeyPair().public)
            state.receive(client, KeyAdvertisement(client, settings.session, 0, *keys).encode())
        with pytest.raises(AbortedRound, match="2 colluding and 1 dropping"):
            state.close()

    def test_two_rounds_draw_two_graphs(self, cohort) -> None:
        cohort.to_roster()
        again = type(cohort)()
        again.to_roster()
        assert Roster.decode(cohort.rosters[3]).digest != Roster.decode(again.rosters[3]).digest

    @pytest.mark.parametrize("ids", [[], [1], [1, 2], [1, 2, 2, 3], [1, 2, -3], [1, 2, 2**32]])
    def test_an_unfit_cohort_is_a_configuration_error(self, cohort, ids) -> None:
        with pytest.raises(ConfigurationError, match="cohort"):
            CollectingKeys(ids, cohort.settings, 0)

    @pytest.mark.parametrize("number", [-1, 2**64])
    def test_a_round_out_of_range_is_a_configuration_error(self, cohort, number) -> None:
        with pytest.raises(ConfigurationError, match="round"):
            CollectingKeys(IDS, cohort.settings, number)


class TestCollectingShares:
    def test_delivers_each_envelope_to_its_neighbour(self, cohort) -> None:
        cohort.to_delivery(without=[8])
        for recipient, data in cohort.deliveries.items():
            for sender, sealed in ShareDelivery.decode(data).envelopes.items():
                assert SealedShares.decode(cohort.sealed[sender]).envelopes[recipient] == sealed
        assert set(ShareDelivery.decode(cohort.deliveries[OWN]).envelopes) == {3, 40, 77}

    def test_refuses(self, cohort) -> None:
        cohort.to_roster()
        good = cohort.advertised[OWN].receive_roster(cohort.rosters[OWN])[1]
        refuses_what_every_state_refuses(cohort.collecting_shares, good, SealedShares)
        envelopes = SealedShares.decode(good).envelopes
        for wrong in (dict(list(envelopes.items())[1:]), {**envelopes, 99: envelopes[3]}, {}):
            with pytest.raises(RefusedMessage, match="each neighbour"):
                cohort.collecting_shares.receive(OWN, altered(good, SealedShares, envelopes=wrong))
        refuses_a_second(cohort.collecting_shares, good)

    def test_aborts_with_too_few(self, cohort) -> None:
        with pytest.raises(AbortedRound, match="shares: expected at least 4 clients, got 3"):
            cohort.to_delivery(without=[3, 8])

    def test_leaves_out_whoever_is_cut_off(self) -> None:
        """One client loses so many neighbours that its masks could not be removed; the others go on without it."""
        settings = AggregationSettings(b"s" * 16, 4, 20, Assumptions(0.05, 0.3))
        state = CollectingKeys(range(100), settings, 0)
        for client in range(100):
            keys = (KeyPair().public, KeyPair().public)
            state.receive(client, KeyAdvertisement(client, settings.session, 0, *keys).encode())
        collecting, rosters = state.close()
        near = {client: tuple(Roster.decode(data).neighbour_keys) for client, data in rosters.items()}
        choice = settings.graph(100)
        assert all(
            len(peers) == choice.degree < 99 for peers in near.values()
        )  # and of the others a client hears nothing
        assert max(map(len, rosters.values())) < 32 + 4 + 32 + 4 + choice.degree * 68 + 4 + choice.mask_degree * 4 + 1
        # Those nearest to it on the circle, whose neighbourhoods overlap most with its own: nobody else loses as many.
        closest = sorted(near[0], key=lambda peer: len(set(near[peer]).intersection(near[0])), reverse=True)
        silent = closest[: choice.degree - choice.threshold + 1]
        assert 100 - len(silent) - 1 >= settings.survivors_needed(100)
        for client in set(range(100)) - set(silent):
            envelopes = {peer: bytes(SEALED_BYTES) for peer in near[client]}
            collecting.receive(client, SealedShares(client, settings.session, 0, envelopes, bytes(32)).encode())
        _, deliveries = collecting.close()
        assert set(deliveries) == set(range(1, 100)) - set(silent)
        assert all(0 not in ShareDelivery.decode(data).envelopes for data in deliveries.values())


class TestCollectingInputs:
    def test_refuses(self, cohort) -> None:
        cohort.to_delivery()
        good = cohort.shared[OWN].receive_shares(cohort.deliveries[OWN], cohort.vectors[OWN])[1]
        refuses_what_every_state_refuses(cohort.collecting_inputs, good, MaskedInput)
        packed = bytes(MaskedInput.decode(good).packed)
        for wrong in (packed[:-1], packed + b"\x00", b""):
            with pytest.raises(RefusedMessage, match=f"expected {len(packed)} bytes"):
                cohort.collecting_inputs.receive(OWN, altered(good, MaskedInput, packed=wrong))
        refuses_a_second(cohort.collecting_inputs, good)

    def test_refuses_a_client_that_never_shared(self, cohort) -> None:
        cohort.to_delivery(without=[8])
        message = MaskedInput(8, cohort.settings.session, 7, bytes(20))
        with pytest.raises(RefusedMessage, match="got from 8"):
            cohort.collecting_inputs.receive(8, message.encode())

    def test_a_refused_vector_is_not_in_the_sum(self, cohort) -> None:
        cohort.to_delivery()
        spoilt = cohort.shared[OWN].receive_shares(cohort.deliveries[OWN], cohort.vectors[OWN])[1]
        with pytest.raises(RefusedMessage):
            cohort.collecting_inputs.receive(OWN, altered(spoilt, MaskedInput, round_number=6))
        rest = [client for client in IDS if client != OWN]
        states = {}
        for client in rest:
            states[client], data = cohort.shared[client].receive_shares(
                cohort.deliveries[client], cohort.vectors[client]
            )
            cohort.collecting_inputs.receive(client, data)
        reveals, requests = cohort.collecting_inputs.close()
        for client in rest:
            reveals.receive(client, states[client].reveal(requests[client]))
        assert reveals.close().total.tolist() == cohort.expected_sum(rest)

    def test_a_late_vector_is_refused(self, cohort) -> None:
        cohort.to_request(without=[OWN])
        late = cohort.shared[OWN].receive_shares(cohort.deliveries[OWN], cohort.vectors[OWN])[1]
        with pytest.raises(RefusedMessage, match="after the stage was closed"):
            cohort.collecting_inputs.receive(OWN, late)

    def test_aborts_with_too_few(self, cohort) -> None:
        with pytest.raises(AbortedRound, match="masked vectors: expected at least 4 clients, got 3"):
            cohort.to_request(without=[3, 8])

    def test_is_closed_once(self, cohort) -> None:
        cohort.to_request()
        with pytest.raises(AbortedRound, match="second time"):
            cohort.collecting_inputs.close()


class TestCollectingReveals:
    def reveal(self, cohort, client: int) -> bytes:
        return cohort.submitted[client].reveal(cohort.requests[client])

    def test_gives_the_sum_and_who_is_in_it(self, cohort) -> None:
        cohort.to_request(without=[8])
        for client in (3, 21, 40, 77):
            cohort.collecting_reveals.receive(client, self.reveal(cohort, client))
        result = cohort.collecting_reveals.close()
        assert result.survivors == (3, 21, 40, 77)
        assert result.total.tolist() == cohort.expected_sum(result.survivors)
        assert result.total.dtype == cohort.settings.ring.dtype

    def test_refuses(self, cohort) -> None:
        cohort.to_request(without=[8])
        good = self.reveal(cohort, OWN)
        refuses_what_every_state_refuses(cohort.collecting_reveals, good, RevealedShares)
        shares, share = RevealedShares.decode(good), bytes(SHARE_BYTES)
        for wrong in (
            {"seeds": {**shares.seeds, 99: share}},
            {"seeds": dict(sorted({**shares.seeds, OWN: share}.items()))},
            {"seeds": dict(sorted({**shares.seeds, 8: share}.items()))},  # the other kind, for one that dropped out
            {"mask_keys": {3: share, 8: share}},
        ):
            with pytest.raises(RefusedMessage, match="asked for"):
                cohort.collecting_reveals.receive(OWN, altered(good, RevealedShares, **wrong))
        refuses_a_second(cohort.collecting_reveals, good)

    def test_refuses_one_that_dropped_out(self, cohort) -> None:
        cohort.to_request(without=[8])
        with pytest.raises(RefusedMessage, match="got from 8"):
            cohort.collecting_reveals.receive(8, self.reveal(cohort, OWN))

    def test_aborts_for_want_of_shares(self, cohort) -> None:
        cohort.to_request()
        for client in (3, 8):
            cohort.collecting_reveals.receive(client, self.reveal(cohort, client))
        with pytest.raises(AbortedRound, match="at least 3 clients, got 2"):
            cohort.collecting_reveals.close()

    def test_aborts_when_a_neighbourhood_has_too_few_shares(self, cohort) -> None:
        cohort.to_request()
        for client in (3, 8, 21):  # as many as the threshold, but each of them holds none of its own
            cohort.collecting_reveals.receive(client, self.reveal(cohort, client))
        with pytest.raises(AbortedRound, match="expected 3 shares of the seed of client 3, got 2"):
            cohort.collecting_reveals.close()

    @pytest.mark.parametrize("kind", ["seeds", "mask_keys"])
    def test_one_wrong_share_costs_nothing(self, cohort, kind) -> None:
        without = [8] if kind == "mask_keys" else []
        cohort.to_request(without=without)
        survivors = [client for client in IDS if client not in without]
        for client in survivors:
            data = self.reveal(cohort, client)
            if client == OWN:
                shares = getattr(RevealedShares.decode(data), kind)
                data = altered(data, RevealedShares, **{kind: {peer: bytes(SHARE_BYTES) for peer in shares}})
            cohort.collecting_reveals.receive(client, data)
        assert cohort.collecting_reveals.close().total.tolist() == cohort.expected_sum(survivors)

    @pytest.mark.parametrize("kind", ["seeds", "mask_keys"])
    def test_wrong_shares_cost_the_round_and_never_give_a_wrong_sum(self, cohort, kind) -> None:
        cohort.to_request(without=[8])
        for client in (3, 21, 40, 77):
            data = self.reveal(cohort, client)
            if client in (21, 40):
                shares = getattr(RevealedShares.decode(data), kind)
                data = altered(data, RevealedShares, **{kind: {peer: bytes(SHARE_BYTES) for peer in shares}})
            cohort.collecting_reveals.receive(client, data)
        with pytest.raises(AbortedRound, match="don't fit"):
            cohort.collecting_reveals.close()

    def test_a_wrong_commitment_costs_the_round(self, cohort) -> None:
        cohort.to_roster()
        shared = {}
        for client in IDS:
            shared[client], data = cohort.advertised[client].receive_roster(cohort.rosters[client])
            if client == OWN:
                data = altered(data, SealedShares, commitment=bytes(32))
            cohort.collecting_shares.receive(client, data)
        inputs, deliveries = cohort.collecting_shares.close()
        submitted = {}
        for client in IDS:
            submitted[client], data = shared[client].receive_shares(deliveries[client], cohort.vectors[client])
            inputs.receive(client, data)
        reveals, requests = inputs.close()
        for client in IDS:
            reveals.receive(client, submitted[client].reveal(requests[client]))
        with pytest.raises(AbortedRound, match="seed of client 21"):
            reveals.close()


def test_the_server_keeps_no_vector(cohort) -> None:
    """Nothing that the server holds after the inputs has a client's masked vector in it, let alone a clear one."""
    cohort.to_request()
    assert not any(isinstance(value, np.ndarray) for value in vars(cohort.collecting_inputs).values())
    words = cohort.settings.words
    running, empty = cohort.collecting_inputs._sum, PackedSum(words.count, words.width)
    assert vars(running).keys() == vars(empty).keys()
    assert {key: part.shape for key, part in running._sums.items()} == {
        key: part.shape for key, part in empty._sums.items()
    }
    masked = [bytes(MaskedInput.decode(data).packed) for data in cohort.masked.values()]
    held = repr(vars(cohort.collecting_inputs))
    assert not any(repr(packed) in held for packed in masked)
