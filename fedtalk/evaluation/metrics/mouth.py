"""Whether the mouth does what the speech asks for, from tracks of its opening (F,) as a probe reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedtalk.errors import ArtifactError


def mouth_corr(openness_generated: np.ndarray, openness_true: np.ndarray) -> float:
    """Pearson correlation of two tracks of the lips' opening, in [-1, 1], higher is better.

    Against the truth of the same speech, or against the donor of speech that was swapped in. 0 where the generated mouth does
    not move: a frozen mouth follows nothing.

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


def pooled_mouth_corr(tracks: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Pearson correlation of the lips' opening over all frames of several clips, each clip's own means removed, in [-1, 1].

    Higher is better.

    A clip counts by how far its lips move. The mean of clips' own correlations gives a clip in which they hardly move, and
    whose correlation is mostly the probe's error, the same say as one in which somebody talks.

    Args:
        tracks: of each clip the generated and the true track, each (F,).

    Raises:
        ArtifactError: no clips, tracks that differ in length or hold values that are not finite.

    >>> pooled_mouth_corr([(np.array([0.1, 0.2, 0.4]), np.array([0.0, 0.2, 0.6])), (np.array([0.3, 0.3]), np.array([0.3, 0.3]))])
    1.0
    """
    if not tracks:
        raise ArtifactError("pooled_mouth_corr: expected at least one clip, got none")
    both = [_tracks("pooled_mouth_corr", one, other) for one, other in tracks]
    one, other = (np.concatenate([track - track.mean() for track in side]) for side in zip(*both, strict=True))
    if min(np.abs(one).max(), np.abs(other).max()) < 1e-6:
        return 0.0
    return float(np.clip(round(one @ other / np.sqrt((one @ one) * (other @ other)), 12), -1, 1))


def mouth_distance(openness_generated: np.ndarray, openness_true: np.ndarray) -> float:
    """Mean absolute difference of two tracks of the lips' opening, in the probe's unit (share of the inter-ocular distance).

    ``mean |g - x|``, 0 or more, lower is better; a mouth that stays closed has the mean opening of the truth.

    Raises:
        ArtifactError: tracks that differ in length or hold values that are not finite.

    >>> mouth_distance(np.array([0.25, 0.5]), np.array([0.25, 0.25]))
    0.125
    """
    one, other = _tracks("mouth_distance", openness_generated, openness_true)
    return float(np.abs(one - other).mean())


def mouth_amplitude(openness_generated: np.ndarray, openness_true: np.ndarray) -> float:
    """Standard deviation of the opening over the truth's: 1 is right, 0 is a frozen mouth, above 1 exaggerates.

    ``std(g) / std(x)``, 0 or more.

    Raises:
        ArtifactError: as for `mouth_corr`.

    >>> mouth_amplitude(np.array([0.0, 0.2]), np.array([0.0, 0.4]))
    0.5
    """
    one, other = _tracks("mouth_amplitude", openness_generated, openness_true)
    if np.ptp(other) < 1e-6:
        raise ArtifactError("mouth_amplitude: the true mouth does not move; use a longer clip")
    return float(one.std() / other.std())


def lip_leakage(openness_silent: np.ndarray, openness_true: np.ndarray) -> float:
    """How far the mouth opens although the input is silent, as a share of how far the truth opens.

    ``(mean(silent) - closed) / (p95(true) - closed)`` with ``closed = p5(true)``, at least 0: 0 is a mouth that stays as closed
    as the speaker's ever is, 1 one that stands as open as the speaker's ever does. What leaks comes from the frames around
    the mask or from habit, not from sound (silent-input test of arXiv 2511.08613; its definition by sync scores, ours by
    opening).

    Raises:
        ArtifactError: as for `mouth_corr`.

    >>> lip_leakage(np.zeros(50), np.linspace(0, 1, 50)), round(lip_leakage(np.full(50, 0.5), np.linspace(0, 1, 50)), 6)
    (0.0, 0.5)
    """
    one, other = _tracks("lip_leakage", openness_silent, openness_true)
    closed, opened = np.quantile(other, [0.05, 0.95])
    if opened - closed < 1e-6:
        raise ArtifactError("lip_leakage: the true mouth does not move; use a longer clip")
    return float(max(0.0, (one.mean() - closed) / (opened - closed)))


def _tracks(what: str, *tracks: np.ndarray) -> list[np.ndarray]:
    arrays = [np.asarray(track, np.float64) for track in tracks]
    if len({array.shape for array in arrays}) != 1 or arrays[0].ndim != 1 or len(arrays[0]) < 2:
        raise ArtifactError(f"{what}: expected tracks of one length, at least 2, got {[a.shape for a in arrays]}")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ArtifactError(f"{what}: expected finite openness, got nan or infinity")
    return arrays
