"""Recordings and portraits of drawn faces, and a finder that knows where they are."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fedtalk.data.faces import Face
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.data.video_writer import VideoWriter
from fedtalk.talker.module import Talker
from fedtalk.talker.production.generate import Ready

HEIGHT, WIDTH, SIDE = 120, 160, 96
STEP = 6
"""Grey levels from one number to the next."""


def number_of(frame: np.ndarray) -> int:
    """The number that stands in a picture's corner, -1 for the room without anybody."""
    return round(float(frame[4:12, 4:12].mean()) / STEP) - 1


class DrawnFaces:
    """Where SynthTalk drew the eyes of clip 0, by the picture's number, which stands in its corner as grey levels."""

    name = "drawn"

    def __init__(self, clip) -> None:
        self._clip = clip

    def find(self, frame: np.ndarray) -> list[Face]:
        number = number_of(frame) + 1
        if not 0 < number <= len(self._clip):
            return []
        eyes = self._clip.eyes[number - 1] + np.array([30, 12])
        mouth = self._clip.mouth[number - 1] + np.array([30, 12])
        return [Face(np.array([30, 12, 30 + SIDE, 12 + SIDE], np.float32), eyes, mouth, 1.0)]


@pytest.fixture(scope="session")
def drawn_clip():
    return make_clip(Speaker.draw(0, "public", 3), 0, 40, SIDE)


@pytest.fixture
def finder(drawn_clip, monkeypatch: pytest.MonkeyPatch) -> DrawnFaces:
    """The finder, also as what `generate` gets for any name."""
    made = DrawnFaces(drawn_clip)
    monkeypatch.setattr("fedtalk.talker.production.generate.face_finder", lambda name: made)
    return made


@pytest.fixture
def picture(drawn_clip) -> Callable[[int], np.ndarray]:
    """(120, 160, 3): the drawn face in a room; number -1 is the room without anybody."""

    def draw(number: int) -> np.ndarray:
        x = np.linspace(40, 200, WIDTH).astype(np.uint8)
        room = np.stack([np.tile(x, (HEIGHT, 1)), np.full((HEIGHT, WIDTH), 90), np.tile(x[::-1], (HEIGHT, 1))], -1)
        room = room.astype(np.uint8)
        if number >= 0:
            room[12 : 12 + SIDE, 30 : 30 + SIDE] = drawn_clip.frames[number]
        room[:16, :16] = STEP * (number + 1)
        return room

    return draw


@pytest.fixture
def record(tmp_path: Path, picture: Callable) -> Callable[..., Path]:
    """Write a recording of the numbered pictures at a frame rate, without sound."""

    def write(numbers: list[int], rate: Fraction = Fraction(25), name: str = "recording.mp4", **tags: str) -> Path:
        path = tmp_path / name
        with VideoWriter(path, frame_rate=rate, time_base=Fraction(1, rate.numerator), metadata=tags) as writer:
            for number in numbers:
                writer.write(picture(number), rate.denominator)
        return path

    return write


@pytest.fixture
def read_number() -> Callable[[np.ndarray], int]:
    return number_of


@pytest.fixture
def ready(make_talker: Callable[..., Talker]) -> Ready:
    return Ready(make_talker(adapter=None), {})


@pytest.fixture
def speech() -> Callable[[float], np.ndarray]:
    def say(seconds: float) -> np.ndarray:
        voice = make_clip(Speaker.draw(0, "public", 1), 0, 50, 32).audio
        return np.resize(voice, round(seconds * 16_000)).astype(np.float32)

    return say
