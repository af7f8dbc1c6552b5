"""From raw videos to a clients folder: ``fedtalk prepare``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedtalk.data.consent import write_template
from fedtalk.data.faces import FaceFinder, Finder, face_finder
from fedtalk.data.layouts import Layout, Sources, find_sources
from fedtalk.data.prepare.pool import outcomes
from fedtalk.data.prepare.record import FOLDER, PreparationRecord
from fedtalk.data.prepare.report import REJECTS, PrepareReport, Reject, write_rejects, write_table
from fedtalk.data.prepare.settings import Settings
from fedtalk.errors import ConfigurationError, MediaError, OutputError
from fedtalk.run_lock import run_lock

MANIFEST = "manifest.csv"
LEADING = ("client", "source", "clip", "start", "seconds")
"""First columns of the manifest; what the layout's names say follows."""


def prepare(
    raw: str | os.PathLike[str],
    clients: str | os.PathLike[str],
    *,
    layout: Layout = "folder",
    size: int = 128,
    clip_seconds: float | None = 2.0,
    finder: Finder | FaceFinder = "dlib",
    detect_every: int = 5,
    longest_gap: float = 0.5,
    face: str | int = "speaking",
    jobs: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> PrepareReport:
    """Make aligned clips of ordinary videos: ``clients/<person>/<video>-<number>.npz``.

    In each clip the crop stands still, or follows smoothly a head that would leave it (see `fedtalk.data.framing`);
    eyes, mouth, the transforms from the source picture and, where the finder sees the lips, the opening are stored by
    frame. What can't be used is listed with its reason in ``clients/rejects.csv`` and costs nothing else; what became
    of each video and what its name says stands in ``clients/manifest.csv``. Running again does only what is new or
    changed, and removes the clips of videos that are no longer there; a run that was killed goes on.

    ``openness`` of a clip is ``min(1, gap / 0.35)`` with ``gap`` the distance between the inner lips over that between
    the eyes.

    Args:
        raw: folder of raw videos.
        clients: folder to write, not inside ``raw``.
        layout: a name in `fedtalk.data.layouts.LAYOUTS`.
        size: side of a frame in pixels.
        clip_seconds: length of a clip; None makes one clip of each stretch with a face throughout, held in memory.
        finder: a name for `fedtalk.data.faces.face_finder`, or a finder.
        detect_every: frames (at 25 a second) from one search for the face to the next.
        longest_gap: seconds without a sighting that are bridged, where the pictures show the face all the same.
        face: of several faces, ``speaking`` takes the one whose mouth moves with the sound, a number the one at that
            place from the left, the file of a picture the person on it. A picture ``face.jpg`` in a person's folder
            goes before ``speaking``.
        jobs: videos that are worked on at a time, each in a process of its own; 1 works in this one.
        overwrite: make all clips anew.
        progress: show a progress bar and print the summary.

    Raises:
        ConfigurationError: unusable settings.
        MediaError: no videos in ``raw``, or not one usable clip in all of them.
        ArtifactError: the finder's model is absent.
        OutputError: ``clients`` can't be written.
    """
    raw, clients = Path(raw).expanduser(), Path(clients).expanduser()
    found = face_finder(finder) if isinstance(finder, str) else finder
    settings = Settings(layout, size, clip_seconds, found.name, detect_every, longest_gap, face)
    if jobs < 1:
        raise ConfigurationError(f"prepare: jobs must be at least 1, got {jobs}")
    if clients.resolve().is_relative_to(raw.resolve()):
        raise ConfigurationError(f"prepare: the clients folder {clients} must lie outside the raw videos {raw}")
    try:
        sources = find_sources(raw, layout)
    except MediaError as error:
        left = sum(len(entry["clips"]) for entry in PreparationRecord.made_from(clients, raw))
        if not left:
            raise
        raise MediaError(
            f"{error}; {left} clips made from it earlier are still in {clients}; if all of it was withdrawn, delete that folder"
        ) from error
    with run_lock(clients / FOLDER, "prepare", "choose another clients folder"), _changing(clients):
        report = _prepare(
            sources, PreparationRecord(clients, raw), settings, finder if jobs > 1 else found, jobs, overwrite, progress
        )
    if not any(report.clips.values()):
        first = next(iter(report.rejects), Reject("", 0.0, "none"))
        raise MediaError(
            f"prepare: not one usable clip in {len(sources.videos)} videos of {raw}; the reasons are in "
            f"{clients / REJECTS}. The first: {first.source}: {first.reason}"
        )
    return report


@contextlib.contextmanager
def _changing(clients: Path) -> Iterator[None]:
    """Say in one line what could not be made, moved or removed there."""
    try:
        yield
    except OSError as error:
        name = os.fsdecode(error.filename2 or error.filename or clients)
        raise OutputError(
            f"clients folder {clients}: {name} can't be changed ({error.strerror or error}); expected a folder of one's own "
            "with free space. What was finished is kept: mend that, then run again."
        ) from error


def _prepare(
    sources: Sources,
    record: PreparationRecord,
    settings: Settings,
    finder: Finder | FaceFinder,
    jobs: int,
    overwrite: bool,
    progress: bool,
) -> PrepareReport:
    report = PrepareReport(dict.fromkeys([*sources.people, *(source.person for source in sources.videos)], 0))
    report.withdrawn, report.elsewhere = record.prune(sources.videos)
    todo = []
    for source in sources.videos:
        if not overwrite and record.is_current(record.entry(source), source, settings):
            report.unchanged += 1
        else:
            todo.append(source)
    console = Console()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (progress and console.is_terminal)) as bar:
        task = bar.add_task("preparing", total=len(todo))
        for source, outcome in outcomes(todo, settings, finder, record, jobs):
            record.commit(source, settings, outcome)
            report.made += len(outcome.names)
            bar.update(task, advance=1, description=source.label)
    _summarise(report, record, sources.others, [source.label for source in sources.videos])
    for person, count in report.clips.items():
        if count:
            write_template(record.clients / person)
    record.told()
    if progress:
        console.print(str(report), highlight=False, markup=False)
    return report


def _summarise(
    report: PrepareReport, record: PreparationRecord, others: list[tuple[str, str]], labels: list[str]
) -> None:
    """Complete the report from all records, and write the tables."""
    entries = {entry["label"]: entry for entry in record.entries()}
    rows = []
    for label, entry in entries.items():
        rows += [{"client": entry["person"], "source": label, **row} for row in entry["rows"]]
        if label in labels:
            report.clips[entry["person"]] += len(entry["clips"])
            report.seconds_seen += entry["seconds"]
            report.seconds_kept += sum(row["seconds"] for row in entry["rows"])
            report.rejects += [Reject(label, start, reason) for start, reason in entry["rejects"]]
    report.rejects += [Reject(label, 0.0, "no longer there; its clips were removed") for label in report.withdrawn]
    report.rejects += [
        Reject(label, 0.0, "not in this raw folder; its clips, made from another one, are kept")
        for label in report.elsewhere
    ]
    report.rejects += [Reject(label, 0.0, reason) for label, reason in others]
    write_rejects(record.clients / REJECTS, report.rejects)
    columns = [*LEADING, *sorted({key for row in rows for key in row} - set(LEADING))]
    write_table(record.clients / MANIFEST, columns, [[row.get(column, "") for column in columns] for row in rows])
