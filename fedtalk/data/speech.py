"""Whether sound and picture of a video belong together: the mouth moves when there is sound, and not some time later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from fedtalk.data.clip import FRAME_RATE

LONGEST_LAG = 25
"""Frames by which sound and picture are shifted against each other in search of the offset."""
SHORTEST_EVIDENCE = 6 * FRAME_RATE
"""Frames with a face that are needed to say anything."""
SURE = 0.35
"""Correlation of mouth and sound from which the offset found is believed."""
LONG = 20 * FRAME_RATE
"""Frames with a face from which the offset found is steady."""
BETTER, BETTER_LONG = 0.2, 0.1
"""How much more they must agree at the offset than in step; with `LONG` frames or more."""
LIKELY = 0.5
"""Correlation from which an offset found in `LONG` frames or more is worth a look."""
TOLERATED = 4
"""Frames of offset, 160 ms, within which the estimate proves nothing: lips move before they sound."""


@dataclass(frozen=True)
class Offset:
    """How picture and sound lie to each other."""

    frames: int
    """By which the sound comes after the picture; negative where it comes before."""
    agreement: float
    """Correlation of mouth and sound at that offset."""
    in_step: float
    """The best correlation within the tolerated offset."""
    evidence: int
    """Frames with a face."""

    def __str__(self) -> str:
        seconds = abs(self.frames) / FRAME_RATE
        return (
            f"{seconds:.2f} s {'after' if self.frames > 0 else 'before'} the lips "
            f"(agreement {self.agreement:.2f}, in step {self.in_step:.2f})"
        )


def estimate_offset(motion: np.ndarray, energy: np.ndarray) -> Offset | None:
    """The offset at which mouth and sound agree best.

    Args:
        motion: (F,) motion of the mouth, NaN where no face is seen; see `fedtalk.data.choosing.Track`.
        energy: (G,) loudness of the sound by frame.

    Returns:
        None where there is too little to judge by.
    """
    count = min(len(motion), len(energy))
    seen = np.isfinite(motion[:count])
    if seen.sum() < SHORTEST_EVIDENCE:
        return None
    mouth = gaussian_filter1d(np.sqrt(np.where(seen, motion[:count], np.nanmean(motion))), 1.5)
    sound = gaussian_filter1d(np.sqrt(energy[:count]), 1.5)
    if mouth.std() < 1e-6 or sound.std() < 1e-6:
        return None
    scores = {}
    for lag in range(-LONGEST_LAG, LONGEST_LAG + 1):
        one, other = (mouth[: count - lag], sound[lag:]) if lag >= 0 else (mouth[-lag:], sound[: count + lag])
        scores[lag] = float(np.corrcoef(one, other)[0, 1])
    best = max(scores, key=lambda lag: scores[lag])
    in_step = max(scores[lag] for lag in range(-TOLERATED, TOLERATED + 1))
    return Offset(best, scores[best], in_step, int(seen.sum()))


def offset_problem(offset: Offset | None) -> str | None:
    """Why a video's sound can't be trusted, or None."""
    if offset is None or abs(offset.frames) <= TOLERATED:
        return None
    better = BETTER if offset.evidence < LONG else BETTER_LONG
    if offset.agreement < SURE or offset.agreement < offset.in_step + better:
        return None
    return f"its sound seems to come {offset}; shift it and prepare again"


def offset_note(offset: Offset | None) -> str | None:
    """What is worth a look, though not enough to reject a video that may be good; or None."""
    if offset is None or abs(offset.frames) <= TOLERATED or offset.evidence < LONG or offset.agreement < LIKELY:
        return None
    return f"its sound may come {offset}; its clips are kept, look at one"
