"""A client's two shares for one neighbour, encrypted so that the server that carries them can't read or swap them."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedtalk.privacy.secagg.shamir import SHARE_BYTES

SEALED_BYTES = 2 * SHARE_BYTES + 16
_NONCE = bytes(12)  # each key encrypts exactly one message, so the nonce need not vary


@dataclass(frozen=True)
class SharePair:
    """What one neighbour holds of a client's secrets; it reveals one of the two, never both."""

    mask_key: bytes
    """Share of the secret mask key: opens the pairwise masks of a client that dropped out."""
    seed: bytes
    """Share of the seed of the own mask: opens the self mask of a client that survived."""


def seal(shares: SharePair, key: bytes) -> bytes:
    """Encrypt and authenticate (ChaCha20-Poly1305) under a key that is used once; 82 bytes."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, shares.mask_key + shares.seed, None)


def unseal(sealed: bytes, key: bytes) -> SharePair | None:
    """The shares, or None where they weren't made by that peer for this client in this round (all in ``key``)."""
    try:
        opened = ChaCha20Poly1305(key).decrypt(_NONCE, sealed, None)
    except InvalidTag:
        return None
    return SharePair(opened[:SHARE_BYTES], opened[SHARE_BYTES:])
