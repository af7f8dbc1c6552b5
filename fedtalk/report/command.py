"""The command line of `fedtalk report`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fedtalk.errors import ConfigurationError
from fedtalk.report.page import write_report

DESCRIPTION = """\
Write one self-contained HTML page of runs or of a sweep, finished or not: tables with controls, curves, privacy by
adversary, spread over clients, worst clips, videos.

  fedtalk report runs/isfa runs/fedavg --out compare.html
  fedtalk report runs/sweep
"""


def parser() -> argparse.ArgumentParser:
    """Of the options."""
    options = argparse.ArgumentParser(
        "fedtalk report",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    options.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of `fedtalk fit`, or one of `fedtalk sweep`"
    )
    options.add_argument("--out", type=Path, help="the page; report.html in the first folder by default")
    options.add_argument(
        "--videos", type=int, default=6, help="embedded videos of each run, at most (default: %(default)s)"
    )
    return options


def report(arguments: Sequence[str]) -> None:
    """Write the page that the command line asks for.

    Raises:
        FedTalkError: a folder that holds no run, or a page that can't be written.
    """
    options = parser().parse_args(list(arguments))
    if options.videos < 0:
        raise ConfigurationError(f"report: expected --videos of 0 or more, got {options.videos}")
    out = (options.out or options.runs[0] / "report.html").expanduser()
    write_report(options.runs, out, options.videos)
    print(
        f"wrote {out}: {out.stat().st_size / 1e6:.1f} MB, open it in a browser; nothing in it is fetched from elsewhere"
    )
