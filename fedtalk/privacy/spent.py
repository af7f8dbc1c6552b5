"""What was spent, against whom: an epsilon means nothing without the adversary that it holds against.

- *Whoever sees the adapters* sees what a run releases and not who took part: secret Poisson sampling counts for it.
- *Server and sites* see the rosters, round by round. Against them nothing is gained by sampling: a client that was drawn for m
  rounds has given m Gaussian releases, and epsilon is that of their composition, exactly (`gaussian_epsilon`). What is bounded
  is what they learn of a client's data; that it takes part they know. A server that adds the noise itself (``central``) sees
  sums without it: nothing holds against it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fedtalk.privacy.accounting import ADJACENCY, HIDDEN

ADAPTERS, ROSTERS, SITES = (
    "against whoever sees the adapters",
    "against server and sites (no sampling)",
    "against sites (no sampling)",
)


@dataclass(frozen=True)
class Spent:
    """What a run has spent."""

    rounds: int
    prv: float
    """Epsilon by privacy loss random variables; infinite where opacus could not compute it."""
    rdp: float
    """Epsilon by Rényi differential privacy."""
    no_sampling: float
    """Epsilon against server and sites, for a client that was drawn for every round, or as often as it can be."""
    delta: float
    accountant: str
    """Which of prv and rdp stops the run."""
    budget: float | None
    central: bool = False
    """Whether the server sees sums without noise."""
    adjacency: str = ADJACENCY
    """What the epsilons against whoever sees the adapters compare."""
    participations: int = 0
    """Of the client that ``no_sampling`` is about."""

    def lines(self) -> list[str]:
        """A line for each adversary, with all that the number needs."""
        within = f", budget {self.budget:g}" if self.budget is not None else ""
        rosters = (
            f"epsilon {self.no_sampling:.3f} {SITES if self.central else ROSTERS} at delta {self.delta:g}, for a client in "
            f"{self.participations} of {self.rounds} rounds, which is the most there can be; adjacency: {HIDDEN}"
        )
        if self.central:
            rosters += "; none against the server, which adds the noise itself"
        return [
            f"epsilon {self.prv:.3f} (PRV), {self.rdp:.3f} (RDP) {ADAPTERS} at delta {self.delta:g} after {self.rounds} "
            f"rounds; adjacency: {self.adjacency}; stops by {self.accountant.upper()}{within}",
            rosters,
        ]

    def __str__(self) -> str:
        """The numbers alone, with the adversary that each holds against."""
        epsilon = {"prv": self.prv, "rdp": self.rdp}[self.accountant]
        return f"epsilon {epsilon:.3f} {ADAPTERS}, {self.no_sampling:.3f} {SITES if self.central else ROSTERS}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
