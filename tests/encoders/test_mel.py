"""Log-mel rows: the right band, the right time, the right level."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import get_window

from fedtalk.encoders.mel import BANDS, HOP, ROWS_PER_FRAME, log_mel, mel_filters
from fedtalk.errors import ArtifactError


def _band_of(hertz: float) -> float:
    """Which triangle peaks at a frequency, from the definition of the scale."""

    def mel(frequency: float) -> float:
        return 2595 * np.log10(1 + frequency / 700)

    return (mel(hertz) - mel(50)) / (mel(8000) - mel(50)) * (BANDS + 1) - 1


@pytest.mark.parametrize("hertz", [150.0, 440.0, 1000.0, 3100.0, 6500.0])
def test_a_tone_is_loudest_in_its_band(hertz: float) -> None:
    time = torch.arange(10 * 640) / 16_000
    rows = log_mel(0.3 * torch.sin(2 * torch.pi * hertz * time))
    assert abs(int(rows[10:30].mean(0).argmax()) - _band_of(hertz)) <= 1


@pytest.mark.parametrize("row", [0, 7, 20, 39])
def test_a_click_is_loudest_in_the_row_of_its_time(row: int) -> None:
    audio = torch.zeros(10 * 640)
    audio[row * HOP + HOP // 2] = 1.0
    loudness = log_mel(audio).mean(1)
    assert int(loudness.argmax()) == row
    if 0 < row < 39:
        assert torch.isclose(loudness[row - 1], loudness[row + 1], atol=1e-4)  # centred, not early or late


def test_rows_agree_with_numpy_and_scipy() -> None:
    audio = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, 3 * 640).astype(np.float32))
    window = get_window("hann", 400)
    padded = np.pad(audio.numpy().astype(np.float64), 400)
    expected = []
    for row in range(12):
        middle = 400 + row * 160 + 80
        power = np.abs(np.fft.rfft(padded[middle - 200 : middle + 200] * window, 512)) ** 2 / (window**2).sum()
        expected.append(np.log10(np.maximum(mel_filters().double().numpy() @ power, 1e-6)))
    ours = log_mel(audio).numpy()
    slope, shift = np.polyfit(np.ravel(expected), ours.ravel(), 1)
    assert np.allclose(slope * np.array(expected) + shift, ours, atol=1e-3)
    assert slope == pytest.approx(1 / 1.68, rel=1e-3)


def test_every_band_listens_somewhere_and_sums_to_one() -> None:
    filters = mel_filters()
    assert (filters >= 0).all()
    assert torch.allclose(filters.sum(1), torch.ones(BANDS))
    peaks = filters.argmax(1)
    assert (peaks.diff() >= 0).all()
    assert peaks[-1] > 240  # up to 8 kHz
    # White noise of variance s^2 gives s^2 in each band.
    noise = 0.1 * torch.randn(16_000 * 4, generator=torch.Generator().manual_seed(0))
    level = log_mel(noise) * 1.68 - 3.66
    assert torch.allclose((10**level).mean(0), torch.full((BANDS,), 0.01), rtol=0.25)


def test_rows_of_a_window_are_those_of_the_whole() -> None:
    audio = torch.randn(20 * 640, generator=torch.Generator().manual_seed(1))
    whole, part = log_mel(audio), log_mel(audio[5 * 640 : 15 * 640])
    inner = slice(2, -2)  # the outermost rows reach over the cut
    assert torch.allclose(whole[5 * ROWS_PER_FRAME : 15 * ROWS_PER_FRAME][inner], part[inner], atol=1e-4)


def test_a_batch_is_its_clips() -> None:
    audio = torch.randn(2, 3, 1280, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(log_mel(audio)[1, 2], log_mel(audio[1, 2]), atol=1e-5)


@pytest.mark.parametrize("audio", [torch.zeros(100), torch.zeros(640, dtype=torch.int16), torch.tensor(0.5)])
def test_audio_that_is_none_is_refused(audio: torch.Tensor) -> None:
    with pytest.raises(ArtifactError, match="audio for log_mel: expected"):
        log_mel(audio)
