"""A whole round in one process: the two halves as they are, with only bytes carried between them.

For tests, benchmarks and the in-process engine. Where a client or a message is to be lost or spoilt, `drops` and
`transport` say so; nothing in the halves knows of it.
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from fedtalk.privacy.secagg.client import Enrolled
from fedtalk.privacy.secagg.errors import RefusedMessage
from fedtalk.privacy.secagg.server import CollectingInputs, CollectingKeys, CollectingReveals, CollectingShares
from fedtalk.privacy.secagg.settings import AggregationSettings


class Stage(enum.IntEnum):
    """The four answers of a client, in order."""

    KEYS = 0
    SHARES = 1
    INPUT = 2
    REVEAL = 3


Next = TypeVar("Next")
Collector = CollectingKeys | CollectingShares | CollectingInputs | CollectingReveals
Transport = Callable[[Stage, int, bytes], bytes | None]
"""Called with each answer of a client, by stage and id; gives the bytes that arrive, or None for a lost message."""


@dataclass
class RoundReport:
    """What a round gave and what it cost."""

    total: np.ndarray
    """(dimension,) of the ring's dtype: the sum of the survivors' vectors."""
    survivors: tuple[int, ...]
    """Whose vectors are in the sum."""
    refused: dict[int, str] = field(default_factory=dict)
    """By client, why it or the server refused a message of the other; it counts as dropped out from there on."""
    bytes_up: dict[int, int] = field(default_factory=dict)
    """Bytes each client sent."""
    bytes_down: dict[int, int] = field(default_factory=dict)
    """Bytes each client was sent."""
    client_seconds: dict[int, float] = field(default_factory=dict)
    """Time of each client's own computations, by the driver's clock."""
    server_seconds: float = 0.0
    """Time of the server's computations, by the driver's clock."""


def run_round(
    inputs: Mapping[int, np.ndarray],
    settings: AggregationSettings,
    round_number: int = 0,
    *,
    clients: Mapping[int, Enrolled] | None = None,
    drops: Mapping[int, Stage] | None = None,
    transport: Transport | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> RoundReport:
    """Sum ``inputs`` securely.

    Args:
        inputs: the vector of each client of the cohort, (dimension,) of the ring's dtype, below 2**bits.
        settings: the run's settings.
        round_number: above that of every earlier round that ``clients`` took part in.
        clients: the clients' halves, kept from round to round; fresh ones by default.
        drops: the first answer that a client no longer gives.
        transport: alters or loses answers on their way.
        clock: seconds; `time.process_time` leaves out what other programs take of the processor.

    Raises:
        AbortedRound: too few clients were left at some stage; no sum is released.
        ConfigurationError: the cohort is too small for the settings.
    """
    members = clients or {client: Enrolled(client, settings) for client in inputs}
    carrier = _Carrier(dict(drops or {}), transport, clock)
    with carrier.serving():
        collecting_keys = CollectingKeys(inputs, settings, round_number)
        outgoing = collecting_keys.invitations()
    advertised = carrier.exchange(
        Stage.KEYS, outgoing, lambda client, message: members[client].join(message), collecting_keys
    )
    with carrier.serving():
        collecting_shares, outgoing = collecting_keys.close()
    shared = carrier.exchange(
        Stage.SHARES,
        outgoing,
        lambda client, message: advertised[client].receive_roster(message),
        collecting_shares,
    )
    with carrier.serving():
        collecting_inputs, outgoing = collecting_shares.close()
    submitted = carrier.exchange(
        Stage.INPUT,
        outgoing,
        lambda client, message: shared[client].receive_shares(message, inputs[client]),
        collecting_inputs,
    )
    with carrier.serving():
        collecting_reveals, outgoing = collecting_inputs.close()
    carrier.exchange(
        Stage.REVEAL, outgoing, lambda client, message: (None, submitted[client].reveal(message)), collecting_reveals
    )
    with carrier.serving():
        result = collecting_reveals.close()
    return carrier.report(result.total, result.survivors)


class _Carrier:
    """Carries the bytes of one round, and keeps the accounts."""

    def __init__(self, drops: Mapping[int, Stage], transport: Transport | None, clock: Callable[[], float]) -> None:
        self._drops, self._transport, self._clock = drops, transport, clock
        self._refused: dict[int, str] = {}
        self._bytes_up: dict[int, int] = {}
        self._bytes_down: dict[int, int] = {}
        self._client_seconds: dict[int, float] = {}
        self._server_seconds = 0.0

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Time what the server does."""
        start = self._clock()
        yield
        self._server_seconds += self._clock() - start

    def exchange(
        self,
        stage: Stage,
        outgoing: Mapping[int, bytes],
        answer: Callable[[int, bytes], tuple[Next, bytes]],
        collector: Collector,
    ) -> dict[int, Next]:
        """Carry the server's messages to the clients and their answers back; the next states of those who answered."""
        states = {}
        for client, message in outgoing.items():
            self._bytes_down[client] = self._bytes_down.get(client, 0) + len(message)
            if client in self._refused or stage >= self._drops.get(client, len(Stage)):
                continue
            start = self._clock()
            try:
                states[client], reply = answer(client, message)
            except RefusedMessage as refusal:
                self._refused[client] = f"refused by the client at {stage.name.lower()}: {refusal}"
                continue
            self._client_seconds[client] = self._client_seconds.get(client, 0.0) + self._clock() - start
            self._bytes_up[client] = self._bytes_up.get(client, 0) + len(reply)
            arrived = self._transport(stage, client, reply) if self._transport else reply
            if arrived is None:
                continue
            try:
                with self.serving():
                    collector.receive(client, arrived)
            except RefusedMessage as refusal:
                self._refused[client] = f"refused by the server at {stage.name.lower()}: {refusal}"
        return states

    def report(self, total: np.ndarray, survivors: tuple[int, ...]) -> RoundReport:
        """The round's outcome with its accounts."""
        return RoundReport(
            total,
            survivors,
            self._refused,
            self._bytes_up,
            self._bytes_down,
            self._client_seconds,
            self._server_seconds,
        )
