"""Clips: what belongs together, on disk and back, and every way a file can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedtalk.data.clip import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME, Clip
from fedtalk.errors import ArtifactError, OutputError


@pytest.fixture
def clip() -> Clip:
    generator = np.random.default_rng(0)
    return Clip(
        generator.integers(0, 256, (5, 8, 8, 3), np.uint8),
        generator.uniform(-1, 1, 5 * 640).astype(np.float32),
        generator.uniform(0, 8, (5, 2, 2)).astype(np.float32),
        generator.uniform(0, 8, (5, 2)).astype(np.float32),
        generator.random(5).astype(np.float32),
        {"source": "a b.mp4", "start": 1.5},
    )


def test_rates_are_the_designs() -> None:
    assert (FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME) == (25, 16_000, 640)


def test_a_reference_is_a_frame_with_its_eyes_and_its_mouth(clip: Clip) -> None:
    reference = clip.reference(3)
    for name, of_clip in (("frame", clip.frames), ("eyes", clip.eyes), ("mouth", clip.mouth)):
        assert np.array_equal(getattr(reference, name), of_clip[3])


def test_a_clip_comes_back_from_disk(clip: Clip, tmp_path: Path) -> None:
    clip.save(tmp_path / "new folder" / "clip.npz")
    again = Clip.load(tmp_path / "new folder" / "clip.npz")
    for name in ("frames", "eyes", "mouth", "openness"):
        assert np.array_equal(getattr(again, name), getattr(clip, name))
    assert again.info == clip.info and again.audio.dtype == np.float32
    assert np.abs(again.audio - clip.audio).max() <= 0.5 / 32767 + 1e-7  # 16-bit samples, rounded


def test_loud_audio_is_clipped_and_not_wrapped(clip: Clip, tmp_path: Path) -> None:
    replace(clip, audio=np.full(5 * 640, 1.2, np.float32)).save(tmp_path / "clip.npz")
    assert Clip.load(tmp_path / "clip.npz").audio.min() > 0.99


def test_openness_is_optional(clip: Clip, tmp_path: Path) -> None:
    replace(clip, openness=None).save(tmp_path / "clip.npz")
    assert Clip.load(tmp_path / "clip.npz").openness is None


def test_a_window_keeps_pictures_sound_and_points_together(clip: Clip) -> None:
    part = clip.window(2, 2)
    assert len(part) == 2 and part.size == 8 and part.info == clip.info
    assert np.array_equal(part.frames, clip.frames[2:4])
    assert np.array_equal(part.audio, clip.audio[1280:2560])
    assert np.array_equal(part.eyes, clip.eyes[2:4]) and np.array_equal(part.mouth, clip.mouth[2:4])
    assert part.openness is not None and clip.openness is not None
    assert np.array_equal(part.openness, clip.openness[2:4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.zeros((5, 8, 8, 3), np.float32)}, r"clip frames: expected \(F, H, W, 3\) uint8, got .*float32"),
        ({"frames": np.zeros((5, 8, 8), np.uint8)}, "clip frames"),
        ({"audio": np.zeros(5 * 640 - 1, np.float32)}, "expected 3200 samples for 5 frames, got"),
        ({"audio": np.zeros((2, 3200), np.float32)}, "clip audio"),  # stereo
        ({"eyes": np.zeros((4, 2, 2), np.float32)}, "clip landmarks: expected 5 frames"),
        ({"mouth": np.zeros((5, 3), np.float32)}, "clip landmarks"),
    ],
)
def test_parts_that_do_not_fit_are_refused(clip: Clip, change: dict, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        replace(clip, **change)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _no_archive(path: Path) -> None:
    path.write_text("not a clip")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _pickled(path: Path) -> None:
    np.savez(path, frames=np.array([{"code": 1}], object), allow_pickle=True)


def _without_audio(path: Path) -> None:
    np.savez(path, frames=np.zeros((1, 8, 8, 3), np.uint8))


def _wrong_shape(path: Path) -> None:
    np.savez(path, frames=np.zeros((1, 8, 8), np.uint8), audio=np.zeros(640, np.int16), eyes=np.zeros((1, 2, 2)),
             mouth=np.zeros((1, 2)), info=np.array("{}"))  # fmt: skip


@pytest.mark.parametrize("damage", [_cut, _no_archive, _empty, _pickled, _without_audio, _wrong_shape])
def test_a_damaged_file_is_a_clear_error(clip: Clip, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "clip.npz"
    clip.save(path)
    damage(path)
    with pytest.raises(ArtifactError, match=str(path)):
        Clip.load(path)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"does not exist; expected an \.npz made by `fedtalk prepare`"):
        Clip.load(tmp_path / "none.npz")


def test_a_folder_that_cant_be_written_is_a_clear_error(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "clients").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        clip.save(tmp_path / "clients" / "clip.npz")
