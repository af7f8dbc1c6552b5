from __future__ import annotations

import hashlib
import hmac

import pytest

from fedtalk.privacy.secagg import RefusedMessage
from fedtalk.privacy.secagg.envelope import SEALED_BYTES, SharePair, seal, unseal
from fedtalk.privacy.secagg.keys import (
    _SMALL_ORDER,
    KeyPair,
    check_public,
    derive_key,
    fresh_secret,
    pair_mask_key,
    roster_context,
    roster_digest,
    round_digest,
    sealing_key,
    seed_commitment,
    self_mask_key,
)

CONTEXT = b"c" * 32
FIELD = 2**255 - 19


def montgomery_ladder(scalar: bytes, point: bytes) -> bytes:
    """X25519 in Python's integers, after the pseudo-code of RFC 7748, section 5."""
    k = int.from_bytes(scalar, "little") & ~7 & ~(1 << 255) | (1 << 254)
    x1 = int.from_bytes(point, "little") & ((1 << 255) - 1)
    x2, z2, x3, z3, swapped = 1, 0, x1, 1, 0
    for place in reversed(range(255)):
        bit = k >> place & 1
        if bit ^ swapped:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        e = (a * a - b * b) % FIELD
        x3, z3 = (d * a + c * b) ** 2 % FIELD, x1 * (d * a - c * b) ** 2 % FIELD
        x2, z2 = a * a * b * b % FIELD, e * (a * a + 121665 * e) % FIELD
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, FIELD - 2, FIELD) % FIELD).to_bytes(32, "little")


def test_agreement_is_x25519() -> None:
    own, peer = KeyPair(), KeyPair()
    expected = montgomery_ladder(own.secret(), montgomery_ladder(peer.secret(), (9).to_bytes(32, "little")))
    assert own.agree(peer.public) == peer.agree(own.public) == expected


def test_derivation_is_hkdf_of_rfc_5869() -> None:
    salt = b"fedtalk secure aggregation, version 1"
    information = bytes([5]) + b"label" + CONTEXT + b"purpose"
    extracted = hmac.digest(salt, b"s" * 32, hashlib.sha256)
    assert derive_key(b"s" * 32, b"label", CONTEXT, b"purpose") == hmac.digest(
        extracted, information + b"\x01", hashlib.sha256
    )


def test_a_recovered_key_pair_is_the_one_that_was_shared() -> None:
    pair = KeyPair()
    assert KeyPair(pair.secret()).public == pair.public


def test_both_ends_of_a_pair_derive_one_mask_key_and_other_pairs_others() -> None:
    pairs = {client: KeyPair() for client in (1, 2, 3)}

    def key(own: int, peer: int, context: bytes = CONTEXT) -> bytes:
        return pair_mask_key(pairs[own], own, pairs[peer].public, peer, context)

    assert key(1, 2) == key(2, 1)
    assert len({key(1, 2), key(1, 3), key(2, 3), key(1, 2, b"d" * 32)}) == 4


def test_no_two_derivations_from_one_secret_agree() -> None:
    """Label, session, round, settings, roster, clients and direction: each alone changes the key."""
    secret = b"s" * 32
    contexts = [
        roster_context(round_digest(session, number, settings), len(clients), roster_digest(seed, clients))
        for session, number, settings, seed, clients in [
            (b"a" * 16, 1, b"x" * 32, b"g" * 32, (1, 2, 3)),
            (b"b" * 16, 1, b"x" * 32, b"g" * 32, (1, 2, 3)),
            (b"a" * 16, 2, b"x" * 32, b"g" * 32, (1, 2, 3)),
            (b"a" * 16, 1, b"y" * 32, b"g" * 32, (1, 2, 3)),
            (b"a" * 16, 1, b"x" * 32, b"h" * 32, (1, 2, 3)),
            (b"a" * 16, 1, b"x" * 32, b"g" * 32, (1, 2, 4)),
        ]
    ]
    derived = [
        *(self_mask_key(secret, context, client) for context in contexts for client in (1, 2)),
        *(seed_commitment(secret, context, client) for context in contexts for client in (1, 2)),
        *(sealing_key(secret, *direction, context) for context in contexts for direction in [(1, 2), (2, 1)]),
    ]
    assert len(set(derived)) == len(derived)


@pytest.mark.parametrize("point", [0, 1, FIELD - 1, FIELD, FIELD + 1])
def test_a_point_of_small_order_is_refused(point: int) -> None:
    with pytest.raises(RefusedMessage, match="large order"):
        KeyPair().agree(point.to_bytes(32, "little"))


def test_secrets_are_fresh() -> None:
    assert len({fresh_secret() for _ in range(50)} | {KeyPair().secret() for _ in range(50)}) == 100


def test_an_envelope_opens_under_its_key_only_and_unaltered() -> None:
    shares = SharePair(b"m" * 33, b"s" * 33)
    sealed = seal(shares, b"k" * 32)
    assert len(sealed) == SEALED_BYTES
    assert shares.mask_key not in sealed and shares.seed not in sealed
    assert unseal(sealed, b"k" * 32) == shares
    assert unseal(sealed, b"l" * 32) is None
    for place in range(len(sealed)):
        spoilt = bytearray(sealed)
        spoilt[place] ^= 1
        assert unseal(bytes(spoilt), b"k" * 32) is None


def test_the_points_that_are_refused_are_those_with_which_x25519_gives_zero() -> None:
    """By the ladder above, with several private keys; their neighbours agree on something."""
    for point in _SMALL_ORDER:
        for beside in (point, point + 1):
            encoded = (beside % FIELD).to_bytes(32, "little")
            agreed = {montgomery_ladder(bytes([number]) * 32, encoded) for number in (3, 77, 200)}
            assert (agreed == {bytes(32)}) == (beside % FIELD in _SMALL_ORDER)


@pytest.mark.parametrize("high", [0, 1])
@pytest.mark.parametrize("point", sorted(_SMALL_ORDER))
def test_every_way_to_write_them_is_refused(point: int, high: int) -> None:
    """Not reduced modulo the field, where there is room for that, and with the bit that nobody reads."""
    for written in (point, point + FIELD):
        if written < 2**255:
            with pytest.raises(RefusedMessage, match="large order"):
                check_public((written | high << 255).to_bytes(32, "little"))


def test_honest_keys_are_taken() -> None:
    for _ in range(20):
        check_public(KeyPair().public)
