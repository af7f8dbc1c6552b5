"""What the server's states have in common: they wait for one message from each of the expected clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import TypeVar

from fedtalk.privacy.secagg import messages
from fedtalk.privacy.secagg.errors import AbortedRound, RefusedMessage
from fedtalk.privacy.secagg.graph import GraphChoice
from fedtalk.privacy.secagg.settings import AggregationSettings

AnyMessage = TypeVar("AnyMessage", bound=messages.Message)


@dataclass(frozen=True)
class RoundGraph:
    """Who takes part in a round and how they are connected."""

    clients: tuple[int, ...]
    """Ids, ascending."""
    choice: GraphChoice
    """Degree and threshold for so many clients."""
    near: Mapping[int, tuple[int, ...]]
    """Neighbours of each client, ascending: those who hold shares of its secrets."""
    masking: Mapping[int, tuple[int, ...]]
    """Those among them with whom it has masks, ascending."""
    mask_publics: Mapping[int, bytes]
    """Public mask key of each client."""
    context: bytes
    """32 bytes that stand for round and roster in every derived key."""

    def beside(self, client: int, among: Set[int]) -> tuple[int, ...]:
        """Neighbours of ``client`` that are ``among`` the given, who are some of `clients`; ascending."""
        near = self.near[client]
        return near if len(among) == len(self.clients) else tuple(peer for peer in near if peer in among)


class Collecting:
    """A state that takes one message from each of the expected clients."""

    def __init__(self, settings: AggregationSettings, round_number: int, expected: Iterable[int]) -> None:
        self._settings, self._number = settings, round_number
        self._expected = frozenset(expected)
        self._answered: set[int] = set()
        self._closed = False

    @property
    def waiting_for(self) -> frozenset[int]:
        """Clients that have not answered yet."""
        return self._expected - self._answered

    def _open(self, kind: type[AnyMessage], sender: int, data: bytes) -> AnyMessage:
        """The message, if ``sender`` may send it now and it names sender, session and round rightly."""
        if self._closed:
            raise RefusedMessage(
                f"{kind.__name__} of client {sender}: expected in time, got after the stage was closed"
            )
        if sender not in self._expected:
            raise RefusedMessage(f"{kind.__name__}: expected from a client of this stage, got from {sender}")
        if sender in self._answered:
            raise RefusedMessage(f"{kind.__name__}: expected one from client {sender}, got a second one")
        message = kind.decode(data)
        expected = (sender, self._settings.session, self._number)
        got = (message.client, message.session, message.round_number)
        if got != expected:
            raise RefusedMessage(
                f"{kind.__name__}: expected client {expected[0]}, session {expected[1].hex()}, round {expected[2]}, "
                f"got client {got[0]}, session {got[1].hex()}, round {got[2]}: forged, or from another round"
            )
        return message

    def _close(self, stage: str, needed: int) -> tuple[int, ...]:
        """End the stage; those who answered, ascending."""
        if self._closed:
            raise AbortedRound(f"{stage}: expected to be closed once, got a second time; start a new round")
        self._closed = True
        self._require(stage, len(self._answered), needed)
        return tuple(sorted(self._answered))

    def _require(self, stage: str, count: int, needed: int) -> None:
        """Abort the round if fewer clients are left than it needs."""
        if count < needed:
            raise AbortedRound(
                f"round {self._number}, {stage}: expected at least {needed} clients, got {count} of "
                f"{len(self._expected)}; the round is lost and no sum is released. Wait longer or invite more clients."
            )
