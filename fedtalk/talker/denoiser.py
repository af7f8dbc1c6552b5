"""Denoiser: diffusers' `UNetMotionModel`, told about audio, reference, head pose and mask.

Channels of its input: noisy latents (C), latents of the reference as it is (C), latents of the moved reference (C; see
`fedtalk.talker.puppet`), and the mask (1). The moved reference says what the face looks like, how the head is held and what the
lips do; where only a part is replaced, the frame as it is stands around it. The still reference shows the background. Its cross
attention reads, frame by frame, the audio tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn

from fedtalk.errors import ArtifactError
from fedtalk.talker.audio_encoder import AudioEncoder

INPUTS = 3
"""Latents that the network reads beside each other: noisy, reference, moved reference."""


def tiny_unet(
    latent_channels: int, latent_size: int, channels: Sequence[int], width: int, heads: int
) -> UNetMotionModel:
    """A small randomly initialised network."""
    levels = len(channels)
    unet = UNetMotionModel(
        sample_size=latent_size,
        in_channels=INPUTS * latent_channels + 1,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlockMotion",) * levels,
        up_block_types=("CrossAttnUpBlockMotion",) * levels,
        block_out_channels=tuple(channels),
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=width,
        num_attention_heads=heads,
        motion_num_attention_heads=heads,
        motion_max_seq_length=32,
        use_motion_mid_block=True,
    )
    zero_motion_output(unet)
    return unet


def pretrained_unet(unet_path: str, motion_path: str, latent_channels: int) -> UNetMotionModel:
    """A Stable Diffusion UNet with AnimateDiff motion modules, from two folders of ``save_pretrained``.

    Its first convolution is widened for the references and the mask; the new weights start at zero, so that the
    network begins as the pretrained one.
    """
    for name, path in (("UNet", unet_path), ("motion modules", motion_path)):
        if not Path(path).is_dir():
            raise ArtifactError(
                f"pretrained {name}: no folder {path}; expected one written by save_pretrained of diffusers"
            )
    flat = UNet2DConditionModel.from_pretrained(unet_path)
    motion = MotionAdapter.from_pretrained(motion_path)
    unet = UNetMotionModel.from_unet2d(flat, motion)
    if flat.config.in_channels != latent_channels:
        raise ArtifactError(
            f"pretrained UNet {unet_path} takes {flat.config.in_channels} latent channels, the codec gives {latent_channels}; "
            "choose a codec and a UNet of one family"
        )
    old = unet.conv_in
    wide = nn.Conv2d(INPUTS * latent_channels + 1, old.out_channels, old.kernel_size, padding=old.padding)  # type: ignore[arg-type]
    with torch.no_grad():
        wide.weight.zero_()
        wide.weight[:, :latent_channels] = old.weight
        if wide.bias is not None and old.bias is not None:
            wide.bias.copy_(old.bias)
    unet.conv_in = wide
    unet.register_to_config(in_channels=INPUTS * latent_channels + 1)
    return unet


def zero_output(unet: UNetMotionModel) -> None:
    """The network answers nothing yet: where its answer is a change of the moved reference, that is what it starts with."""
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(unet.conv_out.bias)  # type: ignore[arg-type]


def zero_motion_output(unet: UNetMotionModel) -> None:
    """Motion modules start as the identity (AnimateDiff, Guo et al. 2023, section 4.2); diffusers leaves them random."""
    for name, module in unet.named_modules():
        if name.endswith("motion_modules.0.proj_out") or (".motion_modules." in name and name.endswith(".proj_out")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)


class Denoiser(nn.Module):
    """One prediction of the network, given everything it is conditioned on.

    Shapes: B windows, F frames, C latent channels, h and w latent cells.
    """

    def __init__(self, unet: UNetMotionModel, audio: AudioEncoder, latent_channels: int, residual: bool) -> None:
        """
        Args:
            unet: the network.
            audio: what makes tokens of feature windows.
            latent_channels: C.
            residual: the network's answer is a change of the moved reference (for networks that predict clean latents): it
                need not carry through what stays as it is.
        """
        super().__init__()
        self.unet = unet
        self.audio = audio
        self.residual = residual
        self.null_reference = nn.Parameter(torch.zeros(latent_channels, 1, 1))

    def forward(
        self,
        noisy_BFChw: Tensor,
        timestep_B: Tensor,
        reference_BChw: Tensor,
        moved_BFChw: Tensor,
        mask_BF1hw: Tensor,
        windows_BFTD: Tensor,
        audio_present_B: Tensor,
        reference_present_B: Tensor,
    ) -> Tensor:
        """The network's output (B, F, C, h, w): noise, velocity or clean latents, as the schedule says."""
        frames = noisy_BFChw.shape[1]
        present = reference_present_B[:, None, None, None]
        reference = torch.where(present, reference_BChw, self.null_reference)
        moved = torch.where(present[:, None], moved_BFChw, self.null_reference)
        repeated = reference[:, None].expand(-1, frames, -1, -1, -1)
        inputs = torch.cat([noisy_BFChw, repeated, moved, mask_BF1hw], 2).transpose(1, 2)
        tokens = self.audio(windows_BFTD.flatten(0, 1), audio_present_B.repeat_interleave(frames))
        output = self.unet(inputs, timestep_B, tokens).sample.transpose(1, 2)
        return output + moved if self.residual else output
