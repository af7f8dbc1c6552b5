"""Making clients unreliable on purpose, on any clip: flicker, sound that is shifted, blur, and the wrong person.

What SynthTalk draws into its faulty speakers, for real recordings: reliability-weighted aggregation exists for such clients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from scipy.ndimage import gaussian_filter

from fedtalk.checks import check_choice
from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip
from fedtalk.errors import ConfigurationError


def flicker(clip: Clip, generator: np.random.Generator) -> Clip:
    """Each frame's brightness times a factor from 0.6 to 1.4."""
    factors = generator.uniform(0.6, 1.4, (len(clip), 1, 1, 1))
    return replace(clip, frames=np.clip(clip.frames * factors, 0, 255).astype(np.uint8))


def shift_audio(clip: Clip, generator: np.random.Generator) -> Clip:
    """The sound turned round by 0.32 to 0.6 s against the picture, at most half of the clip."""
    frames = min(int(generator.integers(8, 16)), max(1, len(clip) // 2))
    return replace(clip, audio=np.roll(clip.audio, frames * SAMPLES_PER_FRAME))


def blur(clip: Clip, generator: np.random.Generator) -> Clip:
    """Out of focus: a Gaussian of a 26th of the frame."""
    sigma = clip.size / 26
    return replace(clip, frames=gaussian_filter(clip.frames, (0, sigma, sigma, 0)))


FAULTS: dict[str, Callable[[Clip, np.random.Generator], Clip]] = {
    "flicker": flicker,
    "shifted_audio": shift_audio,
    "blurred": blur,
}
"""Faults of a clip by name; ``wrong_person`` exchanges whole clips between clients and is the data module's."""
WRONG_PERSON = "wrong_person"
Fault = Literal["flicker", "shifted_audio", "blurred", "wrong_person"]
ALL_FAULTS: tuple[Fault, ...] = get_args(Fault)
"""What can be wrong with an unreliable client's clips; the reason for weighting by reliability."""


def check_faults(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """The setting ``data.faults``.

    Raises:
        ConfigurationError: it is empty, or names something that is no fault.
    """
    if not faults:
        raise ConfigurationError(f"data.faults: expected one or more of {', '.join(ALL_FAULTS)}, got none")
    for fault in faults:
        check_choice("data.faults", fault, Fault)
    return tuple(faults)


def faulty(clip: Clip, fault: str, generator: np.random.Generator) -> Clip:
    """The clip with a fault of `FAULTS`, which its ``info`` names."""
    made = FAULTS[fault](clip, generator)
    return replace(made, info={**clip.info, "fault": fault})
