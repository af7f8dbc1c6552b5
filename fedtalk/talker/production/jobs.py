"""Many videos from one table: a CSV file with a line for each."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedtalk.errors import ConfigurationError, FedTalkError, MediaError

log = logging.getLogger("fedtalk")

PATHS = ("audio", "out", "portrait", "video")
COLUMNS = (*PATHS, "adapter", "seed")


@dataclass(frozen=True)
class Job:
    """One line of the table."""

    line: int
    audio: Path
    out: Path
    portrait: Path | None
    video: Path | None
    adapter: str | None
    seed: int | None


@dataclass(frozen=True)
class BatchOutcome:
    """What came of the table."""

    made: int
    there: int
    """Files that were there already."""
    failed: dict[int, str]
    """Reason by line."""

    def __str__(self) -> str:
        lines = [f"{self.made} videos made, {self.there} there already, {len(self.failed)} failed"]
        return "\n".join(lines + [f"line {line}: {reason}" for line, reason in self.failed.items()])


def read_jobs(table: Path) -> list[Job]:
    """The lines of a CSV file with a header; ``audio`` and ``out``, one of ``portrait`` and ``video``, and by choice
    ``adapter`` and ``seed``. Paths are relative to the table's folder.

    Raises:
        MediaError: the file can't be read.
        ConfigurationError: a column is missing or unknown, a line lacks a value, two lines write one file, or one writes what one
            reads.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MediaError(f"table {table}: can't be read ({error}); expected CSV with a header, in UTF-8") from error
    if not rows:
        raise ConfigurationError(
            f"table {table}: no lines; expected a header with {', '.join(COLUMNS)} and a line a video"
        )
    unknown = [name for name in rows[0] if name not in COLUMNS]
    missing = [name for name in ("audio", "out") if name not in rows[0]]
    if unknown or missing:
        raise ConfigurationError(
            f"table {table}: expected columns of {', '.join(COLUMNS)}; "
            f"{'unknown: ' + ', '.join(map(str, unknown)) if unknown else 'missing: ' + ', '.join(missing)}"
        )
    jobs = [_job(table, line, row) for line, row in enumerate(rows, start=2)]
    written: dict[Path, int] = {}
    for job in jobs:
        if job.out in written:
            raise ConfigurationError(f"table {table}: lines {written[job.out]} and {job.line} both write {job.out}")
        written[job.out] = job.line
    outs = {path.resolve(): (path, line) for path, line in written.items()}
    for job in jobs:
        for source in filter(None, (job.audio, job.portrait, job.video)):
            if source.resolve() in outs:
                path, line = outs[source.resolve()]
                raise ConfigurationError(f"table {table}: line {line} writes {path}, which line {job.line} reads")
    return jobs


def _job(table: Path, line: int, row: dict[str, str | None]) -> Job:
    values = {name: (row.get(name) or "").strip() for name in COLUMNS}
    paths = {name: table.parent / Path(values[name]).expanduser() if values[name] else None for name in PATHS}
    if paths["audio"] is None or paths["out"] is None:
        raise ConfigurationError(f"table {table}, line {line}: expected audio and out")
    if (paths["portrait"] is None) == (paths["video"] is None):
        raise ConfigurationError(f"table {table}, line {line}: expected either portrait or video")
    try:
        seed = int(values["seed"]) if values["seed"] else None
    except ValueError as error:
        raise ConfigurationError(
            f"table {table}, line {line}: seed is a whole number, got {values['seed']!r}"
        ) from error
    return Job(line, paths["audio"], paths["out"], paths["portrait"], paths["video"], values["adapter"] or None, seed)


def run_jobs(jobs: list[Job], make: Callable[[Job], object], overwrite: bool = False) -> BatchOutcome:
    """Do all jobs; one that fails costs itself. Jobs of one adapter follow each other, so that it is loaded once.

    Args:
        jobs: what to make.
        make: makes one file.
        overwrite: make files again that are there.
    """
    made = there = 0
    failed: dict[int, str] = {}
    for job in _by_adapter(jobs):
        if job.out.exists() and not overwrite:
            there += 1
            continue
        try:
            make(job)
            made += 1
        except FedTalkError as error:
            log.warning("line %d: %s", job.line, error)
            failed[job.line] = str(error)
    return BatchOutcome(made, there, dict(sorted(failed.items())))


def _by_adapter(jobs: list[Job]) -> Iterator[Job]:
    order = list(dict.fromkeys(job.adapter for job in jobs))
    return iter(sorted(jobs, key=lambda job: order.index(job.adapter)))
