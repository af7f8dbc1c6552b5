"""What a preparation used, left out and why."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedtalk.storage import atomic_path

REJECTS = "rejects.csv"


@dataclass(frozen=True)
class Reject:
    """Something that did not become a clip, or a remark on how something became one."""

    source: str
    """Path below the raw folder."""
    start: float
    """Second in the source from which it was rejected."""
    reason: str


@dataclass
class PrepareReport:
    """What `prepare` did."""

    clips: dict[str, int]
    """Clips in the clients folder by person, those of earlier runs included."""
    made: int = 0
    """Clips written now."""
    unchanged: int = 0
    """Videos passed over, since their clips were there already."""
    withdrawn: list[str] = field(default_factory=list)
    """Videos that are no longer among the raw ones; their clips were removed."""
    elsewhere: list[str] = field(default_factory=list)
    """Videos of another raw folder, which is not there now; their clips were kept."""
    rejects: list[Reject] = field(default_factory=list)
    """All that was rejected, of earlier runs too; also in ``rejects.csv``."""
    seconds_kept: float = 0.0
    """Length of all clips."""
    seconds_seen: float = 0.0
    """Length of all videos that could be read."""

    @property
    def empty(self) -> list[str]:
        """People without a usable clip."""
        return [person for person, count in self.clips.items() if not count]

    def __str__(self) -> str:
        people = len(self.clips) - len(self.empty)
        lines = [f"{sum(self.clips.values())} clips of {people} people ({self.made} made now)"]
        if self.seconds_seen:
            share = self.seconds_kept / self.seconds_seen
            lines[0] += f", {self.seconds_kept:.0f} s of {self.seconds_seen:.0f} s of video ({share:.0%})"
        if self.unchanged:
            lines.append(f"{self.unchanged} videos unchanged since an earlier run")
        if self.withdrawn:
            lines.append(f"{len(self.withdrawn)} videos are no longer there; their clips were removed")
        if self.elsewhere:
            lines.append(f"{len(self.elsewhere)} videos are of another raw folder; their clips were kept")
        if self.rejects:
            lines.append(f"{len(self.rejects)} rejected passages, each with its reason in {REJECTS}")
        lines.extend(f"no usable clip of: {person}" for person in self.empty)
        return "\n".join(lines)


def write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    """Write the table of rejects, atomically."""
    rows = ((reject.source, f"{reject.start:.2f}", reject.reason) for reject in rejects)
    write_table(path, ("source", "start", "reason"), rows)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file in UTF-8, atomically."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(columns)
    writer.writerows(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(table.getvalue(), encoding="utf-8", newline="")
