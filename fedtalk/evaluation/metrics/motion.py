"""How frames move from one to the next, against how the true ones do."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from fedtalk.errors import ArtifactError
from fedtalk.evaluation.metrics.checks import check_pair


def flicker(truth: np.ndarray, generated: np.ndarray) -> float:
    """Frame-to-frame change relative to the truth's: ``mean|g[t]-g[t-1]| / mean|x[t]-x[t-1]|``.

    0 or more: 1 is right, 0 is a frozen video, above 1 flickers.

    Raises:
        ArtifactError: as for `psnr`; fewer than two frames, or a truth that does not move.

    >>> moving = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * np.ones((1, 8, 8, 3), np.uint8)
    >>> flicker(moving, moving * 2), flicker(moving, moving[:1].repeat(4, 0))
    (2.0, 0.0)
    """
    check_pair(truth, generated)
    true_change = _change(truth)
    if len(truth) < 2 or true_change == 0:
        raise ArtifactError("flicker: expected a true clip of at least two frames that moves")
    return _change(generated) / true_change


def jitter(points: np.ndarray, unit: float) -> float:
    """Mean length of the second difference of points over frames, in units of ``unit``; 0 for uniform motion.

    ``mean |p[t+1] - 2 p[t] + p[t-1]| / unit``, 0 or more. Tables have it over the truth's own: 1 is right there, above 1
    trembles.

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


@dataclass(frozen=True)
class TrueMotion:
    """The optical flow of a true clip, from each frame to the next (DIS, Kroeger et al. 2016)."""

    there: list[np.ndarray]
    """By pair of frames: (H, W, 2) float32, where each pixel goes."""
    agree: list[np.ndarray]
    """By pair of frames: (H, W) bool, pixels whose forward and backward flow agree."""

    @classmethod
    def of(cls, truth: np.ndarray) -> TrueMotion:
        """Of (F, H, W, 3) uint8 frames."""
        flows = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in truth]
        there, agree = [], []
        for one, other in pairwise(grey):
            forward, backward = _flow(flows, one, other), _flow(flows, other, one)
            there.append(_grid(forward))
            agree.append(np.linalg.norm(forward + _look_up(backward, there[-1]), axis=-1) <= 1.0)
        return cls(there, agree)


def warping_error(truth: np.ndarray, generated: np.ndarray, motion: TrueMotion | None = None) -> float:
    """Temporal inconsistency along the true motion, relative to the truth's own.

    The true clip's flow brings each frame onto the one before it; the mean absolute difference there, over pixels whose forward
    and backward flow agree, is divided by that of the true clip (after Lai et al., "Learning Blind Video Temporal Consistency",
    ECCV 2018, eq. 10-11, with an absolute error).

    Args:
        truth: (F, H, W, 3) uint8.
        generated: of the same shape.
        motion: of the truth, where it is known already.

    Returns:
        0 or more; 1 is as consistent as the truth, above 1 flickers or swims, a still picture under a moving head is above
        1 too.

    Raises:
        ArtifactError: as for `flicker`.

    >>> moving = np.random.default_rng(0).integers(0, 256, (1, 32, 40, 3), np.uint8)
    >>> moving = np.concatenate([np.roll(moving, shift, 2) for shift in range(4)])
    >>> warping_error(moving, moving)
    1.0
    """
    check_pair(truth, generated)
    if len(truth) < 2:
        raise ArtifactError("warping error: expected at least two frames")
    motion = motion or TrueMotion.of(truth)
    own = made = 0.0
    for now, (there, agree) in enumerate(zip(motion.there, motion.agree, strict=True), 1):
        if agree.any():
            own += _difference_along(truth, now, there)[agree].mean()
            made += _difference_along(generated, now, there)[agree].mean()
    if own == 0:
        raise ArtifactError("warping error: expected a true clip that changes")
    return float(made / own)


def _change(frames: np.ndarray) -> float:
    return float(np.abs(np.diff(frames.astype(np.float64), axis=0)).mean()) if len(frames) > 1 else 0.0


def _grid(flow: np.ndarray) -> np.ndarray:
    """(H, W, 2) float32: where each pixel goes."""
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return np.stack([x, y], -1) + flow


def _difference_along(frames: np.ndarray, now: int, there: np.ndarray) -> np.ndarray:
    warped = _look_up(frames[now], there)
    return np.abs(warped.astype(np.float64) - frames[now - 1]).mean(-1)


def _look_up(picture: np.ndarray, there: np.ndarray) -> np.ndarray:
    x, y = np.ascontiguousarray(there.transpose(2, 0, 1))
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _flow(flows: cv2.DenseOpticalFlow, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return flows.calc(one, other, np.zeros((*one.shape, 2), np.float32))
