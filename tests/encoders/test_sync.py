"""The sync scorer and the crop of the mouth that it shares with the probe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fedtalk.data.clip import Clip
from fedtalk.data.pixels import to_unit
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.encoders.mouth_crop import mouth_crops
from fedtalk.encoders.speech import MelFeatures, frame_windows
from fedtalk.encoders.sync import SyncModule, SyncScorer
from fedtalk.errors import ArtifactError


def _picture(clip: Clip) -> Tensor:
    return to_unit(torch.from_numpy(clip.frames).permute(0, 3, 1, 2))


@pytest.fixture(scope="module")
def scorer() -> SyncScorer:
    return SyncScorer.shipped()


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    people = [("public", 3000), ("public", 3001), ("private", 3000), ("private", 3001)]
    return [make_clip(Speaker.draw(0, *person), 0, 40, 64) for person in people]


# The crop


def _ramp(height: int, width: int) -> Tensor:
    """(1, 3, H, W): channel 0 is x and channel 1 is y, in pixels with the middle of the first pixel at 0.5."""
    x = (torch.arange(width) + 0.5).expand(height, width)
    y = (torch.arange(height) + 0.5)[:, None].expand(height, width)
    return torch.stack([x, y, torch.zeros(height, width)])[None]


@pytest.mark.parametrize("turn", [0.0, 0.3])
@pytest.mark.parametrize(("height", "width", "unit"), [(64, 64, 18.0), (64, 80, 18.0), (256, 256, 72.0)])
def test_a_crop_looks_where_the_points_say(height: int, width: int, unit: float, turn: float) -> None:
    mouth = torch.tensor([[0.51 * width, 0.6 * height]])
    across = unit * torch.tensor([np.cos(turn), np.sin(turn)], dtype=torch.float32)
    eyes = torch.stack([-across / 2, across / 2])[None] + torch.tensor([0.5 * width, 0.4 * height])
    crop = mouth_crops(_ramp(height, width), mouth, eyes)[0]
    assert crop.shape == (3, 32, 32)
    step = (torch.arange(32) + 0.5) / 32 - 0.5
    side = 1.2 * unit
    expected_x = mouth[0, 0] + side * (step[None, :] * np.cos(turn) - step[:, None] * np.sin(turn))
    expected_y = mouth[0, 1] + side * (step[None, :] * np.sin(turn) + step[:, None] * np.cos(turn))
    assert torch.allclose(crop[0], expected_x.float(), atol=2e-2)
    assert torch.allclose(crop[1], expected_y.float(), atol=2e-2)


def test_the_gradient_of_a_crop_lies_in_its_square() -> None:
    frames = torch.zeros(1, 3, 64, 64, requires_grad=True)
    eyes = torch.tensor([[[23.0, 27.0], [41.0, 27.0]]])
    mouth_crops(frames, torch.tensor([[32.0, 46.0]]), eyes).sum().backward()
    assert frames.grad is not None
    touched = frames.grad[0, 0].nonzero()
    assert touched.min(0).values.tolist() == [35, 21]
    assert touched.max(0).values.tolist() == [56, 42]


def test_points_of_other_frames_are_refused() -> None:
    with pytest.raises(ArtifactError, match="mouth crops: expected"):
        mouth_crops(torch.zeros(2, 3, 64, 64), torch.zeros(1, 2), torch.zeros(2, 2, 2))


# The scorer


@pytest.mark.parametrize("late", [-5, -1, 0, 3, 6])
def test_it_finds_by_how_much_the_audio_is_late(scorer: SyncScorer, clips: list[Clip], late: int) -> None:
    for clip in clips:
        audio = np.roll(clip.audio, late * 640)
        found, cosine = scorer.offset(clip.frames, audio, clip.mouth, clip.eyes)
        assert found == late
        assert cosine > 0.5


def test_it_tells_own_speech_from_a_strangers(scorer: SyncScorer, clips: list[Clip]) -> None:
    for clip, other in zip(clips, [*clips[1:], clips[0]], strict=True):
        own = scorer.score(clip.frames, clip.audio, clip.mouth, clip.eyes)
        assert own > 0.5
        assert scorer.score(clip.frames, other.audio, clip.mouth, clip.eyes) < 0.5 * own
        frozen = clip.frames[:1].repeat(len(clip), 0)
        assert scorer.score(frozen, clip.audio, clip.mouth[:1].repeat(40, 0), clip.eyes[:1].repeat(40, 0)) < 0.5 * own


def test_the_objective_and_the_score_agree(scorer: SyncScorer, clips: list[Clip]) -> None:
    clip = clips[0]
    windows = frame_windows(MelFeatures()(torch.from_numpy(clip.audio)), 4)
    scores = scorer.score_windows(
        _picture(clip)[None], torch.from_numpy(clip.mouth)[None], torch.from_numpy(clip.eyes)[None], windows[None]
    )
    assert scores.shape == (1, 36)
    expected = scorer.score(clip.frames, clip.audio, clip.mouth, clip.eyes)
    assert float(scores.mean().detach()) == pytest.approx(expected, abs=1e-5)


def test_its_gradient_brings_mouths_into_sync(scorer: SyncScorer, clips: list[Clip]) -> None:
    clip = clips[0].window(0, 12)
    points = torch.from_numpy(clip.mouth)[None], torch.from_numpy(clip.eyes)[None]
    speech = torch.from_numpy(clips[0].window(14, 12).audio)  # speech of another moment
    windows = frame_windows(MelFeatures()(speech), 4)[None]
    picture = _picture(clip)[None].requires_grad_(True)
    before = scorer.score_windows(picture, *points, windows).mean()
    (gradient,) = torch.autograd.grad(before, picture)
    assert gradient[..., :24, :].abs().max() == 0  # eyes and hair are none of its business
    after = scorer.score_windows(picture + 2 * gradient / gradient.norm(), *points, windows).mean()
    assert float(after.detach()) > float(before.detach()) + 0.02


def test_windows_of_another_kind_or_length_are_refused(scorer: SyncScorer, clips: list[Clip]) -> None:
    clip = clips[0]
    with pytest.raises(ArtifactError, match=r"expected log-mel windows"):
        scorer.embed_speech(torch.zeros(2, 10, 384))
    with pytest.raises(ArtifactError, match="F >= 5"):
        scorer.embed_mouths(torch.zeros(1, 4, 3, 64, 64), torch.zeros(1, 4, 2), torch.zeros(1, 4, 2, 2))
    short = clip.window(0, 10)
    with pytest.raises(ArtifactError, match="at least 12 frames"):
        scorer.offset(short.frames, short.audio, short.mouth, short.eyes)


def test_the_loss_is_symmetric_cross_entropy() -> None:
    torch.manual_seed(0)
    module = SyncModule((8, 8, 8), 16, windows_per_clip=3, temperature=0.5)
    generator = torch.Generator().manual_seed(0)
    batch = {
        "crops": torch.randn(2, 7, 3, 32, 32, generator=generator),
        "windows": torch.randn(2, 7, 20, 64, generator=generator),
    }
    with torch.no_grad():
        loss = float(module.loss_terms(batch)["contrast"])
        mouths = module.network.embed_crops(batch["crops"]).reshape(6, 16).double().numpy()
        speech = module.network.embed_speech(batch["windows"][:, 2:5]).reshape(6, 16).double().numpy()
        alone = module.network.embed_crops(batch["crops"][1:, 1:6])[0, 0]
    assert np.allclose(alone.numpy(), mouths[4], atol=1e-5)  # the window around frame 3 of the second clip
    logits = mouths @ speech.T / 0.5
    share = np.exp(np.diag(logits))
    expected = -(np.log(share / np.exp(logits).sum(1)) + np.log(share / np.exp(logits).sum(0))).mean() / 2
    assert loss == pytest.approx(expected, rel=1e-4)


def test_training_learns_the_true_offset_and_draws_are_repeatable(clips: list[Clip]) -> None:
    torch.manual_seed(0)
    module = SyncModule((16, 16, 16), 32)
    prepared = [module.prepare_clip(clip) for clip in clips]
    one = module.draw_batch(prepared, 32, torch.Generator().manual_seed(1))
    again = module.draw_batch(prepared, 32, torch.Generator().manual_seed(1))
    assert torch.equal(one["crops"], again["crops"]) and torch.equal(one["windows"], again["windows"])
    assert one["crops"].shape == (2, 20, 3, 32, 32)
    before = module.held_out_metrics(prepared, torch.Generator())
    optimizer = torch.optim.AdamW(module.exchanged_parameters().values(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(80):
        optimizer.zero_grad()
        module.training_step(module.draw_batch(prepared, 64, generator))["loss"].backward()
        optimizer.step()
    after = module.held_out_metrics(prepared, torch.Generator())
    assert before["offset_accuracy_window"] < 0.2
    assert after["offset_accuracy_window"] > 0.3
    assert after["cosine"] > before["cosine"] + 0.2
