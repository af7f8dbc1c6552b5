"""What the page says of privacy: the ledger's epsilons and what an audit found, by adversary."""

from __future__ import annotations

from collections.abc import Sequence

from fedtalk.report.collect import RunRecord
from fedtalk.report.grids import Grid

ACCOUNTANTS = {"prv": "PRV", "rdp": "RDP", "exact": "exact"}


def privacy_grids(runs: Sequence[RunRecord]) -> list[Grid]:
    """Epsilons and audits, a row an adversary and a column a group of runs; then what monitors logged last, if they did."""
    grids = [_epsilons(runs), _audits(runs), _logged(runs)]
    return [grid for grid in grids if grid.rows]


def unbounded(runs: Sequence[RunRecord]) -> list[str]:
    """Names of groups whose runs have spent nothing: nothing is promised of them."""
    private = {
        run.group for run in runs if run.epsilons or any(tag.startswith("privacy/epsilon") for tag in run.curves)
    }
    return [group for group in dict.fromkeys(run.group for run in runs) if group not in private]


def _epsilons(runs: Sequence[RunRecord]) -> Grid:
    private = [run for run in runs if run.epsilons]
    groups = list(dict.fromkeys(run.group for run in private))
    adversaries = list(dict.fromkeys(row["against"] for run in private for row in run.epsilons))
    rows = []
    for against in adversaries:
        cells = []
        for group in groups:
            found = [row for run in private if run.group == group for row in run.epsilons if row["against"] == against]
            lines = [
                f"{_range([row[key] for row in found if key in row])} {name}"
                for key, name in ACCOUNTANTS.items() if any(key in row for row in found)
            ]  # fmt: skip
            cells.append("\n".join(lines))
        rows.append((against, cells, ""))
    return Grid("Epsilon by adversary", groups, rows, "of the ledger; smaller is more private, no bound is no promise")


def _audits(runs: Sequence[RunRecord]) -> Grid:
    audited = [run for run in runs if run.audit is not None]
    cells: dict[str, list[str]] = {"canaries: epsilon at least": [], "membership: epsilon at least": [], "verdict": []}
    for run in audited:
        found = run.audit or {}
        values = (found.get("epsilon_lower_bound"), found.get("membership", {}).get("epsilon"), found.get("verdict"))
        for name, value in zip(cells, values, strict=True):
            cells[name].append("" if value is None else value if isinstance(value, str) else f"{value:.3f}")
    rows = [(name, row, "") for name, row in cells.items()] if audited else []
    return Grid(
        "What an audit proved", [run.name for run in audited], rows, "lower bounds of `fedtalk audit`, from attacks"
    )


def _logged(runs: Sequence[RunRecord]) -> Grid:
    tags = list(dict.fromkeys(tag for run in runs for tag in run.curves if tag.startswith("privacy/")))
    shown = [run for run in runs if any(tag in run.curves for tag in tags)]
    groups = list(dict.fromkeys(run.group for run in shown))
    rows = []
    for tag in tags:
        last = {
            group: [list(run.curves[tag].values())[-1] for run in shown if run.group == group and tag in run.curves]
            for group in groups
        }
        rows.append((tag.removeprefix("privacy/").replace("_", " "), [_range(last[group]) for group in groups], ""))
    return Grid("Logged in the last round", groups, rows)


def _range(values: Sequence[float | None]) -> str:
    if not values:
        return ""
    texts = list(dict.fromkeys("no bound" if value is None else f"{value:.4g}" for value in values))
    numbers = [value for value in values if value is not None]
    if len(texts) == 1 or len(numbers) < len(values):
        return ", ".join(texts)
    return f"{min(numbers):.4g} to {max(numbers):.4g}"
