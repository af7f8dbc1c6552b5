"""Random pictures with the statistics of natural ones: occluding discs of many sizes with shading and grain.

The dead leaves model (Lee, Mumford, Huang, "Occlusion models for natural images", 2001): a codec that has seen them
does not depend on the look of one data set.
"""

from __future__ import annotations

import torch
from torch import Tensor


def draw_textures(count: int, size: int, generator: torch.Generator, leaves: int = 25) -> list[Tensor]:
    """``count`` pictures (3, size, size), float32 in [-1, 1]."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    axis = torch.linspace(0, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    pictures = []
    for _ in range(count):
        picture = uniform(3, 1, 1).expand(3, size, size).clone()
        tint = uniform(3)
        # Radii follow 1/r^3 between 3 % and 60 % of the picture: the scale-invariant law of the model.
        radius = (uniform(leaves) * (1 / 0.03**2 - 1 / 0.6**2) + 1 / 0.6**2) ** -0.5
        for leaf in range(leaves):
            cx, cy, squeeze, turn = uniform(4).tolist()
            dx, dy = x - cx, y - cy
            angle = torch.tensor(turn * 3.14159)
            u, v = dx * angle.cos() + dy * angle.sin(), -dx * angle.sin() + dy * angle.cos()
            distance = (u.square() + (v / (0.3 + 0.7 * squeeze)).square()).sqrt() - radius[leaf]
            cover = (0.5 - distance * size / (0.7 + 2.5 * float(uniform(1)))).clamp(0, 1)
            colour = 0.5 * uniform(3) + 0.5 * tint * uniform(1)
            slope = 0.6 * (uniform(2) - 0.5)
            shade = 1 + slope[0] * u / radius[leaf] + slope[1] * v / radius[leaf]
            picture += cover * (colour[:, None, None] * shade.clamp(0.3, 1.7) - picture)
        picture += 0.02 * float(uniform(1)) * torch.randn(3, size, size, generator=generator)
        pictures.append((picture * 2 - 1).clamp(-1, 1))
    return pictures
