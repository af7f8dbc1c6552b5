"""A round of `fedtalk.privacy.secagg` as a round of a federated run: both halves in one process, only bytes between them.

Keys and shares are exchanged when the round opens, vectors as the clients finish, and whoever of the cohort sends none
has dropped out: the survivors' shares then open its masks. `open_ring` gives the exact sum or `AbortedRound`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedtalk.privacy.sealing import RingSum, SealedUpdate, SealingError
from fedtalk.privacy.secagg.client import Advertised, Enrolled, Shared, Submitted
from fedtalk.privacy.secagg.errors import RefusedMessage
from fedtalk.privacy.secagg.server import CollectingKeys
from fedtalk.privacy.secagg.settings import AggregationSettings


class SecureSum(RingSum):
    """Secure aggregation over one round's cohort."""

    def __init__(
        self,
        round_number: int,
        cohort: Sequence[str],
        members: Mapping[str, Enrolled],
        ids: Mapping[str, int],
        settings: AggregationSettings,
    ) -> None:
        """
        Args:
            round_number: above that of every earlier round of the session.
            cohort: who was drawn.
            members: the clients' halves, kept from round to round.
            ids: the clients' numbers in the protocol.
            settings: of the session.

        Raises:
            AbortedRound: too few clients took part in an exchange.
            ConfigurationError: the cohort is too small for the settings.
        """
        self.round_number, self._ids = round_number, {client: ids[client] for client in cohort}
        collecting_keys = CollectingKeys(self._ids.values(), settings, round_number)
        invitations = collecting_keys.invitations()
        advertised: dict[str, Advertised] = {}
        for client, number in self._ids.items():
            advertised[client], answer = members[client].join(invitations[number])
            collecting_keys.receive(number, answer)
        collecting_shares, rosters = collecting_keys.close()
        self._shared: dict[str, Shared] = {}
        for client, state in advertised.items():
            self._shared[client], answer = state.receive_roster(rosters[self._ids[client]])
            collecting_shares.receive(self._ids[client], answer)
        self._collecting, self._deliveries = collecting_shares.close()
        self._submitted: dict[str, Submitted] = {}

    def seal_ring(self, client: str, elements: np.ndarray) -> SealedUpdate:
        """Client half: the masked vector as the message that carries it.

        Raises:
            SealingError: the client is not of this round's cohort.
            RefusedMessage: it has sent its vector already.
        """
        if client not in self._shared:
            raise SealingError(f"round {self.round_number}: {client} is not of the cohort {sorted(self._shared)}")
        delivery = self._deliveries[self._ids[client]]
        self._submitted[client], message = self._shared[client].receive_shares(delivery, elements)
        return SealedUpdate(client, self.round_number, message)

    def open_ring(self, updates: Sequence[SealedUpdate]) -> np.ndarray:
        """Server half: the sum over whose messages these are; the rest of the cohort has dropped out.

        Raises:
            AbortedRound: too few survived; no sum is released.
            SealingError: an update is not of this round's cohort.
            RefusedMessage: an update is forged, damaged, of another round or there twice.
        """
        for update in updates:
            if update.client not in self._ids:
                raise SealingError(
                    f"round {self.round_number}: {update.client} is not of the cohort {sorted(self._ids)}"
                )
            self._collecting.receive(self._ids[update.client], update.payload)
        collecting_reveals, requests = self._collecting.close()
        clients = {number: client for client, number in self._ids.items()}
        for number, request in requests.items():
            try:
                collecting_reveals.receive(number, self._submitted[clients[number]].reveal(request))
            except RefusedMessage:  # a client that won't answer has dropped out; enough others may be left
                continue
        return collecting_reveals.close().total
