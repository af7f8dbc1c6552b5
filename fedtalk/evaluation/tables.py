"""The table of `fedtalk test` as a person reads it on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

COLUMNS = (
    "psnr", "ssim", "psnr_mouth", "mouth_corr", "mouth_corr_donor", "mouth_amplitude", "lip_leakage", "identity", "flicker",
    "landmark_distance", "warping_error",
)  # fmt: skip
"""What is printed; metrics.json and `fedtalk report` have all measures."""


def print_table(result: dict[str, Any]) -> None:
    """Print the content of ``metrics.json``."""
    console = Console(width=160)
    about = result["about"]
    for title, rows in (("dub", result), ("portrait", result["portrait"])):
        table = Table(title=f"{title}: means over {about['clips']} held-out clips, identity by {about['identity']}")
        table.add_column("")
        for column in COLUMNS:
            table.add_column(column.replace("_", " "), justify="right")
        for name, row in rows.items():
            if isinstance(row, dict) and "psnr" in row:
                table.add_row(Text(name), *(f"{row[column]:.3f}" if column in row else "" for column in COLUMNS))
        if table.row_count:
            console.print(table)
    for name, measures in result["comparisons"].items():
        for measure, difference in measures.items():
            console.print(
                f"{measure} {name}: {difference['mean']:+.3f}, 95 % interval [{difference['low']:+.3f}, "
                f"{difference['high']:+.3f}] over clients", highlight=False,
            )  # fmt: skip
    for row in result.get("privacy", []):
        epsilon = row.get("prv", row.get("exact"))
        shown = "without bound" if epsilon is None else f"{epsilon:.3f}"
        console.print(f"privacy: epsilon {shown} {row['against']}", highlight=False, markup=False)
    for name, reason in about.get("unavailable", {}).items():
        console.print(f"{name} was not measured: {reason}", highlight=False, markup=False)
