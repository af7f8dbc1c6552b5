"""Pixels as bytes and as numbers in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def to_unit(frames: Tensor) -> Tensor:
    """uint8 frames to float32 in [-1, 1]."""
    return frames.float() / 127.5 - 1.0


def to_bytes(frames: Tensor) -> Tensor:
    """Float frames in [-1, 1] to uint8, rounding and clipping."""
    return ((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
