"""The protocol's messages as bytes, with parsers that take nothing else.

Each message starts with the same 32 bytes, little-endian: version (1), kind (1), zero (2), the client it comes from or
is meant for (4), session (16), round (8). Lists of clients are strictly ascending, so that no id appears twice, and
every byte is accounted for.
"""

from __future__ import annotations

import itertools
import operator
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from fedtalk.privacy.secagg.envelope import SEALED_BYTES
from fedtalk.privacy.secagg.errors import MalformedMessage
from fedtalk.privacy.secagg.shamir import PRIME, SHARE_BYTES

VERSION = 4
SESSION_BYTES = 16
LARGEST_CLIENT_ID = 2**32 - 1
LARGEST_ROUND = 2**64 - 1
_HEADER = struct.Struct("<BBHI16sQ")
_KEY_BYTES = 32
_PRIME_BYTES = PRIME.to_bytes(SHARE_BYTES, "big")

AnyMessage = TypeVar("AnyMessage", bound="Message")


@dataclass(frozen=True)
class Message:
    """What all messages have in common."""

    KIND: ClassVar[int]

    client: int
    """The client that sends the message, or that it is meant for."""
    session: bytes
    """16 bytes, the same for all rounds of a run."""
    round_number: int
    """Rises within a session."""

    def encode(self) -> bytes:
        """The message as bytes."""
        header = _HEADER.pack(VERSION, self.KIND, 0, self.client, self.session, self.round_number)
        return b"".join([header, *self._body()])

    @classmethod
    def decode(cls: type[AnyMessage], data: bytes) -> AnyMessage:
        """The message in ``data``.

        Raises:
            MalformedMessage: the bytes are anything but one whole message of this kind and version.
        """
        name = cls.__name__
        if len(data) < _HEADER.size:
            raise MalformedMessage(f"{name}: expected at least {_HEADER.size} bytes, got {len(data)}; message dropped")
        version, kind, zero, client, session, round_number = _HEADER.unpack_from(data)
        if version != VERSION:
            raise MalformedMessage(
                f"{name}: expected protocol version {VERSION}, got {version}; run the same fedtalk version everywhere"
            )
        if kind != cls.KIND or zero != 0:
            raise MalformedMessage(f"{name}: expected message kind {cls.KIND}, got {kind}; message dropped")
        reader = _Reader(name, data, _HEADER.size)
        message = cls(client, session, round_number, *cls._parse(reader))
        reader.finish()
        return message

    def _body(self) -> Iterable[bytes | memoryview]:
        raise NotImplementedError

    @classmethod
    def _parse(cls, reader: _Reader) -> Iterable[object]:
        raise NotImplementedError


@dataclass(frozen=True)
class Invitation(Message):
    """Server to client: a round begins, under these settings."""

    KIND = 1
    settings: bytes
    """32 bytes: fingerprint of the settings that the client must have too."""

    def _body(self) -> Iterable[bytes]:
        return [self.settings]

    @classmethod
    def _parse(cls, reader: _Reader) -> Iterable[object]:
        return [reader.take(_KEY_BYTES)]


@dataclass(frozen=True)
class KeyAdvertisement(Message):
    """Client to server: I take part, with these fresh public keys."""

    KIND = 2
    sealing_public: bytes
    """X25519 key under which shares are sent to this client."""
    mask_public: bytes
    """X25519 key from which its pairwise masks derive."""

    def _body(self) -> Iterable[bytes]:
        return [self.sealing_public, self.mask_public]

    @classmethod
    def _parse(cls, reader: _Reader) -> Iterable[object]:
        return [reader.take(_KEY_BYTES), reader.take(_KEY_BYTES)]


@dataclass(frozen=True)
class Roster(Message):
    """Server to client: how many take part, and the public keys of your neighbours among them; of the others nothing."""

    KIND = 3
    count: int
    """Clients that take part."""
    digest: bytes
    """32 bytes that stand for who they are and in which graph, without saying it."""
    neighbour_keys: dict[int, tuple[bytes, bytes]]
    """(sealing, mask) public keys of each neighbour of the recipient."""
    masking: tuple[int, ...]
    """The neighbours with whom the recipient has masks."""

    def _body(self) -> Iterable[bytes]:
        yield struct.pack("<I", self.count)
        yield self.digest
        yield _pack_ids(self.neighbour_keys)
        yield from itertools.chain.from_iterable(self.neighbour_keys.values())
        yield _pack_ids(self.masking)

    @classmethod
    def _parse(cls, reader: _Reader) -> Iterable[object]:
        count, digest, ids = reader.number(), reader.take(_KEY_BYTES), reader.ids()
        keys = {peer: (reader.take(_KEY_BYTES), reader.take(_KEY_BYTES)) for peer in ids}
        return [count, digest, keys, reader.ids()]


@dataclass(frozen=True)
class _Envelopes(Message):
    """Encrypted shares by the client at their other end."""

    envelopes: dict[int, bytes]
    """82 bytes of ciphertext a neighbour."""

    def _body(self) -> Iterable[bytes]:
        return [_pack_ids(self.envelopes), *self.envelopes.values()]

    @classmethod
    def _parse(cls, reader: _Reader) -> Iterable[object]:
        return [reader.by_client(SEALED_BYTES)]


@dataclass(frozen=True)
class SealedShares(_Envelopes):
    """Client to server: the shares of my secrets, one envelope for each neighbour."""

    KIND = 4
    commitment: bytes
    """32 bytes that tie the client to the seed of its own mask."""

    def _body(self) -> Iterable[bytes]:
        return [*super()._body(), self.commitment]

    @classmethod
    def _parse(cls, reader: _Reader) -> Iterable[object]:
        return [*super()._parse(reader), reader.take(_KEY_BYTES)]


@dataclass(frozen=True)
class ShareDelivery(_Envelopes):
    """Server to client: the envelopes that your neighbours sent you."""

    KIND = 5


@dataclass(frozen=True)
class MaskedInput(Message):
    """Client to server: my vector under all its masks."""

    KIND = 6
    packed: bytes | memoryview
    """Words, packed at the width that is used of them; the server checks the length. Decoded, a view of the message."""

    def _body(self) -> Iterable[bytes | memoryview]:
        return [self.packed]

    @classmethod
    def _parse(cls, reader: _Reader) -> Iterable[object]:
        return [reader.rest()]


@dataclass(frozen=True)
class RevealRequest(Message):
    """Server to client: these neighbours sent their vectors and these dropped out; reveal what removes their masks."""

    KIND = 7
    count: int
    """Clients whose vectors are in the sum, the recipient's among them."""
    survivors: tuple[int, ...]
    """The recipient's neighbours among these: the seeds of their own masks are wanted."""
    dropped: tuple[int, ...]
    """Neighbours who shared but sent no vector: their mask keys are wanted."""

    def _body(self) -> Iterable[bytes]:
        return [struct.pack("<I", self.count), _pack_ids(self.survivors), _pack_ids(self.dropped)]

    @classmethod
    def _parse(cls, reader: _Reader) -> Iterable[object]:
        return [reader.number(), reader.ids(), reader.ids()]


@dataclass(frozen=True)
class RevealedShares(Message):
    """Client to server: one share for each neighbour, of its seed if it survived, of its mask key if it dropped out."""

    KIND = 8
    seeds: dict[int, bytes]
    """33-byte shares by surviving neighbour."""
    mask_keys: dict[int, bytes]
    """33-byte shares by dropped neighbour."""

    def _body(self) -> Iterable[bytes]:
        for shares in (self.seeds, self.mask_keys):
            yield _pack_ids(shares)
            yield from shares.values()

    @classmethod
    def _parse(cls, reader: _Reader) -> Iterable[object]:
        return [reader.shares(), reader.shares()]


class _Reader:
    """Takes a message's body apart, front to back."""

    def __init__(self, name: str, data: bytes, position: int) -> None:
        self._name, self._data, self._position = name, data, position

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        end = self._position + count
        if end > len(self._data):
            raise MalformedMessage(
                f"{self._name}: expected {end} bytes or more, got {len(self._data)}: cut short; message dropped"
            )
        part = self._data[self._position : end]
        self._position = end
        return part

    def rest(self) -> memoryview:
        """All that is left, not copied."""
        part = memoryview(self._data)[self._position :]
        self._position = len(self._data)
        return part

    def number(self) -> int:
        """A count."""
        (count,) = struct.unpack("<I", self.take(4))
        return int(count)

    def ids(self) -> tuple[int, ...]:
        """A counted list of client ids."""
        count = self.number()
        ids = struct.unpack(f"<{count}I", self.take(4 * count))
        if not all(map(operator.lt, ids, ids[1:])):
            raise MalformedMessage(
                f"{self._name}: expected client ids in ascending order, each once, got {list(ids[:8])}; message dropped"
            )
        return ids

    def by_client(self, size: int) -> dict[int, bytes]:
        """A counted list of client ids, then ``size`` bytes for each."""
        ids = self.ids()
        return dict(zip(ids, struct.unpack(f"{size}s" * len(ids), self.take(size * len(ids))), strict=True))

    def shares(self) -> dict[int, bytes]:
        """A Shamir share, a field element, by client."""
        shares = self.by_client(SHARE_BYTES)
        # Numbers of one length, most significant byte first, are in the order of their bytes.
        if max(shares.values(), default=b"") >= _PRIME_BYTES:
            raise MalformedMessage(f"{self._name}: expected a field element, got a larger number; message dropped")
        return shares

    def finish(self) -> None:
        """Nothing may be left over."""
        if self._position != len(self._data):
            raise MalformedMessage(
                f"{self._name}: expected {self._position} bytes, got {len(self._data)}: too long; message dropped"
            )


def _pack_ids(ids: Iterable[int]) -> bytes:
    ids = tuple(ids)
    return struct.pack(f"<{len(ids) + 1}I", len(ids), *ids)
