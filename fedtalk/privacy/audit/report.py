"""The audit as a person reads it, in a terminal or a log."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from fedtalk.privacy.audit.engine_checks import Check
from fedtalk.privacy.audit.result import Audit
from fedtalk.privacy.spent import ADAPTERS

_ABOUT_MEMBERSHIP = (
    "(*) takes people for independent trials, which a single run does not make sure; the canary bound needs no such "
    "assumption."
)


def print_audit(audit: Audit, console: Console | None = None) -> None:
    """Print the tables and the verdict.

    Args:
        audit: what was found.
        console: where to; standard output, 110 columns wide, by default.
    """
    console = console or Console(width=110, highlight=False)
    console.print(_bounds(audit))
    console.print(_membership(audit))
    if audit.reconstruction is not None:
        console.print(_views(audit))
    checks = [check for bound in audit.canaries.values() for check in bound.checks]
    if checks:
        console.print(_checks(checks))
    for line in audit.judged[1]:
        console.print(line, markup=False)
    console.print(_ABOUT_MEMBERSHIP, markup=False)
    console.print(f"written: {audit.run / 'audit'}/audit.json and audit.png, {audit.seconds:.0f} s", markup=False)


def _bounds(audit: Audit) -> Table:
    table = Table(
        title=f"epsilon at delta {audit.delta:g}; lower bounds hold with {audit.settings.confidence:.0%} confidence",
        caption="in reach: the bound that the same canaries would give if every guess were right",
    )
    for column in ("", "epsilon", "in reach", "evidence"):
        table.add_column(column, justify="right" if column in ("epsilon", "in reach") else "left")
    guarantee = audit.guarantee
    table.add_row(f"ledger, {ADAPTERS}", _claim(guarantee.epsilon), "", guarantee.note)
    if guarantee.private:
        table.add_row(
            f"ledger, {guarantee.insiders_are}", _claim(guarantee.insiders), "",
            "for a client in every round that it could be in; the canaries' auditor sees sums and no rosters, and is held "
            "against the line above",
        )  # fmt: skip
    for name, bound in audit.canaries.items():
        detail = bound.detail
        if "guesses" in detail:
            evidence = f"{detail['correct']} of {detail['guesses']} guesses right"
        else:
            evidence = (
                f"TPR {detail['true_positives']}/{detail['positives']}, "
                f"FPR {detail['false_positives']}/{detail['negatives']}; if Gaussian >= {detail['epsilon_if_gaussian']:.2f}"
            )
        evidence += f"; {bound.canaries} canaries, {bound.runs} runs x {bound.rounds} rounds"
        table.add_row(f"canaries, {name}", f">= {bound.epsilon:.3f}", f"{bound.most:.2f}", evidence)
    rates = audit.membership.rates
    table.add_row(
        "membership (*)", f">= {audit.membership.epsilon:.3f}", "",
        f"TPR {rates.true_positives}/{rates.positives}, FPR {rates.false_positives}/{rates.negatives}",
    )  # fmt: skip
    return table


def _claim(epsilon: float) -> str:
    return "no guarantee" if math.isinf(epsilon) else f"<= {epsilon:.3f}"


def _membership(audit: Audit) -> Table:
    found = audit.membership
    table = Table(title=f"membership in the released adapter: {len(found.members)} clients, {len(found.others)} others")
    low, high = found.auc_interval
    table.add_column("AUC (0.5 is chance)", justify="right")
    for fpr in found.tpr_at_fpr:
        table.add_column(f"TPR at {float(fpr):.0%} FPR", justify="right")
    table.add_row(f"{found.auc:.3f} [{low:.3f}, {high:.3f}]", *(f"{value:.3f}" for value in found.tpr_at_fpr.values()))
    return table


def _views(audit: Audit) -> Table:
    assert audit.reconstruction is not None
    found = audit.reconstruction
    first = next(iter(found.identity.values()))
    table = Table(
        title=f"whose update? {len(first.ranks)} clients, each among {first.candidates} people",
        caption="percentile: share of decoys that the right client is ranked above; 0.5 is chance",
    )
    table.add_column("what the server sees")
    for name in ("gradients: right", "percentile", "appearance: right", "percentile"):
        table.add_column(name, justify="right")
    for view, ranks in found.identity.items():
        looks = found.appearance[view]
        table.add_row(
            view, f"{ranks.first:.0%}", f"{ranks.percentile:.2f}", f"{looks.first:.0%}", f"{looks.percentile:.2f}"
        )
    table.add_row("chance", f"{first.chance:.0%}", "0.50", f"{first.chance:.0%}", "0.50", style="dim")
    return table


def _checks(checks: list[Check]) -> Table:
    table = Table(title="what the accounting rests on, measured in the engine's own rounds")
    for column in ("", "holds", "evidence"):
        table.add_column(column)
    for check in checks:
        holds = {True: "yes", False: "NO", None: "not told"}[check.holds]
        table.add_row(check.name, holds, check.detail)
    return table
