"""A small cohort that can be taken through the protocol step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from fedtalk.privacy.secagg import AggregationSettings, Assumptions, CollectingKeys, Enrolled

SESSION = bytes(range(16))


class Cohort:
    """Five clients with ids that are no list positions, and their server, at the start of round 7."""

    ids = (3, 8, 21, 40, 77)
    round_number = 7

    def __init__(self) -> None:
        self.settings = AggregationSettings(SESSION, dimension=6, bits=20, assumptions=Assumptions(0.2, 0.2))
        generator, bound = np.random.default_rng(1), 2**19 // 5 - 1  # any sum of theirs lies in the ring's range
        self.vectors = {
            client: self.settings.ring.from_signed(generator.integers(-bound, bound + 1, 6)) for client in self.ids
        }
        self.enrolled = {client: Enrolled(client, self.settings) for client in self.ids}
        self.collecting_keys = CollectingKeys(self.ids, self.settings, self.round_number)
        self.invitations = self.collecting_keys.invitations()

    def to_roster(self, without: Iterable[int] = ()) -> None:
        """Exchange keys; those ``without`` drop out here (as in the steps below)."""
        self.advertised, self.advertisements = {}, {}
        for client in sorted(set(self.ids) - set(without)):
            self.advertised[client], message = self.enrolled[client].join(self.invitations[client])
            self.advertisements[client] = message
            self.collecting_keys.receive(client, message)
        self.collecting_shares, self.rosters = self.collecting_keys.close()

    def to_delivery(self, without: Iterable[int] = ()) -> None:
        """Exchange shares."""
        self.to_roster()
        self.shared, self.sealed = {}, {}
        for client in sorted(set(self.ids) - set(without)):
            self.shared[client], self.sealed[client] = self.advertised[client].receive_roster(self.rosters[client])
            self.collecting_shares.receive(client, self.sealed[client])
        self.collecting_inputs, self.deliveries = self.collecting_shares.close()

    def to_request(self, without: Iterable[int] = (), never_shared: Iterable[int] = ()) -> None:
        """Exchange masked vectors."""
        self.to_delivery(never_shared)
        self.submitted, self.masked = {}, {}
        for client in sorted(self.shared.keys() - set(without)):
            self.submitted[client], self.masked[client] = self.shared[client].receive_shares(
                self.deliveries[client], self.vectors[client]
            )
            self.collecting_inputs.receive(client, self.masked[client])
        self.collecting_reveals, self.requests = self.collecting_inputs.close()

    def expected_sum(self, clients: Iterable[int]) -> list[int]:
        """The sum by Python's own integers."""
        chosen = [self.vectors[client].tolist() for client in clients]
        return [sum(column) % self.settings.ring.modulus for column in zip(*chosen, strict=True)]


@pytest.fixture
def cohort() -> Cohort:
    return Cohort()


@pytest.fixture
def settings_of() -> Callable[..., AggregationSettings]:
    """Settings with everything but the given left at small defaults."""

    def make(**changes: object) -> AggregationSettings:
        values: dict[str, object] = {"session": SESSION, "dimension": 4, "bits": 20}
        return AggregationSettings(**{**values, **changes})  # type: ignore[arg-type]

    return make
