"""Stock recognisers: geometry of the alignment, and people told apart."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fedtalk.data.faces import face_finder
from fedtalk.data.framing import crop, framing, move
from fedtalk.data.media import read_video
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.evaluation.recognisers import default_recogniser, recogniser

SHARED = Path(__file__).parents[3] / "shared"
SFACE = SHARED / "assets" / "face_recognition_sface_2021dec.onnx"
GRID = SHARED / "data" / "grid"


def test_missing_models_and_unknown_names_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FEDTALK_SFACE", raising=False)
    with pytest.raises(ArtifactError, match="FEDTALK_SFACE"):
        recogniser("sface")
    (tmp_path / "other.onnx").write_bytes(b"no model")
    with pytest.raises(ArtifactError, match="not an SFace model"):
        recogniser("sface", path=tmp_path / "other.onnx")
    with pytest.raises(ConfigurationError, match="dlib, sface"):
        recogniser("arcface")
    with pytest.raises(ConfigurationError):
        recogniser("dlib", path="x")


def test_the_default_is_the_best_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FEDTALK_SFACE", raising=False)
    assert default_recogniser().name == "dlib"
    monkeypatch.setenv("FEDTALK_SFACE", str(tmp_path / "absent.onnx"))
    with pytest.raises(ArtifactError, match=r"absent\.onnx"):
        default_recogniser()
    if SFACE.exists():
        monkeypatch.setenv("FEDTALK_SFACE", str(SFACE))
        assert default_recogniser().name == "sface"


def test_dlib_tells_drawn_speakers_apart() -> None:
    clips = [make_clip(Speaker.draw(0, "public", index), take, 1, 64) for index in range(3) for take in range(2)]
    measure = recogniser("dlib")
    embeddings = np.concatenate([measure.embed(clip.frames, clip.eyes, clip.mouth) for clip in clips])
    assert embeddings.shape == (6, 128)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    cosines = embeddings @ embeddings.T
    same = [cosines[2 * index, 2 * index + 1] for index in range(3)]
    other = [cosines[i, j] for i in range(6) for j in range(6) if i // 2 != j // 2]
    assert min(same) > max(other)


def test_no_frames_give_no_embeddings() -> None:
    empty = recogniser("dlib").embed(np.zeros((0, 64, 64, 3), np.uint8), np.zeros((0, 2, 2)), np.zeros((0, 2)))
    assert empty.shape == (0, 128)


@pytest.mark.skipif(not GRID.exists() or not SFACE.exists(), reason="no real recordings or no SFace model here")
@pytest.mark.parametrize("size", [64, 192])
def test_sface_tells_real_speakers_apart_in_small_frames(size: int) -> None:
    """Two files show one man, the others somebody else each; the scale of the frame hardly matters."""
    finder, measure = face_finder("dlib"), recogniser("sface", path=SFACE)
    embeddings = []
    for name in ("id2_vcd_swwp2s", "pwij3p", "bbaf2n", "brbk7n", "lbax4n", "sbwe5n"):
        frame = next(iter(read_video(GRID / f"{name}.mpg")))
        (face,) = finder.find(frame)
        transform = framing(face.eyes[None], size)
        pictures = crop(frame, transform, size)[None]
        eyes, mouth = move(transform, face.eyes)[None], move(transform, face.mouth)[None]
        embeddings.append(measure.embed(pictures, eyes, mouth)[0])
    cosines = np.array(embeddings) @ np.array(embeddings).T
    assert cosines[0, 1] > 0.75
    assert np.abs(cosines[np.triu_indices(6, 1)][1:]).max() < 0.4


@pytest.mark.skipif(not GRID.exists() or not SFACE.exists(), reason="no real recordings or no SFace model here")
def test_our_alignment_agrees_with_opencvs_own() -> None:
    """OpenCV aligns by five points of YuNet; we by three."""
    yunet = face_finder("yunet", path=SHARED / "assets" / "face_detection_yunet_2023mar.onnx")
    frame = next(iter(read_video(GRID / "sbwe5n.mpg")))
    (face,) = yunet.find(frame)
    ours = recogniser("sface", path=SFACE).embed(frame[None], face.eyes[None], face.mouth[None])[0]
    detector = cv2.FaceDetectorYN.create(str(SHARED / "assets" / "face_detection_yunet_2023mar.onnx"), "", (360, 288))
    network = cv2.FaceRecognizerSF.create(str(SFACE), "")
    picture = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    theirs = network.feature(network.alignCrop(picture, detector.detect(picture)[1][0])).reshape(-1)
    assert float(ours @ theirs / np.linalg.norm(theirs)) > 0.9
