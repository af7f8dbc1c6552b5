"""`fedtalk ledger FOLDER`: what a private run has spent, on what, and against whom."""

from __future__ import annotations

import json as json_text
from pathlib import Path

from fedtalk.privacy.ledger_report import print_report, run_report
from fedtalk.privacy.site_ledger import SiteLedger
from fedtalk.privacy.site_report import print_site_report, site_report


def ledger(folder: str, json: bool = False) -> None:
    """Print what was spent, on what, and against whom.

    Args:
        folder: of a differentially private run, or of a site's own ledger.
        json: print one JSON line in place of the tables.
    """
    site = SiteLedger.lies_in(Path(folder))
    report = site_report(Path(folder)) if site else run_report(Path(folder))
    if json:
        print(json_text.dumps(report))
    else:
        (print_site_report if site else print_report)(report)
