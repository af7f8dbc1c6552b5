"""What server and clients of a run agree on before its first round."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.secagg.graph import Assumptions, GraphChoice, choose_graph
from fedtalk.privacy.secagg.messages import SESSION_BYTES
from fedtalk.privacy.secagg.ring import Ring
from fedtalk.privacy.secagg.words import Words

SMALLEST_COHORT = 3
"""Of two, each would learn the other's vector from the sum."""


@dataclass(frozen=True)
class AggregationSettings:
    """Fixed for a run; both sides hold the same, or the clients refuse the invitation."""

    session: bytes
    """16 public bytes that name the run, drawn once from the operating system."""
    dimension: int
    """Coordinates of a vector."""
    bits: int
    """Width of the ring, 2 to 62."""
    assumptions: Assumptions = field(default_factory=Assumptions)
    """Collusion and dropout that a round withstands."""
    least_survivors: int = SMALLEST_COHORT
    """Fewest vectors that a client will have its own summed with, its own included, whatever the cohort's size."""

    def __post_init__(self) -> None:
        Ring(self.bits)
        if len(self.session) != SESSION_BYTES:
            raise ConfigurationError(f"session: expected {SESSION_BYTES} bytes, got {len(self.session)}")
        if self.dimension < 1:
            raise ConfigurationError(f"dimension: expected at least 1 coordinate, got {self.dimension}")
        if self.least_survivors < SMALLEST_COHORT:
            raise ConfigurationError(
                f"least_survivors: expected at least {SMALLEST_COHORT}, got {self.least_survivors}: the sum over one "
                "client is that client's vector, and of two each learns the other's. Aggregate more clients a round."
            )

    @property
    def ring(self) -> Ring:
        """The ring of the coordinates."""
        return Ring(self.bits)

    @property
    def words(self) -> Words:
        """How vectors travel, and where their masks are added."""
        return Words(self.dimension, self.bits)

    def graph(self, clients: int) -> GraphChoice:
        """Degree and threshold for a roster of ``clients``.

        Raises:
            ConfigurationError: no graph on so few clients withstands the assumed collusion and dropout.
        """
        return choose_graph(clients, self.assumptions)

    def survivors_needed(self, clients: int) -> int:
        """Fewest survivors of a roster of ``clients`` for which the graph's probabilities hold.

        Never fewer than `least_survivors`, nor than two more than may collude.
        """
        assumptions = self.assumptions
        return max(self.least_survivors, assumptions.colluding(clients) + 2, clients - assumptions.dropouts(clients))

    def fingerprint(self) -> bytes:
        """32 bytes that differ where any setting differs."""
        assumptions = self.assumptions
        packed = struct.pack(
            "<QIIddII",
            self.dimension,
            self.bits,
            self.least_survivors,
            assumptions.colluding_fraction,
            assumptions.dropout_fraction,
            assumptions.security_bits,
            assumptions.failure_bits,
        )
        return hashlib.sha256(self.session + packed).digest()
