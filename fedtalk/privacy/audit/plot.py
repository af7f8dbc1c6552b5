"""The audit as a picture: bounds beside the ledger, the attack's curve, what each view gives away."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedtalk.privacy.audit.result import Audit
from fedtalk.privacy.spent import ADAPTERS
from fedtalk.storage import atomic_path

_FOUND, _CLAIMED, _REACH, _CHANCE = "#1f6f8b", "#b3261e", "#d9e4e8", "#777777"


def plot_audit(audit: Audit, path: Path) -> None:
    """Write the picture (PNG), atomically.

    Args:
        audit: what was found.
        path: file to write.
    """
    found = audit.reconstruction
    figure = Figure(figsize=(13, 4.4 if found is None else 7.2), layout="constrained")
    figure.suptitle(f"Privacy audit of {audit.run.name or audit.run}", x=0.01, ha="left", fontsize=13)
    grid = figure.add_gridspec(1 if found is None else 2, 6, height_ratios=[1] if found is None else [1.35, 1])
    _draw_bounds(figure.add_subplot(grid[0, :2]), audit)
    _draw_roc(figure.add_subplot(grid[0, 2:4]), audit)
    if found is not None:
        _draw_views(figure.add_subplot(grid[0, 4:]), audit)
        for place, (name, picture) in enumerate(list(found.pictures.items())[:6]):
            axes = figure.add_subplot(grid[1, place])
            axes.imshow(picture.transpose(1, 2, 0), interpolation="nearest")
            axes.set_title(_PICTURE_TITLES.get(name, f"with the {name}"), fontsize=9)
            axes.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


_PICTURE_TITLES = {"truth": "first client, mean frame", "backbone alone": "backbone alone"}


def _draw_bounds(axes: Axes, audit: Audit) -> None:
    names = [f"canaries,\n{name}" for name in audit.canaries] + ["membership (*)"]
    values = [bound.epsilon for bound in audit.canaries.values()] + [audit.membership.epsilon]
    reach = [bound.most for bound in audit.canaries.values()] + [0.0]
    axes.bar(names, reach, color=_REACH, width=0.6, label="in reach of so many canaries")
    axes.bar(names, values, color=_FOUND, width=0.4, label=f"lower bound, {audit.settings.confidence:.0%} confidence")
    for place, value in enumerate(values):
        axes.annotate(
            f"{value:.2f}", (place, value), ha="center", va="bottom", xytext=(0, 2), textcoords="offset points"
        )
    claimed = audit.guarantee.epsilon
    top = max([*values, *reach, 1.0])
    if math.isinf(claimed):
        axes.set_title(f"epsilon at delta {audit.delta:g}; ledger: no guarantee", fontsize=10)
    else:
        top = max(top, claimed)
        axes.axhline(claimed, color=_CLAIMED, linestyle="--", label=f"ledger, {ADAPTERS}: at most {claimed:.2f}")
        axes.set_title(f"epsilon at delta {audit.delta:g}", fontsize=10)
    axes.set_ylim(0, top * 1.45)
    axes.set_ylabel("epsilon")
    axes.set_xlabel("(*) if people were independent trials", fontsize=8)
    axes.legend(fontsize=8, loc="upper right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_roc(axes: Axes, audit: Audit) -> None:
    false, true = audit.membership.roc
    axes.plot([0, 1], [0, 1], color=_CHANCE, linestyle=":", label="chance")
    axes.plot(false, true, color=_FOUND, drawstyle="steps-post", label=f"AUC {audit.membership.auc:.2f}")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_title("membership in the released adapter", fontsize=10)
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_views(axes: Axes, audit: Audit) -> None:
    assert audit.reconstruction is not None
    found = audit.reconstruction
    names = list(found.identity)
    for offset, (label, attack, colour) in enumerate(
        (("by gradients", found.identity, _FOUND), ("by appearance", found.appearance, "#e0a458"))
    ):
        places = [i + 0.36 * offset - 0.18 for i in range(len(names))]
        values = [attack[name].percentile for name in names]
        axes.bar(places, values, width=0.34, color=colour, label=label)
        for place, value in zip(places, values, strict=True):
            axes.annotate(f"{value:.2f}", (place, value), ha="center", va="bottom", fontsize=8)
    axes.axhline(0.5, color=_CHANCE, linestyle=":", label="chance")
    axes.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names], fontsize=8)
    axes.set_ylim(0, 1.4)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_ylabel("share of decoys ranked below")
    axes.set_title("whose update is it?", fontsize=10)
    axes.legend(fontsize=8, loc="upper right", ncols=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
