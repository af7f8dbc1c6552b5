"""Each state of the client: what it answers, and what it refuses without revealing anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.secagg import Assumptions, Enrolled, InvalidInput, MalformedMessage, RefusedMessage, envelope
from fedtalk.privacy.secagg.keys import KeyPair
from fedtalk.privacy.secagg.messages import (
    Invitation,
    KeyAdvertisement,
    MaskedInput,
    Message,
    RevealedShares,
    RevealRequest,
    Roster,
    SealedShares,
    ShareDelivery,
)
from fedtalk.privacy.secagg.packing import unpack

OWN = 21
OTHERS = (3, 8, 40, 77)


def altered(data: bytes, kind: type[Message], **changes: object) -> bytes:
    """The message in ``data`` with some fields changed."""
    return replace(kind.decode(data), **changes).encode()  # type: ignore[arg-type]


WRONG_ADDRESS = [{"client": 3}, {"session": b"z" * 16}, {"round_number": 8}]
GARBAGE = [b"", b"\x00" * 32, b"\xff" * 200]


class TestEnrolled:
    def test_answers_with_two_fresh_public_keys(self, cohort) -> None:
        again = Enrolled(OWN, cohort.settings)
        first, second = (
            KeyAdvertisement.decode(client.join(cohort.invitations[OWN])[1]) for client in (cohort.enrolled[OWN], again)
        )
        used = {first.sealing_public, first.mask_public, second.sealing_public, second.mask_public}
        assert len(used) == 4 and first.client == OWN and first.round_number == 7

    def test_refuses_a_replayed_or_older_round(self, cohort) -> None:
        client = cohort.enrolled[OWN]
        client.join(cohort.invitations[OWN])
        assert client.last_round == 7
        for number in (7, 6):
            with pytest.raises(RefusedMessage, match=f"after 7, got {number}"):
                client.join(altered(cohort.invitations[OWN], Invitation, round_number=number))
        client.join(altered(cohort.invitations[OWN], Invitation, round_number=8))

    def test_takes_the_id_of_the_round_where_it_has_none_of_its_own(self, cohort) -> None:
        client = Enrolled(None, cohort.settings)
        for number, given in ((7, 40), (8, 3)):
            invitation = altered(cohort.invitations[40], Invitation, client=given, round_number=number)
            assert KeyAdvertisement.decode(client.join(invitation)[1]).client == given

    def test_refuses_a_round_it_joined_before_a_restart(self, cohort) -> None:
        with pytest.raises(RefusedMessage, match="after 7"):
            Enrolled(OWN, cohort.settings, last_round=7).join(cohort.invitations[OWN])

    @pytest.mark.parametrize("wrong", [{"client": 3}, {"session": b"z" * 16}, {"settings": b"z" * 32}])
    def test_refuses_another_address_or_other_settings(self, cohort, wrong) -> None:
        with pytest.raises(RefusedMessage):
            cohort.enrolled[OWN].join(altered(cohort.invitations[OWN], Invitation, **wrong))
        assert cohort.enrolled[OWN].last_round == -1

    @pytest.mark.parametrize(
        "change",
        [
            {"dimension": 7},
            {"bits": 21},
            {"least_survivors": 4},
            {"assumptions": Assumptions(0.1, 0.2)},
            {"assumptions": Assumptions(0.2, 0.1)},
            {"assumptions": Assumptions(0.2, 0.2, security_bits=41)},
            {"assumptions": Assumptions(0.2, 0.2, failure_bits=21)},
        ],
    )
    def test_every_setting_counts(self, cohort, change) -> None:
        with pytest.raises(RefusedMessage, match="settings"):
            Enrolled(OWN, replace(cohort.settings, **change)).join(cohort.invitations[OWN])

    @pytest.mark.parametrize("garbage", GARBAGE)
    def test_refuses_garbage(self, cohort, garbage) -> None:
        with pytest.raises(MalformedMessage):
            cohort.enrolled[OWN].join(garbage)

    @pytest.mark.parametrize("client", [-1, 2**32])
    def test_an_id_out_of_range_is_a_configuration_error(self, cohort, client) -> None:
        with pytest.raises(ConfigurationError, match="client id"):
            Enrolled(client, cohort.settings)


class TestAdvertised:
    def test_answers_with_an_envelope_for_each_neighbour(self, cohort) -> None:
        cohort.to_roster()
        _, reply = cohort.advertised[OWN].receive_roster(cohort.rosters[OWN])
        sealed = SealedShares.decode(reply)
        assert tuple(sealed.envelopes) == OTHERS
        assert len(set(sealed.envelopes.values())) == 4

    def test_refuses_a_second_roster(self, cohort) -> None:
        cohort.to_roster()
        cohort.advertised[OWN].receive_roster(cohort.rosters[OWN])
        with pytest.raises(RefusedMessage, match="second"):
            cohort.advertised[OWN].receive_roster(cohort.rosters[OWN])

    @pytest.mark.parametrize("wrong", WRONG_ADDRESS)
    def test_refuses_another_address(self, cohort, wrong) -> None:
        cohort.to_roster()
        with pytest.raises(RefusedMessage, match="expected one for client 21"):
            cohort.advertised[OWN].receive_roster(altered(cohort.rosters[OWN], Roster, **wrong))

    @pytest.mark.parametrize("garbage", GARBAGE)
    def test_refuses_garbage(self, cohort, garbage) -> None:
        cohort.to_roster()
        with pytest.raises(MalformedMessage):
            cohort.advertised[OWN].receive_roster(garbage)

    def change_roster(self, cohort, change: Callable[[Roster], dict[str, object]]) -> bytes:
        cohort.to_roster()
        return altered(cohort.rosters[OWN], Roster, **change(Roster.decode(cohort.rosters[OWN])))

    def refuses(self, cohort, change: Callable[[Roster], dict[str, object]], match: str) -> None:
        roster = self.change_roster(cohort, change)
        with pytest.raises(RefusedMessage, match=match):
            cohort.advertised[OWN].receive_roster(roster)
        cohort.advertised[OWN].receive_roster(cohort.rosters[OWN])  # nothing was done: the right one still goes

    def test_refuses_itself_as_a_neighbour(self, cohort) -> None:
        keys = (KeyPair().public, KeyPair().public)
        self.refuses(
            cohort,
            lambda roster: {"neighbour_keys": dict(sorted({**roster.neighbour_keys, OWN: keys}.items())[1:])},
            "neighbours of client 21 among 5, got 4",
        )

    @pytest.mark.parametrize("count", [4, 6, 2**32 - 1])
    def test_refuses_a_count_that_its_neighbours_dont_fit(self, cohort, count) -> None:
        self.refuses(cohort, lambda roster: {"count": count}, "expected the keys of|at most")

    def test_another_roster_gives_other_keys(self, cohort) -> None:
        """A server that tells clients of different rosters can't have their shares opened by each other."""
        roster = self.change_roster(cohort, lambda roster: {"digest": b"z" * 32})
        _, told = cohort.advertised[OWN].receive_roster(roster)
        peer, _ = cohort.advertised[8].receive_roster(cohort.rosters[8])
        sealed = SealedShares.decode(told).envelopes[8]
        assert envelope.unseal(sealed, peer._peers[OWN].open_from) is None

    def test_refuses_too_small_a_cohort(self, cohort) -> None:
        keys = (KeyPair().public, KeyPair().public)
        self.refuses(cohort, lambda roster: {"count": 2, "neighbour_keys": {3: keys}}, "at least 3")

    def test_refuses_a_missing_neighbour(self, cohort) -> None:
        self.refuses(cohort, lambda roster: {"neighbour_keys": dict(list(roster.neighbour_keys.items())[1:])}, "got 3")

    def test_refuses_a_neighbour_more_than_the_graph_gives(self, cohort) -> None:
        fresh = (KeyPair().public, KeyPair().public)
        self.refuses(cohort, lambda roster: {"neighbour_keys": {**roster.neighbour_keys, 99: fresh}}, "got 5")

    def test_refuses_one_key_for_two_clients(self, cohort) -> None:
        self.refuses(
            cohort,
            lambda roster: {"neighbour_keys": {**roster.neighbour_keys, 8: roster.neighbour_keys[3]}},
            "used twice",
        )

    def test_refuses_its_own_key_as_a_neighbours(self, cohort) -> None:
        def reflect(roster: Roster) -> dict[str, object]:
            own = KeyAdvertisement.decode(cohort.advertisements[OWN])
            return {"neighbour_keys": {**roster.neighbour_keys, 8: (own.sealing_public, own.mask_public)}}

        self.refuses(cohort, reflect, "client 8.*used twice")

    def test_refuses_one_key_for_two_purposes(self, cohort) -> None:
        key = KeyPair().public
        self.refuses(cohort, lambda roster: {"neighbour_keys": {**roster.neighbour_keys, 8: (key, key)}}, "used twice")

    def test_refuses_a_degenerate_key(self, cohort) -> None:
        fresh = KeyPair().public
        self.refuses(
            cohort, lambda roster: {"neighbour_keys": {**roster.neighbour_keys, 8: (fresh, bytes(32))}}, "large order"
        )

    def test_refuses_a_cohort_whose_graph_withstands_too_little(self, settings_of) -> None:
        settings = settings_of(assumptions=Assumptions(0.5, 0.3))  # of 4 clients, 2 colluding and 1 dropping
        client = Enrolled(1, settings)
        state, _ = client.join(Invitation(1, settings.session, 0, settings.fingerprint()).encode())
        keys = {peer: (KeyPair().public, KeyPair().public) for peer in (0, 2, 3)}
        with pytest.raises(RefusedMessage, match="2 colluding and 1 dropping"):
            state.receive_roster(Roster(1, settings.session, 0, 4, b"g" * 32, keys, tuple(keys)).encode())


class TestShared:
    def test_answers_with_a_vector_that_is_not_the_clear_one(self, cohort) -> None:
        cohort.to_request()
        for client, data in cohort.masked.items():
            words = cohort.settings.words
            masked = words.split(unpack(MaskedInput.decode(data).packed, words.count, words.width))
            assert np.count_nonzero(masked != cohort.vectors[client]) >= 5  # equal by chance: one in 2**20 each

    def test_leaves_the_callers_vector_alone(self, cohort) -> None:
        before = cohort.vectors[OWN].copy()
        cohort.to_request()
        assert np.array_equal(cohort.vectors[OWN], before)

    def test_refuses_a_second_delivery(self, cohort) -> None:
        cohort.to_request()
        with pytest.raises(RefusedMessage, match="second"):
            cohort.shared[OWN].receive_shares(cohort.deliveries[OWN], cohort.vectors[OWN])

    @pytest.mark.parametrize("wrong", WRONG_ADDRESS)
    def test_refuses_another_address(self, cohort, wrong) -> None:
        cohort.to_delivery()
        with pytest.raises(RefusedMessage, match="expected one for client 21"):
            cohort.shared[OWN].receive_shares(
                altered(cohort.deliveries[OWN], ShareDelivery, **wrong), cohort.vectors[OWN]
            )

    @pytest.mark.parametrize("garbage", GARBAGE)
    def test_refuses_garbage(self, cohort, garbage) -> None:
        cohort.to_delivery()
        with pytest.raises(MalformedMessage):
            cohort.shared[OWN].receive_shares(garbage, cohort.vectors[OWN])

    def test_refuses_shares_from_strangers_and_from_itself(self, cohort) -> None:
        cohort.to_delivery()
        envelopes = ShareDelivery.decode(cohort.deliveries[OWN]).envelopes
        for stranger in (99, OWN):
            forged = dict(sorted({**envelopes, stranger: envelopes[3]}.items()))
            with pytest.raises(RefusedMessage, match=str(stranger)):
                cohort.shared[OWN].receive_shares(
                    altered(cohort.deliveries[OWN], ShareDelivery, envelopes=forged), cohort.vectors[OWN]
                )

    def test_refuses_fewer_sharing_neighbours_than_the_threshold(self, cohort) -> None:
        cohort.to_delivery()
        envelopes = ShareDelivery.decode(cohort.deliveries[OWN]).envelopes
        threshold = cohort.settings.graph(5).threshold
        few = dict(list(envelopes.items())[: threshold - 1])
        with pytest.raises(RefusedMessage, match=f"at least {threshold} neighbours"):
            cohort.shared[OWN].receive_shares(
                altered(cohort.deliveries[OWN], ShareDelivery, envelopes=few), cohort.vectors[OWN]
            )

    @pytest.mark.parametrize(
        "vector",
        [
            np.zeros(5, dtype="<u4"),
            np.zeros((6, 1), dtype="<u4"),
            np.zeros(6, dtype="<u8"),
            np.zeros(6, dtype="<f4"),
            np.array([0, 0, 0, 0, 0, 2**20], dtype="<u4"),
        ],
    )
    def test_refuses_what_is_no_vector_of_the_ring(self, cohort, vector) -> None:
        cohort.to_delivery()
        with pytest.raises(InvalidInput, match="vector of client 21"):
            cohort.shared[OWN].receive_shares(cohort.deliveries[OWN], vector)


class TestSubmitted:
    def test_answers_with_one_share_for_each_neighbour_of_the_right_kind(self, cohort) -> None:
        cohort.to_request(without=[8])
        revealed = RevealedShares.decode(cohort.submitted[OWN].reveal(cohort.requests[OWN]))
        assert tuple(revealed.seeds) == (3, 40, 77) and tuple(revealed.mask_keys) == (8,)

    def refuses(
        self, cohort, survivors: tuple[int, ...], dropped: tuple[int, ...], match: str, count: int | None = None
    ) -> None:
        count = len(survivors) + 1 if count is None else count
        wrong = altered(cohort.requests[OWN], RevealRequest, count=count, survivors=survivors, dropped=dropped)
        with pytest.raises(RefusedMessage, match=match):
            cohort.submitted[OWN].reveal(wrong)
        cohort.submitted[OWN].reveal(cohort.requests[OWN])  # nothing was revealed: the right one still goes

    def test_refuses_both_kinds_of_share_for_one_peer(self, cohort) -> None:
        cohort.to_request(without=[8])
        self.refuses(cohort, (3, 8, 40, 77), (8,), r"both for \[8\]")

    def test_refuses_the_other_kind_in_a_second_request(self, cohort) -> None:
        cohort.to_request()
        cohort.submitted[OWN].reveal(cohort.requests[OWN])
        other = altered(cohort.requests[OWN], RevealRequest, count=4, survivors=(3, 8, 40), dropped=(77,))
        for request in (other, cohort.requests[OWN]):
            with pytest.raises(RefusedMessage, match="second"):
                cohort.submitted[OWN].reveal(request)

    def test_refuses_itself_in_a_list(self, cohort) -> None:
        cohort.to_request()
        self.refuses(cohort, (3, 8, 40, 77), (OWN,), r"\[21\] besides")

    @pytest.mark.parametrize("count", [0, 4, 6, 2**32 - 1])
    def test_refuses_a_count_that_its_lists_cant_have(self, cohort, count) -> None:
        cohort.to_request()
        self.refuses(cohort, (3, 8, 40, 77), (), "as its lists allow", count)

    def test_refuses_forged_ids(self, cohort) -> None:
        cohort.to_request()
        self.refuses(cohort, (3, 8, 40, 77, 99), (), r"\[99\]")

    def test_refuses_repeated_ids(self, cohort) -> None:
        cohort.to_request()
        self.refuses(cohort, (3, 8, 40, 40, 77), (), "each once")

    def test_refuses_too_small_a_survivor_set(self, cohort) -> None:
        cohort.to_request()
        self.refuses(cohort, (3, 40), (8, 77), "at least 4 survivors, got 3")

    def test_refuses_lists_that_leave_a_neighbour_out(self, cohort) -> None:
        cohort.to_request()
        self.refuses(cohort, (3, 8, 40), (), r"none with \[77\]")

    def test_refuses_word_of_a_neighbour_that_never_shared(self, cohort) -> None:
        cohort.to_request(never_shared=[77])
        self.refuses(cohort, (3, 8, 40, 77), (), r"never shared, got \[77\]")

    @pytest.mark.parametrize("wrong", WRONG_ADDRESS)
    def test_refuses_another_address(self, cohort, wrong) -> None:
        cohort.to_request()
        with pytest.raises(RefusedMessage, match="expected one for client 21"):
            cohort.submitted[OWN].reveal(altered(cohort.requests[OWN], RevealRequest, **wrong))

    @pytest.mark.parametrize("garbage", GARBAGE)
    def test_refuses_garbage(self, cohort, garbage) -> None:
        cohort.to_request()
        with pytest.raises(MalformedMessage):
            cohort.submitted[OWN].reveal(garbage)

    def test_leaves_out_a_spoilt_envelope(self, cohort) -> None:
        cohort.to_delivery()
        delivery = ShareDelivery.decode(cohort.deliveries[OWN])
        spoilt = {**delivery.envelopes, 8: bytes(len(delivery.envelopes[8]))}
        state, _ = cohort.shared[OWN].receive_shares(replace(delivery, envelopes=spoilt).encode(), cohort.vectors[OWN])
        request = RevealRequest(OWN, cohort.settings.session, 7, 5, OTHERS, ()).encode()
        assert tuple(RevealedShares.decode(state.reveal(request)).seeds) == (3, 40, 77)

    def test_an_envelope_for_one_client_is_of_no_use_to_another(self, cohort) -> None:
        """A server that swaps envelopes makes them useless, not readable."""
        cohort.to_delivery()
        delivery = ShareDelivery.decode(cohort.deliveries[OWN])
        stolen = ShareDelivery.decode(cohort.deliveries[40]).envelopes[8]
        swapped = {**delivery.envelopes, 8: stolen}
        state, _ = cohort.shared[OWN].receive_shares(replace(delivery, envelopes=swapped).encode(), cohort.vectors[OWN])
        request = RevealRequest(OWN, cohort.settings.session, 7, 5, OTHERS, ()).encode()
        assert 8 not in RevealedShares.decode(state.reveal(request)).seeds
