"""Every key of the protocol: X25519 for agreement, HKDF-SHA256 for derivation, the operating system for secrets.

Each derived key is bound to what it is for (a label), to the round (a digest of session, round, ring and dimension and,
once it is known, the roster) and to the clients concerned, so that no key serves twice or fits another round.
"""

from __future__ import annotations

import hashlib
import secrets
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fedtalk.privacy.secagg.errors import RefusedMessage

KEY_BYTES = 32
_FIELD = 2**255 - 19
_SMALL_ORDER = frozenset(
    (
        0,
        1,
        _FIELD - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
)
"""Points on the curve and its twist whose order divides 8: with them X25519 gives zero, whatever the private key."""
_SALT = b"fedtalk secure aggregation, version 1"


class KeyPair:
    """An X25519 key pair, fresh from the operating system unless its 32 secret bytes are given (recovery)."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._private = X25519PrivateKey.generate() if secret is None else X25519PrivateKey.from_private_bytes(secret)
        self.public: bytes = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def secret(self) -> bytes:
        """The 32 secret bytes, to be shared among the neighbours."""
        return self._private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

    def agree(self, peer: bytes) -> bytes:
        """The 32 bytes shared with the owner of the public key ``peer``; to be used through `derive_key` only.

        Raises:
            RefusedMessage: ``peer`` is one of the few points that give the same result with every key.
        """
        check_public(peer)
        return self._private.exchange(X25519PublicKey.from_public_bytes(peer))


def check_public(key: bytes) -> None:
    """Refuse a public key of small order (RFC 7748 leaves out the highest bit and takes numbers modulo the field's prime).

    Raises:
        RefusedMessage: it is.
    """
    if (int.from_bytes(key, "little") & (2**255 - 1)) % _FIELD in _SMALL_ORDER:
        raise RefusedMessage(
            f"public key {key.hex()}: expected a point of large order on X25519, got one that agrees on the same "
            "secret with everyone; its sender is broken or malicious and has to be left out"
        )


def fresh_secret() -> bytes:
    """32 bytes from the operating system."""
    return secrets.token_bytes(KEY_BYTES)


def round_digest(session: bytes, round_number: int, settings: bytes) -> bytes:
    """32 bytes that stand for one round of one session under agreed settings (their fingerprint)."""
    return hashlib.sha256(_SALT + b"round" + session + struct.pack("<Q", round_number) + settings).digest()


def roster_digest(graph_seed: bytes, clients: tuple[int, ...]) -> bytes:
    """32 bytes that stand for who takes part and in which graph, and tell it to nobody who doesn't have the seed."""
    ids = struct.pack(f"<{len(clients)}I", *clients)
    return hashlib.sha256(_SALT + b"roster" + graph_seed + ids).digest()


def roster_context(round_context: bytes, count: int, digest: bytes) -> bytes:
    """32 bytes that stand for one round with its roster, in every key that is derived in it: whoever was told of another
    roster has other keys."""
    return hashlib.sha256(_SALT + b"context" + round_context + struct.pack("<I", count) + digest).digest()


def self_mask_key(seed: bytes, context: bytes, client: int) -> bytes:
    """The key of a client's own mask, from its 32-byte seed."""
    return derive_key(seed, b"self mask", context, struct.pack("<I", client))


def pair_mask_key(own: KeyPair, own_id: int, peer_public: bytes, peer_id: int, context: bytes) -> bytes:
    """The key of the mask that two clients share; the same whichever of the two keys is the private one."""
    first, second = sorted([(own_id, own.public), (peer_id, peer_public)])
    purpose = struct.pack("<II", first[0], second[0]) + first[1] + second[1]
    return derive_key(own.agree(peer_public), b"pair mask", context, purpose)


def sealing_key(agreed: bytes, sender: int, recipient: int, context: bytes) -> bytes:
    """The key under which ``sender`` encrypts its shares for ``recipient``, from what their sealing keys agree on.

    It differs by direction and is used for one message only.
    """
    return derive_key(agreed, b"sealed share", context, struct.pack("<II", sender, recipient))


def seed_commitment(seed: bytes, context: bytes, client: int) -> bytes:
    """32 bytes that tie a client to the seed of its own mask and say nothing about it, for the seed is 256 random bits.

    With it the server tells a wrong reconstruction from a right one.
    """
    return derive_key(seed, b"seed commitment", context, struct.pack("<I", client))


def derive_key(secret: bytes, label: bytes, context: bytes, purpose: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) of ``secret`` to 32 bytes, bound to a label, a round and a purpose within it."""
    information = bytes([len(label)]) + label + context + purpose
    return HKDF(hashes.SHA256(), KEY_BYTES, _SALT, information).derive(secret)
