"""What of a network's change of a picture is kept: the part that stands out from what it spreads over the whole patch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

NOISE = 0.5
"""Share of the change's mean energy around a point that is taken for noise; chosen on four people of the GRID corpus."""
NEAR, AROUND = 0.1, 0.5
"""Standard deviations of the windows over which energies are averaged, at a point and around it, in cells of the latents."""


def standing_out(change: Tensor, cell: int) -> Tensor:
    """A local Wiener filter (Lee 1980): each point's change times the share of its energy that is not noise.

    A latent cell says something about all pixels under it: an answer that is a little off at the lips shows as texture on skin
    beside them. Its energy is spread, that of the lips' own change is not: ``gain = max(0, E_near - k E_around) / E_near``.

    Args:
        change: (N, 3, H, W) float, generated picture less the one it was made from.
        cell: pixels under a latent cell.

    Returns:
        (N, 3, H, W).
    """
    near = _blurred(change.square().mean(1, keepdim=True), NEAR * cell)
    around = _blurred(near, AROUND * cell)
    return change * ((near - NOISE * around).clamp_min(0) / near.clamp_min(1e-8))


def _blurred(values: Tensor, deviation: float) -> Tensor:
    """(N, 1, H, W) under a Gaussian, its borders repeated."""
    reach = max(1, math.ceil(3 * deviation))
    at = torch.arange(-reach, reach + 1, device=values.device, dtype=values.dtype)
    kernel = torch.exp(-((at / max(deviation, 1e-3)) ** 2) / 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(values, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
