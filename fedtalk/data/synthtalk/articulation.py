"""What the mouth does: random syllables as smooth tracks that drive both the picture and the voice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

TRACK_RATE = 200
"""Points a second of every articulation track."""

# name: openness, width, teeth, voicing, hiss (4-7.5 kHz), hush (2-4 kHz), formants F1 F2 F3 in Hz
_SOUNDS: dict[str, tuple[float, ...]] = {
    "a": (1.00, 0.55, 0.2, 1.0, 0.0, 0.0, 850, 1300, 2600),
    "ae": (0.78, 0.75, 0.4, 1.0, 0.0, 0.0, 700, 1750, 2600),
    "e": (0.55, 0.85, 0.5, 0.95, 0.0, 0.0, 520, 1950, 2650),
    "i": (0.25, 1.00, 0.7, 0.85, 0.0, 0.0, 300, 2350, 3050),
    "o": (0.62, 0.20, 0.0, 1.0, 0.0, 0.0, 520, 900, 2400),
    "u": (0.28, 0.00, 0.0, 0.85, 0.0, 0.0, 320, 750, 2250),
    "m": (0.00, 0.50, 0.0, 0.35, 0.0, 0.0, 250, 1100, 2200),
    "p": (0.00, 0.50, 0.0, 0.0, 0.0, 0.0, 400, 1100, 2300),
    "f": (0.06, 0.55, 0.9, 0.0, 0.35, 0.1, 350, 1400, 2500),
    "s": (0.14, 0.85, 1.0, 0.0, 1.0, 0.1, 350, 1700, 2700),
    "sh": (0.22, 0.20, 0.8, 0.0, 0.2, 1.0, 350, 1600, 2500),
    "l": (0.30, 0.60, 0.4, 0.6, 0.0, 0.0, 380, 1500, 2700),
    "k": (0.32, 0.55, 0.2, 0.0, 0.1, 0.5, 400, 1800, 2500),
    "pause": (0.00, 0.45, 0.0, 0.0, 0.0, 0.0, 450, 1400, 2500),
}
_VOWELS = ("a", "ae", "e", "i", "o", "u")
_CONSONANTS = ("m", "p", "f", "s", "sh", "l", "k")


@dataclass(frozen=True)
class Articulation:
    """Tracks at `TRACK_RATE`, each (T,) float64; all but the formants in [0, 1]."""

    openness: np.ndarray
    width: np.ndarray
    teeth: np.ndarray
    voicing: np.ndarray
    hiss: np.ndarray
    hush: np.ndarray
    formants: np.ndarray
    """(T, 3) in Hz, before the speaker's vocal tract scales them."""

    def at_frames(self, frames: int, frame_rate: float) -> dict[str, np.ndarray]:
        """The visible tracks (openness, width, teeth) at the middle of each video frame, each (frames,)."""
        times = (np.arange(frames) + 0.5) / frame_rate * TRACK_RATE
        grid = np.arange(len(self.openness))
        return {name: np.interp(times, grid, getattr(self, name)) for name in ("openness", "width", "teeth")}


def draw_articulation(seconds: float, rate: float, rounding: float, generator: np.random.Generator) -> Articulation:
    """Random syllables with pauses between words, smoothed as coarticulation smooths them.

    Args:
        seconds: length of the track.
        rate: tempo, 1.0 is about four syllables a second.
        rounding: shift of the lips' width in [-0.3, 0.3]: an accent that is seen and heard (second formant).
    """
    names: list[str] = []
    lengths: list[float] = []
    total = 0.0

    def say(name: str, low: float, high: float) -> None:
        nonlocal total
        names.append(name)
        lengths.append(generator.uniform(low, high) / rate)
        total += lengths[-1]

    say("pause", 0.0, 0.2)
    while total < seconds + 0.5:
        for _ in range(int(generator.integers(1, 4))):
            say(str(generator.choice(_CONSONANTS)), 0.06, 0.11)
            say(str(generator.choice(_VOWELS)), 0.10, 0.22)
            if generator.random() < 0.3:
                say(str(generator.choice(_CONSONANTS)), 0.06, 0.10)
        say("pause", 0.06, 0.35)

    ends = np.cumsum(lengths)
    times = np.arange(int(np.ceil(seconds * TRACK_RATE))) / TRACK_RATE
    index = np.minimum(np.searchsorted(ends, times, side="right"), len(names) - 1)
    targets = np.array([_SOUNDS[name] for name in names])[index]
    # Lips are slower than the sound source: 30 ms against 8 ms (standard deviation of the smoothing).
    slow = gaussian_filter1d(targets, 0.030 * TRACK_RATE, axis=0, mode="nearest")
    fast = gaussian_filter1d(targets, 0.008 * TRACK_RATE, axis=0, mode="nearest")
    width = np.clip(slow[:, 1] + rounding, 0.0, 1.0)
    formants = slow[:, 6:9].copy()
    formants[:, 1] *= 1.0 + 0.5 * rounding
    return Articulation(slow[:, 0], width, slow[:, 2], fast[:, 3], fast[:, 4], fast[:, 5], formants)
