"""The region that dubbing replaces: the lower face, placed by the eyes alone, so that it can't tell how the mouth moves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CENTRE_DROP = 1.25
"""Distance of the region's centre below the point between the eyes, in inter-ocular distances."""
HALF_WIDTH, HALF_HEIGHT = 1.0, 0.92
MOUTH_WIDE, MOUTH_ABOVE, MOUTH_BELOW = 0.95, 0.6, 0.95
"""Reach of the network's picture from the middle of the mouth to the sides, upwards and downwards, in inter-ocular distances."""
MOUTH_RAMP = 0.3
"""Share of it over which it fades into the puppet."""
RAMP = 0.16
"""Width of the blending border inside the region, in inter-ocular distances."""
CHEEKS, NECK = (0.8, 1.0), (2.2, 0.75)
"""Distance below the eyes, and how far to either side what was made is shown there; in between it narrows as a face does, so that
neck and background, which don't turn with the head, stay the recording's."""


def region(eyes: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points lie in the region.

    Args:
        eyes: (F, 2, 2) eye centres.
        x, y: coordinates of points, (H, W) together: a row (1, W) and a column (H, 1) will do.

    Returns:
        (F, H, W) how far inside they lie, in inter-ocular distances, negative outside; and (F, H, W) in [0, 1] the share of
        what was made there, which rises from 0 to 1 within `RAMP`.
    """
    left, right = eyes[:, 0], eyes[:, 1]
    middle, across = (left + right) / 2, right - left
    unit = np.maximum(np.linalg.norm(across, axis=1), 1e-3)[:, None, None]
    cos, sin = (across[:, i][:, None, None] / unit for i in (0, 1))
    dx, dy = (x - middle[:, 0][:, None, None]) / unit, (y - middle[:, 1][:, None, None]) / unit
    u, v = dx * cos + dy * sin, -dx * sin + dy * cos - CENTRE_DROP
    # A rounded rectangle (a superellipse of exponent 4).
    radius = np.sqrt(np.sqrt(np.square(np.square(u / HALF_WIDTH)) + np.square(np.square(v / HALF_HEIGHT))))
    depth = (1.0 - radius) * min(HALF_WIDTH, HALF_HEIGHT)
    side = np.interp(v + CENTRE_DROP, (CHEEKS[0], NECK[0]), (CHEEKS[1], NECK[1])) - np.abs(u)
    return depth, np.clip(np.minimum(depth, side) / RAMP, 0, 1)


def lower_face(eyes: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
    """The hidden region and the blending weight of generated over original pixels.

    Args:
        eyes: (F, 2, 2) eye centres in pixels.
        size: height and width of the frames.

    Returns:
        hidden (F, 1, H, W) float32, 1 where the model may not see; alpha (F, 1, H, W) float32 in [0, 1], see `region`, so that
        no seam can show.
    """
    y, x = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5, indexing="ij", sparse=True)
    depth, share = (torch.from_numpy(one).float()[:, None] for one in region(np.asarray(eyes, np.float64), x, y))
    return (depth > 0).float(), share


def around_mouth(mouths: np.ndarray, eyes: np.ndarray, size: int) -> Tensor:
    """How far a frame is taken from the network's picture, the rest from the puppet: lips, cheeks beside them, and chin.

    Args:
        mouths: (F, 2) centres of the mouth in pixels.
        eyes: (F, 2, 2) eye centres in pixels.
        size: height and width of the frames.

    Returns:
        (F, 1, H, W) float32 in [0, 1].
    """
    x = np.arange(size, dtype=np.float32)[None]
    y = x.T
    across = eyes[:, 1] - eyes[:, 0]
    unit = np.maximum(np.linalg.norm(across, axis=1), 1e-3)
    cos, sin = ((across[:, i] / unit**2).astype(np.float32)[:, None, None] for i in (0, 1))
    dx, dy = (axis - mouths[:, i].astype(np.float32)[:, None, None] for i, axis in ((0, x), (1, y)))
    u, v = dx * cos + dy * sin, -dx * sin + dy * cos
    beside, below = (
        np.square(u / MOUTH_WIDE),
        np.square(v / np.where(v < 0, MOUTH_ABOVE, MOUTH_BELOW).astype(np.float32)),
    )
    radius = np.sqrt(np.sqrt(np.square(beside) + np.square(below)))
    return torch.from_numpy(np.clip((1 - radius) / MOUTH_RAMP, 0, 1).astype(np.float32))[:, None]


def loss_weight(mask_BF1hw: Tensor, mouth_BF2: Tensor, emphasis: float) -> Tensor:
    """Where errors count: where the picture is replaced, more around the mouth, a little everywhere; (B, F, 1, h, w), mean 1.

    Args:
        mask_BF1hw: 1 where a dub replaces.
        mouth_BF2: mouth centres, (x, y) as shares of the frame.
        emphasis: how much more an error at the mouth counts than elsewhere.
    """
    cells = mask_BF1hw.shape[-1]
    axis = (torch.arange(cells, device=mask_BF1hw.device) + 0.5) / cells
    x, y = mouth_BF2[..., 0, None, None], mouth_BF2[..., 1, None, None]
    near = torch.exp(-(((axis[None, :] - x) / 0.16) ** 2 + ((axis[:, None] - y) / 0.13) ** 2))[:, :, None]
    weight = 0.1 + 0.9 * mask_BF1hw + emphasis * near
    return weight / weight.mean((-1, -2), keepdim=True)
