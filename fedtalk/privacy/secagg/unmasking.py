"""The server's last state: it opens the masks, each secret checked against what its owner published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fedtalk.privacy.secagg import keys, masks, messages, shamir
from fedtalk.privacy.secagg.collecting import Collecting, RoundGraph
from fedtalk.privacy.secagg.errors import AbortedRound, RefusedMessage
from fedtalk.privacy.secagg.settings import AggregationSettings


@dataclass(frozen=True)
class AggregateSum:
    """What a round gives."""

    total: np.ndarray
    """(dimension,) of the ring's dtype: the sum of the survivors' vectors modulo 2**bits, exact."""
    survivors: tuple[int, ...]
    """Whose vectors are in it, ascending."""


class CollectingReveals(Collecting):
    """The survivors are fixed; collects their shares, then removes the masks."""

    def __init__(
        self,
        settings: AggregationSettings,
        round_number: int,
        roster: RoundGraph,
        commitments: Mapping[int, bytes],
        dropped: tuple[int, ...],
        survivors: tuple[int, ...],
        masked_sum: np.ndarray,
    ) -> None:
        """``masked_sum``: of the words (`AggregationSettings.words`); it is changed."""
        super().__init__(settings, round_number, survivors)
        self._roster, self._commitments = roster, commitments
        self._dropped, self._survivors, self._masked_sum = dropped, survivors, masked_sum
        self._shares: dict[int, dict[int, bytes]] = {client: {} for client in (*survivors, *dropped)}

    def receive(self, sender: int, data: bytes) -> None:
        """Take one survivor's shares.

        Raises:
            RefusedMessage: garbage, a forged or foreign header, a second message, a share that was not asked for.
        """
        message = self._open(messages.RevealedShares, sender, data)
        held = set(self._roster.near[sender])
        wanted_seeds, wanted_keys = held.intersection(self._survivors), held.intersection(self._dropped)
        if not (message.seeds.keys() <= wanted_seeds and message.mask_keys.keys() <= wanted_keys):
            raise RefusedMessage(f"shares from client {sender}: expected those that were asked for, got others")
        for owner, share in (*message.seeds.items(), *message.mask_keys.items()):
            self._shares[owner][sender] = share
        self._answered.add(sender)

    def close(self) -> AggregateSum:
        """Open the survivors' own masks and the pairwise masks of the dropped, and subtract them.

        Raises:
            AbortedRound: a mask can't be opened, for want of shares or because they don't fit its owner's commitment.
        """
        self._close("revealed shares", self._roster.choice.threshold)
        survivors = frozenset(self._survivors)
        masking = self._roster.masking
        left = {client: [peer for peer in masking[client] if peer in survivors] for client in self._dropped}
        count = len(survivors) + sum(map(len, left.values()))
        masks.apply_masks(self._masked_sum, self._masks(left), count)
        return AggregateSum(self._settings.words.split(self._masked_sum), self._survivors)

    def _masks(self, left: Mapping[int, Iterable[int]]) -> Iterator[masks.Mask]:
        """What has to be taken out of the sum, opened one by one, while masks that are open already are expanded.

        Args:
            left: by client that dropped out, the survivors that have masks with it.
        """
        context = self._roster.context
        for client in self._survivors:
            seed = self._open_secret(client, "seed")
            yield masks.Mask(keys.self_mask_key(seed, context, client), subtract=True)
        for client, peers in left.items():
            if not peers:
                continue
            recovered = keys.KeyPair(self._open_secret(client, "mask key"))
            for peer in peers:
                key = keys.pair_mask_key(recovered, client, self._roster.mask_publics[peer], peer, context)
                # The peer added this mask if its own id is the smaller one, so here it goes the other way.
                yield masks.Mask(key, subtract=peer < client)

    def _open_secret(self, owner: int, kind: str) -> bytes:
        """Interpolate one client's secret and check it against what that client published.

        Where there are more shares than needed, other choices of them are tried, so that one wrong share costs nothing.
        """
        threshold, shares = self._roster.choice.threshold, self._shares[owner]
        holders = self._roster.holders(owner, shares)
        if len(holders) < threshold:
            raise AbortedRound(
                f"round {self._number}: expected {threshold} shares of the {kind} of client {owner}, got "
                f"{len(holders)}; too many clients dropped out. The round is lost and no sum is released; wait longer "
                "or assume more dropouts (dropout_fraction)."
            )
        order = list(holders)
        for start in range(len(order) if len(order) > threshold else 1):
            chosen = [order[(start + step) % len(order)] for step in range(threshold)]
            secret = shamir.combine({holders[holder]: shares[holder] for holder in chosen})
            if secret is not None and self._fits(secret, owner, kind):
                return secret
        raise AbortedRound(
            f"round {self._number}: the shares of the {kind} of client {owner} don't fit what it published; it or a "
            "neighbour sent wrong ones. The round is lost and no sum is released."
        )

    def _fits(self, secret: bytes, owner: int, kind: str) -> bool:
        if kind == "seed":
            return keys.seed_commitment(secret, self._roster.context, owner) == self._commitments[owner]
        return keys.KeyPair(secret).public == self._roster.mask_publics[owner]
