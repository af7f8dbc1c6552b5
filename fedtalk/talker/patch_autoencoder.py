"""An autoencoder whose encoder is linear: principal components of square patches, and a decoder that refines them.

Encoding is one matrix product a patch, so that training can change its pictures at every step; the components are the best
linear code there is for a number of channels (Karhunen-Loeve), and what a linear decoder leaves, seams between patches and soft
edges, a small convolutional network mends.
"""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PatchAutoencoder(nn.Module):
    """Frames (N, 3, H, W) in [-1, 1] to latents (N, C, H / patch, W / patch) and back; the shape of a diffusers autoencoder."""

    def __init__(self, patch: int = 16, latent_channels: int = 96, width: int = 96, blocks: int = 3) -> None:
        """
        Args:
            patch: side of a patch in pixels, a multiple of 4.
            latent_channels: principal components kept.
            width: channels of the refining network, which works at a quarter of the size.
            blocks: its residual blocks.
        """
        super().__init__()
        self.config = {
            "_class_name": type(self).__name__,
            "patch": patch,
            "latent_channels": latent_channels,
            "width": width,
            "blocks": blocks,
        }
        self.patch = patch
        values = 3 * patch * patch
        # Parameters that no gradient reaches: they travel and are stored with the others.
        self.average = nn.Parameter(torch.zeros(values), requires_grad=False)
        random = torch.linalg.qr(torch.randn(values, latent_channels))[0].T.contiguous()
        self.components = nn.Parameter(random, requires_grad=False)
        quarter = 3 * 4 * 4
        self.into = nn.Conv2d(quarter + latent_channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(_ResidualBlock(width) for _ in range(blocks))
        self.out = nn.Conv2d(width, quarter, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    @property
    def fitted(self) -> bool:
        """Whether `fit` has seen pictures; until then the components are random."""
        return bool(self.average.any())

    def encode(self, frames: Tensor) -> Tensor:
        """Latents, not whitened."""
        height, width = (side // self.patch for side in frames.shape[-2:])
        patches = F.unfold(frames, self.patch, stride=self.patch)  # (N, 3 p p, h w)
        latents = torch.einsum("kv,nvl->nkl", self.components, patches - self.average[:, None])
        return latents.unflatten(-1, (height, width))

    def decode(self, latents: Tensor) -> Tensor:
        """Frames."""
        size = (latents.shape[-2] * self.patch, latents.shape[-1] * self.patch)
        patches = torch.einsum("kv,nkl->nvl", self.components, latents.flatten(2)) + self.average[:, None]
        linear = F.fold(patches, size, self.patch, stride=self.patch)
        spread = F.interpolate(latents, scale_factor=self.patch // 4, mode="bilinear", align_corners=False)
        hidden = self.into(torch.cat([F.pixel_unshuffle(linear, 4), spread], 1))
        for block in self.blocks:
            hidden = block(hidden)
        return linear + F.pixel_shuffle(self.out(F.silu(hidden)), 4)

    def without_seams(self, change: Tensor) -> Tensor:
        """What has to be added to a picture whose latents were changed, so that the change is smooth across patches' borders.

        Each patch is predicted by itself, and a change that is a little off stops short at its border. Half of the step there,
        less the slope on its two sides, is added to either side, falling to nothing over half a patch.

        Args:
            change: (N, C, h, w), not whitened.

        Returns:
            (N, 3, H, W).
        """
        patches = torch.einsum("kv,nkl->nvl", self.components, change.flatten(2))
        size = (change.shape[-2] * self.patch, change.shape[-1] * self.patch)
        picture = F.fold(patches, size, self.patch, stride=self.patch)
        return self._across(picture) + self._across(picture.mT).mT

    def _across(self, picture: Tensor) -> Tensor:
        """The correction for borders between patches that lie beside each other."""
        columns = picture.unflatten(-1, (-1, self.patch))  # (N, 3, H, w, patch)
        left, right = columns[..., :-1, :], columns[..., 1:, :]
        slope = (left[..., -1] - left[..., -2] + right[..., 1] - right[..., 0]) / 2
        step = (right[..., 0] - left[..., -1] - slope)[..., None]
        half = self.patch // 2
        share = (torch.arange(half, device=picture.device) + 0.5) / self.patch  # rises to a half at the border
        correction = torch.zeros_like(columns)
        correction[..., :-1, half:] = step * share
        correction[..., 1:, :half] = -step * share.flip(0)
        return correction.flatten(-2)

    @torch.no_grad()
    def fit(self, frames: Tensor) -> None:
        """Set the components from pictures (N, 3, H, W) in [-1, 1], at every fourth offset of the patches' grid."""
        room = frames.shape[-1] - self.patch
        covariance = average = torch.zeros((), dtype=torch.float64)
        count = 0
        for offset in range(0, self.patch, 4):
            for picture in (frames, frames.flip(-1)):
                part = picture[:, :, offset : offset + room, offset : offset + room]
                values = F.unfold(part, self.patch, stride=self.patch).transpose(1, 2).flatten(0, 1).double()
                covariance = covariance + values.T @ values
                average = average + values.sum(0)
                count += len(values)
        average = average / count
        _, vectors = torch.linalg.eigh(covariance / count - torch.outer(average, average))
        self.average.copy_(average)
        self.components.copy_(vectors.flip(1)[:, : len(self.components)].T)

    def to_json_string(self) -> str:
        """The configuration as diffusers' autoencoders write it."""
        return json.dumps(self.config)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.second(F.silu(self.first(F.silu(hidden))))
