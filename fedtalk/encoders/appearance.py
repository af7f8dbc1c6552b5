"""Random appearance for training: colour, softness and noise, drawn once a group of frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def vary_appearance(
    frames: Tensor, generator: torch.Generator, *, hue: float, colour: float, blur: float, noise: float
) -> Tensor:
    """Recolour, blur and disturb groups of frames; all frames of a group get the same treatment (but their own noise).

    Every amount is multiplied by its own uniform draw, so that faint changes are as common as strong ones.

    Args:
        frames: (G, F, 3, H, W) float in [-1, 1].
        hue: largest rotation about the grey axis in radians.
        colour: strength of channel mixing, contrast and brightness.
        blur: largest standard deviation of a Gaussian in pixels.
        noise: largest standard deviation of noise, half of it fine and half in blocks of 4 x 4 pixels, as coarse
            coding leaves them.

    Returns:
        the same shape, in [-1, 1].
    """
    groups, count, _, height, width = frames.shape

    def amount() -> Tensor:
        return torch.rand(groups, generator=generator)

    mix = _hue_rotation(hue * (2 * amount() - 1))
    strength = (colour * amount())[:, None, None]
    mix = mix @ (torch.eye(3) + strength * torch.randn(groups, 3, 3, generator=generator))
    mix = mix * (1 + strength * (2 * amount()[:, None, None] - 1))
    shift = strength * torch.randn(groups, 3, 1, generator=generator)
    flat = frames.reshape(groups, count, 3, height * width)
    picture = (torch.einsum("gij,gfjp->gfip", mix, flat) + shift[:, None]).reshape(frames.shape)
    picture = _blur(picture, blur * amount())
    level = (noise * amount() / math.sqrt(2))[:, None, None, None, None]
    fine = torch.randn(frames.shape, generator=generator)
    coarse = torch.randn(groups * count, 3, math.ceil(height / 4), math.ceil(width / 4), generator=generator)
    blocks = F.interpolate(coarse, scale_factor=4, mode="nearest")[..., :height, :width].reshape(frames.shape)
    return (picture + level * (fine + blocks)).clamp(-1, 1)


def _hue_rotation(angle: Tensor) -> Tensor:
    """(G,) radians -> (G, 3, 3): rotation about (1, 1, 1) by Rodrigues' formula."""
    third = torch.full((3, 3), 1 / 3)
    root = 1 / math.sqrt(3)
    cross = root * torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return cos * torch.eye(3) + (1 - cos) * third + sin * cross


def _blur(picture: Tensor, sigma: Tensor) -> Tensor:
    """Separable Gaussian of each group's own standard deviation, edges repeated."""
    groups, count, channels, height, width = picture.shape
    reach = 4
    offsets = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(0.05)[:, None]) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)  # (G, 9)
    per_group = count * channels
    weight = kernel.repeat_interleave(per_group, 0)[:, None, :, None]
    padded = F.pad(picture.reshape(groups, per_group, height, width), (reach,) * 4, mode="replicate")
    padded = padded.reshape(1, groups * per_group, height + 2 * reach, width + 2 * reach)
    blurred = F.conv2d(padded, weight, groups=groups * per_group)
    blurred = F.conv2d(blurred, weight.transpose(2, 3), groups=groups * per_group)
    return blurred.reshape(picture.shape)
