"""The mechanism under audit: a run's own aggregation, from clients' clear updates to the sum that the server opens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from fedtalk.federation.cohort import CohortSampler
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.rounds import rounds_of
from fedtalk.privacy.sealed_rounds import AggregationTask
from fedtalk.privacy.sealing import SealedUpdate
from fedtalk.privacy.secagg.errors import AbortedRound
from fedtalk.privacy.secagg.messages import MaskedInput
from fedtalk.privacy.secagg.packing import unpack
from fedtalk.privacy.secagg.words import Words
from fedtalk.privacy.settings import Privacy
from fedtalk.randomness import derive_seed


@dataclass(frozen=True)
class Setup:
    """How a run aggregates; the same for every fresh start of its mechanism."""

    privacy: Privacy | None
    state: Mapping[str, Tensor]
    """Names and shapes of what a round exchanges."""
    sampler: CohortSampler
    rounds: int
    minimum_clients: int
    noise_multiplier: float | None = None
    """z that the run was made with, where it is noised: not solved for anew from a budget."""


class AuditedRounds:
    """One run's rounds of aggregation, each step the run's own: clipping, weighting, noise, sealing, opening.

    It is audited where the server sees it: the opened sum. Whatever is computed from the sums (means, adapters) tells
    no more. Masks come from the operating system, noise from ``seed``, so that an audit can be repeated; whom the
    canaries stand for is nobody.
    """

    def __init__(self, setup: Setup, clients: Sequence[str], seed: int) -> None:
        """
        Args:
            setup: of the run.
            clients: all who are registered; their number is a setting of the mechanism.
            seed: of noise, rotation and rounding.
        """
        self._state = dict(setup.state)
        self._seed = seed
        self.dimension = sum(value.numel() for value in self._state.values())
        privacy = setup.privacy
        if privacy is not None and privacy.noised:
            privacy = replace(
                privacy, target_epsilon=None, epsilon_budget=None, noise_multiplier=setup.noise_multiplier,
                insecure_noise_seed=derive_seed(seed, "audit noise"),
            )  # fmt: skip
        self._rounds = rounds_of(
            privacy,
            AggregationTask(
                self.dimension, list(self._state), clients, setup.sampler, setup.rounds, setup.minimum_clients, seed,
                Path(),
            ),
        )  # fmt: skip

    def release(self, round_number: int, updates: Iterable[tuple[str, np.ndarray]]) -> np.ndarray | None:
        """What the server learns from one round.

        Args:
            round_number: above that of every earlier round.
            updates: by client, a clear update (dimension,), each with the full weight of 1.

        Returns:
            (dimension,) float64: the opened sum of weighted updates, None where the round is void. Where the clipping bound
            moves from round to round, in units of the first bound: an update that is clipped always weighs the same.
        """
        contributions = {client: self._contribution(update) for client, update in updates}
        if len(contributions) < self._rounds.updates_needed(len(contributions)):
            return None
        private = self._rounds if isinstance(self._rounds, PrivateRounds) else None
        scale = 1.0 if private is None else private.privacy.clip_norm / private.clip_norm
        try:
            sealing = self._rounds.open_round(round_number, list(contributions), list(contributions))
            sealed = [sealing.seal(client, vector) for client, vector in contributions.items()]
            total = self._rounds.released(sealing.open_sum(sealed))
        except AbortedRound:
            return None
        return scale * total[: self.dimension]

    def masked(self, round_number: int, updates: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Each client's sealed message, read by a server that undoes all that is public: packing, scale, rotation.

        Args:
            round_number: above that of every earlier round; the round is not closed.
            updates: (dimension,) clear updates of the whole cohort.

        Returns:
            (dimension,) float64 by client; the client's update if it weren't for its masks.
        """
        sealing = self._rounds.open_round(round_number, list(updates), list(updates))
        sealed = {client: sealing.seal(client, self._contribution(update)) for client, update in updates.items()}
        return {client: self.read(message)[: self.dimension] for client, message in sealed.items()}

    def read(self, message: SealedUpdate) -> np.ndarray:
        """A sealed message as the numbers that it would stand for if it bore no masks.

        Args:
            message: the very bytes that the server gets.
        """
        private = self._rounds
        if not isinstance(private, PrivateRounds):
            return np.frombuffer(message.payload, "<u8").view(np.int64).astype(np.float64)
        point = private.mechanism.fixed_point
        if private.privacy.secure_aggregation:
            layout = Words(private.mechanism.dimension, point.bits)
            packed = MaskedInput.decode(message.payload).packed
            elements = layout.split(unpack(packed, layout.count, layout.width))
        else:
            elements = point.ring.reduce(np.frombuffer(message.payload, "<u8").astype(point.ring.dtype))
        rotation = point.rotation(derive_seed(self._seed, "rotation", message.round_number))
        return point.decode(elements, rotation)

    def _contribution(self, update: np.ndarray) -> np.ndarray:
        return self._rounds.vector(update, 1.0)
