"""Log-mel spectrogram of speech: four rows a video frame, aligned in time with the frames."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fedtalk.data.clip import SAMPLE_RATE, SAMPLES_PER_FRAME
from fedtalk.errors import ArtifactError

BANDS = 64
"""Mel bands of a row."""
HOP = 160
"""Samples from row to row (10 ms)."""
ROWS_PER_FRAME = SAMPLES_PER_FRAME // HOP
"""Rows of one video frame."""

_TRANSFORM = 512
_WINDOW = 400
_FROM, _TO = 50.0, 8000.0
_FLOOR = 1e-6
# Mean and standard deviation of log10 power on SynthTalk speech: public people 0-39, two clips of 40 frames each.
_MEAN, _DEVIATION = -3.66, 1.68
LOWEST = (math.log10(_FLOOR) - _MEAN) / _DEVIATION
"""What silence gives."""


def log_mel(audio: Tensor) -> Tensor:
    """Log power in mel bands.

    Row ``r`` is a Hann window of 25 ms centred on ``(r + 0.5) * 10 ms``, so rows ``4 f`` to ``4 f + 3`` belong to the
    40 ms of video frame ``f``. Power is per sample (white noise of variance s^2 gives s^2 in each band), floored at
    1e-6 and shifted and scaled by constants; mel(f) = 2595 log10(1 + f / 700) (O'Shaughnessy 1987), 50 Hz to 8 kHz.

    Args:
        audio: (..., N) float in [-1, 1], 16 kHz mono; silence is assumed before and after. A remainder of less than
            10 ms is left out.

    Returns:
        (..., N // 160, 64) float32, about mean 0 and standard deviation 1 on speech.

    Raises:
        ArtifactError: less than one row of audio, or integer samples.

    >>> log_mel(torch.zeros(3 * 640)).shape
    torch.Size([12, 64])
    """
    if not audio.is_floating_point() or audio.ndim < 1 or audio.shape[-1] < HOP:
        raise ArtifactError(
            f"audio for log_mel: expected at least {HOP} float samples in [-1, 1] at {SAMPLE_RATE} Hz, "
            f"got {tuple(audio.shape)} {audio.dtype}"
        )
    audio = audio.float()
    rows = audio.shape[-1] // HOP
    # The first window of 512 must have its middle on sample 80, the middle of the first 10 ms.
    margin = (_TRANSFORM - HOP) // 2
    padded = F.pad(audio[..., : rows * HOP], (margin, margin)).reshape(-1, rows * HOP + 2 * margin)
    window = torch.hann_window(_WINDOW, device=audio.device)
    spectrum = torch.stft(
        padded, _TRANSFORM, HOP, _WINDOW, window=window, center=False, return_complex=True
    )  # (B, bins, rows)
    power = spectrum.real.square() + spectrum.imag.square()
    bands = torch.einsum("mk,bkr->brm", mel_filters().to(audio.device), power / window.square().sum())
    scaled = (bands.clamp_min(_FLOOR).log10() - _MEAN) / _DEVIATION
    return scaled.reshape(*audio.shape[:-1], rows, BANDS)


@lru_cache
def mel_filters() -> Tensor:
    """(64, 257) float32: triangles equally spaced on the mel scale, each summing to one.

    Low triangles are about as narrow as a bin of the transform; each weight is therefore the triangle's mean over its
    bin and not its value at the bin's middle, or some bands would hold nothing.
    """
    lowest, highest = _to_mel(torch.tensor([_FROM, _TO])).tolist()
    edges = _to_hertz(torch.linspace(lowest, highest, BANDS + 2))
    width = SAMPLE_RATE / _TRANSFORM
    within = (torch.arange(32) + 0.5) / 32 - 0.5
    bins = torch.arange(_TRANSFORM // 2 + 1)
    frequency = ((bins[:, None] + within) * width)[None]  # (1, bins, 32)
    low, middle, high = (edges[i : i + BANDS, None, None] for i in range(3))
    rising = (frequency - low) / (middle - low)
    falling = (high - frequency) / (high - middle)
    weights = torch.minimum(rising, falling).clamp_min(0).mean(-1)
    return weights / weights.sum(1, keepdim=True)


def _to_mel(hertz: Tensor) -> Tensor:
    return 2595 * torch.log10(1 + hertz / 700)


def _to_hertz(mel: Tensor) -> Tensor:
    return 700 * (10 ** (mel / 2595) - 1)
