"""`fedtalk ledger`."""

from __future__ import annotations

import json as json_text
from pathlib import Path

from fedtalk.privacy.ledger_report import print_report, run_report


def ledger(folder: str, json: bool = False) -> None:
    """Print what was spent, on what, and against whom.

    Args:
        folder: of a differentially private run.
        json: print one JSON line in place of the tables.
    """
    report = run_report(Path(folder))
    if json:
        print(json_text.dumps(report))
    else:
        print_report(report)
