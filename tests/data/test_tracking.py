"""Following faces between looks, over gaps and cuts."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from heads import Blinking, DotFinder, draw, lively, points_of, record, sine, still, track_face
from prepared import run

from fedtalk.data.faces import Face


def test_the_face_is_searched_for_only_now_and_then(tmp_path: Path) -> None:
    record(tmp_path / "raw" / "anna" / "a.mp4", still(100), sine(100))
    finder = DotFinder()
    run(tmp_path, finder=finder, detect_every=5)
    assert finder.calls <= 21


def test_memory_holds_a_few_frames_of_a_long_video() -> None:
    alive = peak = 0

    def lost() -> None:
        nonlocal alive
        alive -= 1

    def frames() -> Iterator[np.ndarray]:
        nonlocal alive, peak
        for index in range(400):
            picture = still(index % 3 + 1)[-1].copy() if index % 100 < 80 else draw()
            alive, peak = alive + 1, max(peak, alive + 1)
            weakref.finalize(picture, lost)
            yield picture

    track = track_face(frames(), DotFinder(), every=5, longest_gap=12)
    assert len(track) == 400
    assert peak <= 5 + 12 + 3


def test_landmarks_in_between_are_interpolated_or_placed() -> None:
    heads = [(100 + 2.0 * index, 80 + 0.5 * index, 36.0, 0.0) for index in range(24)]
    frames = [draw(head) for head in heads]
    track = track_face(frames, DotFinder(), every=5, longest_gap=5)
    assert track.runs == [(0, 24)]
    for index, head in enumerate(heads):
        np.testing.assert_allclose(track.eyes[index], points_of(head)[0], atol=0.7)
        np.testing.assert_allclose(track.mouth[index], points_of(head)[1], atol=0.7)

    class Placing(DotFinder):
        def place(self, frame: np.ndarray, box: np.ndarray) -> Face:
            (face,) = DotFinder().find(frame)
            np.testing.assert_allclose(box, face.box, atol=1.5)
            return Face(box, face.eyes + 3, face.mouth, 0.0)

    placed = track_face(frames, Placing(), every=5, longest_gap=5)
    moved = placed.eyes[:, 0, 0] - track.eyes[:, 0, 0] > 1.5
    np.testing.assert_array_equal(moved, [index % 5 != 0 and index < 23 for index in range(24)])


def test_a_gap_longer_than_allowed_is_not_bridged_between_two_looks() -> None:
    for gap, runs in ((7, [(0, 1), (10, 16)]), (10, [(0, 16)])):
        track = track_face(still(16), Blinking(range(1, 2)), every=5, longest_gap=gap)
        assert track.runs == runs


def test_one_face_is_followed_and_a_cut_is_seen() -> None:
    near, far = (70.0, 80.0, 36.0, 0.0), (180.0, 80.0, 30.0, 0.0)
    track = track_face(lively(near, far, count=20), DotFinder(), every=5, longest_gap=5)
    np.testing.assert_allclose(track.eyes.mean(axis=1)[:, 0], 70, atol=0.7)
    assert track.runs == [(0, 20)]
    cut = track_face([*lively(near, count=10), *lively(far, count=10)], DotFinder(), every=1, longest_gap=5)
    assert cut.runs == [(0, 10), (10, 20)]
    late = track_face([*lively(near, count=8), *lively(far, count=10)], DotFinder(), every=5, longest_gap=5)
    assert late.runs == [(0, 6), (10, 18)]
    assert late.gaps[0][0] == 6
    assert "jumps" in late.gaps[0][1]


def test_a_shot_that_ends_between_two_looks_ends_the_run_there() -> None:
    """Another scene with somebody at the same place: no clip may hold both."""
    head = (120.0, 80.0, 36.0, 0.0)
    other = [np.where(picture == 90, np.uint8(200), picture) for picture in lively(head, count=20)]
    for picture in other:
        picture[:50] = 0
    track = track_face([*lively(head, count=23), *other], DotFinder(), every=5, longest_gap=5)
    assert track.runs == [(0, 23), (23, 43)]
