"""Shared parts of the tests: one thread, a tiny backbone, a talker on it, and the shipped backbone."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

# LightningCLI of lightning 2.6 calls methods that jsonargparse has renamed since; nothing of ours to change.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
torch.set_num_threads(1)  # two processes with spinning OpenMP threads take ten times as long

from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.federation.module import Prepared
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.backbone import Architecture, Backbone, save_codec, shipped_folder
from fedtalk.talker.codec import Codec, tiny_codec
from fedtalk.talker.talker import Talker

SIZE = 32
"""Height and width in pixels of the tiny backbone's frames."""


@pytest.fixture(scope="session", autouse=True)
def _as_if_alone() -> Iterator[None]:
    """Neither pytest's own arguments (LightningCLI looks at them) nor other packages' chatter."""
    arguments, sys.argv = sys.argv, ["fedtalk"]
    for chatty in ("lightning.pytorch", "lightning.fabric", "diffusers", "transformers"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    yield
    sys.argv = arguments


@pytest.fixture(scope="session")
def tiny_codec_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random narrow codec, f4, 4 latent channels, packed 2 x 2."""
    folder = tmp_path_factory.mktemp("codec")
    torch.manual_seed(1)
    save_codec(Codec(tiny_codec(width=8), pack=2), folder)
    return folder


@pytest.fixture(scope="session")
def tiny_architecture(tiny_codec_folder: Path) -> Architecture:
    return Architecture(size=SIZE, codec=str(tiny_codec_folder), channels=[32, 64], width=32, heads=2)


@pytest.fixture(scope="session")
def tiny_backbone(tiny_architecture: Architecture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a randomly initialised backbone at 32 px."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(2)
    Backbone.build(tiny_architecture).save(folder)
    return folder


@pytest.fixture
def make_talker(tiny_backbone: Path) -> Callable[..., Talker]:
    """A talker on the tiny backbone: rank 2, windows of 4 frames, 3 sampling steps, unless told otherwise."""

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
    people = [Speaker.draw(0, "public", index) for index in (0, 1)]
    return [make_clip(person, take, 16, SIZE) for person in people for take in (0, 1)]


@pytest.fixture(scope="session")
def prepared(tiny_backbone: Path, clips: list) -> list[Prepared]:
    """The clips as the tiny talker reads them; not to be changed in place."""
    talker = Talker(str(tiny_backbone), adapter=Adapter(rank=2), window=4, stride=2)
    return [talker.prepare_clip(clip) for clip in clips]


def set_random_adapter(talker: Talker, seed: int = 0, scale: float = 0.3) -> None:
    """Give every factor of the adapter random values, so that it does something."""
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
    """The trained backbone that comes with the package, without an adapter; four sampling steps to be quick."""
    if not (shipped_folder() / "backbone.json").exists():
        pytest.fail(
            f"the package holds no trained backbone in {shipped_folder()}; train it as fedtalk/weights/backbone/README.md says, "
            "then copy its folder there",
            pytrace=False,
        )
    return Talker("shipped", sampling_steps=4, stride=8).eval()
