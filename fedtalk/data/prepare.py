"""From raw videos to a clients folder: ``fedtalk prepare``, and the portrait for ``fedtalk generate``.

Each video is read twice: once to follow the face, once to cut it out with one still crop a clip. Memory holds a few
source pictures and the clip being made, whatever the length of the video.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy.ndimage import gaussian_filter1d

from fedtalk.data.clip import FRAME_RATE, SAMPLES_PER_FRAME, Clip
from fedtalk.data.consent import write_template
from fedtalk.data.faces import FaceFinder, face_finder
from fedtalk.data.framing import crop, framing, move, share_outside, smallest_eye_distance
from fedtalk.data.layouts import Source, find_sources
from fedtalk.data.media import audio_blocks, read_video
from fedtalk.data.tracking import Track, track_face
from fedtalk.errors import ArtifactError, ConfigurationError, FaceNotFoundError, MediaError, OutputError
from fedtalk.storage import atomic_path, write_json

logger = logging.getLogger(__name__)

WIDEST_OPENING = 0.35
"""Gap between the inner lips, over the distance between the eyes, that counts as fully open."""
MOST_OUTSIDE = 0.25
"""Share of a frame that may lie outside the source picture."""
SILENCE = 1e-3
"""Peak below which a clip's sound counts as silent (-60 dB of full scale)."""
RECORD = "prepared.json"
REJECTS = "rejects.csv"


@dataclass(frozen=True)
class Reject:
    """Something that did not become a clip."""

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
    rejects: list[Reject] = field(default_factory=list)
    """All that was rejected, of earlier runs too; also in ``rejects.csv``."""

    @property
    def empty(self) -> list[str]:
        """People without a usable clip."""
        return [person for person, count in self.clips.items() if not count]

    def __str__(self) -> str:
        people = len(self.clips) - len(self.empty)
        lines = [f"{sum(self.clips.values())} clips of {people} people ({self.made} made now)"]
        if self.unchanged:
            lines.append(f"{self.unchanged} videos unchanged since an earlier run")
        if self.rejects:
            lines.append(f"{len(self.rejects)} rejected passages, each with its reason in {REJECTS}")
        lines.extend(f"no usable clip of: {person}" for person in self.empty)
        return "\n".join(lines)


@dataclass(frozen=True)
class _Settings:
    layout: str
    size: int
    clip_seconds: float | None
    finder: str
    detect_every: int
    longest_gap: float

    def __post_init__(self) -> None:
        checks = {
            "size": (self.size >= 32 and self.size % 2 == 0, "an even number of pixels from 32"),
            "clip_seconds": (self.clip_seconds is None or self.clip_seconds >= 0.2, "at least 0.2 s, or None"),
            "detect_every": (self.detect_every >= 1, "at least 1 frame"),
            "longest_gap": (self.longest_gap >= 0, "0 s or more"),
        }
        for name, (good, expected) in checks.items():
            if not good:
                raise ConfigurationError(f"prepare: {name} must be {expected}, got {getattr(self, name)}")


def prepare(
    raw: str | os.PathLike[str],
    clients: str | os.PathLike[str],
    *,
    layout: str = "folder",
    size: int = 64,
    clip_seconds: float | None = 2.0,
    finder: str | FaceFinder = "dlib",
    detect_every: int = 5,
    longest_gap: float = 0.5,
    overwrite: bool = False,
    progress: bool = True,
) -> PrepareReport:
    """Make aligned clips of ordinary videos: ``clients/<person>/<video>-<number>.npz``.

    In each clip the crop stands still (see `fedtalk.data.framing`); eyes, mouth and, where the finder sees the lips,
    the opening are stored by frame. What can't be used is listed with its reason in ``clients/rejects.csv`` and costs
    nothing else. Running again does only what is new or changed; a run that was killed goes on.

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
        longest_gap: seconds without a sighting that are bridged.
        overwrite: make all clips anew.
        progress: show a progress bar and print the summary.

    Raises:
        ConfigurationError: unusable settings.
        MediaError: no videos in ``raw``, or not one usable clip in all of them.
        ArtifactError: the finder's model is absent.
        OutputError: ``clients`` can't be written.
    """
    raw, clients = Path(raw), Path(clients)
    found = face_finder(finder) if isinstance(finder, str) else finder
    settings = _Settings(layout, size, clip_seconds, found.name, detect_every, longest_gap)
    if clients.resolve().is_relative_to(raw.resolve()):
        raise ConfigurationError(f"prepare: the clients folder {clients} must lie outside the raw videos {raw}")
    sources = find_sources(raw, layout)
    record = _Record(clients)
    report = PrepareReport({source.person: 0 for source in sources.videos + sources.others})
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (progress and console.is_terminal)) as bar:
        task = bar.add_task("preparing", total=len(sources.videos))
        try:
            for person, videos in itertools.groupby(sources.videos, key=lambda source: source.person):
                for source in videos:
                    bar.update(task, description=f"{person}/{source.name}")
                    if not overwrite and record.is_current(source, settings):
                        report.unchanged += 1
                    else:
                        names, rejects = _prepare_video(source, clients / person, settings, found)
                        record.replace(source, settings, names, rejects)
                        report.made += len(names)
                        logger.info("%s/%s: %d clips, %d rejects", person, source.name, len(names), len(rejects))
                    report.clips[person] += len(record.clips(source))
                    if report.clips[person]:
                        write_template(clients / person)
                    bar.advance(task)
                record.save()
        finally:
            record.save()
    report.rejects = [reject for source in sources.videos for reject in record.rejects(source)]
    report.rejects += [
        Reject(f"{other.person}/{other.name}", 0.0, f"not a video by its name ({other.path.suffix or 'no suffix'})")
        for other in sources.others
    ]
    _write_rejects(clients / REJECTS, report.rejects)
    for person in report.empty:
        logger.warning("no usable clip of %s; see %s", person, clients / REJECTS)
    if progress:
        console.print(str(report), highlight=False, markup=False)
    if not any(report.clips.values()):
        raise MediaError(
            f"prepare: not one usable clip in {len(sources.videos)} videos of {raw}; the reasons are in "
            f"{clients / REJECTS}. The first: {report.rejects[0].source}: {report.rejects[0].reason}"
        )
    return report


def prepare_portrait(
    image: np.ndarray, size: int, finder: str | FaceFinder = "dlib"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the largest face out of a picture, framed as in clips.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: side of the frame in pixels.
        finder: a name for `fedtalk.data.faces.face_finder`, or a finder.

    Returns:
        The frame, (size, size, 3) uint8; the eyes in it, (2, 2) float32; the mouth in it, (2,) float32.

    Raises:
        MediaError: not such an array, or the picture or the face in it is too small.
        FaceNotFoundError: no face was found.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise MediaError(f"portrait: expected (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    if min(height, width) < size // 2:
        raise MediaError(
            f"portrait: the picture is {width} x {height} pixels, too small for a frame of {size}; "
            f"expected at least {size // 2} pixels on each side"
        )
    faces = (face_finder(finder) if isinstance(finder, str) else finder).find(image)
    if not faces:
        raise FaceNotFoundError(
            f"portrait: no face found in the picture of {width} x {height} pixels. Expected one person facing the "
            "camera, evenly lit, with space around the head; try another picture, a larger one or another face finder."
        )
    face = max(faces, key=lambda one: one.area)
    if len(faces) > 1:
        logger.warning("portrait: %d faces found; taking the largest, at %s", len(faces), face.box.round().tolist())
    problem = _too_small(face.eyes[None], size)
    if problem:
        raise MediaError(f"portrait: {problem}; use a larger picture or crop it to the head")
    transform = framing(face.eyes[None], size)
    eyes, mouth = (move(transform, points).astype(np.float32) for points in (face.eyes, face.mouth))
    return crop(image, transform, size), eyes, mouth


def prepare_video(path: str | os.PathLike[str], size: int, finder: str | FaceFinder = "dlib") -> Clip:
    """The longest stretch of a video in which a face is seen, as one clip; its own sound, if any, is left behind.

    Args:
        path: video file.
        size: side of the frame in pixels.
        finder: a name for `fedtalk.data.faces.face_finder`, or a finder.

    Raises:
        MediaError: the file can't be read, or the face is too small or leaves the frame.
        FaceNotFoundError: no face was found in any frame.
    """
    video = read_video(path)
    track = track_face(
        video, face_finder(finder) if isinstance(finder, str) else finder, every=5, longest_gap=FRAME_RATE
    )
    if not track.runs:
        raise FaceNotFoundError(f"{path}: no face found in {len(track)} frames; expected one person facing the camera")
    start, stop = max(track.runs, key=lambda run: run[1] - run[0])
    rows = slice(start, stop)
    problem = _unusable(track, rows, size)
    if problem:
        raise MediaError(f"{path}: {problem}")
    transform = framing(track.eyes[rows].astype(np.float64), size)
    frames = np.stack([crop(picture, transform, size) for picture in itertools.islice(video, start, stop)])
    return Clip(
        frames,
        np.zeros(len(frames) * SAMPLES_PER_FRAME, np.float32),
        _smooth(move(transform, track.eyes[rows])),
        _smooth(move(transform, track.mouth[rows])),
        info={"source": Path(path).name, "start": round(start / FRAME_RATE, 2)},
    )


def _prepare_video(
    source: Source, folder: Path, settings: _Settings, finder: FaceFinder
) -> tuple[list[str], list[Reject]]:
    """Names of the clips written to ``folder`` and what was rejected."""
    label = f"{source.person}/{source.name}"
    try:
        video = read_video(source.path)
        if not video.has_audio:
            raise MediaError(f"{source.path}: no audio track; expected speech")
    except MediaError as error:
        return [], [Reject(label, 0.0, _without_folders(error, source))]
    track = track_face(video, finder, every=settings.detect_every, longest_gap=round(settings.longest_gap * FRAME_RATE))
    rejects = [Reject(label, start / FRAME_RATE, reason) for start, reason in track.gaps]
    if track.error:
        rejects.append(Reject(label, len(track) / FRAME_RATE, _without_folders(track.error, source)))
    plans = []
    for start, stop in track.runs:
        length = stop - start if settings.clip_seconds is None else round(settings.clip_seconds * FRAME_RATE)
        for first in range(start, stop, length):
            problem = (
                _unusable(track, slice(first, first + length), settings.size)
                if first + length <= stop and length >= 2
                else f"what is left of this stretch, {(stop - first) / FRAME_RATE:.2f} s, is shorter than a clip"
            )
            if problem:
                rejects.append(Reject(label, first / FRAME_RATE, problem))
            else:
                plans.append((first, length))
    names = []
    for number, clip in enumerate(_cut(source, track, plans, settings, finder.name)):
        if isinstance(clip, Reject):
            rejects.append(clip)
            continue
        names.append(f"{_slug(source.name)}-{number:04d}.npz")
        clip.save(folder / names[-1])
    return names, sorted(rejects, key=lambda reject: reject.start)


def _cut(
    source: Source, track: Track, plans: list[tuple[int, int]], settings: _Settings, finder: str
) -> Iterator[Clip | Reject]:
    """Second reading: a `Clip`, or why there is none, for each (first frame, length) in ``plans``."""
    label = f"{source.person}/{source.name}"
    silence = itertools.repeat(np.zeros(SAMPLES_PER_FRAME, np.float32))  # where sound ends before the picture
    sounds = itertools.chain(audio_blocks(source.path, SAMPLES_PER_FRAME), silence)
    stream = zip(read_video(source.path), sounds, strict=False)
    position = 0
    for first, length in plans:
        rows = slice(first, first + length)
        transform = framing(track.eyes[rows].astype(np.float64), settings.size)
        frames, sound = [], []
        try:
            for picture, samples in itertools.islice(stream, first - position, first - position + length):
                frames.append(crop(picture, transform, settings.size))
                sound.append(np.pad(samples, (0, SAMPLES_PER_FRAME - len(samples))))
        except MediaError as error:  # the picture was read to here before, so it is the sound
            yield Reject(label, (first + len(frames)) / FRAME_RATE, _without_folders(error, source))
            return
        position = first + length
        audio = np.concatenate(sound)
        if float(np.abs(audio).max()) < SILENCE:
            yield Reject(label, first / FRAME_RATE, f"silent for {length / FRAME_RATE:.2f} s")
            continue
        opening = track.opening[rows]
        yield Clip(
            frames=np.stack(frames),
            audio=audio,
            eyes=_smooth(move(transform, track.eyes[rows])),
            mouth=_smooth(move(transform, track.mouth[rows])),
            openness=None if np.isnan(opening).any() else np.minimum(opening / WIDEST_OPENING, 1).astype(np.float32),
            info={"source": source.name, "start": round(first / FRAME_RATE, 2), "finder": finder},
        )


def _smooth(points: np.ndarray) -> np.ndarray:
    """Take the finder's own tremble out of (F, ...) points: a Gaussian of one frame."""
    return gaussian_filter1d(points, 1.0, axis=0, mode="nearest").astype(np.float32)


def _unusable(track: Track, rows: slice, size: int) -> str | None:
    """Why these frames make no clip, or None."""
    eyes = track.eyes[rows].astype(np.float64)
    problem = _too_small(eyes, size)
    if problem:
        return problem
    transform = framing(eyes, size)
    outside = share_outside(transform, size, track.width, track.height)
    if outside > MOST_OUTSIDE:
        return f"the face is at the border: {outside:.0%} of the frame lies outside the picture"
    points = np.concatenate([move(transform, eyes).reshape(-1, 2), move(transform, track.mouth[rows])])
    if points.min() < 0 or points.max() > size - 1:
        return "the head moves out of the frame; shorter clips follow it better"
    return None


def _too_small(eyes: np.ndarray, size: int) -> str | None:
    distance = float(np.median(np.linalg.norm(eyes[:, 1] - eyes[:, 0], axis=-1)))
    least = smallest_eye_distance(size)
    if distance >= least:
        return None
    return f"the face is too small: {distance:.1f} pixels between the eyes, expected {least:.1f} for a frame of {size}"


def _slug(name: str) -> str:
    """A file name without odd characters, different for each ``name``."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name.rpartition(".")[0]).strip("-")[:40]
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:6]}".lstrip("-")


def _without_folders(error: object, source: Source) -> str:
    """The message with the bare file name: clients may be shared, and paths name people and machines."""
    return str(error).replace(str(source.path), source.path.name)


def _write_rejects(path: Path, rejects: list[Reject]) -> None:
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["source", "start", "reason"])
    writer.writerows([reject.source, f"{reject.start:.2f}", reject.reason] for reject in rejects)
    with atomic_path(path) as temporary:
        temporary.write_text(table.getvalue(), encoding="utf-8", newline="")


class _Record:
    """``prepared.json``: from which state of each video, and with which settings, its clips were made."""

    def __init__(self, clients: Path) -> None:
        self._clients = clients
        self._path = clients / RECORD
        try:
            clients.mkdir(parents=True, exist_ok=True)
            self._entries = json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}
        except OSError as error:
            raise OutputError(
                f"clients folder {clients} can't be used ({error.strerror or error}); choose another"
            ) from error
        except ValueError as error:
            raise ArtifactError(f"{self._path} is damaged ({error}); remove it and the clips are made anew") from error

    def is_current(self, source: Source, settings: _Settings) -> bool:
        entry = self._entries.get(self._key(source))
        return (
            entry is not None
            and entry["state"] == self._state(source)
            and entry["settings"] == asdict(settings)
            and all((self._clients / source.person / name).is_file() for name in entry["clips"])
        )

    def replace(self, source: Source, settings: _Settings, names: list[str], rejects: list[Reject]) -> None:
        """Note the new clips of a video and remove those that it no longer has."""
        for name in set(self.clips(source)) - set(names):
            (self._clients / source.person / name).unlink(missing_ok=True)
        self._entries[self._key(source)] = {
            "state": self._state(source),
            "settings": asdict(settings),
            "clips": names,
            "rejects": [[reject.start, reject.reason] for reject in rejects],
        }

    def clips(self, source: Source) -> list[str]:
        return self._entries.get(self._key(source), {}).get("clips", [])

    def rejects(self, source: Source) -> list[Reject]:
        key = self._key(source)
        return [Reject(key, start, reason) for start, reason in self._entries.get(key, {}).get("rejects", [])]

    def save(self) -> None:
        write_json(self._path, self._entries)

    @staticmethod
    def _key(source: Source) -> str:
        return f"{source.person}/{source.name}"

    @staticmethod
    def _state(source: Source) -> list[int]:
        facts = source.path.stat()
        return [facts.st_size, facts.st_mtime_ns]
