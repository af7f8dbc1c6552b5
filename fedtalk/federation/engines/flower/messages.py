"""What server and sites say to each other, as bytes: a kind, a few fields, and parts that are bytes themselves.

Layout: the 8 bytes ``fedtalk1``, the header's length (4 bytes, big-endian), the header (JSON: kind, fields, names and lengths
of the parts), the parts. Nothing is left over, and nothing in it is ever executed or unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from fedtalk.errors import FedTalkError

MAGIC = b"fedtalk1"
KINDS = ("hello", "train", "shares", "input", "reveal", "finish", "answer", "refused")
"""Requests in the order of a run, and the two kinds of answer."""


class MessageError(FedTalkError):
    """Bytes that are no message of this version, or a message that lacks what its kind must have."""


@dataclass(frozen=True)
class Message:
    """One request or one answer."""

    kind: str
    """One of `KINDS`."""
    fields: dict[str, Any] = field(default_factory=dict)
    """What JSON can hold."""
    parts: dict[str, bytes] = field(default_factory=dict)
    """By name; of messages of the secure aggregation, the client's."""

    def encode(self) -> bytes:
        """
        >>> Message.decode(Message("shares", {"round": 3}, {"anna": b"xyz"}).encode())
        Message(kind='shares', fields={'round': 3}, parts={'anna': b'xyz'})
        """
        sizes = {name: len(part) for name, part in self.parts.items()}
        header = json.dumps([self.kind, self.fields, sizes]).encode()
        return b"".join([MAGIC, len(header).to_bytes(4, "big"), header, *self.parts.values()])

    @classmethod
    def decode(cls, data: bytes) -> Message:
        """
        Raises:
            MessageError: ``data`` is anything but one whole message of this version.
        """
        if data[:8] != MAGIC:
            raise MessageError(
                f"message: expected to begin with {MAGIC!r}, got {data[:8]!r}; run the same fedtalk version everywhere"
            )
        start = 12 + int.from_bytes(data[8:12], "big")
        try:
            kind, fields, sizes = json.loads(data[12:start])
            whole = kind in KINDS and isinstance(fields, dict)
            whole = whole and all(type(size) is int and size >= 0 for size in sizes.values())
        except (ValueError, TypeError, AttributeError) as error:
            raise MessageError(f"message of {len(data)} bytes: its header can't be read; message dropped") from error
        if not whole or start + sum(sizes.values()) != len(data):
            raise MessageError(f"message of {len(data)} bytes: expected a known kind and parts that fill it; dropped")
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
