"""What metrics ask of frames."""

from __future__ import annotations

import numpy as np

from fedtalk.errors import ArtifactError


def check_frames(frames: np.ndarray) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise ArtifactError(f"metrics: expected frames (F, H, W, 3) uint8, got {frames.shape} {frames.dtype}")


def check_pair(truth: np.ndarray, generated: np.ndarray) -> None:
    check_frames(truth)
    check_frames(generated)
    if truth.shape != generated.shape:
        raise ArtifactError(f"metrics: expected two clips of one shape, got {truth.shape} and {generated.shape}")
