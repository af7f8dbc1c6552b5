"""What a recording shows of its person's mouth before it is dubbed: learned from little, by what is seen alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import fedtalk
from fedtalk.data.clip import Clip
from fedtalk.data.faces import Face
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.data.video_writer import VideoWriter
from fedtalk.talker.batches import heard
from fedtalk.talker.mouth_looks import MouthLooks
from fedtalk.talker.production.generate import Ready
from fedtalk.talker.production.own_looks import looks_in
from fedtalk.talker.production.recording import Recording
from fedtalk.talker.puppet import Puppet

SIDE, SECOND = 128, 25


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Three seconds of somebody with black teeth."""
    return make_clip(Speaker.draw(0, "community", 1), 0, 3 * SECOND, SIDE)


class Known:
    """Where the face is in the picture that is most like one of a clip's."""

    name = "known"

    def __init__(self, clip: Clip) -> None:
        self._clip = clip

    def find(self, frame: np.ndarray) -> list[Face]:
        inner = frame[32:-32, 32:-32].astype(int)
        at = int(np.abs(self._clip.frames - inner).mean((1, 2, 3)).argmin())
        box = np.array([32, 32, 32 + SIDE, 32 + SIDE], np.float32)
        return [Face(box, self._clip.eyes[at] + 32, self._clip.mouth[at] + 32, 1.0)]


def _recorded(path: Path, clip: Clip, audio: np.ndarray | None) -> Path:
    with VideoWriter(path, audio=audio) as writer:
        for frame in clip.frames:
            writer.write(np.pad(frame, ((32, 32), (32, 32), (0, 0)), mode="edge"))
    return path


def _looks(path: Path, clip: Clip, seconds: float) -> MouthLooks | None:
    recording = Recording(path, seconds, SIDE, Known(clip))
    return looks_in(recording, recording.reference())


def test_the_mouth_of_what_was_not_looked_at_is_drawn_better(ready: Ready, clip: Clip, tmp_path: Path) -> None:
    """Learned from two seconds, measured on the third."""
    looks = _looks(_recorded(tmp_path / "a.mp4", clip, clip.audio), clip, 2.0)
    assert looks is not None
    lips = heard(ready.talker.backbone, list(ready.talker.generation.windows(torch.from_numpy(clip.audio))))
    assert lips is not None
    later = slice(2 * SECOND, None)
    eyes, mouths = clip.eyes[later], clip.mouth[later].astype(int)
    puppets = Puppet(clip.reference(0)).moved(eyes, lips[later])

    def error(pictures: np.ndarray) -> float:
        around = [
            np.square(
                one[y - 16 : y + 17, x - 20 : x + 21].astype(float) - true[y - 16 : y + 17, x - 20 : x + 21]
            ).mean()
            for one, true, (x, y) in zip(pictures, clip.frames[later], mouths, strict=True)
        ]
        return float(np.mean(around))

    before, after = error(puppets), error(looks.added(puppets, eyes, lips[later]))
    print(f"mean square error at the mouth: {before:.0f} without, {after:.0f} with looks")
    assert after < 0.8 * before


def test_the_recordings_sound_does_not_matter_and_two_seconds_are_needed(clip: Clip, tmp_path: Path) -> None:
    stranger = make_clip(Speaker.draw(0, "public", 5), 3, 3 * SECOND, 32).audio
    own, foreign, silent = (
        _looks(_recorded(tmp_path / f"{name}.mp4", clip, audio), clip, 3.0)
        for name, audio in (("own", clip.audio), ("foreign", stranger), ("silent", None))
    )
    assert own is not None and foreign is not None and silent is not None
    assert np.array_equal(own.coefficients, foreign.coefficients) and np.array_equal(
        own.coefficients, silent.coefficients
    )
    assert np.abs(own.coefficients[1]).max() > 10 and np.abs(own.coefficients[2]).max() == 0
    assert _looks(tmp_path / "own.mp4", clip, 1.5) is None


def test_a_dub_uses_them_unless_told_not_to(
    ready: Ready, clip: Clip, speech: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedtalk.talker.production.generate.face_finder", lambda name: Known(clip))
    path = _recorded(tmp_path / "a.mp4", clip, clip.audio)

    def dub(seconds: float, learn: bool) -> np.ndarray:
        return np.stack(list(fedtalk.generate(speech(seconds), video=path, talker=ready, learn_looks=learn)))

    learned = dub(2.0, True)
    assert np.abs(learned.astype(int) - dub(2.0, False)).max() > 8
    assert np.array_equal(learned, dub(2.0, True))
    assert np.array_equal(dub(1.0, True), dub(1.0, False))  # too short to learn from
