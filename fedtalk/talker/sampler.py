"""Sampling of any length: overlapping windows, predictions averaged at every step, memory that does not grow.

Every sampling step averages the predictions of all windows that cover a frame (MultiDiffusion, Bar-Tal et al. 2023, in
time). A frame of step ``s`` needs only the windows around it at step ``s - 1``, so the steps are chained as streams: each
holds one group of windows, and a frame leaves as soon as nothing later can change it. The result is the same, to rounding,
as denoising the whole video at once, and memory does not depend on the length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from fedtalk.errors import ConfigurationError
from fedtalk.talker.schedule import NoiseSchedule


@dataclass
class Frame:
    """One frame on its way. All tensors without batch dimension."""

    latent_Chw: Tensor
    moved_Chw: Tensor
    """The reference moved to the frame's eyes and lips; the frame itself around what is replaced."""
    mask_1hw: Tensor
    window_TD: Tensor
    """Audio features around the frame."""
    puppet_3HW: Tensor | None = None
    """The picture that ``moved_Chw`` stands for, uint8."""
    mouth_1HW: Tensor | None = None
    """How far the network's picture takes its place, in [0, 1]."""


Predict = Callable[[list[list[Frame]], Tensor], Tensor]
"""(windows of frames, timestep ()) -> the network's answers (B, F, C, h, w)."""


def window_starts(frames: int, window: int, stride: int) -> list[int]:
    """First frames of windows that cover all frames; the last one ends at the last frame.

    >>> window_starts(10, 8, 4)
    [0, 2]
    >>> window_starts(16, 8, 4)
    [0, 4, 8]
    >>> window_starts(5, 8, 4)
    [0]
    """
    if not 0 < stride <= window:
        raise ConfigurationError(f"sampling stride: expected 1 to the window's length {window}, got {stride}")
    last = max(0, frames - window)
    return [*range(0, last, stride), last]


def sample(
    frames: Iterator[Frame],
    count: int,
    predict: Predict,
    scheduler: DDIMScheduler,
    steps: int,
    window: int,
    stride: int,
    group: int = 4,
) -> Iterator[Frame]:
    """Denoise a stream of frames.

    Args:
        frames: ``count`` frames whose latents are noise.
        predict: the guided network.
        scheduler: its noise levels and the spacing of its timesteps; steps are deterministic (DDIM, eta 0).
        steps: sampling steps.
        window: frames the network sees at once.
        stride: frames from one window to the next.
        group: windows that are run in one batch.

    Yields:
        the frames with clean latents, in order, as soon as they are final.
    """
    scheduler.set_timesteps(steps)
    starts = window_starts(count, window, stride)
    stream, schedule = frames, NoiseSchedule(scheduler)
    for timestep, following in pairwise([*scheduler.timesteps, None]):
        stream = _step(stream, count, starts, window, group, predict, schedule, timestep, following)
    yield from stream


def _step(
    frames: Iterator[Frame],
    count: int,
    starts: list[int],
    window: int,
    group: int,
    predict: Predict,
    schedule: NoiseSchedule,
    timestep: Tensor,
    next_timestep: Tensor | None,
) -> Iterator[Frame]:
    """One sampling step as a stream."""
    held: dict[int, Frame] = {}
    sums: dict[int, Tensor] = {}
    weights: dict[int, float] = {}
    read = 0
    for first in range(0, len(starts), group):
        batch = starts[first : first + group]
        length = min(window, count)
        while read < batch[-1] + length:
            held[read] = next(frames)
            read += 1
        outputs = predict([[held[i] for i in range(start, start + length)] for start in batch], timestep)
        for start, output in zip(batch, outputs, strict=True):
            for offset in range(length):
                # Windows fade towards their ends, where the network has the least context.
                weight = 1.0 + min(offset, length - 1 - offset)
                index = start + offset
                sums[index] = sums.get(index, torch.zeros_like(output[offset])) + weight * output[offset]
                weights[index] = weights.get(index, 0.0) + weight
        following = first + group
        final = starts[following] if following < len(starts) else count
        for index in sorted(i for i in held if i < final):
            frame = held.pop(index)
            mean = sums.pop(index) / weights.pop(index)
            latent = _ddim(schedule, mean, frame.latent_Chw, timestep, next_timestep)
            yield replace(frame, latent_Chw=latent)


def _ddim(
    schedule: NoiseSchedule, output: Tensor, latent: Tensor, timestep: Tensor, following: Tensor | None
) -> Tensor:
    """To the next noise level (Song et al. 2021, eq. 12 with sigma 0), or to the clean estimate where none follows.

    Written out, since diffusers' scheduler goes down by ``1000 // steps``: where that leaves a remainder it misses the
    timestep that follows, and the last step ends in a little noise.
    """
    clean, noise = schedule.clean_and_noise(output[None], latent[None], timestep[None].to(latent.device))
    if following is None:
        return clean[0]
    return schedule.add_noise(clean, noise, following[None].to(latent.device))[0]
