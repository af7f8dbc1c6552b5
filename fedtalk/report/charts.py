"""Charts as inline SVG: curves by round with intervals over seeds, differences of a sweep, and the spread over clients."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedtalk.report.collect import Curve
from fedtalk.sweeps.statistics import IntervalEstimate, estimate

COLOURS = ("#1f6feb", "#d1495b", "#2a9d5c", "#8d5bd1", "#c77d0a", "#16828c", "#6b7280", "#b0417f")
STYLES = ("-", "--", ":", "-.")
"""Of lines, one after the other where colours begin anew."""
MOST_NAMED = 12
"""Clients that a legend has room for."""
MOST_CLIENTS = 40
"""That a chart of the spread has room for, the lowest first."""
LONGEST_TICK, LONGEST_LABEL = 28, 60
"""Letters of a name beside an axis and in a legend; longer ones lose their middle, or nothing would be left of the chart."""


def curves_chart(title: str, groups: Mapping[str, Sequence[Curve]], all_groups: Sequence[str] = ()) -> str:
    """Mean over the runs of each group by round, with Student's 95 % interval where a group has several.

    Args:
        title: of the chart.
        groups: curves by group.
        all_groups: groups of all charts of the page, so that each keeps its colour; those of this one by default.

    Returns:
        an ``<svg>`` element.
    """
    figure, axes, order = _by_round(_with_left_out(title, groups), all_groups or list(groups))
    band = min(0.15, 0.4 / len(order))
    for name, curves in groups.items():
        colour, style = _colour_and_style(order.index(name))
        found = _means(curves)
        steps, means = list(found), [one.mean for one in found.values()]
        axes.plot(steps, means, style, color=colour, label=_label(name), marker="o", markersize=3, linewidth=1.5)
        if any(one.seeds > 1 for one in found.values()):
            # A single seed has no interval; the band is as narrow as the line there.
            low = [one.mean if np.isnan(one.low) else one.low for one in found.values()]
            high = [one.mean if np.isnan(one.high) else one.high for one in found.values()]
            axes.fill_between(steps, low, high, color=colour, alpha=band, linewidth=0)
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
    titled = _with_left_out(title, {f"{group}/{one}": found[one] for group, found in groups.items() for one in found})
    figure, axes, order = _by_round(titled, (all_groups or list(groups)) if several else clients)
    named = set[str]()
    for group, by_client in groups.items():
        for client, curves in by_client.items():
            key = group if several else client
            found, (colour, style) = _means(curves), _colour_and_style(order.index(key))
            axes.plot(
                list(found), [one.mean for one in found.values()], style, color=colour,
                label="_nolegend_" if key in named else _label(key), linewidth=1.2, alpha=0.6, marker="o", markersize=2,
            )  # fmt: skip
            named.add(key)
    return _finish(figure, axes, 1 < len(named) <= MOST_NAMED)


def _means(curves: Sequence[Curve]) -> dict[int, IntervalEstimate]:
    """By step; a gap where no value is finite."""
    means: dict[int, IntervalEstimate] = {}
    for step in sorted({step for curve in curves for step in curve}):
        finite = [curve[step] for curve in curves if step in curve and math.isfinite(curve[step])]
        means[step] = estimate(finite) if finite else IntervalEstimate(math.nan, math.nan, math.nan, 0)
    return means


def _with_left_out(title: str, groups: Mapping[str, Sequence[Curve]]) -> str:
    """The title, which says how many values have no place in the chart."""
    count = sum(not math.isfinite(value) for curves in groups.values() for curve in curves for value in curve.values())
    return f"{title} ({count} value{'' if count == 1 else 's'} not finite)" if count else title


def _colour_and_style(number: int) -> tuple[str, str]:
    return COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]


def _by_round(title: str, order: Sequence[str]) -> tuple[Figure, Any, list[str]]:
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.set_title(_plain_text(title, LONGEST_LABEL), fontsize=10, loc="left")
    axes.set_xlabel("round", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure, axes, list(order)


def clients_chart(title: str, unit: str, rows: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Each client's clips as dots, a colour a row of the table, the client of the lowest mean on top.

    The mean is of the first row that the client has.

    Args:
        title: of the chart.
        unit: of the values.
        rows: by row of the table and client, a value a clip.

    Returns:
        an ``<svg>`` element.
    """
    means = {client: float(np.mean(values[client])) for values in reversed(list(rows.values())) for client in values}
    clients = sorted(means, key=lambda client: means[client])[:MOST_CLIENTS]
    if len(clients) < len(means):
        title += f", the lowest {len(clients)} of {len(means)} clients"
    figure = Figure(figsize=(5.2, 0.9 + 0.26 * len(clients)), layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(rows.items()):
        x = [value for client in clients for value in values.get(client, [])]
        y = [
            index + 0.18 * (number - (len(rows) - 1) / 2) for index, c in enumerate(clients) for _ in values.get(c, [])
        ]
        axes.scatter(x, y, s=14, color=COLOURS[number % len(COLOURS)], label=_label(name), alpha=0.85)
    axes.set_yticks(range(len(clients)), [_plain_text(client, LONGEST_TICK) for client in clients], fontsize=8)
    axes.invert_yaxis()
    axes.set_title(_plain_text(title, LONGEST_LABEL), fontsize=10, loc="left")
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
    axes.set_yticks(range(len(differences)), [_plain_text(name, LONGEST_TICK) for name in differences], fontsize=8)
    axes.set_ylim(len(differences) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_title(_plain_text(title, LONGEST_LABEL), fontsize=10, loc="left")
    axes.set_xlabel(unit, fontsize=9)
    return _finish(figure, axes, False)


def _plain_text(name: str, most: int) -> str:
    """A name as matplotlib shows it letter by letter: dollars are no formula; without its middle where it is too long."""
    half = (most - 1) // 2
    return (name if len(name) <= most else f"{name[:half]}…{name[-half:]}").replace("$", r"\$")


def _label(name: str) -> str:
    """A name for a legend, which leaves out those that begin with an underscore."""
    return ("\N{HAIR SPACE}" if name.startswith("_") else "") + _plain_text(name, LONGEST_LABEL)


def _finish(figure: Figure, axes: Any, legend: bool) -> str:
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if legend:  # below the chart: nothing of it is covered
        handles, labels = axes.get_legend_handles_labels()
        columns = max(1, min(len(labels), 80 // (max(map(len, labels), default=0) + 7)))
        figure.set_figheight(figure.get_figheight() + 0.17 * math.ceil(len(labels) / columns))
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, fontsize=8, frameon=False)
    stream = io.StringIO()
    # Text stays text, so that the page can be searched; ids that follow from the content, so that pages compare.
    # A browser has the letters that matplotlib's own font lacks.
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fedtalk", "font.family": "sans-serif"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", r"Glyph .* missing from")
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r'<svg \1role="img"', svg, count=1, flags=re.DOTALL)
