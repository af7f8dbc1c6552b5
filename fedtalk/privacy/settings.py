"""What a run promises its clients: the settings of secure aggregation and differential privacy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.clipping import CLIP_NORMS, AdaptiveClipping
from fedtalk.privacy.fixed_point import LARGEST_COORDINATE_BITS, SMALLEST_COORDINATE_BITS
from fedtalk.privacy.secagg.graph import Assumptions
from fedtalk.privacy.secagg.ring import LARGEST_RING_BITS, SMALLEST_RING_BITS


@dataclass
class Privacy:
    """How updates are kept from the server, and what may be learned from their sum.

    Without ``noise_multiplier`` and ``target_epsilon`` there is secure aggregation only: the server learns sums, and sums
    may tell about single clients. With one of them, rounds are differentially private for clients.
    """

    clip_norm: float = 1.0
    """C, 1e-6 to 1e6: L2 norm that a client's update is clipped to; with ``adaptive_clipping`` in the first round only."""
    secure_aggregation: bool = True
    """Sum by the protocol of `fedtalk.privacy.secagg`. Otherwise by masks agreed in this process, which protects from
    nobody who reads its memory."""
    assumptions: Assumptions = field(default_factory=Assumptions)
    """Collusion and dropout that a round withstands."""
    target_epsilon: float | None = None
    """Budget that all rounds together may spend; the noise multiplier is solved for. Not with ``noise_multiplier``."""
    noise_multiplier: float | None = None
    """Standard deviation of the noise over the sum's L2 sensitivity. Not with ``target_epsilon``."""
    epsilon_budget: float | None = None
    """With ``noise_multiplier``: epsilon before which the run stops; none by default."""
    delta: float = 1e-3
    """Of the guarantee, from 1e-12; below 1 / clients."""
    accountant: Literal["prv", "rdp"] = "prv"
    """``prv`` (tighter) or ``rdp``: which of the two reported bounds stops the run."""
    where: Literal["central", "distributed"] = "distributed"
    """Who adds the noise: ``distributed``, the clients in shares before masking, or ``central``, the aggregator to the sum
    that it has seen in the clear."""
    adaptive_clipping: AdaptiveClipping | None = None
    """Let the bound follow a quantile of the updates' norms; needs noise."""
    dropout_probability: float = 0.01
    """Largest probability with which a client that was drawn drops out, whatever its data are: it says how likely a void round
    tells of one client, which is taken off delta. The run says so where dropouts are more frequent."""
    both_factors: bool = False
    """Accept noise on both LoRA factors, whose product then multiplies noise with noise, (B + x)(A + y)."""
    coordinate_bits: int = 16
    """Width of one client's coordinate, 4 to 32."""
    ring_bits: int | None = None
    """Width of a coordinate on the wire; the narrowest that can't overflow by default."""
    insecure_noise_seed: int | None = None
    """TESTS ONLY: noise and cohorts from this seed. Whoever knows it can subtract the noise: the run protects nobody."""

    def __post_init__(self) -> None:
        self._within("clip_norm", *CLIP_NORMS)
        if self.noise_multiplier is not None and self.target_epsilon is not None:
            raise ConfigurationError(
                "privacy: expected target_epsilon, from which the noise follows, or noise_multiplier, from which epsilon "
                f"follows, got both ({self.target_epsilon:g} and {self.noise_multiplier:g}). Leave one out."
            )
        for name, low, high in (
            ("noise_multiplier", 0.01, 1e4), ("target_epsilon", 0.01, 1e3), ("epsilon_budget", 0.01, 1e6),
            ("ring_bits", SMALLEST_RING_BITS, LARGEST_RING_BITS),
        ):  # fmt: skip
            if getattr(self, name) is not None:
                self._within(name, low, high)
        if self.epsilon_budget is not None and self.noise_multiplier is None:
            raise ConfigurationError(
                f"privacy.epsilon_budget: expected with noise_multiplier only, got {self.epsilon_budget:g} without it. "
                "Use target_epsilon, which is a budget."
            )
        self._within("delta", 1e-12, 0.5)
        self._within("dropout_probability", 0.0, 0.5)
        self._within("coordinate_bits", SMALLEST_COORDINATE_BITS, LARGEST_COORDINATE_BITS)
        self._one_of("accountant", "prv", "rdp")
        self._one_of("where", "central", "distributed")
        if self.adaptive_clipping is not None and not self.noised:
            raise ConfigurationError(
                "privacy.adaptive_clipping: expected with noise, got it without: the count of clipped clients would be "
                "exact. Set target_epsilon or noise_multiplier, or leave it out."
            )
        if self.noised and self.distributed and not self.secure_aggregation:
            raise ConfigurationError(
                "privacy.where: distributed noise hides a client only among masked others: expected secure_aggregation: "
                "true, got false. Switch it on, or trust the aggregator with where: central."
            )
        if not self.noised and not self.secure_aggregation:
            raise ConfigurationError(
                "privacy: expected secure_aggregation, noise, or both, got neither; leave privacy out to train without."
            )
        if self.insecure_noise_seed is not None and not self.noised:
            raise ConfigurationError(
                f"privacy.insecure_noise_seed: expected with noise only, got {self.insecure_noise_seed} without. Masks and "
                "keys always come from the operating system."
            )

    @property
    def noised(self) -> bool:
        """Whether the run is differentially private."""
        return self.noise_multiplier is not None or self.target_epsilon is not None

    @property
    def distributed(self) -> bool:
        return self.where == "distributed"

    @property
    def budget(self) -> float | None:
        """Epsilon that the run may not exceed."""
        return self.target_epsilon if self.target_epsilon is not None else self.epsilon_budget

    def _within(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:  # not a number is in no range
            raise ConfigurationError(f"privacy.{name}: expected a number from {low:g} to {high:g}, got {value}")

    def _one_of(self, name: str, *choices: str) -> None:
        if getattr(self, name) not in choices:
            raise ConfigurationError(f"privacy.{name}: expected {' or '.join(choices)}, got {getattr(self, name)!r}")
