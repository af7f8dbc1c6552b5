"""Charts as inline SVG: curves by round with intervals over seeds, and the spread over clients."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedtalk.report.collect import Curve
from fedtalk.sweeps.statistics import estimate

COLOURS = ("#1f6feb", "#d1495b", "#2a9d5c", "#8d5bd1", "#c77d0a", "#16828c", "#6b7280", "#b0417f")


def curves_chart(title: str, groups: Mapping[str, Sequence[Curve]]) -> str:
    """Mean over the runs of each group by round, with Student's 95 % interval where a group has several.

    Args:
        title: of the chart.
        groups: curves by group.

    Returns:
        an ``<svg>`` element.
    """
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.subplots()
    for number, (name, curves) in enumerate(groups.items()):
        colour = COLOURS[number % len(COLOURS)]
        steps = sorted({step for curve in curves for step in curve})
        found = [estimate([curve[step] for curve in curves if step in curve]) for step in steps]
        axes.plot(steps, [one.mean for one in found], color=colour, label=name, marker="o", markersize=3, linewidth=1.5)
        if any(one.seeds > 1 for one in found):
            # A single seed has no interval; the band is as narrow as the line there.
            low = [one.mean if np.isnan(one.low) else one.low for one in found]
            high = [one.mean if np.isnan(one.high) else one.high for one in found]
            axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("round", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return _finish(figure, axes, len(groups) > 1)


def clients_chart(title: str, unit: str, rows: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Each client's clips as dots, a colour a row of the table, clients from the worst mean of the first row to the best.

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
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(unit, fontsize=9)
    return _finish(figure, axes, len(rows) > 1)


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
