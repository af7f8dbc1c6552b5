"""Training of the codec, on public frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtalk.data.clip import Clip
from fedtalk.data.pixels import to_unit
from fedtalk.data.textures import draw_textures
from fedtalk.errors import ConfigurationError
from fedtalk.talker.backbone import save_codec
from fedtalk.talker.codec import Codec
from fedtalk.talker.patch_autoencoder import PatchAutoencoder
from fedtalk.training.module import FederatedModule, Prepared


class CodecModule(FederatedModule):
    """Fits principal components of patches, then learns to refine what they give back: L1, L2, and L1 of image gradients.

    Frames are augmented in colour and scale and mixed with random textures, so that the codec is one for pictures and
    not for one kind of face.
    """

    def __init__(
        self,
        patch: int = 16,
        latent_channels: int = 160,
        width: int = 96,
        blocks: int = 3,
        crop: int = 64,
        texture_share: float = 0.125,
        gradient_weight: float = 1.0,
        latent_noise: float = 0.02,
    ) -> None:
        """
        Args:
            patch: see `PatchAutoencoder`.
            latent_channels: see `PatchAutoencoder`.
            width: see `PatchAutoencoder`.
            blocks: see `PatchAutoencoder`.
            crop: side in pixels of the random crops it trains on, a multiple of ``patch``; the network is convolutional, so
                many small crops teach it faster than few whole frames.
            texture_share: share of a batch that is random texture instead of faces.
            gradient_weight: weight of the L1 loss of horizontal and vertical differences.
            latent_noise: standard deviation of noise on the latents while training, in shares of their own.
        """
        super().__init__()
        if crop % patch:
            raise ConfigurationError(f"model.crop: expected a multiple of the patch's {patch} pixels, got {crop}")
        self.save_hyperparameters()
        self.codec = Codec(PatchAutoencoder(patch, latent_channels, width, blocks))

    @property
    def autoencoder(self) -> PatchAutoencoder:
        """What is trained."""
        assert isinstance(self.codec.autoencoder, PatchAutoencoder)
        return self.codec.autoencoder

    def exchanged_parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.codec.named_parameters())

    def cache_key(self) -> str:
        return "frames"

    def prepare_clip(self, clip: Clip) -> Prepared:
        return {"frames": torch.from_numpy(clip.frames).permute(0, 3, 1, 2)}

    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        if not self.autoencoder.fitted:
            self.autoencoder.fit(_pictures(clips))
        textures = round(size * self.hparams["texture_share"])
        frames = []
        for _ in range(size - textures):
            clip = clips[_integer(len(clips), generator)]["frames"]
            frames.append(_augment(clip[_integer(len(clip), generator)], generator))
        crop = self.hparams["crop"]
        if textures:
            frames.extend(draw_textures(textures, 2 * crop, generator))
        frames = [_crop(frame, crop, generator) for frame in frames]  # half of them around the mouth, see _crop
        latent = self.hparams["latent_channels"], crop // self.codec.factor, crop // self.codec.factor
        return {"frames": torch.stack(frames), "noise": torch.randn(size, *latent, generator=generator)}

    def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
        frames = batch["frames"]
        latents = self.codec.encode_raw(frames)
        spread = latents.std((0, 2, 3), keepdim=True)
        output = self.codec.decode_raw(latents + self.hparams["latent_noise"] * spread * batch["noise"])
        error = output - frames
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return {
            "l1": error.abs().mean(),
            "mse": 2 * error.square().mean(),
            "gradient": self.hparams["gradient_weight"] * edges,
        }

    def held_out_metrics(self, clips: Sequence[Prepared], generator: torch.Generator) -> dict[str, float]:
        """Reconstruction PSNR in dB, mean over frames, of the codec as it will be used (no latent noise)."""
        frames = to_unit(torch.stack([clip["frames"][len(clip["frames"]) // 2] for clip in clips[:32]]))
        with torch.no_grad():
            output = self.codec.decode_raw(self.codec.encode_raw(frames.to(self.device))).clamp(-1, 1).cpu()
        error = (output - frames).square().mean((1, 2, 3)) / 4
        return {"psnr": float((-10 * error.log10()).mean())}

    def export(self, folder: Path, clips: Sequence[Prepared]) -> None:
        """Write the codec, whitened on the clips."""
        self.codec.measure_statistics([to_unit(clip["frames"][::4]).to(self.device) for clip in clips[:100]])
        save_codec(self.codec, folder)


def _integer(high: int, generator: torch.Generator) -> int:
    return int(torch.randint(high, (), generator=generator))


def _pictures(clips: Sequence[Prepared]) -> Tensor:
    """(N, 3, H, W) in [-1, 1]: a picture of every second of the clips, 600 at most."""
    frames = torch.cat([clip["frames"][:: min(25, len(clip["frames"]))] for clip in clips])
    return to_unit(frames[:: max(1, len(frames) // 600)])


def _crop(frame: Tensor, crop: int, generator: torch.Generator) -> Tensor:
    """A random square; in half of the cases from the lower middle, where the mouth is."""
    room = frame.shape[-1] - crop
    top, left = (_integer(room + 1, generator) for _ in range(2))
    if torch.rand((), generator=generator) < 0.5:
        top, left = room - top // 3, room // 4 + left // 2
    return frame[:, top : top + crop, left : left + crop]


def _augment(frame: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 (3, H, W) -> float in [-1, 1]: random crop of 50-100 %, flip, colour mix; two thirds stay as they are."""
    picture = to_unit(frame)
    if torch.rand((), generator=generator) < 2 / 3:
        return picture
    size = picture.shape[-1]
    crop = int(size * (0.5 + 0.5 * float(torch.rand((), generator=generator))))
    top, left = _integer(size - crop + 1, generator), _integer(size - crop + 1, generator)
    picture = picture[:, top : top + crop, left : left + crop]
    picture = F.interpolate(picture[None], size=(size, size), mode="bilinear", antialias=True)[0]
    if torch.rand((), generator=generator) < 0.5:
        picture = picture.flip(-1)
    mix = torch.eye(3) + 0.25 * torch.randn(3, 3, generator=generator)
    gain = 0.6 + 0.6 * torch.rand((), generator=generator)
    shift = 0.3 * torch.randn(3, 1, 1, generator=generator)
    return (gain * torch.einsum("ij,jhw->ihw", mix, picture) + shift).clamp(-1, 1)
