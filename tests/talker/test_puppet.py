"""The reference as a puppet: where it doesn't have to move it stays, and lips open as far as they are told to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedtalk.data.clip import Reference
from fedtalk.data.framing import align
from fedtalk.data.landmarks import landmarks
from fedtalk.data.lips import measure_lips
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ArtifactError
from fedtalk.talker.puppet import Puppet
from fedtalk.talker.quality import mouth_probe


@pytest.fixture(scope="module")
def clip():
    return make_clip(Speaker.draw(0, "public", 0), 0, 40, 128)


def test_lips_that_stay_are_the_reference_moved_to_the_eyes(clip) -> None:
    reference = clip.reference(0)
    same = np.tile([measure_lips(reference, landmarks(reference)).opening, 0.0], (8, 1))
    moved = align(reference.frame, reference.eyes, clip.eyes[:8])
    assert np.abs(Puppet(reference).moved(clip.eyes[:8], same).astype(int) - moved).mean() < 0.5


def test_moving_the_reference_brings_it_nearer_to_frames_in_which_the_head_has_turned() -> None:
    clip = make_clip(Speaker.draw(0, "private", 0), 0, 40, 64)
    moved = align(clip.frames[0], clip.eyes[0], clip.eyes).astype(float)
    still = np.repeat(clip.frames[:1], len(clip), 0).astype(float)
    assert np.abs(moved - clip.frames).mean() < 0.8 * np.abs(still - clip.frames).mean()


def test_lips_open_as_far_as_they_are_told(clip) -> None:
    """The landmarks that place the lips read the gap back in order (and too small, in a drawn face)."""
    reference = clip.reference(int(np.argmin(clip.openness)))
    told = np.array([0.0, 0.1, 0.2, 0.3])
    frames = Puppet(reference).moved(np.repeat(reference.eyes[None], 4, 0), np.stack([told, 0 * told], 1))
    read = [measure_lips(one, landmarks(one)).opening for one in (Reference(frame, reference.eyes) for frame in frames)]
    assert read[0] < read[1] < read[2] < read[3]
    assert read[3] - read[0] > 0.06


@pytest.mark.parametrize(("group", "index"), [("public", 0), ("private", 5)])
def test_drawn_mouths_that_are_closed_open_onto_something_dark(group: str, index: int) -> None:
    """Landmarks alone take the line between drawn lips for a gap whose inside can be seen, and stretch the lips."""
    clip = make_clip(Speaker.draw(0, group, index), 0, 40, 128)
    reference = clip.reference(int(np.argmin(clip.openness)))
    frames = Puppet(reference).moved(np.repeat(reference.eyes[None], 2, 0), np.array([[0.0, 0.0], [0.3, 0.0]]))
    mouth = np.repeat(clip.mouth[[int(np.argmin(clip.openness))]], 2, 0)
    shut, wide = mouth_probe().measure(frames, mouth, np.repeat(reference.eyes[None], 2, 0))
    assert shut < 0.15 and wide > 0.5


@pytest.mark.parametrize("index", [0, 4])
def test_below_a_drawn_moustache_the_lips_open(index: int) -> None:
    """Landmarks take these two moustaches for lips; where the mouth is was said by whoever drew it."""
    clip = make_clip(Speaker.draw(0, "private", index), 0, 40, 128)
    reference, eyes = clip.reference(0), np.repeat(clip.eyes[:1], 2, 0)
    unit = float(np.linalg.norm(reference.eyes[1] - reference.eyes[0]))
    unsaid = Puppet(replace(reference, mouth=None))
    assert np.linalg.norm(unsaid.mouths(eyes)[0] - clip.mouth[0]) > 0.12 * unit
    assert np.linalg.norm(Puppet(reference).mouths(eyes)[0] - clip.mouth[0]) < 0.01 * unit
    told, mouth = np.array([[0.0, 0.0], [0.3, 0.0]]), np.repeat(clip.mouth[:1], 2, 0)
    shut, wide = mouth_probe().measure(Puppet(reference).moved(eyes, told), mouth, eyes)
    assert shut < 0.15 and wide - shut > 0.35
    before = mouth_probe().measure(unsaid.moved(eyes, told), mouth, eyes)
    assert before[1] - before[0] < 0.35


def test_lips_near_the_mouth_stay_where_landmarks_found_them(clip) -> None:
    reference = clip.reference(0)
    unsaid = replace(reference, mouth=None)
    told = np.tile([0.2, 0.0], (4, 1))
    assert np.array_equal(Puppet(reference).moved(clip.eyes[:4], told), Puppet(unsaid).moved(clip.eyes[:4], told))


def test_eyes_and_background_do_not_move_with_the_lips(clip) -> None:
    reference = clip.reference(0)
    shut, wide = Puppet(reference).moved(np.repeat(reference.eyes[None], 2, 0), np.array([[0.0, 0.0], [0.3, 0.05]]))
    unit = float(np.linalg.norm(reference.eyes[1] - reference.eyes[0]))
    above = int(reference.eyes[:, 1].mean() + 0.1 * unit)
    assert np.abs(shut[:above].astype(int) - wide[:above]).max() <= 2
    assert np.abs(shut.astype(int) - wide).max() > 40


def test_eyes_on_one_point_are_refused(clip) -> None:
    reference = Reference(clip.frames[0], np.full((2, 2), 30.0))
    with pytest.raises(ArtifactError, match="its eyes lie on one point"):
        Puppet(reference).moved(clip.eyes[:1], np.zeros((1, 2)))
