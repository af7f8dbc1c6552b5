"""Estimates and differences as people read them, on a terminal and on a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LEAST_DECIMALS, MOST_DECIMALS = 3, 6


def estimate_text(row: Mapping[str, Any], seeds: int) -> str:
    """A mean with its interval, and of how many seeds where some are missing.

    Args:
        row: ``mean``, ``low``, ``high`` and ``seeds``; the ends are null with one seed.
        seeds: that the variation has runs of.

    >>> estimate_text({"mean": 24.5, "low": 23.25, "high": 25.75, "seeds": 4}, 5)
    '24.500 [23.250, 25.750], 4 of 5 seeds'
    >>> estimate_text({"mean": 27.882059, "low": 27.882059, "high": 27.882059 + 1e-15, "seeds": 5}, 5)
    '27.882 [27.882, 27.882]'
    """
    return _with_interval(row, "") + _missing(row, seeds, "seeds")


def difference_text(row: Mapping[str, Any], seeds: int) -> str:
    """A paired difference with its interval, a star where that excludes 0, its p value, and the pairs if some are missing.

    >>> difference_text({"mean": 0.0004, "low": 0.0002, "high": 0.0006, "seeds": 5, "p_value": 0.004, "excludes_zero": True}, 5)
    '+0.00040 [+0.00020, +0.00060]* p=0.004'
    >>> difference_text({"mean": 0.0, "low": 0.0, "high": 0.0, "seeds": 5, "p_value": 1.0, "excludes_zero": False}, 5)
    'the same'
    """
    if row["mean"] == 0 and row["low"] in (0, None):
        return "the same" + _missing(row, seeds, "pairs")
    star = "*" if row["excludes_zero"] else ""
    p = row.get("p_value")
    value = "" if p is None else f" p={p:.2g}" if p >= 0.001 else " p<0.001"
    return _with_interval(row, "+") + star + value + _missing(row, seeds, "pairs")


def _with_interval(row: Mapping[str, Any], sign: str) -> str:
    if row["low"] is None:
        return f"{row['mean']:{sign}.{LEAST_DECIMALS}f}"
    # Two digits of half the interval: fewer would show +0.000 [+0.000, +0.001] where something differs.
    half = (row["high"] - row["low"]) / 2
    spread = half if half > 0.5 * 10**-MOST_DECIMALS else abs(row["mean"])  # all the same but for rounding
    decimals = min(MOST_DECIMALS, max(LEAST_DECIMALS, 1 - math.floor(math.log10(spread)))) if spread else LEAST_DECIMALS
    mean, low, high = (f"{row[name]:{sign}.{decimals}f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _missing(row: Mapping[str, Any], seeds: int, what: str) -> str:
    return "" if row.get("seeds", seeds) >= seeds else f", {row['seeds']} of {seeds} {what}"
