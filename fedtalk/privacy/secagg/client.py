"""The client's half of a round, one class a state; it exchanges bytes with the server and knows nothing else of it.

    Enrolled --invitation--> Advertised --roster--> Shared --delivery, vector--> Submitted --request--> done

Each step takes the server's message and gives the next state and the reply. A message that breaks the protocol is
refused (`RefusedMessage`) and leaves the state as it was; once a step is done, its state takes no second message. A
client that has refused for good just stops: to the others it dropped out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.secagg import checks, envelope, keys, masks, messages, packing, shamir
from fedtalk.privacy.secagg.errors import InvalidInput, RefusedMessage
from fedtalk.privacy.secagg.graph import GraphChoice
from fedtalk.privacy.secagg.settings import AggregationSettings


class _State:
    """A step of the protocol that can be taken once."""

    def __init__(self) -> None:
        self._done = False

    def _begin(self) -> None:
        if self._done:
            raise RefusedMessage(
                f"{type(self).__name__}: expected one message in this state, got a second one; it may be a replay, "
                "and answering it could open this client's vector"
            )

    def _finish(self) -> None:
        self._done = True


@dataclass(frozen=True)
class _Round:
    """What a client knows of the round it is in."""

    client: int
    settings: AggregationSettings
    number: int

    def check_address(self, message: messages.Message) -> None:
        """Refuse a message of another session or round, or for another client."""
        expected = (self.client, self.settings.session, self.number)
        got = (message.client, message.session, message.round_number)
        if expected != got:
            raise RefusedMessage(
                f"{type(message).__name__}: expected one for client {expected[0]}, session {expected[1].hex()}, round "
                f"{expected[2]}, got client {got[0]}, session {got[1].hex()}, round {got[2]}; message refused"
            )


class Enrolled:
    """A client between rounds: waits for an invitation, and takes part in each round at most once."""

    def __init__(self, client: int | None, settings: AggregationSettings, *, last_round: int = -1) -> None:
        """
        Args:
            client: this client's id, 0 to 2**32 - 1, as the server's transport knows it; None to take in each round the one
                that its invitation gives, so that no id is met twice.
            settings: the run's settings, which the client has from its own configuration, not from the server.
            last_round: newest round this client took part in, from its own storage; -1 for none.
        """
        if client is not None and not 0 <= client <= messages.LARGEST_CLIENT_ID:
            raise ConfigurationError(f"client id: expected 0 to {messages.LARGEST_CLIENT_ID}, got {client}")
        self._client, self._settings = client, settings
        self._last_round = last_round

    @property
    def last_round(self) -> int:
        """Newest round joined; to be kept in storage where a client must not join it again after a restart."""
        return self._last_round

    def join(self, invitation: bytes) -> tuple[Advertised, bytes]:
        """Answer an invitation with fresh public keys.

        Raises:
            RefusedMessage: garbage, another run's session, a round that is not newer than the last one, other settings.
        """
        message = messages.Invitation.decode(invitation)
        if message.round_number <= self._last_round:
            raise RefusedMessage(
                f"invitation: expected a round after {self._last_round}, got {message.round_number}; joining a round "
                "twice could open this client's vector"
            )
        own = message.client if self._client is None else self._client
        round_ = _Round(own, self._settings, message.round_number)
        round_.check_address(message)
        if message.settings != self._settings.fingerprint():
            raise RefusedMessage(
                "invitation: expected the settings that this client was configured with (dimension, bits, assumptions, "
                "least_survivors), got others; give server and clients the same configuration"
            )
        self._last_round = message.round_number
        state = Advertised(round_)
        return state, state.advertisement


class Advertised(_State):
    """The keys are out; waits for the roster, and answers it with the shares of its secrets."""

    def __init__(self, round_: _Round) -> None:
        super().__init__()
        self._round = round_
        self._sealing, self._masking = keys.KeyPair(), keys.KeyPair()
        self.advertisement = messages.KeyAdvertisement(
            round_.client, round_.settings.session, round_.number, self._sealing.public, self._masking.public
        ).encode()

    def receive_roster(self, roster: bytes) -> tuple[Shared, bytes]:
        """Share the mask key and the seed of the own mask among the neighbours.

        Raises:
            RefusedMessage: garbage, wrong address, a cohort too small for the settings, more or fewer neighbours than its
                graph gives, this client among them, a public key used twice or of small order, a second roster.
        """
        self._begin()
        message = messages.Roster.decode(roster)
        self._round.check_address(message)
        own_keys = {self._sealing.public, self._masking.public}
        choice = checks.checked_roster(message, self._round.settings, self._round.client, own_keys)
        round_, own = self._round, self._round.client
        context = keys.roster_context(
            keys.round_digest(round_.settings.session, round_.number, round_.settings.fingerprint()),
            message.count,
            message.digest,
        )
        peers, masking = {}, frozenset(message.masking)
        for peer, (sealing_public, mask_public) in message.neighbour_keys.items():
            agreed = self._sealing.agree(sealing_public)
            peers[peer] = _Peer(
                seal_to=keys.sealing_key(agreed, own, peer, context),
                open_from=keys.sealing_key(agreed, peer, own, context),
                pair_mask=keys.pair_mask_key(self._masking, own, mask_public, peer, context)
                if peer in masking
                else None,
            )
        seed = keys.fresh_secret()
        points = range(1, len(peers) + 1)
        key_shares = shamir.split(self._masking.secret(), points, choice.threshold)
        seed_shares = shamir.split(seed, points, choice.threshold)
        envelopes = {
            peer: envelope.seal(envelope.SharePair(key_shares[point], seed_shares[point]), known.seal_to)
            for point, (peer, known) in enumerate(peers.items(), start=1)
        }
        commitment = keys.seed_commitment(seed, context, own)
        reply = messages.SealedShares(own, round_.settings.session, round_.number, envelopes, commitment)
        self._finish()
        self_mask = keys.self_mask_key(seed, context, own)
        return Shared(round_, choice, peers, self_mask), reply.encode()


@dataclass(frozen=True)
class _Peer:
    """The keys shared with one neighbour, each for one purpose."""

    seal_to: bytes
    open_from: bytes
    pair_mask: bytes | None
    """None where there is no mask with it."""


class Shared(_State):
    """The shares are out; waits for the neighbours' shares, and answers with the masked vector."""

    def __init__(
        self,
        round_: _Round,
        choice: GraphChoice,
        peers: Mapping[int, _Peer],
        self_mask: bytes,
    ) -> None:
        super().__init__()
        self._round, self._choice = round_, choice
        self._peers, self._self_mask = peers, self_mask

    @property
    def roster_size(self) -> int:
        """Clients among which the masks are agreed, as this client's own roster counts them."""
        return self._choice.clients

    def receive_shares(self, delivery: bytes, vector: np.ndarray) -> tuple[Submitted, bytes]:
        """Mask ``vector`` with its own mask and those with neighbours that shared, and send it.

        Args:
            delivery: the server's message.
            vector: (dimension,) of the ring's dtype, each element below 2**bits; it is not changed.

        Raises:
            RefusedMessage: garbage, wrong address, shares from a stranger, fewer sharing neighbours than the
                threshold, in all or among those who have masks with this client, a second delivery.
            InvalidInput: ``vector`` is not a vector of the ring.
        """
        self._begin()
        message = messages.ShareDelivery.decode(delivery)
        self._round.check_address(message)
        strangers = [peer for peer in message.envelopes if peer not in self._peers]
        if strangers:
            raise RefusedMessage(f"delivery: expected shares from neighbours only, got some from {strangers[:8]}")
        if len(message.envelopes) < self._choice.threshold:
            raise RefusedMessage(
                f"delivery: expected shares from at least {self._choice.threshold} neighbours, got "
                f"{len(message.envelopes)}; with so few the masks could not be removed"
            )
        masking = frozenset(peer for peer in message.envelopes if self._peers[peer].pair_mask is not None)
        if len(masking) < self._choice.mask_threshold:
            raise RefusedMessage(
                f"delivery: expected shares from at least {self._choice.mask_threshold} of those who have masks with client "
                f"{self._round.client}, got {len(masking)}; too few masks to hide its vector"
            )
        settings, own = self._round.settings, self._round.client
        ring = settings.ring
        if vector.shape != (settings.dimension,) or vector.dtype != ring.dtype or not ring.contains(vector):
            raise InvalidInput(
                f"vector of client {own}: expected ({settings.dimension},) {ring.dtype} below 2**{settings.bits}, "
                f"got {vector.shape} {vector.dtype} with maximum {vector.max() if vector.size else 'none'}"
            )
        layout = settings.words
        masked = layout.join(vector)
        own_masks = [masks.Mask(self._self_mask), *self._pair_masks(message.envelopes)]
        masks.apply_masks(masked, own_masks, len(own_masks))
        masked &= masked.dtype.type((1 << layout.width) - 1)
        packed = packing.pack(masked, layout.width)
        self._finish()
        held = {peer: (self._peers[peer].open_from, sealed) for peer, sealed in message.envelopes.items()}
        silent = frozenset(self._peers) - held.keys()
        reply = messages.MaskedInput(own, settings.session, self._round.number, packed)
        return Submitted(self._round, self._choice, held, silent, masking), reply.encode()

    def _pair_masks(self, peers: Iterable[int]) -> list[masks.Mask]:
        """What this client adds for those of these neighbours with whom it has masks; they add the opposite."""
        masking = {peer: self._peers[peer].pair_mask for peer in peers}
        return [masks.Mask(key, subtract=peer < self._round.client) for peer, key in masking.items() if key is not None]


class Submitted(_State):
    """The masked vector is out; waits for the request to help remove the masks, and answers it once."""

    def __init__(
        self,
        round_: _Round,
        choice: GraphChoice,
        held: Mapping[int, tuple[bytes, bytes]],
        silent: frozenset[int],
        masking: frozenset[int],
    ) -> None:
        super().__init__()
        self._round, self._choice = round_, choice
        self._held, self._silent, self._masking = held, silent, masking

    def reveal(self, request: bytes) -> bytes:
        """One share for each neighbour that shared: of its seed if it survived, of its mask key if it dropped out.

        A share that was spoilt on its way is left out; the others' are enough.

        Raises:
            RefusedMessage: garbage, wrong address, a client both survivor and dropped, an id that is no neighbour's, a
                neighbour in neither list or one that never shared, a count that the lists can't have, too few survivors in
                all or among the neighbours (those with masks, too), a second request.
        """
        self._begin()
        message = messages.RevealRequest.decode(request)
        self._round.check_address(message)
        survivors = checks.checked_request(
            message,
            self._round.settings,
            self._round.client,
            self._choice,
            self._held.keys(),
            self._silent,
            self._masking,
        )
        seeds, mask_keys = {}, {}
        for peer, (key, sealed) in self._held.items():
            shares = envelope.unseal(sealed, key)
            if shares is None:
                continue
            if peer in survivors:
                seeds[peer] = shares.seed
            else:
                mask_keys[peer] = shares.mask_key
        self._finish()
        own, settings = self._round.client, self._round.settings
        return messages.RevealedShares(own, settings.session, self._round.number, seeds, mask_keys).encode()
