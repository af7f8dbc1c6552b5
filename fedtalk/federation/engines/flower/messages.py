"""What server and sites say to each other, as bytes: a kind, a few fields, and parts that are bytes themselves.

Layout: the 8 bytes ``fedtalk1``, the header's length (4 bytes, big-endian), the header (JSON: kind, fields, names and lengths
of the parts), the parts. Nothing is left over, nothing in it is ever executed or unpickled, and its size, its nesting and its
names are bounded, since either side may be what sends garbage.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from fedtalk.errors import FedTalkError

MAGIC = b"fedtalk1"
KINDS = ("hello", "train", "shares", "input", "reveal", "finish", "answer", "refused")
"""Requests in the order of a run, and the two kinds of answer."""
STATE = "\0state"
"""Name of the part that is no client's; no folder, and so no client, can be called that."""
MOST_HEADER_BYTES = 2**24
"""The longest message is the greeting's answer, which names a site's clients."""
MOST_PARTS = 2**17
MOST_NAME = 256
"""Characters of a field's or part's name."""
MOST_DEPTH = 4
"""Of lists and objects within a field; the deepest is the agreement, one object of texts."""
MOST_TOLD = 600
"""Characters of a reason that are shown."""


class MessageError(FedTalkError):
    """Bytes that are no message of this version, or a message that lacks what its kind must have."""


@dataclass(frozen=True)
class SiteMessage:
    """One request or one answer."""

    kind: str
    """One of `KINDS`."""
    fields: dict[str, Any] = field(default_factory=dict)
    """What JSON can hold."""
    parts: dict[str, bytes] = field(default_factory=dict)
    """By name; of messages of the secure aggregation, the client's."""

    def encode(self) -> bytes:
        """
        >>> SiteMessage.decode(SiteMessage("shares", {"round": 3}, {"anna": b"xyz"}).encode())
        SiteMessage(kind='shares', fields={'round': 3}, parts={'anna': b'xyz'})
        """
        sizes = {name: len(part) for name, part in self.parts.items()}
        header = json.dumps([self.kind, self.fields, sizes]).encode()
        return b"".join([MAGIC, len(header).to_bytes(4, "big"), header, *self.parts.values()])

    @classmethod
    def decode(cls, data: bytes) -> SiteMessage:
        """
        Raises:
            MessageError: ``data`` is anything but one whole message of this version.
        """
        if data[:8] != MAGIC:
            raise MessageError(
                f"message: expected to begin with {MAGIC!r}, got {data[:8]!r}; run the same fedtalk version everywhere"
            )
        start = 12 + int.from_bytes(data[8:12], "big")
        if start > 12 + MOST_HEADER_BYTES:
            raise MessageError(
                f"message: expected a header of at most {MOST_HEADER_BYTES} bytes, got {start - 12}; dropped"
            )
        try:
            kind, fields, sizes = json.loads(data[12:start].decode(), parse_constant=_refuse)
        except (ValueError, TypeError, RecursionError) as error:
            raise MessageError(f"message of {len(data)} bytes: its header can't be read; message dropped") from error
        if not (isinstance(kind, str) and kind in KINDS and _bounded(fields) and _bounded(sizes)):
            raise MessageError(
                f"message of {len(data)} bytes: expected a known kind, then fields and sizes with at most {MOST_PARTS} names of "
                f"{MOST_NAME} characters and {MOST_DEPTH} levels; dropped"
            )
        if not all(type(size) is int and size >= 0 for size in sizes.values()) or start + sum(sizes.values()) != len(
            data
        ):
            raise MessageError(f"message of {len(data)} bytes: expected parts that fill it; dropped")
        parts = {}
        for name, size in sizes.items():
            parts[name] = data[start : start + size]
            start += size
        return cls(kind, fields, parts)

    def get(self, name: str, kind: type | tuple[type, ...]) -> Any:
        """A field of the expected type.

        Raises:
            MessageError: it is missing or of another type.
        """
        value = self.fields.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise MessageError(f"message {self.kind}: expected a field {name} of type {kind}, got {value!r:.80}")
        return value

    @property
    def why(self) -> str:
        """The reason of a refusal as it may be shown: one line of printable characters, cut where it is long.

        >>> SiteMessage("refused", {"why": "no\\n\x1b[2Jmore"}).why
        'no [2Jmore'

        Raises:
            MessageError: there is none.
        """
        text = " ".join("".join(c if c.isprintable() else " " for c in self.get("why", str)[:MOST_TOLD]).split())
        return text if len(self.fields["why"]) <= MOST_TOLD else f"{text}..."


def _refuse(constant: str) -> None:
    """JSON has no NaN and no infinity; Python's reader would take them."""
    raise ValueError(constant)


def _bounded(value: Any) -> bool:
    """Whether it is an object that isn't nested too deeply, with names that are few, short and UTF-8."""
    if not isinstance(value, dict) or len(value) > MOST_PARTS:
        return False
    level: list[Any] = [value]
    for _ in range(MOST_DEPTH + 1):
        names = [name for inner in level if isinstance(inner, dict) for name in inner]
        inside = [item for inner in level for item in (inner.values() if isinstance(inner, dict) else inner)]
        texts = [*names, *(item for item in inside if isinstance(item, str))]
        if any(len(name) > MOST_NAME for name in names) or not all(_utf8(text) for text in texts):
            return False
        level = [item for item in inside if isinstance(item, dict | list)]
    return not level


def _utf8(text: str) -> bool:
    """Whether it can be written anywhere: JSON's escapes can name halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
