"""How far the audit is: a bar a stage in a terminal, a line a stage in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextlib.contextmanager
def stage(name: str, total: int) -> Iterator[Callable[..., None]]:
    """Show one stage of work; the function given is called once for each of ``total`` parts."""
    started = time.monotonic()
    if not sys.stderr.isatty():
        print(f"audit: {name}, {total} to do", file=sys.stderr, flush=True)
        yield lambda *_: None
        print(f"audit: {name} took {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        return
    columns = (
        TextColumn("{task.description:>34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(name, total=total)
        yield lambda *_: bars.advance(task)
