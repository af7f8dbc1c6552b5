"""Codec: frames to latents and back, a stock diffusers autoencoder with whitened latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn
from torch.nn import functional as F

from fedtalk.talker.patch_autoencoder import PatchAutoencoder


class Codec(nn.Module):
    """Deterministic autoencoder; its latents have mean 0 and standard deviation 1 in every channel on its training data.

    Wraps `AutoencoderKL` (Stable Diffusion's format) or `AutoencoderTiny` (TAESD's). ``pack`` folds blocks of latent cells
    into channels (as FLUX does), so that a small denoiser can work on a coarser grid: with ``pack=2`` latents of
    4 x 16 x 16 become 16 x 8 x 8.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, autoencoder: AutoencoderKL | AutoencoderTiny | PatchAutoencoder, pack: int = 1) -> None:
        super().__init__()
        # Convolutions of few channels run half as long again the other way on CPUs.
        self.autoencoder = autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.pack = pack
        channels = self.latent_channels
        scale = float(autoencoder.config.get("scaling_factor") or 1.0)  # type: ignore[arg-type]
        shift = float(autoencoder.config.get("shift_factor") or 0.0)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.full((channels,), shift))
        self.register_buffer("std", torch.full((channels,), 1.0 / scale))

    @property
    def latent_channels(self) -> int:
        return int(self.autoencoder.config["latent_channels"]) * self.pack**2

    @property
    def spread(self) -> Tensor:
        """(C,) how much a unit of each channel changes the picture, mean 1."""
        return self.std / self.std.mean()

    @property
    def factor(self) -> int:
        """Pixels a latent cell spans in each direction."""
        if isinstance(self.autoencoder, PatchAutoencoder):
            return self.autoencoder.patch * self.pack
        levels = self.autoencoder.config.get("encoder_block_out_channels") or self.autoencoder.config.block_out_channels
        return 2 ** (len(levels) - 1) * self.pack

    def encode_raw(self, frames: Tensor) -> Tensor:
        """Latents before whitening; gradient flows."""
        if isinstance(self.autoencoder, PatchAutoencoder):
            return F.pixel_unshuffle(self.autoencoder.encode(frames), self.pack)
        encoded = self.autoencoder.encode(frames)
        latents = encoded.latents if isinstance(self.autoencoder, AutoencoderTiny) else encoded.latent_dist.mean
        return F.pixel_unshuffle(latents, self.pack)

    def decode_raw(self, latents: Tensor) -> Tensor:
        decoded = self.autoencoder.decode(F.pixel_shuffle(latents, self.pack))
        return decoded if isinstance(self.autoencoder, PatchAutoencoder) else decoded.sample

    def encode(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) float in [-1, 1] -> (N, C, H / factor, W / factor) whitened latents."""
        return (self.encode_raw(frames) - self.mean[:, None, None]) / self.std[:, None, None]

    def decode(self, latents: Tensor, known: Tensor | None = None) -> Tensor:
        """Frames (N, 3, H, W), float in about [-1, 1].

        Args:
            latents: (N, C, h, w), whitened.
            known: (N, C, h, w) latents of true pictures that these were made from. A codec of patches then shows no steps
                between patches in what was changed.
        """
        frames = self.decode_raw(latents * self.std[:, None, None] + self.mean[:, None, None])
        if known is None or not isinstance(self.autoencoder, PatchAutoencoder):
            return frames
        change = F.pixel_shuffle((latents - known) * self.std[:, None, None], self.pack)
        return frames + self.autoencoder.without_seams(change)

    @torch.no_grad()
    def measure_statistics(self, batches: Sequence[Tensor]) -> None:
        """Set the whitening from frames (N, 3, H, W) in [-1, 1].

        Principal components are whitened half way (their mean variance becomes 1): they differ a thousandfold in what they
        carry, and whitened in full an error in the least would count like one in the first.
        """
        latents = torch.cat([self.encode_raw(batch) for batch in batches])
        self.mean.copy_(latents.mean((0, 2, 3)))
        deviation = latents.std((0, 2, 3))
        if isinstance(self.autoencoder, PatchAutoencoder):
            deviation = (deviation * deviation.mean()).sqrt()
        self.std.copy_(deviation)


def tiny_codec(width: int = 32, blocks: Sequence[int] = (1, 1, 3), latent_channels: int = 4) -> AutoencoderTiny:
    """A small randomly initialised `AutoencoderTiny`; each level but the first halves the picture."""
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * len(blocks),
        decoder_block_out_channels=(width,) * len(blocks),
        num_encoder_blocks=tuple(blocks),
        num_decoder_blocks=tuple(reversed(blocks)),
        latent_channels=latent_channels,
        scaling_factor=1.0,
    )
