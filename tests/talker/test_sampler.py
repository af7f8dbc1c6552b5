"""The streaming sampler against denoising the whole video at once, written anew from the equations."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch

from fedtalk.errors import ConfigurationError
from fedtalk.talker.sampler import Frame, sample, window_starts
from fedtalk.talker.schedule import NoiseSchedule, make_schedule

STEPS, WINDOW = 5, 8
MADE = make_schedule("v_prediction")


def _frames(count: int) -> list[Frame]:
    g = torch.Generator().manual_seed(count)
    return [
        Frame(*(torch.randn(c, 3, 3, generator=g) for c in (4, 4, 1)), torch.randn(5, 2, generator=g))
        for _ in range(count)
    ]


def _predict(groups: list[list[Frame]], timestep: torch.Tensor) -> torch.Tensor:
    """A network stand-in that mixes frames of a window, differs by place in it, and reads every input."""
    answers = []
    for group in groups:
        latents = torch.stack([frame.latent_Chw for frame in group])
        extra = torch.stack([frame.moved_Chw + frame.mask_1hw + frame.window_TD.sum() for frame in group])
        place = torch.linspace(-1, 1, len(group))[:, None, None, None]
        answers.append(torch.tanh(latents + 0.3 * latents.mean(0) + 0.2 * extra + place + float(timestep) / 1000))
    return torch.stack(answers)


def _whole_video(frames: list[Frame], stride: int, steps: int = STEPS) -> torch.Tensor:
    """Co-denoising of all frames at once; DDIM (eta 0) on the velocity, from the schedule's published equations."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    signal = (1 - betas).cumprod(0).sqrt()
    signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
    times = [round(1000 - step * 1000 / steps) - 1 for step in range(steps)]
    latents = torch.stack([frame.latent_Chw for frame in frames])
    length = min(WINDOW, len(frames))
    starts = []
    while not starts or starts[-1] + length < len(frames):
        starts.append(min(len(starts) * stride, len(frames) - length))
    for time, following in zip(times, [*times[1:], None], strict=True):
        total, weight = torch.zeros_like(latents), torch.zeros(len(frames))
        for start in starts:
            group = [
                Frame(latents[i], frames[i].moved_Chw, frames[i].mask_1hw, frames[i].window_TD)
                for i in range(start, start + length)
            ]
            answer = _predict([group], torch.tensor(time))[0]
            for offset in range(length):
                triangle = 1 + min(offset, length - 1 - offset)
                total[start + offset] += triangle * answer[offset]
                weight[start + offset] += triangle
        velocity = total / weight[:, None, None, None]
        a = float(signal[time])
        s = (1 - a * a) ** 0.5
        clean, noise = a * latents - s * velocity, s * latents + a * velocity
        next_a = 1.0 if following is None else float(signal[following])
        latents = next_a * clean + (1 - next_a * next_a) ** 0.5 * noise
    return latents


@pytest.mark.parametrize("count", [1, 2, 5, 7, 8, 9, 12, 13, 16, 31, 50])
@pytest.mark.parametrize("stride", [1, 4, 6, 8])
def test_streaming_equals_the_whole_video_at_once(count: int, stride: int) -> None:
    frames = _frames(count)
    for group in (1, 3, 4):
        got = torch.stack(
            [f.latent_Chw for f in sample(iter(frames), count, _predict, MADE, STEPS, WINDOW, stride, group)]
        )
        assert got.shape == (count, 4, 3, 3)  # not cut to a multiple of the window
        torch.testing.assert_close(got, _whole_video(frames, stride), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 3, 6, 7, 10])
def test_any_number_of_steps_visits_its_noise_levels_and_ends_clean(steps: int) -> None:
    """Also where it does not divide the 1000 levels of training."""
    frames = _frames(11)
    got = torch.stack([f.latent_Chw for f in sample(iter(frames), 11, _predict, MADE, steps, WINDOW, 4)])
    torch.testing.assert_close(got, _whole_video(frames, 4, steps), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["v_prediction", "sample", "epsilon"])
@pytest.mark.parametrize("steps", [5, 6])
def test_a_perfect_network_gives_the_clean_latents(kind: str, steps: int) -> None:
    schedule = NoiseSchedule(make_schedule(kind))
    clean = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(7))
    signal, sigma = schedule.signal[-1], schedule.sigma[-1]
    noise = [frame.latent_Chw for frame in _frames(10)]
    frames = [Frame(signal * clean + sigma * one, one, torch.ones(1, 3, 3), torch.zeros(5, 2)) for one in noise]

    def predict(groups: list[list[Frame]], timestep: torch.Tensor) -> torch.Tensor:
        at = timestep.reshape(1)  # each frame's own noise rides along as its moved reference
        return torch.stack([
            torch.stack([schedule.target(clean[None], frame.moved_Chw[None], at)[0] for frame in group])
            for group in groups
        ])  # fmt: skip

    for frame in sample(iter(frames), 10, predict, make_schedule(kind), steps, WINDOW, 4):
        torch.testing.assert_close(frame.latent_Chw, clean, atol=2e-3, rtol=1e-3)


def test_overlap_matters() -> None:
    """So that the test above would see a sampler that runs its windows apart."""
    frames = _frames(24)
    assert (_whole_video(frames, 4) - _whole_video(frames, 8)).abs().max() > 0.01


class _Counted:
    """A source that counts how far it is read, and which of its frames are still held by somebody."""

    def __init__(self, count: int) -> None:
        self.count, self.read = count, 0
        self.alive: list[weakref.ref[Frame]] = []

    def __iter__(self) -> Iterator[Frame]:
        for _ in range(self.count):
            frame = _frames(1)[0]
            self.read += 1
            self.alive.append(weakref.ref(frame))
            yield frame
            del frame

    def held(self) -> int:
        self.alive = [reference for reference in self.alive if reference() is not None]
        return len(self.alive)


def _peaks(count: int) -> tuple[int, int]:
    """Most frames read but not yet given out, and most source frames held, over the whole stream."""
    source = _Counted(count)
    ahead, held, given = 0, 0, 0
    for _ in sample(iter(source), count, _predict, MADE, STEPS, WINDOW, 4):
        ahead, held = max(ahead, source.read - given), max(held, source.held())
        given += 1
    assert given == source.read == count
    return ahead, held


def test_memory_does_not_grow_with_the_length() -> None:
    short, long = _peaks(200), _peaks(600)
    assert short == long
    # Each step holds a group of four windows at most, and one more stride.
    assert long[0] <= STEPS * (WINDOW + 4 * 4)


def test_the_first_frame_comes_before_the_last_is_read() -> None:
    source = _Counted(600)
    next(sample(iter(source), 600, _predict, MADE, STEPS, WINDOW, 4))
    assert source.read < 150


@pytest.mark.parametrize("count", range(1, 40, 3))
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_windows_cover_every_frame_and_stay_inside(count: int, stride: int) -> None:
    starts = window_starts(count, WINDOW, stride)
    covered = np.zeros(count, int)
    for start in starts:
        assert 0 <= start <= max(0, count - WINDOW)
        covered[start : start + WINDOW] += 1
    assert covered.min() >= 1
    assert starts == sorted(set(starts))
    assert all(after - before <= stride for before, after in pairwise(starts))


@pytest.mark.parametrize("stride", [0, 9, -1])
def test_a_stride_that_would_leave_gaps_is_refused(stride: int) -> None:
    with pytest.raises(ConfigurationError, match="sampling stride: expected 1 to the window's length 8, got"):
        window_starts(20, WINDOW, stride)
