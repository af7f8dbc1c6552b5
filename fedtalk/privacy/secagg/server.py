"""The server's half of a round, one class a state; it holds masked vectors' sum and the last few of them, never a clear one.

    CollectingKeys --close--> CollectingShares --close--> CollectingInputs --close--> CollectingReveals --close--> sum

In each state, `receive` takes one client's message (refusing, at that client's cost only, what breaks the protocol) and
`close` ends the wait: whoever has not answered has dropped out. `close` gives the next state and the message for each
client, or raises `AbortedRound` where too few are left. The caller decides how long to wait, and vouches for the sender
of each message (TLS, node authentication): the protocol checks only that the message names the same one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.secagg import keys, messages, packing
from fedtalk.privacy.secagg.collecting import Collecting, RoundGraph
from fedtalk.privacy.secagg.errors import AbortedRound, RefusedMessage
from fedtalk.privacy.secagg.graph import neighbours
from fedtalk.privacy.secagg.settings import AggregationSettings
from fedtalk.privacy.secagg.unmasking import CollectingReveals


class CollectingKeys(Collecting):
    """The cohort is invited; collects the clients' public keys."""

    def __init__(self, cohort: Iterable[int], settings: AggregationSettings, round_number: int) -> None:
        """
        Args:
            cohort: ids of the clients to invite, each once, 0 to 2**32 - 1.
            settings: the run's settings.
            round_number: above that of every earlier round of the session.

        Raises:
            ConfigurationError: the cohort is too small for the settings, or an id or the round out of range.
        """
        ids = list(cohort)
        if len(set(ids)) != len(ids) or not all(0 <= client <= messages.LARGEST_CLIENT_ID for client in ids):
            raise ConfigurationError(f"cohort: expected distinct ids of 0 to 2**32 - 1, got {sorted(ids)[:16]}")
        if not 0 <= round_number <= messages.LARGEST_ROUND:
            raise ConfigurationError(f"round: expected 0 to 2**64 - 1, got {round_number}")
        if len(ids) < settings.survivors_needed(len(ids)):
            raise ConfigurationError(
                f"cohort: expected at least {settings.survivors_needed(len(ids))} clients, got {len(ids)}; secure "
                "aggregation hides a client among others. Enlarge the cohort."
            )
        settings.graph(len(ids))
        super().__init__(settings, round_number, ids)
        self._keys: dict[int, tuple[bytes, bytes]] = {}
        self._used: set[bytes] = set()

    def invitations(self) -> dict[int, bytes]:
        """The message that opens the round, for each client of the cohort."""
        settings, fingerprint = self._settings, self._settings.fingerprint()
        return {
            client: messages.Invitation(client, settings.session, self._number, fingerprint).encode()
            for client in sorted(self._expected)
        }

    def receive(self, sender: int, data: bytes) -> None:
        """Take one client's public keys.

        Raises:
            RefusedMessage: garbage, a forged or foreign header, a second message, a public key that is
                in use already or of small order.
        """
        message = self._open(messages.KeyAdvertisement, sender, data)
        pair = (message.sealing_public, message.mask_public)
        if pair[0] == pair[1] or self._used.intersection(pair):
            raise RefusedMessage(f"keys of client {sender}: expected fresh ones, got one that is in use already")
        for key in pair:
            keys.check_public(key)  # a degenerate key is refused here, at its sender's cost, not by all its neighbours
        self._used.update(pair)
        self._keys[sender] = pair
        self._answered.add(sender)

    def close(self) -> tuple[CollectingShares, dict[int, bytes]]:
        """Draw the graph over those who answered, and send each the keys of its neighbours; nobody learns of more.

        Raises:
            AbortedRound: too few answered.
        """
        count = len(self._answered)
        clients = self._close("keys", self._settings.survivors_needed(count))
        try:
            choice = self._settings.graph(count)
        except ConfigurationError as error:
            raise AbortedRound(f"round {self._number}: {error}") from error
        graph_seed = secrets.token_bytes(32)
        near = neighbours(clients, choice.degree, graph_seed)
        masking = neighbours(clients, choice.mask_degree, graph_seed)
        settings = self._settings
        digest = keys.roster_digest(graph_seed, clients)
        context = keys.roster_context(
            keys.round_digest(settings.session, self._number, settings.fingerprint()), count, digest
        )
        mask_publics = {client: self._keys[client][1] for client in clients}
        roster = RoundGraph(clients, choice, near, masking, mask_publics, context)
        outgoing = {
            client: messages.Roster(
                client,
                settings.session,
                self._number,
                count,
                digest,
                {peer: self._keys[peer] for peer in near[client]},
                masking[client],
            ).encode()
            for client in clients
        }
        return CollectingShares(settings, self._number, roster), outgoing


class CollectingShares(Collecting):
    """The roster is out; collects each client's encrypted shares, which the server can't read."""

    def __init__(self, settings: AggregationSettings, round_number: int, roster: RoundGraph) -> None:
        super().__init__(settings, round_number, roster.clients)
        self._roster = roster
        self._sealed: dict[int, messages.SealedShares] = {}

    def receive(self, sender: int, data: bytes) -> None:
        """Take one client's envelopes.

        Raises:
            RefusedMessage: garbage, a forged or foreign header, a second message, envelopes that are not one for each
                neighbour.
        """
        message = self._open(messages.SealedShares, sender, data)
        if tuple(message.envelopes) != self._roster.near[sender]:
            raise RefusedMessage(f"shares of client {sender}: expected one envelope for each neighbour, got others")
        self._sealed[sender] = message
        self._answered.add(sender)

    def close(self) -> tuple[CollectingInputs, dict[int, bytes]]:
        """Deliver the envelopes among those who shared.

        A client with fewer sharing neighbours than the threshold is left out, since its masks could not be removed.

        Raises:
            AbortedRound: too few are left.
        """
        needed = self._settings.survivors_needed(len(self._roster.clients))
        sharing = set(self._close("shares", needed))
        roster = self._roster
        while cut_off := {
            client for client in sharing if len(roster.beside(client, sharing)) < roster.choice.threshold
        }:
            sharing -= cut_off
        self._require("shares of connected clients", len(sharing), needed)
        clients = sorted(sharing)
        outgoing = {}
        for client in clients:
            envelopes = {peer: self._sealed[peer].envelopes[client] for peer in roster.beside(client, sharing)}
            outgoing[client] = messages.ShareDelivery(client, self._settings.session, self._number, envelopes).encode()
        commitments = {client: self._sealed[client].commitment for client in clients}
        state = CollectingInputs(self._settings, self._number, self._roster, commitments)
        return state, outgoing


class CollectingInputs(Collecting):
    """The shares are delivered; collects the masked vectors, adding each to the sum as it comes."""

    def __init__(
        self,
        settings: AggregationSettings,
        round_number: int,
        roster: RoundGraph,
        commitments: Mapping[int, bytes],
    ) -> None:
        super().__init__(settings, round_number, commitments)
        self._roster, self._commitments = roster, commitments
        layout = settings.words
        self._sum = packing.PackedSum(layout.count, layout.width)

    def receive(self, sender: int, data: bytes) -> None:
        """Add one client's masked vector to the sum; nothing else of it is kept (the last few wait to be added together).

        Raises:
            RefusedMessage: garbage, a forged or foreign header, a second message, another length than the dimension's.
        """
        message = self._open(messages.MaskedInput, sender, data)
        settings = self._settings
        expected = packing.packed_bytes(settings.words.count, settings.words.width)
        if len(message.packed) != expected:
            raise RefusedMessage(
                f"masked vector of client {sender}: expected {expected} bytes for {settings.dimension} coordinates of "
                f"{settings.bits} bits, got {len(message.packed)}"
            )
        self._sum.add(message.packed)
        self._answered.add(sender)

    def close(self) -> tuple[CollectingReveals, dict[int, bytes]]:
        """Fix who survived and ask the survivors for the shares that remove the masks.

        Raises:
            AbortedRound: too few survived.
        """
        needed = self._settings.survivors_needed(len(self._roster.clients))
        survivors = self._close("masked vectors", needed)
        dropped = tuple(sorted(self.waiting_for))
        lost, sent, roster = set(dropped), set(survivors), self._roster
        outgoing = {
            client: messages.RevealRequest(
                client, self._settings.session, self._number, len(survivors),
                roster.beside(client, sent), roster.beside(client, lost) if lost else (),
            ).encode()
            for client in survivors
        }  # fmt: skip
        state = CollectingReveals(
            self._settings, self._number, self._roster, self._commitments, dropped, survivors, self._sum.total()
        )
        return state, outgoing
