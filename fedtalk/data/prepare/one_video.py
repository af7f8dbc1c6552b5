"""One raw video to its clips: followed once, cut out in a second reading."""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d

from fedtalk.data.choosing import Track, choose_face
from fedtalk.data.clip import FRAME_RATE, SAMPLES_PER_FRAME, Clip
from fedtalk.data.faces import FaceFinder
from fedtalk.data.framing import crop, move
from fedtalk.data.layouts import Source
from fedtalk.data.likeness import Likeness
from fedtalk.data.media import audio_blocks, read_image, read_video
from fedtalk.data.prepare.gate import transforms_or_problem
from fedtalk.data.prepare.record import VideoOutcome, load_track, save_track, state_of
from fedtalk.data.prepare.report import Reject
from fedtalk.data.prepare.settings import Settings
from fedtalk.data.speech import estimate_offset, offset_note, offset_problem
from fedtalk.data.tracking import follow_faces
from fedtalk.errors import FedTalkError, MediaError

logger = logging.getLogger(__name__)

WIDEST_OPENING = 0.35
"""Gap between the inner lips, over the distance between the eyes, that counts as fully open."""
SILENCE = 1e-3
"""Peak below which a clip's sound counts as silent (-60 dB of full scale)."""
LATE = 0.1
"""Seconds without a picture at the start of a video from which they are reported."""


def prepare_one(source: Source, settings: Settings, finder: FaceFinder, records: Path, staging: Path) -> VideoOutcome:
    """Make the clips of one video. Whatever is wrong with it costs this video only.

    Args:
        source: the video.
        settings: how.
        finder: see `fedtalk.data.faces.face_finder`.
        records: folder of followed faces, read and written.
        staging: folder for the clips; emptied first.
    """
    shutil.rmtree(staging, ignore_errors=True)
    state = state_of(
        source, settings
    )  # before it is read: a file that is still being copied is done again by the next run
    try:
        outcome = _prepare(source, settings, finder, records, staging, state)
    except FedTalkError as error:
        if not isinstance(error, MediaError):  # no disk, no model: the next video would fare no better
            raise
        outcome = VideoOutcome(rejects=[Reject(source.label, 0.0, _without_folders(error, source))])
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a file that trips a library must not cost the others
        logger.debug("%s", source.label, exc_info=True)
        reason = (
            f"can't be prepared ({type(error).__name__}: {error}); convert it to an mp4 of H.264 and AAC and try again"
        )
        outcome = VideoOutcome(rejects=[Reject(source.label, 0.0, _without_folders(reason, source))])
    if state_of(source, settings) != state:
        remark = "changed while it was read; if it is still being copied, run again when it is whole"
        outcome.rejects.append(Reject(source.label, outcome.seconds, remark))
    if not outcome.names:
        shutil.rmtree(staging, ignore_errors=True)
    outcome.state = state
    return outcome


def _prepare(
    source: Source, settings: Settings, finder: FaceFinder, records: Path, staging: Path, state: list[int]
) -> VideoOutcome:
    label = source.label
    video = read_video(source.path)
    sound = source.path if video.has_audio else source.sound
    if sound is None:
        raise MediaError(f"{source.path}: {video.no_sound}")
    track = load_track(records, source, settings, state)
    if track is None:
        track = _follow(source, sound, settings, finder)
        save_track(records, source, settings, state, track)
    rejects = [Reject(label, start / FRAME_RATE, reason) for start, reason in track.gaps]
    rejects += [Reject(label, 0.0, note) for note in track.notes]
    if video.late > LATE:
        rejects.append(Reject(label, 0.0, f"no picture before its first whole one for {video.late:.2f} s; left out"))
    if track.error:
        rejects.append(Reject(label, len(track) / FRAME_RATE, _without_folders(track.error, source)))
    plans: list[tuple[int, np.ndarray]] = []
    for start, stop in track.runs:
        length = stop - start if settings.clip_seconds is None else round(settings.clip_seconds * FRAME_RATE)
        for first in range(start, stop, length):
            if first + length > stop or length < 2:
                rest = f"what is left of this stretch, {(stop - first) / FRAME_RATE:.2f} s, is shorter than a clip"
                rejects.append(Reject(label, first / FRAME_RATE, rest))
                continue
            transforms, problem = transforms_or_problem(track, slice(first, first + length), settings.size)
            if transforms is None:
                rejects.append(Reject(label, first / FRAME_RATE, problem))
            else:
                plans.append((first, transforms))
    outcome = VideoOutcome(rejects=rejects, seconds=len(track) / FRAME_RATE)
    for clip in _cut(source, sound, track, plans, settings, finder.name):
        if isinstance(clip, Reject):
            rejects.append(clip)
            continue
        name = f"{_slug(source.name)}-{len(outcome.names):04d}.npz"
        clip.save(staging / name)
        outcome.names.append(name)
        outcome.rows.append(
            {"clip": name, "start": clip.info["start"], "seconds": len(clip) / FRAME_RATE, **source.keys}
        )
    rejects.sort(key=lambda reject: reject.start)
    return outcome


def _follow(source: Source, sound: Path, settings: Settings, finder: FaceFinder) -> Track:
    """Find the person and see whether picture and sound belong together."""
    energy = np.array([float(np.sqrt((block**2).mean())) for block in audio_blocks_or_less(sound)])
    chosen = settings.picture(source)
    likeness = Likeness() if chosen else None
    wanted = None
    if chosen is not None and likeness is not None:
        image = read_image(chosen)
        seen = finder.find(image)
        if not seen:
            raise MediaError(f"no face found in {chosen.name}, which is to show who is meant")
        wanted = likeness.embed(image, max(seen, key=lambda face: face.area))
    faces = follow_faces(
        read_video(source.path), finder, every=settings.detect_every,
        longest_gap=round(settings.longest_gap * FRAME_RATE), likeness=likeness,
    )  # fmt: skip
    number = settings.face if isinstance(settings.face, int) else None
    track = choose_face(faces, energy if len(energy) else None, number=number, likeness=wanted)
    offset = estimate_offset(track.motion, energy)
    problem, note = offset_problem(offset), offset_note(offset)
    if note and not problem:
        track.notes.append(note)
    if problem:
        track.gaps += [(start, problem) for start, _ in track.runs[:1]]
        track.runs = []
    return track


def audio_blocks_or_less(sound: Path) -> Iterator[np.ndarray]:
    """Sound by video frame; where it breaks off, what comes before."""
    try:
        yield from audio_blocks(sound, SAMPLES_PER_FRAME)
    except MediaError:
        return


def _cut(
    source: Source, sound: Path, track: Track, plans: list[tuple[int, np.ndarray]], settings: Settings, finder: str
) -> Iterator[Clip | Reject]:
    """Second reading: a `Clip`, or why there is none, for each (first frame, transforms) in ``plans``."""
    silence = itertools.repeat(np.zeros(SAMPLES_PER_FRAME, np.float32))  # where sound ends before the picture
    stream = zip(
        read_video(source.path), itertools.chain(audio_blocks(sound, SAMPLES_PER_FRAME), silence), strict=False
    )
    position = 0
    for first, transforms in plans:
        length = len(transforms)
        rows = slice(first, first + length)
        frames: list[np.ndarray] = []
        heard: list[np.ndarray] = []
        try:
            for picture, samples in itertools.islice(stream, first - position, first - position + length):
                frames.append(crop(picture, transforms[len(frames)], settings.size))
                heard.append(np.pad(samples, (0, SAMPLES_PER_FRAME - len(samples))))
        except MediaError as error:  # the picture was read to here before, so it is the sound
            yield Reject(source.label, (first + len(frames)) / FRAME_RATE, _without_folders(error, source))
            return
        if len(frames) < length:
            reason = "ends earlier than it did when its face was followed, a moment before"
            yield Reject(source.label, (first + len(frames)) / FRAME_RATE, reason)
            return
        position = first + length
        audio = np.concatenate(heard)
        if float(np.abs(audio).max()) < SILENCE:
            yield Reject(source.label, first / FRAME_RATE, f"silent for {length / FRAME_RATE:.2f} s")
            continue
        opening = track.opening[rows]
        yield Clip(
            frames=np.stack(frames),
            audio=audio,
            eyes=smooth(_moved(transforms, track.eyes[rows])),
            mouth=smooth(_moved(transforms, track.mouth[rows][:, None])[:, 0]),
            openness=None if np.isnan(opening).any() else np.minimum(opening / WIDEST_OPENING, 1).astype(np.float32),
            transforms=transforms,
            info={"source": source.name, "start": round(first / FRAME_RATE, 2), "finder": finder, **source.keys},
        )


def smooth(points: np.ndarray) -> np.ndarray:
    """Take the finder's own tremble out of (F, ...) points: a Gaussian of one frame."""
    return gaussian_filter1d(points, 1.0, axis=0, mode="nearest").astype(np.float32)


def _moved(transforms: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(F, N, 2) points, each frame's under its own transform."""
    return np.stack(
        [move(transform, own) for transform, own in zip(transforms, points.astype(np.float64), strict=True)]
    )


def _slug(name: str) -> str:
    """A file name without odd characters, different for each ``name``."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name.rpartition(".")[0]).strip("-")[:40]
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}".lstrip("-")


def _without_folders(error: object, source: Source) -> str:
    """The message with bare file names: clients may be shared, and paths name people and machines."""
    text = str(error)
    for path in (source.path, source.sound):
        text = text if path is None else text.replace(str(path), path.name)
    return " ".join(text.encode("utf-8", "replace").decode().split())
