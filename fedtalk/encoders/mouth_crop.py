"""The mouth, cut out upright and at one size; differentiable in the frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fedtalk.errors import ArtifactError

SIDE = 1.2
"""Side of the crop in inter-ocular distances."""
PIXELS = 32
"""Height and width of the crop."""


def mouth_crops(frames: Tensor, mouth: Tensor, eyes: Tensor) -> Tensor:
    """Squares around the mouth, turned so that the eyes are level.

    Points lie in pixels with the middle of the first pixel at 0.5, as in `Clip`. Beyond the frame its border goes on.

    Args:
        frames: (N, 3, H, W) float.
        mouth: (N, 2) centre of the mouth, (x, y).
        eyes: (N, 2, 2) eye on the left and on the right of the picture, (x, y).

    Returns:
        (N, 3, 32, 32) float; gradient flows to ``frames``.

    Raises:
        ArtifactError: shapes that don't belong together.
    """
    count = len(frames)
    if frames.ndim != 4 or mouth.shape != (count, 2) or eyes.shape != (count, 2, 2):
        raise ArtifactError(
            "mouth crops: expected frames (N, 3, H, W), mouth (N, 2) and eyes (N, 2, 2), "
            f"got {tuple(frames.shape)}, {tuple(mouth.shape)} and {tuple(eyes.shape)}"
        )
    across = eyes[:, 1] - eyes[:, 0]
    # Large frames are first shrunk by a whole factor: sampling them straight would alias.
    factor = max(1, int(float(across.norm(dim=1).median()) * SIDE / PIXELS))
    if factor > 1:
        frames = F.avg_pool2d(frames, factor)
    right = across * (SIDE / factor)  # (N, 2): the crop's upper edge as a vector
    down = torch.stack([-right[:, 1], right[:, 0]], -1)
    step = (torch.arange(PIXELS, device=frames.device) + 0.5) / PIXELS - 0.5
    points = (
        (mouth / factor)[:, None, None]
        + step[None, None, :, None] * right[:, None, None]
        + step[None, :, None, None] * down[:, None, None]
    )
    size = torch.tensor(frames.shape[:1:-1], device=frames.device)
    grid = (2 * points / size - 1).to(frames.dtype)
    return F.grid_sample(frames, grid, mode="bilinear", padding_mode="border", align_corners=False)
