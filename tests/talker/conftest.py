"""Tiny randomly initialised models, saved in the formats of real pretrained ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, MotionAdapter, UNet2DConditionModel


@pytest.fixture(scope="session")
def pretrained_speech(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Whisper and wav2vec2 of width 16."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model, WhisperConfig, WhisperFeatureExtractor, WhisperModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("speech")
    whisper = WhisperConfig(
        vocab_size=20, num_mel_bins=80, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    WhisperModel(whisper).save_pretrained(folder / "whisper")
    WhisperFeatureExtractor().save_pretrained(folder / "whisper")
    wav2vec2 = Wav2Vec2Config(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        conv_dim=(8,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    Wav2Vec2Model(wav2vec2).save_pretrained(folder / "wav2vec2")
    return {name: folder / name for name in ("whisper", "wav2vec2")}


@pytest.fixture(scope="session")
def pretrained_images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A KL autoencoder, a TAESD, a flat UNet and motion modules, as Stable Diffusion and AnimateDiff come."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("images")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "kl")  # fmt: skip
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8), num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1), latent_channels=4,
    ).save_pretrained(folder / "taesd")  # fmt: skip
    UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8, cross_attention_dim=24, attention_head_dim=2,
    ).save_pretrained(folder / "unet")  # fmt: skip
    MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_num_attention_heads=2, motion_norm_num_groups=8,
        motion_mid_block_layers_per_block=1,
    ).save_pretrained(folder / "motion")  # fmt: skip
    return {name: folder / name for name in ("kl", "taesd", "unet", "motion")}
