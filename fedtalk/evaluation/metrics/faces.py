"""Who it is, and where the features of the face lie."""

from __future__ import annotations

import numpy as np

from fedtalk.errors import ArtifactError


def identity(generated: np.ndarray, reference: np.ndarray) -> float:
    """Mean cosine of all pairs of a generated and a reference frame (CSIM), in [-1, 1], higher is better.

    Cosines of two embedders are on two scales: report it with its recogniser's name, beside what the truth has.

    Source: Zakharov et al., "Few-Shot Adversarial Learning of Realistic Neural Talking Head Models", 2019, section 4.

    Args:
        generated: (N, D) embeddings of unit length of generated frames (`fedtalk.evaluation.recognisers`).
        reference: (R, D) of true frames of the same person, by the same recogniser.

    Raises:
        ArtifactError: no frames, other shapes, or embeddings that are not of unit length.

    >>> identity(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0]]))
    0.5
    """
    one, other = np.asarray(generated, np.float64), np.asarray(reference, np.float64)
    if one.ndim != 2 or other.ndim != 2 or one.shape[1:] != other.shape[1:] or not (len(one) and len(other)):
        raise ArtifactError(f"identity: expected embeddings (N, D) and (R, D), got {one.shape} and {other.shape}")
    for name, found in (("generated", one), ("reference", other)):
        lengths = np.linalg.norm(found, axis=1)
        if not np.allclose(lengths, 1, atol=1e-3):
            raise ArtifactError(
                f"identity: expected {name} embeddings of unit length, got {lengths.min():.3g} to {lengths.max():.3g}"
            )
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
