"""What follows from an audit's numbers."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping

from fedtalk.privacy.audit.canary_audit import CanaryBound

RUN, OFF = "as configured", "privacy off"


class Verdict(enum.Enum):
    """Of a run; what is worse comes first."""

    BROKEN = "broken"
    """A premise of the accounting doesn't hold, or the canaries prove more than the ledger allows."""
    NO_PROMISE = "no promise"
    """The run promises nothing."""
    INCONCLUSIVE = "inconclusive"
    """Nothing was found, but the audit could not have found it either."""
    CONSISTENT = "consistent"
    """The audit could have refuted the ledger, and did not."""


def judge(canaries: Mapping[str, CanaryBound], claimed: float) -> tuple[Verdict, list[str]]:
    """The verdict, with its reasons, a sentence each.

    Args:
        canaries: bounds by name, `RUN` and, for a private run, `OFF`.
        claimed: the ledger's epsilon, infinite where nothing is promised.
    """
    if not canaries:
        nothing = math.isinf(claimed)
        return (
            (Verdict.NO_PROMISE, ["The run promises nothing."])
            if nothing
            else (Verdict.INCONCLUSIVE, ["INCONCLUSIVE: no canaries were played, and nothing was measured."])
        )
    found = canaries[RUN]
    broken = [f"BROKEN, {check.name}: {check.detail}." for check in found.checks if check.holds is False]
    if found.epsilon > claimed:
        broken.append(f"BROKEN: the canaries prove epsilon >= {found.epsilon:.3f}, above the ledger's {claimed:.3f}.")
    if broken:
        return Verdict.BROKEN, broken
    if math.isinf(claimed):
        shown = "and the canaries show it" if found.epsilon > 1 else "these canaries show little of it"
        return Verdict.NO_PROMISE, [f"The run promises nothing; {shown}: epsilon >= {found.epsilon:.3f}."]
    doubts = []
    if found.most < claimed:
        doubts.append(
            f"INCONCLUSIVE: with every guess right these canaries would prove epsilon >= {found.most:.3f}, below the ledger's "
            f"{claimed:.3f}: they can't refute it. More --canaries reach further."
        )
    doubts += [f"INCONCLUSIVE, {check.name}: {check.detail}." for check in found.checks if check.holds is None]
    control = canaries.get(OFF)
    if control is not None and control.epsilon < min(control.most / 2, 2):
        doubts.append(
            "INCONCLUSIVE: the control failed: without privacy the canaries should be found. Use more --canaries."
        )
    if doubts:
        return Verdict.INCONCLUSIVE, [*doubts, _measured(found)]
    consistent = f"Consistent: the canaries prove epsilon >= {found.epsilon:.3f}, the ledger claims <= {claimed:.3f}."
    return Verdict.CONSISTENT, [consistent, _measured(found)]


def _measured(found: CanaryBound) -> str:
    held = ", ".join(check.name for check in found.checks if check.holds)
    return f"Measured in the engine's own rounds, and as accounted for: {held or 'nothing'}."
