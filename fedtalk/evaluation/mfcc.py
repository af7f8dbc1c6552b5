"""Mel-frequency cepstral coefficients as SyncNet was trained on them (HTK's, by the defaults of python_speech_features)."""

from __future__ import annotations

import numpy as np
from scipy.fft import dct

from fedtalk.errors import ArtifactError

RATE = 16_000
WINDOW, STEP, FFT = 400, 160, 512
"""Of a frame, in samples: 25 ms every 10 ms."""
FILTERS, COEFFICIENTS, LIFTER = 26, 13, 22
PREEMPHASIS = 0.97


def mfcc(audio: np.ndarray) -> np.ndarray:
    """Thirteen coefficients every 10 ms, the first one the logarithm of the frame's energy.

    Args:
        audio: (N,) samples at 16 kHz, in the units of 16-bit sound, N at least 1.

    Returns:
        (1 + ceil((N - 400) / 160), 13) float64, at least one row.

    Raises:
        ArtifactError: another shape.

    Source: S. Young et al., "The HTK Book", 2002, chapter 5; S. Davis and P. Mermelstein, 1980.
    """
    if audio.ndim != 1 or not len(audio):
        raise ArtifactError(f"mfcc: expected samples (N,), got {audio.shape}")
    sound = audio.astype(np.float64)
    sound[1:] -= PREEMPHASIS * audio[:-1].astype(np.float64)
    count = 1 + max(0, -(-(len(sound) - WINDOW) // STEP))
    sound = np.pad(sound, (0, max(0, (count - 1) * STEP + WINDOW - len(sound))))
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::STEP][:count]
    power = np.abs(np.fft.rfft(frames, FFT)) ** 2 / FFT
    tiny = np.finfo(float).eps
    energy, bands = power.sum(1), power @ _filters().T
    cepstrum = dct(np.log(np.where(bands == 0, tiny, bands)), type=2, axis=1, norm="ortho")[:, :COEFFICIENTS]
    cepstrum *= 1 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
    cepstrum[:, 0] = np.log(np.where(energy == 0, tiny, energy))
    return cepstrum


def _filters() -> np.ndarray:
    """(26, 257): triangles whose corners are equally far apart in mel, ``2595 log10(1 + f / 700)``."""
    mels = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), FILTERS + 2)
    corners = np.floor((FFT + 1) * 700 * (10 ** (mels / 2595) - 1) / RATE)
    bins, (low, middle, high) = np.arange(FFT // 2 + 1), (corners[:-2, None], corners[1:-1, None], corners[2:, None])
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    # The last corner itself belongs to no triangle.
    return np.where((bins >= low) & (bins < middle), rising, np.where((bins >= middle) & (bins < high), falling, 0.0))
