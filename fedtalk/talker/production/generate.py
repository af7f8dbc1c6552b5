"""From a picture or a recording and speech to a video of any length: frames as a stream, or a finished file."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from fedtalk.data.clip import FRAME_RATE
from fedtalk.data.faces import face_finder
from fedtalk.data.framing import crop, move, similarity_transform
from fedtalk.data.media import read_image
from fedtalk.data.provenance import EDITED, GENERATED, Provenance
from fedtalk.data.video_writer import VideoWriter
from fedtalk.encoders.speech import stream_windows
from fedtalk.errors import ConfigurationError
from fedtalk.talker.backbone import SHIPPED
from fedtalk.talker.generation import Generation
from fedtalk.talker.module import Talker
from fedtalk.talker.pose import swaying_eyes
from fedtalk.talker.production.named_adapters import parse_adapters, use_adapters
from fedtalk.talker.production.paste import after, inverse, paste_frame, paste_mouth
from fedtalk.talker.production.portrait import Portrait, find_portrait
from fedtalk.talker.production.recording import Look, Recording, Shown
from fedtalk.talker.production.speech import Speech
from fedtalk.talker.sampler import window_starts

log = logging.getLogger("fedtalk")

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
LARGEST_PICTURE = 1920
"""Longer side in pixels of a picture that is kept around the face; larger ones are made smaller."""


@dataclass(frozen=True)
class Film:
    """A video that is made while it is iterated over, each time anew.

    Yields:
        (H, W, 3) uint8 RGB frames. Of a portrait 25 a second; of a recording, those of the recording at its own rate.
    """

    speech: Speech
    frame_rate: Fraction
    """Frames a second, on average."""
    time_base: Fraction
    """Seconds a tick of `timed`."""
    provenance: Provenance
    metadata: Mapping[str, str]
    timed: Callable[[], Iterator[tuple[np.ndarray, int]]]
    """Frames with how many ticks each is shown."""

    def __iter__(self) -> Iterator[np.ndarray]:
        for frame, _ in self.timed():
            yield frame

    @property
    def frames(self) -> int:
        """How many frames it will have; to one frame, for a recording of uneven rate."""
        return max(1, round(self.speech.seconds * self.frame_rate))

    def save(
        self, path: str | Path, *, scale: int = 1, mark: bool = False, told: Callable[[int], None] | None = None
    ) -> Made:
        """Write it as mp4 with the speech as its sound, its metadata and its signed provenance.

        Args:
            path: file to write.
            scale: whole factor by which frames are enlarged.
            mark: draw the visible mark.
            told: called with the number of frames after each.

        Raises:
            OutputError: the file can't be written.
        """
        started = time.perf_counter()
        shape: tuple[int, int] | None = None
        with VideoWriter(
            Path(path).expanduser(), audio=self.speech.sound(), scale=scale, frame_rate=self.frame_rate, time_base=self.time_base,
            metadata=self.metadata, provenance=self.provenance, mark=mark,
        ) as writer:  # fmt: skip
            for frame, ticks in self.timed():
                shape = shape or (frame.shape[0], frame.shape[1])
                writer.write(_shaped(frame, shape, scale), ticks)
                if told is not None:
                    told(writer.frames)
        return Made(Path(path), writer.frames, float(writer.seconds), time.perf_counter() - started)


@dataclass(frozen=True)
class Made:
    """A file that was written."""

    path: Path
    frames: int
    seconds: float
    """Of video."""
    took: float
    """Seconds of work."""

    def __str__(self) -> str:
        return (
            f"wrote {self.path}: {self.frames} frames, {self.seconds:.2f} s; {self.frames / max(self.took, 1e-9):.1f} frames/s. "
            "It says that it is synthetic (metadata, signed C2PA manifest)"
        )


@dataclass(frozen=True)
class Ready:
    """A talker with its adapters."""

    talker: Talker
    adapters: Mapping[str, float]
    """Weight by name."""


def generate(
    audio: str | Path | np.ndarray,
    portrait: str | Path | np.ndarray | None = None,
    video: str | Path | None = None,
    *,
    adapter: str | Mapping[str, float] | None = None,
    run: str | Path | None = None,
    backbone: str = SHIPPED,
    guidance: float = 1.5,
    steps: int = 10,
    stride: int = 4,
    seed: int = 0,
    finder: str = "dlib",
    when_short: str = "loop",
    keep_picture: bool = False,
    device: str = "auto",
    precision: str = "32",
    talker: Ready | None = None,
) -> Film:
    """A speaking face, frame by frame.

    Args:
        audio: speech: a file, or (N,) float32 at 16 kHz.
        portrait: picture of the person, a file or (H, W, 3) uint8; the whole face is drawn from it.
        video: instead of a portrait, a recording whose mouth is to follow the speech; all else in it stays as it is.
        adapter: a person's name or adapter folder, or several with weights ("anna:0.7,bert:0.3"); none uses the backbone alone.
        run: run whose adapters names are looked for in; by default, those of all runs below ``runs``.
        backbone: ``shipped`` or the folder of the backbone that the adapter was trained on.
        guidance: weight of the audio; above 1 the mouth moves more clearly, at twice the time.
        steps: denoising steps.
        stride: frames between sampling windows.
        seed: of the noise.
        finder: face finder.
        when_short: where the speech is longer than the recording: loop, hold or refuse.
        keep_picture: put the face back into the whole portrait.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: 32, bf16 or 16.
        talker: one that is loaded already, adapter and all, see `load_talker`; adapter, run and backbone are then not read.

    Returns:
        the video, to be iterated over or saved; nothing is generated before.

    Raises:
        ConfigurationError: neither or both of portrait and video, or a setting out of range.
        MediaError: an input can't be used.
        ArtifactError: the backbone or an adapter can't be.
    """
    if (portrait is None) == (video is None):
        raise ConfigurationError("generate: give either --portrait PICTURE or --video VIDEO")
    if precision not in PRECISIONS:
        raise ConfigurationError(f"generate: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if steps < 1:
        raise ConfigurationError(f"generate: steps must be at least 1, got {steps}")
    speech = Speech.read(audio)
    ready = talker or load_talker(adapter, run, backbone, device)
    generation = replace(
        ready.talker.generation, guidance=guidance, sampling_steps=steps, stride=stride, precision=PRECISIONS[precision]
    )
    window_starts(1, generation.window, stride)  # refuses a stride that would leave gaps
    size = generation.backbone.architecture.size
    made = Provenance(EDITED if video is not None else GENERATED, ready.talker.fingerprint(), ready.adapters)
    if video is not None:
        recording = Recording(video, speech.seconds, size, face_finder(finder), when_short)
        return Film(
            speech, recording.frame_rate, recording.time_base, replace(made, source=recording.path), recording.metadata,
            lambda: _dubbed(generation, recording, speech, seed),
        )  # fmt: skip
    assert portrait is not None
    picture = portrait if isinstance(portrait, np.ndarray) else read_image(Path(portrait).expanduser())
    longer = max(picture.shape[:2])
    if keep_picture and longer > LARGEST_PICTURE:
        log.warning("portrait: made smaller, from %d pixels to %d on its longer side", longer, LARGEST_PICTURE)
        share = LARGEST_PICTURE / longer
        picture = cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    found = find_portrait(picture, size, face_finder(finder))
    return Film(
        speech, Fraction(FRAME_RATE), Fraction(1, FRAME_RATE), made, {},
        lambda: _spoken(generation, found, speech, seed, keep_picture),
    )  # fmt: skip


def load_talker(
    adapter: str | Mapping[str, float] | None = None,
    run: str | Path | None = None,
    backbone: str = SHIPPED,
    device: str = "auto",
) -> Ready:
    """What `generate` works with; arguments as there."""
    chosen = _device(device)
    weights = parse_adapters(adapter)
    talker = Talker(backbone if backbone == SHIPPED else str(Path(backbone).expanduser()))
    used = use_adapters(talker, weights, run)
    return Ready(talker.eval().requires_grad_(False).to(chosen), used)


def _spoken(
    generation: Generation, portrait: Portrait, speech: Speech, seed: int, keep_picture: bool
) -> Iterator[tuple[np.ndarray, int]]:
    """A portrait's frames."""
    reference, back = portrait.reference, inverse(portrait.transform)
    eyes = swaying_eyes(reference.eyes, speech.frames, seed)
    for frame in generation.portrait_faces(eyes, reference, _windows(generation, speech), seed):
        drawn = frame.permute(1, 2, 0).numpy()
        yield (paste_frame(portrait.picture, drawn.astype(np.float32), back) if keep_picture else drawn), 1


def _dubbed(
    generation: Generation, recording: Recording, speech: Speech, seed: int
) -> Iterator[tuple[np.ndarray, int]]:
    """The recording's frames with their mouths replaced.

    The network works at 25 frames a second, the recording at its own rate: a mouth between two of the network's frames is
    their mean, each moved to where the face is.
    """
    reference = recording.reference()
    looks: deque[Look | None] = deque()

    def cut_out() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        last = reference.frame, reference.eyes  # also stands in where there is no face; nothing is pasted there
        for shown in _each_40_ms(recording.play(speech.seconds), speech.frames):
            look = recording.look(shown.frame.seconds)
            looks.append(look)
            if look is not None:
                eyes = move(look.transform, look.eyes).astype(np.float32)
                last = crop(shown.frame.rgb(), look.transform, recording.size), eyes
            yield last

    faces = generation.dub_faces(cut_out(), speech.frames, reference, _windows(generation, speech), seed)
    drawn: deque[tuple[np.ndarray, Look | None]] = deque(maxlen=2)
    count = 0
    for shown in recording.play(speech.seconds):
        position = shown.at * FRAME_RATE
        before = min(int(position + 1e-6), speech.frames - 1)
        share = min(max(position - before, 0.0), 1.0)
        last = min(before + (share > 1e-3), speech.frames - 1)
        while count <= last:
            drawn.append((next(faces).permute(1, 2, 0).numpy().astype(np.float32), looks.popleft()))
            count += 1
        pair = [drawn[before - count], drawn[last - count]]
        look, picture = recording.look(shown.frame.seconds), shown.frame.rgb()
        usable = [
            (face, _place(own, look), weight)
            for (face, own), weight in zip(pair, (1 - share, share), strict=True)
            if look is not None and own is not None and own.run == look.run and weight > 0
        ]
        if look is None or not usable:
            yield picture, shown.ticks
        else:
            face, place = _mixed(usable)
            yield paste_mouth(picture, face, place, look.eyes), shown.ticks


def _place(own: Look, look: Look) -> np.ndarray:
    """From the pixels of a crop that was cut out at one look to the picture of another."""
    return after(similarity_transform(own.eyes, look.eyes), inverse(own.transform))


def _mixed(faces: list[tuple[np.ndarray, np.ndarray, float]]) -> tuple[np.ndarray, np.ndarray]:
    """The weighted mean of one or two faces, in the pixels of the first, and where that goes."""
    face, place, weight = faces[0]
    for other, there, share in faces[1:]:
        moved = cv2.warpAffine(
            other, after(inverse(place), there), (len(face), len(face)), flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        face = (weight * face + share * moved) / (weight + share)
    return face, place


def _each_40_ms(shown: Iterator[Shown], count: int) -> Iterator[Shown]:
    """For each instant ``i / 25`` s the frame that appears nearest to it."""
    held = next(shown)
    index = 0
    for following in shown:
        while index < count and index / FRAME_RATE < (held.at + following.at) / 2 - 1e-9:
            yield held
            index += 1
        held = following
    for _ in range(index, count):
        yield held


def _windows(generation: Generation, speech: Speech) -> Iterator[Tensor]:
    return stream_windows(generation.backbone.speech, speech.by_frame(), speech.level)


def _shaped(frame: np.ndarray, shape: tuple[int, int], scale: int) -> np.ndarray:
    """The frame as large as the first one, where a recording changes its size half-way; with even sides, for H.264."""
    if frame.shape[:2] != shape:
        frame = cv2.resize(frame, shape[::-1], interpolation=cv2.INTER_AREA)
    rows, columns = ((side * scale) % 2 for side in shape)
    return np.pad(frame, ((0, rows), (0, columns), (0, 0)), mode="edge") if rows or columns else frame


def _device(name: str) -> torch.device:
    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(
            f"generate: device {name!r} can't be used ({' '.join(str(error).split())[:120]}); expected auto, cpu, cuda or mps"
        ) from error
    return device
