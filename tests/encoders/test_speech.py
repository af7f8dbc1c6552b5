"""Speech features: in time with the frames, whichever front end reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fedtalk.data.clip import SAMPLES_PER_FRAME
from fedtalk.encoders import speech
from fedtalk.encoders.speech import REACH, TOKENS, MelFeatures, frame_windows, speech_features
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.talker.audio_encoder import AudioEncoder


def _noise(frames: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(frames * SAMPLES_PER_FRAME, generator=torch.Generator().manual_seed(seed))


def with_another_sound(audio: torch.Tensor, frame: int) -> torch.Tensor:
    """The same speech with another sound in the middle of one frame, of the same energy (so that loudness stays)."""
    middle = slice(frame * SAMPLES_PER_FRAME + 220, frame * SAMPLES_PER_FRAME + 420)
    tone = torch.sin(2 * torch.pi * 1500 * torch.arange(200) / 16_000)
    changed = audio.clone()
    changed[middle] = tone * (audio[middle].norm() / tone.norm())
    return changed


def test_windows_are_the_frames_around_a_frame() -> None:
    features = torch.arange(1.0, 6 * 4 + 1)[:, None]  # six frames, four rows each
    windows = frame_windows(features, 4)
    assert windows.shape == (6, TOKENS * 4, 1)
    for frame in range(6):
        rows = range((frame - REACH) * 4, (frame + REACH + 1) * 4)
        assert windows[frame, :, 0].tolist() == [row + 1.0 if 0 <= row < 24 else 0.0 for row in rows]


@pytest.mark.parametrize("frame", [0, 3, 9, 15])
def test_a_sound_reaches_the_windows_around_its_frame_and_no_others(frame: int) -> None:
    speech, audio = MelFeatures(), _noise(16)
    before, after = (
        frame_windows(speech(sound), speech.per_frame) for sound in (audio, with_another_sound(audio, frame))
    )
    changed = {i for i in range(16) if (before[i] - after[i]).abs().max() > 1e-3}
    assert changed == set(range(max(0, frame - REACH), min(16, frame + REACH + 1)))
    own = before[frame] - after[frame]
    middle = own[REACH * 4 : (REACH + 1) * 4].abs().max()  # in a frame's own window it is in the middle
    assert middle > 100 * max(own[: REACH * 4].abs().max(), own[(REACH + 1) * 4 :].abs().max())


def test_loudness_is_normalised() -> None:
    speech, audio = MelFeatures(), _noise(8)
    torch.testing.assert_close(speech(audio), speech(0.01 * audio), atol=1e-3, rtol=1e-3)
    assert torch.isfinite(speech(torch.zeros(8 * SAMPLES_PER_FRAME))).all()  # silence


@pytest.mark.parametrize("audio", [torch.zeros(0), torch.zeros(641), torch.zeros(2, 640)])
def test_audio_that_is_no_whole_number_of_frames_is_refused(audio: torch.Tensor) -> None:
    with pytest.raises(ConfigurationError, match=r"audio: expected .*640 F"):
        MelFeatures()(audio)


def test_tokens_are_one_a_frame_of_the_window() -> None:
    """A change in one frame of the window moves its token and its neighbours' (by the convolutions), no others."""
    torch.manual_seed(0)
    encoder = AudioEncoder(8, 4, 16).eval()
    windows = torch.randn(1, TOKENS * 4, 8, generator=torch.Generator().manual_seed(1))
    changed = windows.clone()
    changed[:, :3] += 1.0  # of the first frame
    present = torch.ones(1, dtype=torch.bool)
    with torch.no_grad():
        moved = (encoder(windows, present) - encoder(changed, present)).abs().amax((0, 2))
    assert moved[0] > 0.01 and moved[1] > 0
    assert moved[3:].max() == 0


def test_absent_audio_is_one_learned_null() -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(8, 4, 16).eval()
    windows = torch.randn(3, TOKENS * 4, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = encoder(windows, torch.tensor([False, True, False]))
    assert tokens.shape == (3, TOKENS, 16)
    assert torch.equal(tokens[0], encoder.null) and torch.equal(tokens[2], encoder.null)
    assert not torch.allclose(tokens[1], encoder.null)


def _front_end(name: str, pretrained_speech: dict[str, Path]) -> object:
    return speech_features(name, str(pretrained_speech[name]))


@pytest.mark.parametrize("name", ["whisper", "wav2vec2"])
def test_pretrained_features_have_two_rows_a_frame(name: str, pretrained_speech: dict[str, Path]) -> None:
    speech = _front_end(name, pretrained_speech)
    assert (speech.per_frame, speech.dimension) == (2, 16)
    for frames in (1, 5, 33):
        features = speech(_noise(frames))
        assert features.shape == (frames * 2, 16)
        assert torch.isfinite(features).all() and features.std() > 0


@pytest.mark.parametrize("name", ["whisper", "wav2vec2"])
def test_long_speech_is_read_in_pieces_and_keeps_its_length(name: str, pretrained_speech: dict[str, Path]) -> None:
    """A second beyond the model's window: the remainder is the same as when it is read alone."""
    speech = _front_end(name, pretrained_speech)
    span = {"whisper": 30 * 25, "wav2vec2": 20 * 25}[name]
    audio = _noise(span + 25)
    level = audio.square().mean().sqrt()
    rest = audio[span * SAMPLES_PER_FRAME :]
    features = speech(audio)
    assert features.shape == ((span + 25) * 2, 16)
    alone = speech._features(rest * (0.1 / level))
    torch.testing.assert_close(features[span * 2 :], alone, atol=1e-4, rtol=1e-3)


def test_wav2vec2_features_are_in_time_with_the_frames(pretrained_speech: dict[str, Path]) -> None:
    """Convolutions alone, since attention of a random model mixes all times: the loudest change is at the sound."""
    speech = _front_end("wav2vec2", pretrained_speech)
    audio = _noise(40)
    for frame in (5, 20, 34):
        hidden = [
            speech._model.feature_extractor(sound[None])[0].T for sound in (audio, with_another_sound(audio, frame))
        ]
        rows = speech._resample(hidden[0] - hidden[1], 40).abs().sum(1)
        assert int(rows.argmax()) // 2 in (frame - 1, frame, frame + 1)


def test_whisper_features_are_in_time_with_the_frames(pretrained_speech: dict[str, Path]) -> None:
    speech = _front_end("whisper", pretrained_speech)
    audio = _noise(40)
    for frame in (5, 20, 34):
        change = (speech(audio) - speech(with_another_sound(audio, frame))).abs().sum(1)
        assert int(change.argmax()) // 2 in (frame - 1, frame, frame + 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("hubert",), ConfigurationError, "expected one of shipped, mel, whisper, wav2vec2, got 'hubert'"),
        (("whisper",), ConfigurationError, "'whisper' need speech_path"),
        (("wav2vec2", "/no/such/folder"), ArtifactError, "/no/such/folder: no such folder"),
    ],
)
def test_wrong_front_ends_are_named(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        speech_features(*arguments)


def test_mel_needs_no_path() -> None:
    assert isinstance(speech_features("mel"), MelFeatures)
    assert np.prod(speech_features("mel")(_noise(2)).shape) == 8 * 64


@pytest.mark.parametrize("count", [1, 6, 7, 8, 13, 20, 41])
def test_windows_of_a_stream_are_those_of_the_whole(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in parts of 7 frames; no more than a part and its margins is held."""
    monkeypatch.setattr(speech, "PART", 7)
    monkeypatch.setattr(speech, "MARGIN", 4)
    audio = torch.randn(count * SAMPLES_PER_FRAME, generator=torch.Generator().manual_seed(count)) * 0.05
    features = MelFeatures()
    whole = frame_windows(features(audio), features.per_frame)
    read = most = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal read
        for frame in audio.numpy().reshape(-1, SAMPLES_PER_FRAME):
            read += 1
            yield frame

    level = float(audio.square().mean().sqrt())
    got = []
    for window in speech.stream_windows(features, frames(), level):
        got.append(window)
        most = max(most, read - len(got))
    torch.testing.assert_close(torch.stack(got), whole, atol=1e-5, rtol=1e-4)
    assert most <= 7 + 4
