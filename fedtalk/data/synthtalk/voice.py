"""What the voice does: an additive formant synthesiser driven by the same tracks as the mouth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, sosfilt

from fedtalk.data.clip import SAMPLE_RATE
from fedtalk.data.synthtalk.articulation import TRACK_RATE, Articulation

_BANDWIDTHS = np.array([80.0, 110.0, 160.0])
_HISS = butter(4, [4000, 7500], "bandpass", fs=SAMPLE_RATE, output="sos")
_HUSH = butter(4, [2000, 4000], "bandpass", fs=SAMPLE_RATE, output="sos")


@dataclass(frozen=True)
class Voice:
    """What stays the same in all clips of a speaker."""

    pitch: float
    """Mean fundamental frequency in Hz."""
    tract: float
    """Scale of the formants: below 1 a long vocal tract, above 1 a short one."""
    tilt: float
    """Exponent of the source spectrum's decay with the harmonic's number."""
    breath: float
    """Level of breath noise, 0 to 0.1."""
    room_noise: float
    """Level of background noise, 0 to 0.02."""


def synthesise(track: Articulation, voice: Voice, samples: int, generator: np.random.Generator) -> np.ndarray:
    """Speech for one articulation track.

    Returns:
        (samples,) float32 in [-1, 1], 16 kHz.
    """
    points = len(track.openness)
    drift = gaussian_filter1d(generator.standard_normal(points), 0.15 * TRACK_RATE, mode="nearest")
    drift /= drift.std() + 1e-9
    pitch = voice.pitch * np.exp(0.08 * drift)

    sample_times = np.arange(samples) / SAMPLE_RATE * TRACK_RATE
    grid = np.arange(points)
    pitch_samples = np.interp(sample_times, grid, pitch)
    phase = 2 * np.pi * np.cumsum(pitch_samples) / SAMPLE_RATE

    harmonics = np.arange(1, int(7600 / pitch.max()) + 1)
    frequency = pitch[:, None] * harmonics
    gain = harmonics**-voice.tilt * np.ones_like(frequency)
    for formant in range(3):
        centre = track.formants[:, formant, None] * voice.tract
        width = _BANDWIDTHS[formant] * voice.tract
        # Magnitude of a second-order resonance, one at its centre.
        gain *= 0.05 + 1.0 / np.sqrt(1.0 + ((frequency - centre) / width) ** 2)
    # A wide mouth radiates more.
    gain *= (track.voicing * (0.45 + 0.55 * track.openness))[:, None]

    left = np.minimum(sample_times.astype(np.int64), points - 2)
    fraction = (sample_times - left).astype(np.float32)[:, None]
    gain = gain.astype(np.float32)
    envelope = gain[left] * (1 - fraction) + gain[left + 1] * fraction
    tone = np.einsum("nh,nh->n", envelope, np.sin(phase[:, None] * harmonics).astype(np.float32))
    tone /= np.sqrt(np.mean(tone**2)) + 1e-6

    noise = generator.standard_normal(samples)
    at = np.interp
    hiss = sosfilt(_HISS, noise) * at(sample_times, grid, track.hiss) * 1.2
    hush = sosfilt(_HUSH, noise) * at(sample_times, grid, track.hush) * 1.2
    breath = noise * voice.breath * at(sample_times, grid, track.voicing)
    room = generator.standard_normal(samples) * voice.room_noise
    return np.clip(0.12 * (tone + hiss + hush + breath) + room, -1.0, 1.0).astype(np.float32)
