"""Sealed updates: what leaves a client is one share of a sum, and only the sum can be opened.

A client turns its contribution into fixed point and adds masks that cancel in the sum over the cohort. A single
`SealedUpdate` is uniform noise to whoever lacks the masks; the server half handles nothing else. Integer sums are exact
and do not depend on the order of clients, so results are the same to the bit however clients are scheduled.

`PairwiseSealing` is the in-process form: the pair secrets come from the operating system when the round's survivors are
known, so nobody drops out between sealing and summing. It protects against a server half that would look at single
updates, not against somebody who reads this process's memory. `secure_sum` holds the protocol between parties.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from fedtalk.errors import FedTalkError

STEP = 2.0**-32
"""Fixed-point step of a coordinate; a client's range is +-2**20, a sum's +-2**31."""


class SealingError(FedTalkError):
    """A contribution can't be sealed, or a set of sealed updates does not open."""


@dataclass(frozen=True)
class SealedUpdate:
    """One client's masked contribution; all that the server half ever sees of it."""

    client: str
    round_number: int
    payload: bytes
    """Little-endian 64-bit ring elements."""


class SealingRound(ABC):
    """The sealing of one round's survivors."""

    @abstractmethod
    def seal(self, client: str, vector: np.ndarray) -> SealedUpdate:
        """Client half: seal a contribution, (d,) float."""

    @abstractmethod
    def open_sum(self, updates: Sequence[SealedUpdate]) -> np.ndarray:
        """Server half: the sum of all contributions, (d,) float64.

        Raises:
            SealingError: the updates are not exactly one of each survivor of this round.
        """


class RingSum(ABC):
    """Sums the integer vectors of one round's clients, showing none of them."""

    @abstractmethod
    def seal_ring(self, client: str, elements: np.ndarray) -> SealedUpdate:
        """Client half: mask ring elements, (d,) unsigned."""

    @abstractmethod
    def open_ring(self, updates: Sequence[SealedUpdate]) -> np.ndarray:
        """Server half: the sum of the updates' elements, (d,) unsigned, modulo the ring's (or a wider) power of two."""


class PairwiseSealing(SealingRound, RingSum):
    """Pairwise masks that cancel in the sum; in process, all survivors known beforehand."""

    def __init__(self, round_number: int, survivors: Sequence[str]) -> None:
        if len(set(survivors)) != len(survivors):
            raise SealingError(f"round {round_number}: a client is named twice among the survivors {list(survivors)}")
        self.round_number = round_number
        self.survivors = sorted(survivors)
        self._pair_secrets = {
            (a, b): secrets.token_bytes(32) for i, a in enumerate(self.survivors) for b in self.survivors[i + 1 :]
        }

    def seal(self, client: str, vector: np.ndarray) -> SealedUpdate:
        return self.seal_ring(client, to_ring(vector, client))

    def open_sum(self, updates: Sequence[SealedUpdate]) -> np.ndarray:
        return self.open_ring(updates).view(np.int64).astype(np.float64) * STEP

    def seal_ring(self, client: str, elements: np.ndarray) -> SealedUpdate:
        if client not in self.survivors:  # it shares no masks with anybody: its update would leave in the clear
            raise SealingError(f"round {self.round_number}: {client} is not among the survivors {self.survivors}")
        ring = elements.astype(np.uint64)
        for (first, second), key in self._pair_secrets.items():
            if client == first:
                ring += _keystream(key, len(ring))
            elif client == second:
                ring -= _keystream(key, len(ring))
        return SealedUpdate(client, self.round_number, ring.tobytes())

    def open_ring(self, updates: Sequence[SealedUpdate]) -> np.ndarray:
        got = sorted(update.client for update in updates)
        if got != self.survivors or any(update.round_number != self.round_number for update in updates):
            raise SealingError(
                f"round {self.round_number}: expected one sealed update of each of {self.survivors}, got {got} of rounds "
                f"{sorted({update.round_number for update in updates})}; masks cancel only over the whole set"
            )
        total = np.zeros(len(updates[0].payload) // 8, np.uint64)
        for update in updates:
            share = np.frombuffer(update.payload, "<u8")
            if len(share) != len(total):
                raise SealingError(
                    f"sealed update of {update.client}: expected {len(total)} coordinates, got {len(share)}"
                )
            total += share
        return total


def to_ring(vector: np.ndarray, client: str) -> np.ndarray:
    """Fixed point: (d,) float -> (d,) uint64, two's complement.

    Raises:
        SealingError: values that are not finite, or beyond +-2**20 (so that sums of 2047 clients can't wrap around).
    """
    if not np.all(np.isfinite(vector)):
        raise SealingError(f"the update of {client} holds values that are not finite; it is left out of the round")
    scaled = np.rint(vector.astype(np.float64) / STEP)
    if np.max(np.abs(scaled), initial=0.0) >= 2.0**52:
        raise SealingError(f"the update of {client} exceeds the fixed-point range of {2.0**52 * STEP:g}")
    return scaled.astype(np.int64).view(np.uint64)


def _keystream(key: bytes, words: int) -> np.ndarray:
    """ChaCha20 keystream as ring elements; a key is used for one round only, so the nonce is zero."""
    encryptor = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    return np.frombuffer(encryptor.update(bytes(words * 8)), "<u8")
