"""How near a generated clip is to the truth. Pure functions of arrays; frames are (F, H, W, 3) uint8, RGB.

Every measure has a known value for the truth itself and for a frozen picture, so that neither can be mistaken for
success: the truth has PSNR 100, SSIM 1, mouth correlation 1 and flicker 1; a frozen picture has flicker 0 and mouth
correlation 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from fedtalk.errors import ArtifactError
from fedtalk.evaluation.recognisers import Recogniser
from fedtalk.randomness import numpy_generator

PSNR_CEILING = 100.0
"""PSNR in dB of frames without any error, for which the formula has no value."""
MOUTH_WIDTH, MOUTH_HEIGHT = 1.2, 0.95
"""Box of the mouth in inter-ocular distances."""


def psnr(truth: np.ndarray, generated: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB: mean over frames of ``10 log10(255^2 / MSE)``, at most 100 a frame.

    Raises:
        ArtifactError: clips that differ in shape, or are not uint8 frames.

    >>> grey = np.full((2, 8, 8, 3), 100, np.uint8)
    >>> round(psnr(grey, grey + 10), 3)  # 20 log10(255 / 10)
    28.131
    """
    _check_pair(truth, generated)
    error = _squared_error(truth, generated).mean((1, 2, 3))
    return float(_decibels(error).mean())


def psnr_mouth(truth: np.ndarray, generated: np.ndarray, mouth: np.ndarray, eyes: np.ndarray) -> float:
    """`psnr` inside a box around the true mouth: 1.2 inter-ocular distances wide and 0.95 high, upright, cut at the frame.

    A pixel belongs to the box if its middle does.

    Args:
        mouth: (F, 2) true mouth centres, (x, y) in pixels with the middle of the first pixel at 0.5.
        eyes: (F, 2, 2) true eyes.

    Raises:
        ArtifactError: as for `psnr`; points for another number of frames; a box that misses its frame.
    """
    _check_pair(truth, generated)
    if mouth.shape != (len(truth), 2) or eyes.shape != (len(truth), 2, 2):
        raise ArtifactError(
            f"psnr_mouth: expected points of {len(truth)} frames, got mouth {mouth.shape} and eyes {eyes.shape}"
        )
    inside = _mouth_boxes(mouth, eyes, *truth.shape[1:3])
    count = inside.sum((1, 2)) * 3
    if not count.all():
        raise ArtifactError(f"psnr_mouth: the mouth of frame {int(count.argmin())} lies outside of the frame")
    error = (_squared_error(truth, generated) * inside[..., None]).sum((1, 2, 3)) / count
    return float(_decibels(error).mean())


def ssim(truth: np.ndarray, generated: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004), Gaussian window of 11 pixels, mean over all pixels, channels and frames.

    At most 1; borders are mirrored.

    Raises:
        ArtifactError: as for `psnr`.

    >>> ramp = np.arange(32 * 32 * 3, dtype=np.uint32).reshape(1, 32, 32, 3).astype(np.uint8)
    >>> round(ssim(ramp, ramp), 6)
    1.0
    """
    _check_pair(truth, generated)
    one, other = (torch.from_numpy(frames.astype(np.float32)).permute(0, 3, 1, 2) for frames in (generated, truth))
    value = structural_similarity_index_measure(one, other, data_range=255.0)
    assert isinstance(value, torch.Tensor), "a tuple comes only where full images are asked for"
    return float(value)


def mouth_corr(openness_generated: np.ndarray, openness_true: np.ndarray) -> float:
    """Pearson correlation of two tracks of the lips' opening, in [-1, 1].

    0 where the generated mouth does not move: a frozen mouth follows nothing.

    Args:
        openness_generated: (F,), as a probe reads it.
        openness_true: (F,).

    Raises:
        ArtifactError: tracks that differ in length, hold values that are not finite, or a truth that does not move.

    >>> mouth_corr(np.array([0.1, 0.2, 0.4]), np.array([0.0, 0.2, 0.6]))
    1.0
    >>> mouth_corr(np.array([0.3, 0.3, 0.3]), np.array([0.0, 0.2, 0.6]))
    0.0
    """
    one, other = (np.asarray(track, np.float64) for track in (openness_generated, openness_true))
    if one.ndim != 1 or one.shape != other.shape or len(one) < 2:
        raise ArtifactError(
            f"mouth_corr: expected two tracks of one length, at least 2, got {one.shape} and {other.shape}"
        )
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ArtifactError("mouth_corr: expected finite openness, got nan or infinity")
    one, other = one - one.mean(), other - other.mean()
    # Deviations of a millionth of the range are rounding, not motion.
    if np.abs(other).max() < 1e-6:
        raise ArtifactError(
            "mouth_corr: the true mouth does not move, so there is nothing to follow; use a longer clip"
        )
    if np.abs(one).max() < 1e-6:
        return 0.0
    return float(np.clip(round(one @ other / np.sqrt((one @ one) * (other @ other)), 12), -1, 1))


def flicker(truth: np.ndarray, generated: np.ndarray) -> float:
    """Frame-to-frame change relative to the truth's: ``mean|g[t]-g[t-1]| / mean|x[t]-x[t-1]|``.

    1 is right, 0 is a frozen video, above 1 flickers.

    Raises:
        ArtifactError: as for `psnr`; fewer than two frames, or a truth that does not move.

    >>> moving = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * np.ones((1, 8, 8, 3), np.uint8)
    >>> flicker(moving, moving * 2), flicker(moving, moving[:1].repeat(4, 0))
    (2.0, 0.0)
    """
    _check_pair(truth, generated)
    true_change = _change(truth)
    if len(truth) < 2 or true_change == 0:
        raise ArtifactError("flicker: expected a true clip of at least two frames that moves")
    return _change(generated) / true_change


def jitter(points: np.ndarray, unit: float) -> float:
    """Mean length of the second difference of points over frames, in units of ``unit``; 0 for uniform motion.

    Args:
        points: (F, P, 2) in pixels, F at least 3.
        unit: inter-ocular distance in pixels.

    >>> steady = np.arange(5.0).reshape(5, 1, 1) * np.ones((1, 2, 2))
    >>> jitter(steady, unit=20.0)
    0.0
    """
    if points.ndim != 3 or points.shape[0] < 3 or points.shape[2] != 2 or not unit > 0:
        raise ArtifactError(f"jitter: expected points (F >= 3, P, 2) and a unit above 0, got {points.shape} and {unit}")
    return float(np.linalg.norm(np.diff(points, n=2, axis=0), axis=-1).mean() / unit)


def identity(
    embedder: Recogniser,
    generated: np.ndarray,
    eyes: np.ndarray,
    mouth: np.ndarray,
    reference: np.ndarray,
    reference_eyes: np.ndarray,
    reference_mouth: np.ndarray,
) -> float:
    """Mean cosine of all pairs of a generated and a reference frame (CSIM), in [-1, 1]; report it with ``embedder.name``.

    Args:
        embedder: one of `fedtalk.evaluation.recognisers`.
        generated: (F, H, W, 3) uint8 with its points: ``eyes`` (F, 2, 2) and ``mouth`` (F, 2).
        reference: (R, H, W, 3) uint8 true frames of the same person, with theirs.

    Raises:
        ArtifactError: no frames, or frames of another shape or dtype.
    """
    _check_frames(generated)
    _check_frames(reference)
    one = embedder.embed(generated, eyes, mouth).astype(np.float64)
    other = embedder.embed(reference, reference_eyes, reference_mouth).astype(np.float64)
    return float(one.mean(0) @ other.mean(0))


def bootstrap_interval(
    differences: Sequence[float] | np.ndarray,
    groups: Sequence[str | int] | np.ndarray,
    *,
    confidence: float = 0.95,
    samples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of paired differences with a percentile bootstrap interval; whole speakers are drawn (cluster bootstrap).

    Clips of one speaker resemble each other, so drawing clips would promise more certainty than there is.

    Args:
        differences: (N,) one difference a clip, such as the PSNR of one system less that of another.
        groups: (N,) the speaker of each clip; at least two speakers.
        confidence: share of the interval, in (0, 1).
        samples: bootstrap samples.
        seed: of the draws.

    Returns:
        mean, lower end, upper end. The mean counts every clip once.

    Raises:
        ArtifactError: fewer than two speakers, unequal lengths, values that are not finite, or a confidence outside
            (0, 1).

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13.

    >>> bootstrap_interval([1.0, 1.0, 1.0], ["anna", "bert", "carl"])
    (1.0, 1.0, 1.0)
    """
    values = np.asarray(differences, np.float64)
    labels = np.asarray(groups)
    if values.ndim != 1 or values.shape != labels.shape or not np.isfinite(values).all():
        raise ArtifactError(
            f"bootstrap: expected finite differences and one speaker each, got {values.shape} and {labels.shape}"
        )
    if not 0 < confidence < 1 or samples < 1:
        raise ArtifactError(f"bootstrap: expected a confidence in (0, 1) and samples, got {confidence} and {samples}")
    names, member = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ArtifactError(f"bootstrap: expected at least two speakers, got {len(names)}; evaluate more speakers")
    sums, sizes = np.bincount(member, values), np.bincount(member)
    drawn = numpy_generator(seed, "bootstrap").integers(len(names), size=(samples, len(names)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(values.mean()), float(low), float(high)


def _check_frames(frames: np.ndarray) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise ArtifactError(f"metrics: expected frames (F, H, W, 3) uint8, got {frames.shape} {frames.dtype}")


def _check_pair(truth: np.ndarray, generated: np.ndarray) -> None:
    _check_frames(truth)
    _check_frames(generated)
    if truth.shape != generated.shape:
        raise ArtifactError(f"metrics: expected two clips of one shape, got {truth.shape} and {generated.shape}")


def _squared_error(truth: np.ndarray, generated: np.ndarray) -> np.ndarray:
    return (truth.astype(np.float64) - generated.astype(np.float64)) ** 2


def _decibels(error: np.ndarray) -> np.ndarray:
    """(F,) mean squared errors -> PSNR in dB."""
    return np.minimum(PSNR_CEILING, 10 * np.log10(255.0**2 / np.maximum(error, 1e-12)))


def _mouth_boxes(mouth: np.ndarray, eyes: np.ndarray, height: int, width: int) -> np.ndarray:
    """(F, H, W) bool."""
    unit = np.linalg.norm(eyes[:, 1] - eyes[:, 0], axis=-1)[:, None]
    x = np.abs(np.arange(width) + 0.5 - mouth[:, :1]) <= MOUTH_WIDTH / 2 * unit
    y = np.abs(np.arange(height) + 0.5 - mouth[:, 1:]) <= MOUTH_HEIGHT / 2 * unit
    return y[:, :, None] & x[:, None, :]


def _change(frames: np.ndarray) -> float:
    return float(np.abs(np.diff(frames.astype(np.float64), axis=0)).mean()) if len(frames) > 1 else 0.0
