"""Who it is, and where the features of the face lie."""

from __future__ import annotations

import numpy as np

from fedtalk.errors import ArtifactError
from fedtalk.evaluation.metrics.checks import check_frames
from fedtalk.evaluation.recognisers import Recogniser


def identity(
    embedder: Recogniser,
    generated: np.ndarray,
    eyes: np.ndarray,
    mouth: np.ndarray,
    reference: np.ndarray,
    reference_eyes: np.ndarray,
    reference_mouth: np.ndarray,
) -> float:
    """Mean cosine of all pairs of a generated and a reference frame (CSIM), in [-1, 1], higher is better.

    Cosines of two embedders are on two scales: report it with ``embedder.name``, beside what the truth has.

    Source: Zakharov et al., "Few-Shot Adversarial Learning of Realistic Neural Talking Head Models", 2019, section 4.

    Args:
        embedder: one of `fedtalk.evaluation.recognisers`.
        generated: (F, H, W, 3) uint8 with its points: ``eyes`` (F, 2, 2) and ``mouth`` (F, 2).
        reference: (R, H, W, 3) uint8 true frames of the same person, with theirs.

    Raises:
        ArtifactError: no frames, or frames of another shape or dtype.
    """
    check_frames(generated)
    check_frames(reference)
    one = embedder.embed(generated, eyes, mouth).astype(np.float64)
    other = embedder.embed(reference, reference_eyes, reference_mouth).astype(np.float64)
    return float(one.mean(0) @ other.mean(0))


def landmark_distance(generated: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of corresponding landmarks over the inter-ocular distance of the truth (LMD, Chen et al. 2018).

    Args:
        generated: (F, P, 2) landmarks in pixels; 68 in the order of iBUG 300-W, whose 36-41 and 42-47 are the eyes.
        truth: (F, 68, 2) those of the true frames.

    Returns:
        0 or more, lower is better; 0 is right, a share of the distance between the eyes.

    Raises:
        ArtifactError: other shapes, or eyes in one place.

    >>> points = np.random.default_rng(0).random((3, 68, 2)); points[:, 36:42] = 0; points[:, 42:48] = (2, 0)
    >>> round(landmark_distance(points + (0.5, 0), points), 6)
    0.25
    """
    unit = _between_eyes(generated, truth)
    return float((np.linalg.norm(generated - truth, axis=-1).mean(-1) / unit).mean())


def mouth_landmark_distance(generated: np.ndarray, truth: np.ndarray) -> float:
    """`landmark_distance` of the mouth's twenty landmarks (48-67), each face's mouth centred first: shape, not place.

    0 or more, lower is better.

    >>> points = np.random.default_rng(0).random((3, 68, 2)); points[:, 36:42] = 0; points[:, 42:48] = (2, 0)
    >>> round(mouth_landmark_distance(points + (0.5, 0), points), 6)
    0.0
    """
    unit = _between_eyes(generated, truth)
    one, other = (points[:, 48:68] - points[:, 48:68].mean(1, keepdims=True) for points in (generated, truth))
    return float((np.linalg.norm(one - other, axis=-1).mean(-1) / unit).mean())


def _between_eyes(generated: np.ndarray, truth: np.ndarray) -> np.ndarray:
    if truth.ndim != 3 or truth.shape[1:] != (68, 2) or generated.shape != truth.shape:
        raise ArtifactError(
            f"landmark distance: expected two (F, 68, 2) arrays, got {generated.shape} and {truth.shape}"
        )
    unit = np.linalg.norm(truth[:, 42:48].mean(1) - truth[:, 36:42].mean(1), axis=-1)
    if not (unit > 0).all():
        raise ArtifactError("landmark distance: the eyes of a true frame lie in one place")
    return unit
