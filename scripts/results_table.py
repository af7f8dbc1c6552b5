#!/usr/bin/env python
"""Print a run's metrics.json as the Markdown table of the README: python scripts/results_table.py runs/demo"""

from __future__ import annotations

import json
import sys
from pathlib import Path

COLUMNS = ("psnr", "ssim", "psnr_mouth", "mouth_corr", "mouth_corr_donor", "lip_leakage", "identity", "flicker")


def markdown(result: dict) -> str:
    """Dub task first, then the portrait task, then the comparisons."""
    lines = []
    for task, rows in (("dub", result), ("portrait", result["portrait"])):
        lines += [f"| {task} | " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
        for name, row in rows.items():
            if isinstance(row, dict) and "psnr" in row:
                cells = (f"{row[column]:.2f}" if column in row else "" for column in COLUMNS)
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    for name, measures in result["comparisons"].items():
        for measure, unit, digits in (("psnr_mouth", " dB", 2), ("mouth_corr", "", 3)):
            if measure in measures:
                mean, low, high = (f"{measures[measure][end]:+.{digits}f}" for end in ("mean", "low", "high"))
                lines.append(f"{measure}, {name}: {mean}{unit}, 95 % interval [{low}, {high}].  ")
    about = result["about"]
    lines.append(
        f"{about['clips']} held-out clips of {about['clients']} clients; identity by {about['identity']}, opening by "
        f"{about['openness']} (on the truth: correlation {about['probe_error']['mouth_corr']:.2f}, mean error "
        f"{about['probe_error']['mouth_distance']:.3f})."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "metrics.json").is_file():
        sys.exit("usage: results_table.py RUN   (a folder in which `fedtalk test` wrote metrics.json)")
    print(markdown(json.loads((Path(sys.argv[1]) / "metrics.json").read_text())))
