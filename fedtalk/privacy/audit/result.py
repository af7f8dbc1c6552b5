"""What an audit found."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fedtalk.privacy.audit.canary_audit import CanaryBound
from fedtalk.privacy.audit.guarantee import Guarantee
from fedtalk.privacy.audit.membership import MembershipResult
from fedtalk.privacy.audit.reconstruction import Reconstruction
from fedtalk.privacy.audit.settings import AuditSettings
from fedtalk.privacy.audit.verdict import RUN, Verdict, judge


@dataclasses.dataclass(frozen=True)
class Audit:
    """Everything that was found."""

    run: Path
    settings: AuditSettings
    guarantee: Guarantee
    delta: float
    membership: MembershipResult
    canaries: dict[str, CanaryBound]
    """The run's mechanism, and the same without privacy."""
    reconstruction: Reconstruction | None
    seconds: float

    @property
    def bound(self) -> float:
        """The largest lower bound on the run's epsilon whose confidence is as stated: that of the canaries."""
        return self.canaries[RUN].epsilon if self.canaries else 0.0

    @property
    def judged(self) -> tuple[Verdict, list[str]]:
        """The verdict and its reasons."""
        return judge(self.canaries, self.guarantee.epsilon)
