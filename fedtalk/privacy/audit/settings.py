"""How large an audit is, and what its bounds promise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedtalk.checks import check_choice
from fedtalk.errors import ConfigurationError

Method = Literal["one_run", "repeated"]


@dataclass(frozen=True)
class AuditSettings:
    """Everything that `fedtalk audit` can be told."""

    clients: int = 40
    """Non-members that are drawn for the membership attack, and the most members it tries."""
    canaries: int = 512
    """Canaries in all; 0 leaves the canary audit out."""
    rounds: int = 10
    """Most rounds that a canary run plays; never more than the audited run has."""
    method: Method = "one_run"
    """Canary audit: many canaries a run, or ``repeated`` runs with one each."""
    targets: int = 5
    """Clients whose updates are attacked; 0 leaves the attack out."""
    decoys: int = 12
    """People among whom the right client has to be found."""
    confidence: float = 0.95
    """Of each lower bound."""
    delta: float | None = None
    """At which epsilon is bounded and the ledger is read; 1e-5 or the run's own, whichever is smaller."""
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"clients": 4, "canaries": 0, "rounds": 1, "targets": 0, "decoys": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ConfigurationError(f"audit --{name}: expected at least {value}, got {getattr(self, name)}")
        check_choice("audit --method", self.method, Method)
        if not 0.5 <= self.confidence < 1:
            raise ConfigurationError(f"audit --confidence: expected at least 0.5 and below 1, got {self.confidence}")
        if self.delta is not None and not 0 < self.delta < 1:
            raise ConfigurationError(f"audit --delta: expected a probability in (0, 1), got {self.delta}")
