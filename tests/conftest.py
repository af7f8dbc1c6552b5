"""Shared parts of the tests: one thread, a tiny backbone, a talker on it, and the shipped backbone."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fedtalk.talker.backbone import Architecture
    from fedtalk.talker.module import Talker
    from fedtalk.training.module import Prepared

# What takes seconds to import is imported where it is used: pytest-xdist's main process reads this file and runs no test.
# Processes that share cores must not spin while they wait; before torch is imported, and for what the tests start.
os.environ["OMP_WAIT_POLICY"] = "passive"
# LightningCLI of lightning 2.6 calls methods that jsonargparse has renamed since; nothing of ours to change.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

SIZE = 32
"""Height and width in pixels of the tiny backbone's frames."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Three times the usual limit for tests that take minutes even where nothing else runs."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session", autouse=True)
def _as_if_alone() -> Iterator[None]:
    """One thread; neither pytest's own arguments (LightningCLI looks at them) nor other packages' chatter."""
    import torch

    torch.set_num_threads(1)  # two processes with spinning OpenMP threads take ten times as long
    arguments, sys.argv = sys.argv, ["fedtalk"]
    for chatty in ("lightning.pytorch", "lightning.fabric", "diffusers", "transformers"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    yield
    sys.argv = arguments


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests that want workers; starting one takes seconds."""
    pytest.importorskip("ray")
    from fedtalk.federation.engines.ray.session import open_session

    session = open_session([{"CPU": 16.0}])
    yield
    session.close()


@pytest.fixture(scope="session")
def tiny_codec_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random narrow codec, f4, 4 latent channels, packed 2 x 2."""
    import torch

    from fedtalk.talker.backbone import save_codec
    from fedtalk.talker.codec import Codec, tiny_codec

    folder = tmp_path_factory.mktemp("codec")
    torch.manual_seed(1)
    save_codec(Codec(tiny_codec(width=8), pack=2), folder)
    return folder


@pytest.fixture(scope="session")
def tiny_architecture(tiny_codec_folder: Path) -> Architecture:
    """One level of blocks: a network's depth is most of what its tests cost."""
    from fedtalk.talker.backbone import Architecture

    return Architecture(size=SIZE, codec=str(tiny_codec_folder), pack=2, channels=[32], width=32, heads=2)


@pytest.fixture(scope="session")
def tiny_backbone(tiny_architecture: Architecture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a randomly initialised backbone at 32 px."""
    import torch

    from fedtalk.talker.backbone import Backbone

    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(2)
    Backbone.build(tiny_architecture).save(folder)
    return folder


@pytest.fixture
def make_talker(tiny_backbone: Path) -> Callable[..., Talker]:
    """A talker on the tiny backbone: rank 2, windows of 4 frames, 3 sampling steps, unless told otherwise."""
    from fedtalk.talker.adapters import Adapter
    from fedtalk.talker.module import Talker

    def make(**changes: object) -> Talker:
        values: dict[str, object] = {
            "backbone": str(tiny_backbone), "adapter": Adapter(rank=2, alpha=4.0), "window": 4, "stride": 2,
            "sampling_steps": 3,
        }  # fmt: skip
        return Talker(**{**values, **changes}).eval()  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def clips() -> list:
    """Two speakers with two clips of 16 frames each, at 32 px: a0, a1, b0, b1."""
    from fedtalk.data.synthtalk import Speaker, make_clip

    people = [Speaker.draw(0, "public", index) for index in (0, 1)]
    return [make_clip(person, take, 16, SIZE) for person in people for take in (0, 1)]


@pytest.fixture(scope="session")
def prepared(tiny_backbone: Path, clips: list) -> list[Prepared]:
    """The clips as the tiny talker reads them; not to be changed in place."""
    from fedtalk.talker.adapters import Adapter
    from fedtalk.talker.module import Talker

    talker = Talker(str(tiny_backbone), adapter=Adapter(rank=2), window=4, stride=2)
    return [talker.prepare_clip(clip) for clip in clips]


def set_random_adapter(talker: Talker, seed: int = 0, scale: float = 0.3) -> None:
    """Give every factor of the adapter random values, so that it does something."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in talker.backbone.denoiser.unet.named_parameters():
            if ".lora_" in name:
                value.copy_(scale * torch.randn(value.shape, generator=generator))


@pytest.fixture
def randomise() -> Callable[..., None]:
    return set_random_adapter


@pytest.fixture(scope="session")
def shipped() -> Talker:
    """The trained backbone that comes with the package, without an adapter; one sampling step to be quick."""
    from fedtalk.talker.backbone import shipped_folder
    from fedtalk.talker.module import Talker

    if not (shipped_folder() / "backbone.json").exists():
        pytest.fail(
            f"the package holds no trained backbone in {shipped_folder()}; train it as fedtalk/weights/backbone/README.md says, "
            "then copy its folder there",
            pytrace=False,
        )
    return Talker("shipped", sampling_steps=1, stride=8).eval()


@pytest.fixture(scope="session")
def pretrained_speech(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Whisper and wav2vec2 of width 16."""
    import torch
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
    import torch
    from diffusers import AutoencoderKL, AutoencoderTiny, MotionAdapter, UNet2DConditionModel

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
