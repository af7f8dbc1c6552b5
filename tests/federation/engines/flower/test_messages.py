"""The codec: what goes in comes out, and nothing else is taken for a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtalk.federation.engines.flower.messages import KINDS, Message, MessageError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.builds(
    Message,
    st.sampled_from(KINDS),
    st.dictionaries(st.text(max_size=8), JSON, max_size=4),
    st.dictionaries(st.text(max_size=8), st.binary(max_size=64), max_size=4),
)


@given(MESSAGES)
def test_a_message_comes_back_whole(message: Message) -> None:
    assert Message.decode(message.encode()) == message


@given(MESSAGES, st.data())
def test_a_cut_or_lengthened_message_is_refused(message: Message, data: st.DataObject) -> None:
    whole = message.encode()
    for wrong in (
        whole[: data.draw(st.integers(0, len(whole) - 1))],
        whole + data.draw(st.binary(min_size=1, max_size=4)),
    ):
        with pytest.raises(MessageError):
            Message.decode(wrong)


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_never_anything_worse(garbage: bytes) -> None:
    for data in (garbage, b"fedtalk1" + garbage, b"fedtalk1" + len(garbage).to_bytes(4, "big") + garbage):
        with pytest.raises(MessageError):
            Message.decode(data)


@pytest.mark.parametrize("header", ['["shares", {}, {"a": -1}]', '["shares", {}, {"a": true}]', '["shares", [], {}]',
                                    '["no such kind", {}, {}]', '["shares", {}]', '{"shares": 1}'])  # fmt: skip
def test_a_header_of_another_form_is_refused(header: str) -> None:
    with pytest.raises(MessageError):
        Message.decode(b"fedtalk1" + len(header).to_bytes(4, "big") + header.encode())


def test_a_missing_or_wrong_field_is_named() -> None:
    message = Message("shares", {"round": "3", "flag": True})
    for name in ("round", "flag", "absent"):
        with pytest.raises(MessageError, match=f"field {name}"):
            message.get(name, int)
