"""Pieces of people's clips, changed as a whole: what keeps a dozen people from being learned by heart.

Of a piece and its reference together colour, contrast, place, size, turn and side are drawn anew; the reference comes from
another clip of the person where there is one, else from well over a second away. So looks are many, and copying the
reference's mouth never pays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from fedtalk.data.clip import FRAME_RATE, Clip, Reference
from fedtalk.data.framing import move
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ArtifactError

FAR = -1000
"""Place of a reference that is no frame of the piece's clip."""


@dataclass
class Piece(Clip):
    """A clip with the sound around it and references from elsewhere."""

    elsewhere: list[Reference] = field(default_factory=list)
    sound: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """(640 N,) float32, of which ``audio`` is a part."""
    first: int = 0
    """Frame of the sound with which the piece starts."""

    def references(self) -> list[tuple[Reference, int]]:
        return [(reference, FAR) for reference in self.elsewhere]

    def surroundings(self) -> tuple[np.ndarray, int]:
        return self.sound, self.first


def piece_of_person(paths: Sequence[Path], frames: int, size: int, generator: np.random.Generator) -> Piece:
    """A changed piece of one of a person's clips.

    Args:
        paths: the person's clips.
        frames: length in frames.
        size: side of the clips' frames in pixels.
        generator: of all that is drawn.

    Raises:
        ArtifactError: a clip is too short or has frames of another size.
    """
    path = paths[int(generator.integers(len(paths)))]
    clip = _load(path)
    if len(clip) < frames or clip.size != size:
        raise ArtifactError(
            f"clip {path}: expected at least {frames} frames of {size} px, got {len(clip)} of {clip.size}; prepare again with "
            f"--size {size} --clip_seconds null"
        )
    start = int(generator.integers(len(clip) - frames + 1))
    others = [other for other in paths if other != path]
    if others:
        other = _load(others[int(generator.integers(len(others)))])
        at = int(generator.integers(len(other)))
    else:
        other = clip
        away = [i for i in range(len(clip)) if i < start - FRAME_RATE or i >= start + frames + FRAME_RATE]
        at = away[int(generator.integers(len(away)))] if away else (0 if start > len(clip) - start - frames else -1)
    return _changed(clip, start, frames, other.reference(at), generator)


def piece_of_speaker(speaker: Speaker, frames: int, size: int, generator: np.random.Generator) -> Piece:
    """A changed piece of a SynthTalk speaker; the reference is of another take."""
    clip = make_clip(speaker, int(generator.integers(1000)), frames + 2, size)
    return _changed(
        clip, 1, frames, make_clip(speaker, 1000 + int(generator.integers(1000)), 6, size).reference(5), generator
    )


@lru_cache(maxsize=128)
def _load(path: Path) -> Clip:
    return Clip.load(path)


def _changed(clip: Clip, start: int, frames: int, reference: Reference, generator: np.random.Generator) -> Piece:
    """Frames ``start`` to ``start + frames`` and the reference, both changed alike."""
    draw = generator.uniform(-1, 1, 8)
    size, mirror = clip.size, draw[0] < 0
    scale, turn = math.exp(0.1 * draw[1]), 0.12 * draw[2]
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if mirror else 1.0, 1.0])
    middle = np.full(2, (size - 1) / 2)
    transform = np.concatenate([matrix, (middle + 0.05 * size * draw[3:5] - matrix @ middle)[:, None]], 1)
    mix = (np.eye(3) + 0.15 * generator.standard_normal((3, 3))) * math.exp(0.35 * draw[5])
    gamma, shift = math.exp(0.35 * draw[6]), 20 * draw[7]

    def picture(frame: np.ndarray) -> np.ndarray:
        moved = cv2.warpAffine(frame, transform, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        linear = np.clip(moved.astype(np.float32) @ mix.T.astype(np.float32) + shift, 0, 255) / 255
        return np.round(255 * linear**gamma).astype(np.uint8)

    def eyes(points: np.ndarray) -> np.ndarray:
        moved = move(transform, points).astype(np.float32)
        return moved[..., ::-1, :].copy() if mirror else moved

    part = clip.window(start, frames)
    mouth = None if reference.mouth is None else move(transform, reference.mouth).astype(np.float32)
    other = Reference(picture(reference.frame), eyes(reference.eyes), mouth)
    return Piece(
        np.stack([picture(frame) for frame in part.frames]),
        part.audio,
        eyes(part.eyes),
        move(transform, part.mouth).astype(np.float32),
        part.openness,
        part.info,
        elsewhere=[other],
        sound=clip.audio,
        first=start,
    )
