"""Charts as inline SVG: curves by round with intervals over seeds, differences of a sweep, and the spread over clients."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedtalk.report.collect import Curve
from fedtalk.sweeps.statistics import IntervalEstimate, estimate

COLOURS = ("#1f6feb", "#d1495b", "#2a9d5c", "#8d5bd1", "#c77d0a", "#16828c", "#6b7280", "#b0417f")
MOST_NAMED = 12
"""Lines that a legend has room for."""


def curves_chart(title: str, groups: Mapping[str, Sequence[Curve]], all_groups: Sequence[str] = ()) -> str:
    """Mean over the runs of each group by round, with Student's 95 % interval where a group has several.

    Args:
        title: of the chart.
        groups: curves by group.
        all_groups: groups of all charts of the page, so that each keeps its colour; those of this one by default.

    Returns:
        an ``<svg>`` element.
    """
    figure, axes, order = _by_round(title, all_groups or list(groups))
    for name, curves in groups.items():
        colour = COLOURS[order.index(name) % len(COLOURS)]
        found = _means(curves)
        steps, means = list(found), [one.mean for one in found.values()]
        axes.plot(steps, means, color=colour, label=name, marker="o", markersize=3, linewidth=1.5)
        if any(one.seeds > 1 for one in found.values()):
            # A single seed has no interval; the band is as narrow as the line there.
            low = [one.mean if np.isnan(one.low) else one.low for one in found.values()]
            high = [one.mean if np.isnan(one.high) else one.high for one in found.values()]
            axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    return _finish(figure, axes, len(order) > 1)


def client_curves_chart(
    title: str, groups: Mapping[str, Mapping[str, Sequence[Curve]]], all_groups: Sequence[str] = ()
) -> str:
    """A thin line a client and group, mean over the group's runs: coloured by group, or by client where there is one group.

    Args:
        title: of the chart.
        groups: curves by group and client.
        all_groups: as for `curves_chart`.

    Returns:
        an ``<svg>`` element.
    """
    several = len(all_groups or groups) > 1
    clients = list(dict.fromkeys(client for one in groups.values() for client in one))
    figure, axes, order = _by_round(title, (all_groups or list(groups)) if several else clients)
    named = set[str]()
    for group, by_client in groups.items():
        for client, curves in by_client.items():
            key = group if several else client
            found = _means(curves)
            axes.plot(
                list(found), [one.mean for one in found.values()], color=COLOURS[order.index(key) % len(COLOURS)],
                label="_nolegend_" if key in named else key, linewidth=1.2, alpha=0.6, marker="o", markersize=2,
            )  # fmt: skip
            named.add(key)
    return _finish(figure, axes, 1 < len(named) <= MOST_NAMED)


def _means(curves: Sequence[Curve]) -> dict[int, IntervalEstimate]:
    steps = sorted({step for curve in curves for step in curve})
    return {step: estimate([curve[step] for curve in curves if step in curve]) for step in steps}


def _by_round(title: str, order: Sequence[str]) -> tuple[Figure, Any, list[str]]:
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("round", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure, axes, list(order)


def clients_chart(title: str, unit: str, rows: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Each client's clips as dots, a colour a row of the table, the client of the lowest mean in the first row on top.

    Args:
        title: of the chart.
        unit: of the values.
        rows: by row of the table and client, a value a clip.

    Returns:
        an ``<svg>`` element.
    """
    first = next(iter(rows.values()))
    clients = sorted(first, key=lambda client: float(np.mean(first[client])))
    figure = Figure(figsize=(5.2, 0.9 + 0.26 * len(clients)), layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(rows.items()):
        x = [value for client in clients for value in values.get(client, [])]
        y = [
            index + 0.18 * (number - (len(rows) - 1) / 2) for index, c in enumerate(clients) for _ in values.get(c, [])
        ]
        axes.scatter(x, y, s=14, color=COLOURS[number % len(COLOURS)], label=name, alpha=0.85)
    axes.set_yticks(range(len(clients)), clients, fontsize=8)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(unit, fontsize=9)
    return _finish(figure, axes, len(rows) > 1)


def differences_chart(title: str, unit: str, differences: Mapping[str, Mapping[str, Any]]) -> str:
    """A forest plot: each variation's paired difference to the first one with its interval; filled where it excludes 0.

    Args:
        title: of the chart.
        unit: of the values.
        differences: by variation, in the order of the page: ``mean``, ``low`` and ``high``, of which the latter two are None
            where a single seed has no interval.

    Returns:
        an ``<svg>`` element.
    """
    figure = Figure(figsize=(5.2, 0.95 + 0.26 * len(differences)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="#6b7280", linewidth=1)
    for index, found in enumerate(differences.values()):
        mean, low, high = found["mean"], found["low"], found["high"]
        known = low is not None and high is not None
        if known:
            axes.plot([low, high], [index, index], color=COLOURS[0], linewidth=1.5)
        away = known and (low > 0 or high < 0)
        axes.plot(mean, index, "o", markersize=5, color=COLOURS[0], markerfacecolor=COLOURS[0] if away else "white")
    axes.set_yticks(range(len(differences)), list(differences), fontsize=8)
    axes.set_ylim(len(differences) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(unit, fontsize=9)
    return _finish(figure, axes, False)


def _finish(figure: Figure, axes: object, legend: bool) -> str:
    axes.grid(alpha=0.25)  # type: ignore[attr-defined]
    axes.tick_params(labelsize=8)  # type: ignore[attr-defined]
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)  # type: ignore[attr-defined]
    if legend:
        axes.legend(fontsize=8, frameon=False)  # type: ignore[attr-defined]
    stream = io.StringIO()
    # Text stays text, so that the page can be searched; ids that follow from the content, so that pages compare.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fedtalk", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r'<svg \1role="img"', svg, count=1, flags=re.DOTALL)
