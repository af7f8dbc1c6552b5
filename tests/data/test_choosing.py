"""Which of several faces becomes the client, and whether the sound is that face's, on made-up faces that speak or don't."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fedtalk.data.choosing import choose_face
from fedtalk.data.faces import Face
from fedtalk.data.speech import LONG, Offset, estimate_offset, offset_note, offset_problem
from fedtalk.data.tracking import Faces, follow_faces

COUNT = 150


def speech(seed: int = 0) -> np.ndarray:
    """(F,) opening of a mouth in [0, 1]: syllables with pauses between them."""
    generator = np.random.default_rng(seed)
    track = np.zeros(COUNT + 60)
    frame = 3
    while frame < COUNT - 12:
        for _ in range(generator.integers(2, 6)):
            width = generator.integers(3, 6)
            track[frame : frame + width] += np.hanning(width + 2)[1:-1] * generator.uniform(0.5, 1)
            frame += int(width)
        frame += int(generator.integers(6, 14))
    return track[:COUNT].clip(0, 1)


def draw(heads: Sequence[tuple[float, float, float, float]]) -> np.ndarray:
    """Heads (x, y, distance between the eyes, opening of the mouth) on grey."""
    picture = np.full((200, 400, 3), 120, np.uint8)
    rows, columns = np.mgrid[:200, :400]
    for x, y, size, opening in heads:
        picture[((columns - x) / size) ** 2 + ((rows - y - size / 2) / size / 1.3) ** 2 < 1] = 190
        for side in (-0.5, 0.5):
            picture[((columns - x - side * size) / size) ** 2 + ((rows - y) / size) ** 2 < 0.02] = 40
        inside = ((columns - x) / size / 0.35) ** 2 + (
            (rows - y - 1.1 * size) / (0.05 + 0.25 * opening) / size
        ) ** 2 < 1
        picture[inside] = 60
    return picture


class Knowing:
    """Knows where the heads are; its landmarks tremble, as all finders' do."""

    name = "knowing"

    def __init__(self, heads: Sequence[tuple[float, float, float]]) -> None:
        self._heads = heads
        self._generator = np.random.default_rng(1)

    def find(self, frame: np.ndarray) -> list[Face]:
        faces = []
        for x, y, size in self._heads:
            jitter = self._generator.normal(0, 0.01 * size, 2)
            eyes = np.array([[x - size / 2, y], [x + size / 2, y]]) + jitter
            box = np.array([x - size, y - size, x + size, y + 1.6 * size])
            faces.append(Face(box, eyes, np.array([x, y + 1.1 * size]) + jitter, 1.0))
        return faces


LARGE, SMALL = (110.0, 70.0, 50.0), (300.0, 90.0, 32.0)


def followed(large: np.ndarray, small: np.ndarray) -> Faces:
    sway = np.sin(np.arange(COUNT) / 5)
    frames = [
        draw([(LARGE[0] + sway[i], LARGE[1], LARGE[2], large[i]), (SMALL[0] - sway[i], SMALL[1], SMALL[2], small[i])])
        for i in range(COUNT)
    ]
    return follow_faces(frames, Knowing([LARGE, SMALL]), every=5, longest_gap=5)


def x_of(track: object) -> float:
    return float(np.nanmedian(track.eyes[:, :, 0]))  # type: ignore[attr-defined]


def test_the_face_that_speaks_is_taken_not_the_largest() -> None:
    mouth = speech()
    quiet = np.zeros(COUNT)
    for large, small, wanted in ((quiet, mouth, SMALL), (mouth, quiet, LARGE)):
        track = choose_face(followed(large, small), mouth**2 * 0.1 + 1e-4)
        assert x_of(track) == pytest.approx(wanted[0], abs=3)
        assert track.runs == [(0, COUNT)] and not track.notes
        ((_, said),) = track.gaps
        assert "another face" in said and "is not used for 6.00 s" in said


def test_where_it_is_not_clear_who_speaks_the_largest_is_taken_with_a_word() -> None:
    mouth = speech()
    for large, small, energy in (
        (mouth, mouth, mouth**2),
        (np.zeros(COUNT), np.zeros(COUNT), mouth**2),
        (mouth, mouth, None),
    ):
        track = choose_face(followed(large, small), energy)
        assert x_of(track) == pytest.approx(LARGE[0], abs=3)
        (note,) = track.notes
        assert "not clear who speaks" in note and "--face" in note


def test_a_face_is_taken_by_its_number_or_by_whom_it_resembles() -> None:
    faces = followed(speech(), np.zeros(COUNT))
    for number, wanted in ((1, LARGE), (2, SMALL)):
        assert x_of(choose_face(faces, speech(), number=number)) == pytest.approx(wanted[0], abs=3)
    nobody = choose_face(faces, speech(), number=3)
    assert not nobody.runs and any("only other faces" in reason for _, reason in nobody.gaps)
    for trail in faces.trails:
        trail.embeddings.append(np.full(128, 0.0 if trail.rows[0, 0] > 200 else 0.2))
    assert x_of(choose_face(faces, speech(), likeness=np.full(128, 0.01))) == pytest.approx(SMALL[0], abs=3)
    assert not choose_face(faces, speech(), likeness=np.full(128, 1.0)).runs


@pytest.mark.parametrize("lag", [0, 3, 9, -8, 20])
def test_sound_that_comes_late_or_early_is_noticed(lag: int) -> None:
    """Mouth motion follows the change of the opening, sound its size: the estimate may be off by two frames."""
    long = np.concatenate([speech(seed) for seed in range(3)])
    motion = np.abs(np.diff(long, prepend=0)) + np.random.default_rng(0).random(len(long)) * 0.05
    energy = np.roll(long, lag) ** 2 + 1e-4
    offset = estimate_offset(motion, energy)
    assert offset is not None and abs(offset.frames - lag) <= 2
    problem = offset_problem(offset)
    assert (problem is None) == (abs(lag) <= 4)
    if problem:
        assert ("after" in problem) == (lag > 0)


def test_unrelated_sound_proves_nothing() -> None:
    generator = np.random.default_rng(0)
    for seed in range(5):
        motion = np.concatenate([speech(seed), speech(seed + 10)])
        noise = generator.random(len(motion))
        assert offset_problem(estimate_offset(motion, noise)) is None
    assert estimate_offset(motion[:60], noise[:60]) is None
    assert estimate_offset(np.zeros(300), np.zeros(300)) is None


@pytest.mark.parametrize(
    ("offset", "rejected", "told"),
    [
        (Offset(12, 0.6, 0.45, LONG), True, True),
        (Offset(12, 0.6, 0.45, LONG - 1), False, False),  # a short video must be surer
        (Offset(12, 0.6, 0.35, LONG - 1), True, False),
        (Offset(-5, 0.6, 0.59, LONG), False, True),
        (Offset(-4, 0.6, 0.6, LONG), False, False),
        (Offset(5, 0.45, 0.44, LONG), False, False),
    ],
)
def test_a_video_that_may_be_good_is_told_of_and_kept(offset: Offset, rejected: bool, told: bool) -> None:
    assert (offset_problem(offset) is not None) == rejected
    assert (offset_note(offset) is not None) == told
