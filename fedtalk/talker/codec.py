"""Codec: frames to latents and back, a stock diffusers autoencoder with whitened latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn


class Codec(nn.Module):
    """Deterministic autoencoder; its latents have mean 0 and standard deviation 1 in every channel on its training data.

    Wraps `AutoencoderKL` (Stable Diffusion's format) or `AutoencoderTiny` (TAESD's).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, autoencoder: AutoencoderKL | AutoencoderTiny) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        channels = self.latent_channels
        scale = float(autoencoder.config.scaling_factor or 1.0)
        shift = float(autoencoder.config.get("shift_factor") or 0.0)
        self.register_buffer("mean", torch.full((channels,), shift))
        self.register_buffer("std", torch.full((channels,), 1.0 / scale))

    @property
    def latent_channels(self) -> int:
        return int(self.autoencoder.config.latent_channels)

    @property
    def factor(self) -> int:
        """Pixels a latent cell spans in each direction."""
        return 2 ** (len(self.autoencoder.config.block_out_channels) - 1)

    def encode_raw(self, frames: Tensor) -> Tensor:
        """Latents before whitening; gradient flows."""
        if isinstance(self.autoencoder, AutoencoderTiny):
            return self.autoencoder.encode(frames).latents
        return self.autoencoder.encode(frames).latent_dist.mean

    def decode_raw(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents).sample

    def encode(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) float in [-1, 1] -> (N, C, H / factor, W / factor) whitened latents."""
        return (self.encode_raw(frames) - self.mean[:, None, None]) / self.std[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        """(N, C, h, w) whitened latents -> (N, 3, H, W) float in about [-1, 1]."""
        return self.decode_raw(latents * self.std[:, None, None] + self.mean[:, None, None])

    @torch.no_grad()
    def measure_statistics(self, batches: Sequence[Tensor]) -> None:
        """Set the whitening from frames (N, 3, H, W) in [-1, 1]."""
        latents = torch.cat([self.encode_raw(batch) for batch in batches])
        self.mean.copy_(latents.mean((0, 2, 3)))
        self.std.copy_(latents.std((0, 2, 3)))


def tiny_codec(channels: Sequence[int] = (16, 32, 64, 96), latent_channels: int = 16) -> AutoencoderKL:
    """A small randomly initialised `AutoencoderKL` that shrinks by 2 at all but the first level."""
    levels = len(channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(channels),
        latent_channels=latent_channels,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
    )


def to_unit(frames: Tensor) -> Tensor:
    """uint8 frames to float32 in [-1, 1]."""
    return frames.float() / 127.5 - 1.0


def to_bytes(frames: Tensor) -> Tensor:
    """Float frames in [-1, 1] to uint8, rounding and clipping."""
    return ((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
