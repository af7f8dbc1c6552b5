"""How near each picture is to the true one."""

from __future__ import annotations

import cv2
import numpy as np

from fedtalk.errors import ArtifactError
from fedtalk.evaluation.metrics.checks import check_pair

PSNR_CEILING = 100.0
"""PSNR in dB of frames without any error, for which the formula has no value."""
WINDOW, SIGMA = 11, 1.5
"""Of the Gaussian window of `ssim`, in pixels."""
MOUTH_WIDTH, MOUTH_HEIGHT = 1.2, 0.95
"""Box of the mouth in inter-ocular distances."""


def psnr(truth: np.ndarray, generated: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB: mean over frames of ``10 log10(255^2 / MSE)``, in [0, 100], higher is better.

    100 is a frame without any error, for which the formula has no value. The mean over frames is what
    `torchmetrics.functional.image.peak_signal_noise_ratio` gives with ``dim`` and ``reduction="elementwise_mean"``.

    Raises:
        ArtifactError: clips that differ in shape, or are not uint8 frames.

    >>> grey = np.full((2, 8, 8, 3), 100, np.uint8)
    >>> round(psnr(grey, grey + 10), 3)  # 20 log10(255 / 10)
    28.131
    """
    check_pair(truth, generated)
    error = _squared_error(truth, generated).mean((1, 2, 3))
    return float(_decibels(error).mean())


def psnr_mouth(truth: np.ndarray, generated: np.ndarray, mouth: np.ndarray, eyes: np.ndarray) -> float:
    """`psnr` inside a box around the true mouth: 1.2 inter-ocular distances wide and 0.95 high, upright, cut at the frame.

    A pixel belongs to the box if its middle does. In [0, 100] dB, higher is better.

    Args:
        mouth: (F, 2) true mouth centres, (x, y) in pixels with the middle of the first pixel at 0.5.
        eyes: (F, 2, 2) true eyes.

    Raises:
        ArtifactError: as for `psnr`; points for another number of frames; a box that misses its frame.
    """
    check_pair(truth, generated)
    if mouth.shape != (len(truth), 2) or eyes.shape != (len(truth), 2, 2):
        raise ArtifactError(
            f"psnr_mouth: expected points of {len(truth)} frames, got mouth {mouth.shape} and eyes {eyes.shape}"
        )
    inside = mouth_boxes(mouth, eyes, *truth.shape[1:3])
    count = inside.sum((1, 2)) * 3
    if not count.all():
        raise ArtifactError(f"psnr_mouth: the mouth of frame {int(count.argmin())} lies outside of the frame")
    error = (_squared_error(truth, generated) * inside[..., None]).sum((1, 2, 3)) / count
    return float(_decibels(error).mean())


def ssim(truth: np.ndarray, generated: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004), Gaussian window of 11 pixels, mean over all pixels, channels and frames.

    ``(2 m_x m_y + c1) (2 s_xy + c2) / ((m_x^2 + m_y^2 + c1) (s_x^2 + s_y^2 + c2))`` with ``c = (0.01 * 255)^2, (0.03 * 255)^2``.
    In [-1, 1], higher is better; borders are mirrored and count, as in torchmetrics' full image (its mean leaves them out).

    Raises:
        ArtifactError: as for `psnr`.

    >>> ramp = np.arange(32 * 32 * 3, dtype=np.uint32).reshape(1, 32, 32, 3).astype(np.uint8)
    >>> round(ssim(ramp, ramp), 6)
    1.0
    """
    check_pair(truth, generated)
    first, second = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def smooth(picture: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(picture, (WINDOW, WINDOW), SIGMA, borderType=cv2.BORDER_REFLECT_101)

    means = []
    for x, y in zip(truth.astype(np.float64), generated.astype(np.float64), strict=True):
        mean_x, mean_y = smooth(x), smooth(y)
        both = mean_x * mean_y
        squares = mean_x * mean_x + mean_y * mean_y
        covariance = smooth(x * y) - both
        variances = smooth(x * x + y * y) - squares
        likeness = (2 * both + first) * (2 * covariance + second) / ((squares + first) * (variances + second))
        means.append(likeness.mean())
    return float(np.mean(means))


def mouth_boxes(mouth: np.ndarray, eyes: np.ndarray, height: int, width: int) -> np.ndarray:
    """(F, H, W) bool."""
    unit = np.linalg.norm(eyes[:, 1] - eyes[:, 0], axis=-1)[:, None]
    x = np.abs(np.arange(width) + 0.5 - mouth[:, :1]) <= MOUTH_WIDTH / 2 * unit
    y = np.abs(np.arange(height) + 0.5 - mouth[:, 1:]) <= MOUTH_HEIGHT / 2 * unit
    return y[:, :, None] & x[:, None, :]


def _squared_error(truth: np.ndarray, generated: np.ndarray) -> np.ndarray:
    return (truth.astype(np.float64) - generated.astype(np.float64)) ** 2


def _decibels(error: np.ndarray) -> np.ndarray:
    """(F,) mean squared errors -> PSNR in dB."""
    return np.minimum(PSNR_CEILING, 10 * np.log10(255.0**2 / np.maximum(error, 1e-12)))
