"""LSE-D and LSE-C by a SyncNet of the published layout; its weights are drawn here, since nobody may ship the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ArtifactError
from fedtalk.evaluation import pretrained
from fedtalk.evaluation.mfcc import mfcc
from fedtalk.evaluation.syncnet import VARIABLE, SyncNet, face_crops, syncnet


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model"
    torch.manual_seed(0)
    torch.save(SyncNet().state_dict(), path)
    return path


def test_coefficients_are_those_of_python_speech_features() -> None:
    """First and last row that version 0.6 gives for a rising tone, which differed from ours by nothing at any length tried."""
    t = np.arange(5000) / 16000
    found = mfcc(np.round(8000 * np.sin(2 * np.pi * 440 * t * (1 + t))))
    first = [19.1168, 23.9113, 6.9328, -10.0552, -23.9817, -30.5168, -26.1368, -14.2439, 1.3475, 13.6871, 19.8343, 17.3272,
             9.2685]  # fmt: skip
    last = [19.8739, 14.4309, -11.8139, -30.5696, -31.5542, -14.0879, 10.8668, 24.9501, 20.6885, 2.2457, -15.2127, -21.1919,
            -13.2456]  # fmt: skip
    assert found.shape == (30, 13)
    np.testing.assert_allclose(found[[0, -1]], [first, last], atol=1e-4)
    assert mfcc(np.zeros(10)).shape == (1, 13)


def test_the_layout_is_the_published_one() -> None:
    """Names and shapes of some tensors of syncnet_v2.model."""
    state = SyncNet().state_dict()
    assert len(state) == 6 * 7 + 6 * 7 + 2 * (2 + 5 + 2)
    for name, shape in {
        "netcnnaud.0.weight": (64, 1, 3, 3), "netcnnaud.8.weight": (384, 192, 3, 3), "netcnnaud.18.weight": (512, 256, 5, 4),
        "netfcaud.3.weight": (1024, 512), "netcnnlip.0.weight": (96, 3, 5, 7, 7), "netcnnlip.14.weight": (256, 256, 1, 3, 3),
        "netcnnlip.18.weight": (512, 256, 1, 6, 6), "netfclip.1.running_var": (512,),
    }.items():  # fmt: skip
        assert state[name].shape == shape, name


def test_scores_are_the_least_distance_and_how_far_the_median_is_above_it(weights: Path) -> None:
    clip, network = make_clip(Speaker.draw(0, "public", 2000), 0, 8, 64), SyncNet.load(weights)
    crops = torch.from_numpy(face_crops(clip.frames, clip.eyes)).float()
    rows = torch.from_numpy(mfcc(np.round(clip.audio * 32768.0))).float()
    with torch.no_grad():
        faces = [network.embed_faces(crops[w : w + 5].permute(3, 0, 1, 2)[None])[0] for w in range(3)]
        speech = [network.embed_speech(rows[4 * w : 4 * w + 20].T[None, None])[0] for w in range(3)]
    means = []
    for shift in range(-15, 16):
        at = [speech[w + shift] if 0 <= w + shift < 3 else torch.zeros(1024) for w in range(3)]
        means.append(np.mean([float(torch.linalg.norm(face - other)) for face, other in zip(faces, at, strict=True)]))
    least, confidence = network.scores(clip.frames, clip.audio, clip.eyes)
    assert least == pytest.approx(min(means), rel=1e-3)
    assert confidence == pytest.approx(np.median(means) - min(means), abs=1e-3)
    with pytest.raises(ArtifactError, match="at least 6 frames"):
        network.scores(clip.frames[:5], clip.audio[: 5 * 640], clip.eyes[:5])


def test_crops_are_squares_around_the_face_in_blue_green_red() -> None:
    frames = np.zeros((1, 100, 100, 3), np.uint8)
    frames[0, 38:42, 48:52] = (200, 30, 10)  # between eyes that are 20 pixels apart
    (crop,) = face_crops(frames, np.array([[[40.0, 40.0], [60.0, 40.0]]]))
    side = 2 * 1.4 * 20 * 1.4
    middle = (40 - (40 + (0.6 - 1.4) * 20)) / side * 224
    assert tuple(crop[round(middle), 112]) == (10, 30, 200)
    assert tuple(crop[round(middle) + 20, 112]) == (0, 0, 0)
    beyond = face_crops(frames, np.array([[[0.0, 40.0], [20.0, 40.0]]]))[0]
    assert tuple(beyond[100, 5]) == (110, 110, 110)


def test_weights_are_named_by_path_or_named_as_missing(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert syncnet() is None and VARIABLE in pretrained.unavailable()["lse_c"]
    monkeypatch.setenv(VARIABLE, str(weights))
    assert syncnet() is not None and not {"lse_c", "lse_d"} & pretrained.unavailable().keys()
    other = tmp_path / "other"
    torch.save({"a": torch.zeros(1)}, other)
    for wrong, says in (
        (tmp_path / "none", "does not exist"),
        (other, "doesn't hold the weights"),
        (Path(__file__), "doesn't hold"),
    ):
        monkeypatch.setenv(VARIABLE, str(wrong))
        with pytest.raises(ArtifactError, match=says):
            syncnet()
