"""The codec: what goes in comes out, and nothing else is taken for a message."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtalk.federation.engines.flower.messages import KINDS, MOST_PARTS, MessageError, SiteMessage

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
DEEP = st.recursive(JSON, lambda inner: st.lists(inner, min_size=1, max_size=2), max_leaves=12)
FIELDS = st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=8) | st.lists(st.text(max_size=8)),
                         max_size=4)  # fmt: skip
MESSAGES = st.builds(
    SiteMessage,
    st.sampled_from(KINDS),
    FIELDS,
    st.dictionaries(st.text(max_size=8), st.binary(max_size=64), max_size=4),
)


def framed(header: bytes, rest: bytes = b"") -> bytes:
    return b"fedtalk1" + len(header).to_bytes(4, "big") + header + rest


@given(MESSAGES)
def test_a_message_comes_back_whole(message: SiteMessage) -> None:
    assert SiteMessage.decode(message.encode()) == message


@given(MESSAGES, st.data())
def test_a_cut_or_lengthened_message_is_refused(message: SiteMessage, data: st.DataObject) -> None:
    whole = message.encode()
    for wrong in (
        whole[: data.draw(st.integers(0, len(whole) - 1))],
        whole + data.draw(st.binary(min_size=1, max_size=4)),
    ):
        with pytest.raises(MessageError):
            SiteMessage.decode(wrong)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_garbage_is_refused_and_never_anything_worse(garbage: bytes) -> None:
    for data in (garbage, b"fedtalk1" + garbage, framed(garbage), framed(b"[" + garbage)):
        with pytest.raises(MessageError):
            SiteMessage.decode(data)


@given(DEEP, DEEP, DEEP, st.binary(max_size=8))
@settings(max_examples=300, deadline=None)
def test_whatever_json_holds_is_a_message_or_refused(kind: object, fields: object, sizes: object, rest: bytes) -> None:
    for first in (kind, "train"):
        data = framed(json.dumps([first, fields, sizes]).encode(), rest)
        try:
            message = SiteMessage.decode(data)
        except MessageError:
            continue
        assert SiteMessage.decode(message.encode()) == message


@given(MESSAGES, st.data())
@settings(max_examples=300, deadline=None)
def test_a_spoilt_message_is_a_message_or_refused(message: SiteMessage, data: st.DataObject) -> None:
    spoilt = bytearray(message.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MessageError):
        SiteMessage.decode(bytes(spoilt))


@pytest.mark.parametrize("header", ['["shares", {}, {"a": -1}]', '["shares", {}, {"a": true}]', '["shares", [], {}]',
                                    '["no such kind", {}, {}]', '["shares", {}]', '{"shares": 1}', '[["shares"], {}, {}]',
                                    '["shares", {"a": NaN}, {}]', '["shares", {}, {"\\ud800": 0}]', '["shares", {}, 3]',
                                    '["shares", {"a": "\\ud800"}, {}]', '["shares", {"a": [[[[[[]]]]]]}, {}]'])  # fmt: skip
def test_a_header_of_another_form_is_refused(header: str) -> None:
    with pytest.raises(MessageError):
        SiteMessage.decode(framed(header.encode()))


@pytest.mark.parametrize(
    "brackets", [b"[" * 100_000, b'{"a":' * 100_000, b'["train", ' + b"[" * 50_000 + b"]" * 50_000]
)
def test_nested_brackets_dont_end_the_process(brackets: bytes) -> None:
    with pytest.raises(MessageError):
        SiteMessage.decode(framed(brackets))


def test_names_parts_and_header_are_bounded() -> None:
    long, many = {"x" * 300: 0}, {str(n): 0 for n in range(MOST_PARTS + 1)}
    for fields, sizes in ((long, {}), ({}, long), (many, {}), ({}, many)):
        with pytest.raises(MessageError):
            SiteMessage.decode(framed(json.dumps(["shares", fields, sizes]).encode()))
    with pytest.raises(MessageError, match="header of at most"):
        SiteMessage.decode(b"fedtalk1" + (2**31).to_bytes(4, "big"))


def test_a_missing_or_wrong_field_is_named() -> None:
    message = SiteMessage("shares", {"round": "3", "flag": True})
    for name in ("round", "flag", "absent"):
        with pytest.raises(MessageError, match=f"field {name}"):
            message.get(name, int)


def test_a_reason_is_shown_in_one_short_line() -> None:
    """It goes into the other side's log, which neither grows nor changes its look by it."""
    shown = SiteMessage("refused", {"why": "\x1b[2J\nERROR: forged\r" + "x" * 10_000_000}).why
    assert len(shown) < 700 and shown.isprintable() and shown.startswith("[2J ERROR: forged x")
