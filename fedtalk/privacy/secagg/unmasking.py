"""The server's last state: it opens the masks, each secret checked against what its owner published."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        self._lost = frozenset(dropped)
        self._revealed: dict[int, messages.RevealedShares] = {}

    def receive(self, sender: int, data: bytes) -> None:
        """Take one survivor's shares.

        Raises:
            RefusedMessage: garbage, a forged or foreign header, a second message, a share that was not asked for.
        """
        message = self._open(messages.RevealedShares, sender, data)
        held = set(self._roster.near[sender])
        wanted_seeds, wanted_keys = held & self._expected, held & self._lost
        if not (message.seeds.keys() <= wanted_seeds and message.mask_keys.keys() <= wanted_keys):
            raise RefusedMessage(f"shares from client {sender}: expected those that were asked for, got others")
        self._revealed[sender] = message
        self._answered.add(sender)

    def close(self) -> AggregateSum:
        """Open the survivors' own masks and the pairwise masks of the dropped, and subtract them.

        Raises:
            AbortedRound: a mask can't be opened, for want of shares or because they don't fit its owner's commitment.
        """
        self._close("revealed shares", self._roster.choice.threshold)
        masking = self._roster.masking
        left = {client: [peer for peer in masking[client] if peer in self._expected] for client in self._dropped}
        count = len(self._survivors) + sum(map(len, left.values()))
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
        threshold, shares = self._roster.choice.threshold, self._shares_of(owner, kind)
        enough = list(itertools.islice(shares, threshold))
        if len(enough) < threshold:
            raise AbortedRound(
                f"round {self._number}: expected {threshold} shares of the {kind} of client {owner}, got "
                f"{len(enough)}; too many clients dropped out. The round is lost and no sum is released; wait longer "
                "or assume more dropouts (dropout_fraction)."
            )
        for chosen in _choices(enough, shares):
            secret = shamir.combine(chosen)
            if secret is not None and self._fits(secret, owner, kind):
                return secret
        raise AbortedRound(
            f"round {self._number}: the shares of the {kind} of client {owner} don't fit what it published; it or a "
            "neighbour sent wrong ones. The round is lost and no sum is released."
        )

    def _shares_of(self, owner: int, kind: str) -> Iterator[tuple[int, bytes]]:
        """Point and share of each neighbour that has revealed one; its point is its place among the neighbours, from 1."""
        for point, holder in enumerate(self._roster.near[owner], start=1):
            message = self._revealed.get(holder)
            if message is not None:
                share = (message.seeds if kind == "seed" else message.mask_keys).get(owner)
                if share is not None:
                    yield point, share

    def _fits(self, secret: bytes, owner: int, kind: str) -> bool:
        if kind == "seed":
            return keys.seed_commitment(secret, self._roster.context, owner) == self._commitments[owner]
        return keys.KeyPair(secret).public == self._roster.mask_publics[owner]


def _choices(enough: Sequence[tuple[int, bytes]], others: Iterable[tuple[int, bytes]]) -> Iterator[dict[int, bytes]]:
    """``enough`` shares, by point; then, with the others taken in, as many from each of the places on."""
    yield dict(enough)
    order = [*enough, *others]
    for start in range(1, len(order) if len(order) > len(enough) else 1):
        yield dict((order[start:] + order[:start])[: len(enough)])
