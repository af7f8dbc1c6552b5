from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtalk.privacy.secagg import MalformedMessage
from fedtalk.privacy.secagg.envelope import SEALED_BYTES
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
from fedtalk.privacy.secagg.shamir import PRIME, SHARE_BYTES

HEAD = (5, b"s" * 16, 9)
KEYS = (b"a" * 32, b"b" * 32)
EXAMPLES: list[Message] = [
    Invitation(*HEAD, b"f" * 32),
    KeyAdvertisement(*HEAD, *KEYS),
    Roster(*HEAD, 7, b"g" * 32, {1: KEYS, 9: KEYS}, (9,)),
    SealedShares(*HEAD, {1: b"x" * SEALED_BYTES, 9: b"y" * SEALED_BYTES}, b"c" * 32),
    ShareDelivery(*HEAD, {1: b"x" * SEALED_BYTES}),
    MaskedInput(*HEAD, b"packed"),
    RevealRequest(*HEAD, 4, (1, 5), (9,)),
    RevealedShares(*HEAD, {1: bytes(SHARE_BYTES)}, {9: (PRIME - 1).to_bytes(SHARE_BYTES, "big")}),
]


def _ids(ids: tuple[int, ...]) -> bytes:
    return struct.pack(f"<{len(ids) + 1}I", len(ids), *ids)


KINDS = [type(example) for example in EXAMPLES]
by_kind = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)


@by_kind
def test_a_message_survives_the_wire(example: Message) -> None:
    assert type(example).decode(example.encode()) == example


@by_kind
def test_the_header_is_the_one_described(example: Message) -> None:
    data = example.encode()
    assert data[0] == 4 and data[1] == type(example).KIND and data[2:4] == bytes(2)
    assert data[4:8] == (5).to_bytes(4, "little")
    assert data[8:24] == b"s" * 16 and data[24:32] == (9).to_bytes(8, "little")


def test_kinds_are_distinct() -> None:
    assert len({kind.KIND for kind in KINDS}) == len(KINDS)


@by_kind
def test_cut_short_or_too_long_is_refused(example: Message) -> None:
    data = example.encode()
    if not isinstance(example, MaskedInput):  # its length is the server's business, which knows the dimension
        for wrong in [*(data[:length] for length in range(len(data))), data + b"\x00"]:
            with pytest.raises(MalformedMessage):
                type(example).decode(wrong)
    for length in range(32):
        with pytest.raises(MalformedMessage, match=f"got {length}"):
            type(example).decode(data[:length])


@by_kind
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_another_version_or_kind_is_refused(example: Message, place: int) -> None:
    spoilt = bytearray(example.encode())
    spoilt[place] ^= 0x40
    with pytest.raises(MalformedMessage, match="version" if place == 0 else "kind"):
        type(example).decode(bytes(spoilt))


@by_kind
def test_a_message_is_read_as_its_own_kind_only(example: Message) -> None:
    for kind in KINDS:
        if kind is not type(example):
            with pytest.raises(MalformedMessage, match="kind"):
                kind.decode(example.encode())


@pytest.mark.parametrize("ids", [(5, 1), (1, 1), (1, 5, 5)])
def test_ids_out_of_order_or_repeated_are_refused(ids: tuple[int, ...]) -> None:
    for wrong in (RevealRequest(*HEAD, 2, ids, ()), RevealRequest(*HEAD, 2, (), ids)):
        with pytest.raises(MalformedMessage, match="ascending"):
            RevealRequest.decode(wrong.encode())
    with pytest.raises(MalformedMessage, match="ascending"):
        Roster.decode(Roster(*HEAD, 3, b"g" * 32, {}, ()).encode()[:68] + _ids(ids) + b"k" * 64 * len(ids) + _ids(()))
    with pytest.raises(MalformedMessage, match="ascending"):
        Roster.decode(Roster(*HEAD, 3, b"g" * 32, {}, ids).encode())


def test_a_share_outside_the_field_is_refused() -> None:
    wrong = RevealedShares(*HEAD, {1: PRIME.to_bytes(SHARE_BYTES, "big")}, {})
    with pytest.raises(MalformedMessage, match="field element"):
        RevealedShares.decode(wrong.encode())


def test_a_count_beyond_the_message_is_refused_without_memory() -> None:
    with pytest.raises(MalformedMessage, match="cut short"):
        RevealRequest.decode(RevealRequest(*HEAD, 2, (), ()).encode()[:36] + b"\xff" * 8)


@given(st.binary(max_size=300), st.sampled_from(EXAMPLES))
@settings(max_examples=1000, deadline=None)
def test_garbage_gives_a_refusal_or_the_very_same_bytes(garbage: bytes, example: Message) -> None:
    for data in (garbage, example.encode()[:32] + garbage):
        try:
            message = type(example).decode(data)
        except MalformedMessage:
            continue
        assert message.encode() == data
