"""What the shipped speech network hears, and how it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedtalk.data.sound_data import SoundData
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.encoders.mel import log_mel
from fedtalk.encoders.speech import (
    MARGIN,
    ShippedFeatures,
    frame_windows,
    heard_lips,
    lips_in,
    lips_network,
    speech_network,
)
from fedtalk.encoders.speech_module import SpeechModule
from fedtalk.encoders.speech_network import LIPS, SpeechNetwork
from fedtalk.errors import ArtifactError


def test_features_and_lips_have_their_rates_and_loudness_does_not_matter() -> None:
    audio = torch.from_numpy(make_clip(Speaker.draw(0, "private", 3), 0, 25, 32).audio)
    features = ShippedFeatures()
    made = features(audio)
    assert made.shape == (50, features.dimension) and heard_lips(audio).shape == (25, len(LIPS))
    torch.testing.assert_close(features(0.3 * audio), made, atol=1e-3, rtol=1e-3)


def test_lips_in_features_are_those_heard_by_both_networks() -> None:
    audio = torch.from_numpy(make_clip(Speaker.draw(0, "private", 3), 0, 25, 32).audio)
    features, heard = ShippedFeatures(), heard_lips(audio)
    torch.testing.assert_close(lips_in(frame_windows(features(audio), features.per_frame)), heard, atol=1e-5, rtol=1e-4)
    mel = log_mel(audio * (0.1 / audio.square().mean().sqrt()))[None]
    with torch.no_grad():
        known, other = speech_network()(mel), lips_network()(mel)[1]
    torch.testing.assert_close(features(audio)[:, : -len(LIPS)], known[0][0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close((known[1] + other)[0] / 2, heard, atol=1e-5, rtol=1e-4)
    assert (known[1] - other).abs().mean() > 0.001  # two networks, not one twice


def test_lips_of_speakers_never_heard_are_heard() -> None:
    correlations = []
    for index in range(3):
        clip = make_clip(Speaker.draw(0, "private", 60 + index), 0, 100, 32)
        correlations.append(np.corrcoef(heard_lips(torch.from_numpy(clip.audio))[:, 0].numpy(), clip.openness)[0, 1])
    assert np.mean(correlations) > 0.8, correlations


def test_silence_closes_the_mouth() -> None:
    speech = torch.from_numpy(make_clip(Speaker.draw(0, "private", 61), 0, 50, 32).audio)
    opening = heard_lips(torch.cat([speech, torch.zeros(25 * 640)]))[:, 0]
    assert opening[60:].mean() < 0.5 * opening[:50].mean()


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("train-0", "train-1", "held-0"):
        lips = generator.random((25, 3)).astype(np.float32)
        loud = np.repeat(lips[:, 0], 640) * generator.standard_normal(25 * 640)  # what opens is heard
        teacher, seen = generator.standard_normal((50, 8)), np.ones(25, np.float32)
        teacher[:, :3] = np.repeat(3 * (lips - 0.5), 2, 0)  # the teacher knows it
        np.savez(
            tmp_path / f"{name}.npz",
            audio=loud.astype(np.float16),
            teacher=teacher.astype(np.float16),
            lips=lips,
            seen=seen,
        )
    return tmp_path


def test_training_teaches_lips_and_writes_what_ships(sounds: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data, module = SoundData(str(sounds)), SpeechModule(width=16, dimension=8, frames=20)
    prepared = [module.prepare_clip(source.load()) for source in data.training_clips("public")]
    optimizer = torch.optim.AdamW(module.exchanged_parameters().values(), lr=1e-2)
    before = module.training_step(module.draw_batch(prepared, 8, torch.Generator().manual_seed(1)))["lips"].item()
    for step in range(120):
        loss = module.training_step(module.draw_batch(prepared, 8, torch.Generator().manual_seed(step)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = module.training_step(module.draw_batch(prepared, 8, torch.Generator().manual_seed(1)))["lips"].item()
    assert after < 0.8 * before
    heard = module.held_out_metrics(prepared, torch.Generator())
    assert heard["opening"] > 0.5  # from the sound alone
    module.export(tmp_path, prepared)
    network = SpeechNetwork.load(tmp_path / "lips.safetensors")
    features, lips = network(prepared[0]["mel"].float()[None])
    assert features.shape == (1, 50, 8) and lips.shape == (1, 25, 3)


@pytest.mark.parametrize("name", ["speech", "lips"])
def test_lips_are_what_belongs_to_the_features(name: str) -> None:
    """Nothing reaches the lips beside the features, and what is more than a second away reaches neither."""
    network = SpeechNetwork.shipped(name)
    mel = torch.randn(1, 4 * 80, 64, generator=torch.Generator().manual_seed(0))
    changed = mel.clone()
    changed[:, : 4 * 20] += 1.0
    with torch.no_grad():
        features, lips = network(mel)
        torch.testing.assert_close(network.lips_of(features), lips)
        other = network(changed)[1]
    assert (other - lips)[0, 20 + MARGIN :].abs().max() < 1e-5 < (other - lips)[0, :20].abs().max()


def test_other_clips_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="learns from SoundData"):
        SpeechModule(width=16, dimension=8).prepare_clip(make_clip(Speaker.draw(0, "public", 0), 0, 8, 32))
    with pytest.raises(ArtifactError, match=r"train-\*\.npz"):
        SoundData(str(tmp_path))
