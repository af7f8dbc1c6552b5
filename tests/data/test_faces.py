"""Face finders against drawn faces of known geometry, against each other, and with their files missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from fedtalk.data.faces import FINDERS, FacePlacer, Finder, dlib_weights, face_finder, face_from_landmarks
from fedtalk.data.media import read_video
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ArtifactError, ConfigurationError

SHARED = Path(__file__).parents[3] / "shared"
YUNET = SHARED / "assets" / "face_detection_yunet_2023mar.onnx"
GRID = sorted((SHARED / "data" / "grid").glob("*.mpg"))


def test_landmarks_become_eyes_mouth_and_opening() -> None:
    points = np.zeros((68, 2))
    points[36:42] = np.array([20, 30]) + np.array([[-3, 0], [-1, -1], [1, -1], [3, 0], [1, 1], [-1, 1]])
    points[42:48] = np.array([60, 30]) + np.array([[-3, 0], [-1, -1], [1, -1], [3, 0], [1, 1], [-1, 1]])
    points[48], points[54] = (30, 70), (50, 72)
    points[[61, 62, 63]] = [[36, 66], [40, 65], [44, 66]]  # inner upper lip
    points[[67, 66, 65]] = [[36, 74], [40, 75], [44, 74]]  # inner lower lip, below the same places
    face = face_from_landmarks(points, np.array([0, 0, 80, 90]), 1.5)
    np.testing.assert_allclose(face.eyes, [[20, 30], [60, 30]])
    np.testing.assert_allclose(face.mouth, [40, 71])
    assert face.opening == pytest.approx((8 + 10 + 8) / 3 / 40)
    assert face.area == 7200


@pytest.mark.parametrize("index", [0, 1, 2])
def test_dlib_finds_a_drawn_face_where_it_was_drawn(index: int) -> None:
    clip = make_clip(Speaker.draw(0, "public", index), take=0, frames=1, size=192)
    (face,) = face_finder("dlib").find(clip.frames[0])
    between_eyes = np.linalg.norm(clip.eyes[0, 1] - clip.eyes[0, 0])
    assert np.abs(face.eyes - clip.eyes[0]).max() < 0.12 * between_eyes
    assert np.linalg.norm(face.mouth - clip.mouth[0]) < 0.2 * between_eyes
    assert face.box[0] < face.eyes[0, 0] < face.eyes[1, 0] < face.box[2]
    assert face.box[1] < face.eyes[0, 1] < face.mouth[1] < face.box[3]


def test_dlib_sees_strided_pictures_as_they_are() -> None:
    """dlib reads a view with gaps between its rows as if there were none, and finds nothing or nonsense."""
    frame = make_clip(Speaker.draw(0, "public", 0), take=0, frames=1, size=192).frames[0]
    padded = np.zeros((192, 200, 3), np.uint8)
    padded[:, :192] = frame
    finder = face_finder("dlib")
    (whole,), (strided,) = finder.find(frame), finder.find(padded[:, :192])
    np.testing.assert_array_equal(strided.eyes, whole.eyes)
    assert isinstance(finder, FacePlacer)
    np.testing.assert_array_equal(finder.place(padded[:, :192], whole.box).mouth, whole.mouth)


def test_dlib_sees_small_and_large_pictures() -> None:
    """The same face, as a thumbnail and lost in a large picture, is found at its place."""
    frame = make_clip(Speaker.draw(0, "public", 0), take=0, frames=1, size=192).frames[0]
    finder = face_finder("dlib")
    (whole,) = finder.find(frame)
    (small,) = finder.find(np.ascontiguousarray(frame[::2, ::2]))
    np.testing.assert_allclose(small.eyes * 2, whole.eyes, atol=4)
    large = np.full((1500, 1500, 3), 128, np.uint8)
    large[900:1092, 1200:1392] = frame
    (found,) = finder.find(large)
    np.testing.assert_allclose(found.eyes - [1200, 900], whole.eyes, atol=4)


def test_dlib_finds_no_face_in_noise() -> None:
    assert face_finder("dlib").find(np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)) == []


def test_weights_are_found_without_importing_their_package() -> None:
    """Its import fails beside recent setuptools."""
    program = (
        "import sys; from fedtalk.data.faces import face_finder; face_finder('dlib'); "
        "assert 'face_recognition_models' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_missing_packages_and_files_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FEDTALK_YUNET", raising=False)
    with pytest.raises(ArtifactError, match="FEDTALK_YUNET"):
        face_finder("yunet")
    monkeypatch.setenv("FEDTALK_YUNET", str(tmp_path / "absent.onnx"))
    with pytest.raises(ArtifactError, match=r"absent\.onnx does not exist"):
        face_finder("yunet")
    (tmp_path / "other.onnx").write_bytes(b"no model")
    with pytest.raises(ArtifactError, match="not a YuNet model"):
        face_finder("yunet", path=tmp_path / "other.onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ArtifactError, match="pip install"):
        dlib_weights("shape_predictor_68_face_landmarks.dat")


def test_unknown_names_and_options_are_refused() -> None:
    assert set(get_args(Finder)) == set(FINDERS)
    with pytest.raises(ConfigurationError, match="dlib, yunet, face-alignment"):
        face_finder("mtcnn")
    with pytest.raises(ConfigurationError, match="upsample"):
        face_finder("dlib", upsample=1)


@pytest.mark.skipif(not GRID or not YUNET.exists(), reason="no real recordings or no YuNet model here")
def test_two_independent_finders_agree_on_real_faces() -> None:
    dlib, yunet = face_finder("dlib"), face_finder("yunet", path=YUNET)
    for path in GRID:
        frame = next(iter(read_video(path)))
        (one,), (other,) = dlib.find(frame), yunet.find(frame)
        between_eyes = float(np.linalg.norm(one.eyes[1] - one.eyes[0]))
        assert np.abs(one.eyes - other.eyes).max() < 0.15 * between_eyes
        assert np.linalg.norm(one.mouth - other.mouth) < 0.2 * between_eyes


def test_face_alignment_says_which_file_to_put_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("face_alignment")
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ArtifactError) as caught:
        face_finder("face-alignment")
    assert str(tmp_path / "checkpoints" / "2DFAN4-11f355bf06.pth.tar") in str(caught.value)
    assert not list(tmp_path.iterdir()), "nothing may be downloaded"


@pytest.mark.slow
def test_face_alignment_places_landmarks_with_a_file_in_the_hub_folder(tmp_path: Path) -> None:
    """The network at random weights places nonsense, but through the whole of the package and without a download."""
    pytest.importorskip("face_alignment")
    import torch
    from face_alignment.models import FAN

    (tmp_path / "checkpoints").mkdir()
    torch.save(FAN(4).state_dict(), tmp_path / "checkpoints" / "2DFAN4-11f355bf06.pth.tar")
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path))
    try:
        finder = face_finder("face-alignment")
    finally:
        torch.hub.set_dir(before)
    frame = make_clip(Speaker.draw(0, "public", 0), take=0, frames=1, size=192).frames[0]
    (face,), (boxed,) = finder.find(frame), face_finder("dlib").find(frame)
    np.testing.assert_array_equal(face.box, boxed.box)
    assert face.eyes.shape == (2, 2)
    assert np.isfinite(face.eyes).all()
