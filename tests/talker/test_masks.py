"""The hidden region: placed by the eyes alone, wide enough for the mouth, and without a seam."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedtalk.data.clip import Clip
from fedtalk.data.synthtalk import Speaker
from fedtalk.data.synthtalk.clips import _draw_motion
from fedtalk.data.synthtalk.face import draw_face
from fedtalk.talker.masks import CENTRE_DROP, HALF_HEIGHT, HALF_WIDTH, RAMP, lower_face

EYES = np.array([[[22.0, 27.0], [42.0, 27.0]]])


def _draw(index: int, openness: float) -> tuple[np.ndarray, np.ndarray]:
    """Eight frames of a private person with the mouth held at one opening, and their eyes."""
    speaker = Speaker.draw(0, "private", index)
    motion = _draw_motion(speaker, 8, np.random.default_rng(index))
    mouth = {"openness": np.full(8, openness), "width": np.full(8, 0.3 + 0.5 * openness), "teeth": np.full(8, 0.4)}
    picture, eyes, _ = draw_face(replace(speaker.look, glasses=False), mouth, 1.0, motion, 64)
    return picture, eyes


@pytest.mark.parametrize("index", range(6))
def test_the_mask_is_blind_to_the_mouth_and_hides_what_it_moves(index: int) -> None:
    closed, open_ = _draw(index, 0.0), _draw(index, 1.0)
    one, other = lower_face(closed[1], 64), lower_face(open_[1], 64)
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    change = np.abs(closed[0] - open_[0]).max(-1)
    hidden = one[0][:, 0].numpy()
    # The chin of a broad face, which sinks with the mouth, reaches a little beyond.
    assert change[hidden == 0].sum() < 0.05 * change.sum()
    assert change[hidden == 1].max() > 0.2
    shown = 1 - one[1][:, 0].numpy()  # of the recording
    print(f"{(change * shown).sum() / change.sum():.3f} of what the mouth moves stays")
    assert (change * shown).sum() < 0.14 * change.sum()


def test_it_takes_eyes_and_nothing_else() -> None:
    import inspect

    assert list(inspect.signature(lower_face).parameters) == ["eyes", "size"]
    assert lower_face(np.repeat(EYES, 3, 0), 64)[0].shape == (3, 1, 64, 64)


def test_a_pixel_is_hidden_if_it_lies_in_the_superellipse() -> None:
    """By a loop over pixels with the definition, for turned and small faces too."""
    eyes = np.array([[[22.0, 27.0], [42.0, 27.0]], [[25.0, 30.0], [41.0, 22.0]], [[30.5, 20.0], [40.5, 26.0]]])
    hidden, alpha = lower_face(eyes, 64)
    for frame, (left, right) in enumerate(eyes):
        unit = np.hypot(*(right - left))
        angle = np.arctan2(right[1] - left[1], right[0] - left[0])
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        for y in range(0, 64, 3):
            for x in range(0, 64, 3):
                u, v = turn @ (np.array([x + 0.5, y + 0.5]) - (left + right) / 2) / unit
                radius = ((u / HALF_WIDTH) ** 4 + ((v - CENTRE_DROP) / HALF_HEIGHT) ** 4) ** 0.25
                assert bool(hidden[frame, 0, y, x]) == (radius < 1)
                side = np.interp(v, [0.8, 2.2], [1.0, 0.75]) - abs(u)
                inside = np.clip(min((1 - radius) * min(HALF_WIDTH, HALF_HEIGHT), side) / RAMP, 0, 1)
                assert float(alpha[frame, 0, y, x]) == pytest.approx(inside, abs=1e-5)


def test_blending_never_shows_what_was_not_generated_nor_a_seam() -> None:
    hidden, alpha = lower_face(EYES, 64)
    assert (alpha[hidden == 0] == 0).all()  # outside, the original stays exactly
    assert set(hidden.unique().tolist()) == {0.0, 1.0}
    assert alpha.max() == 1 and alpha[0, 0, 27 + 20, 32] == 1  # the mouth is all new
    steps = torch.maximum(alpha.diff(dim=-1).abs().amax(), alpha.diff(dim=-2).abs().amax())
    assert steps <= 1 / (RAMP * 20) + 1e-6  # a ramp of RAMP times the 20 px between the eyes
    border = (hidden[0, 0, :, 1:] - hidden[0, 0, :, :-1]).abs() > 0
    assert alpha[0, 0, :, 1:][border].max() < 0.5


def test_the_mask_moves_with_the_face() -> None:
    shifted = lower_face(EYES + np.array([3.0, 5.0]), 64)[0]
    torch.testing.assert_close(shifted[..., 5:, 3:], lower_face(EYES, 64)[0][..., :-5, :-3])
    assert lower_face(EYES * 2, 128)[0][..., ::2, ::2].mean() == pytest.approx(
        float(lower_face(EYES, 64)[0].mean()), rel=0.05
    )


def test_eyes_and_brows_stay_visible(clips: list[Clip]) -> None:
    for clip in clips:
        hidden, _ = lower_face(clip.eyes, clip.size)
        for frame, points in zip(hidden[:, 0], clip.eyes, strict=True):
            assert all(frame[int(y), int(x)] == 0 for x, y in points)
        mouths = [float(frame[int(y), int(x)]) for frame, (x, y) in zip(hidden[:, 0], clip.mouth, strict=True)]
        assert min(mouths) == 1.0
