"""A backbone as a folder: the same when read again, named by its content, built from pretrained parts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.backbone import Architecture, Backbone
from fedtalk.talker.denoiser import zero_motion_output
from fedtalk.talker.module import Talker


def _output(backbone: Backbone) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    channels, cells = backbone.codec.latent_channels, backbone.cells
    yes = torch.ones(1, dtype=torch.bool)
    rows = 5 * backbone.speech.per_frame

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, generator=g)

    latents = (channels, cells, cells)
    windows = draw(2, rows, backbone.speech.dimension)
    with torch.no_grad():
        return backbone.eval().denoiser(
            draw(2, *latents), torch.tensor([500]), draw(*latents), draw(2, *latents),
            torch.ones(1, 2, 1, cells, cells), windows, yes, yes,
        )  # fmt: skip


def test_a_saved_backbone_loads_as_itself(tiny_architecture: Architecture, tmp_path: Path) -> None:
    torch.manual_seed(0)
    built = Backbone.build(tiny_architecture)
    built.save(tmp_path / "one")
    loaded = Backbone.load(str(tmp_path / "one"))
    assert loaded.fingerprint() == built.fingerprint()
    torch.testing.assert_close(_output(loaded), _output(built), atol=0.02, rtol=0.02)  # halves on disk
    loaded.save(tmp_path / "two")
    again = Backbone.load(str(tmp_path / "two"))
    assert torch.equal(_output(again), _output(loaded))
    assert not any("/" in str(value) for value in json.loads((tmp_path / "two" / "unet" / "config.json").read_text()).values()
                   if isinstance(value, str))  # fmt: skip


def test_every_weight_counts_for_the_fingerprint(tiny_backbone: Path) -> None:
    backbone = Backbone.load(str(tiny_backbone))
    first = backbone.fingerprint()
    places = [
        backbone.codec.std, next(backbone.codec.autoencoder.decoder.parameters()), backbone.denoiser.unet.conv_in.weight,
        backbone.denoiser.audio.null, backbone.denoiser.null_reference,
    ]  # fmt: skip
    for place in places:
        with torch.no_grad():
            place += 0.5
        assert backbone.fingerprint() != first
        with torch.no_grad():
            place -= 0.5
    assert Backbone.load(str(tiny_backbone)).fingerprint() == first


def test_an_adapter_does_not_change_the_fingerprint_or_what_is_saved(
    make_talker: Callable[..., Talker], randomise: Callable, tiny_backbone: Path, tmp_path: Path
) -> None:
    talker = make_talker()
    randomise(talker)
    assert talker.backbone.fingerprint() == talker.fingerprint() == Backbone.load(str(tiny_backbone)).fingerprint()
    talker.backbone.save(tmp_path / "again")
    assert Backbone.load(str(tmp_path / "again")).fingerprint() == talker.fingerprint()


@pytest.mark.parametrize(
    "file",
    ["backbone.json", "codec/config.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
     "codec/diffusion_pytorch_model.safetensors", "conditioning.safetensors"],
)  # fmt: skip
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_backbone_is_a_clear_error(tiny_backbone: Path, tmp_path: Path, file: str, damage: str) -> None:
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_backbone, folder)
    path = folder / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ArtifactError, match=str(folder)):
        Backbone.load(str(folder))


def test_a_missing_backbone_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none can't be read .*configs/backbone\.yaml`, or 'shipped'"):
        Backbone.load(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 30}, r"architecture\.size: expected a multiple of 8, at least 32, got 30"),
        ({"size": 24}, r"architecture\.size"),
        ({"unet": "somewhere"}, "unet and motion are given together"),
        ({"motion": "somewhere"}, "unet and motion are given together"),
    ],
)
def test_architectures_that_can_not_be_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Architecture(**changes)


def test_a_size_that_the_codec_can_not_divide_is_refused(tiny_codec_folder: Path, tmp_path: Path) -> None:
    codec = tmp_path / "codec"
    shutil.copytree(tiny_codec_folder, codec)
    (codec / "fedtalk.json").unlink()  # plain diffusers, so that it may be packed otherwise
    with pytest.raises(ConfigurationError, match=r"architecture\.size 40 is not a multiple of the codec's factor 16"):
        Backbone.build(Architecture(size=40, codec=str(codec), pack=4, channels=[32, 64]))


@pytest.mark.parametrize(
    ("speech", "codec"),
    [
        ("whisper", "kl"),
        ("wav2vec2", "taesd"),
        pytest.param("whisper", "taesd", marks=pytest.mark.slow),
        pytest.param("wav2vec2", "kl", marks=pytest.mark.slow),
    ],
)
def test_pretrained_parts_train_a_step_on_synthtalk(
    pretrained_images: dict[str, Path], pretrained_speech: dict[str, Path], codec: str, speech: str
) -> None:
    """Stable Diffusion's codec or TAESD, its UNet with AnimateDiff's motion modules, Whisper's or wav2vec2's features."""
    torch.manual_seed(0)
    architecture = Architecture(
        size=32, codec=str(pretrained_images[codec]), pack=1, unet=str(pretrained_images["unet"]),
        motion=str(pretrained_images["motion"]), prediction="epsilon", speech=speech,
        speech_path=str(pretrained_speech[speech]),
    )  # fmt: skip
    talker = Talker(architecture=architecture, adapter=Adapter(rank=2), window=4, stride=2, sampling_steps=2)
    data = SynthTalkData(speakers=1, clips=2, held_out=1, frames=12, size=32)
    (client,) = data.clients
    prepared = [talker.prepare_clip(source.load()) for source in data.training_clips(client)]
    assert prepared[0]["windows"].shape == (12, 10, 16)
    parameters = talker.exchanged_parameters()
    before = {name: value.detach().clone() for name, value in parameters.items()}
    batch = talker.draw_batch(prepared, 2, torch.Generator().manual_seed(0))
    loss = talker.training_step(batch)["loss"]
    assert torch.isfinite(loss)
    loss.backward()
    torch.optim.AdamW(parameters.values(), lr=0.01).step()
    moved = [name for name, value in parameters.items() if not torch.equal(value, before[name])]
    assert len(moved) > len(parameters) / 4  # B moves in the first step, A in the second
    clip = data.held_out_clips(client)[0].load()
    frames = list(talker.eval().dub(clip, clip.reference(0)))
    assert len(frames) == 12 and frames[0].shape == (32, 32, 3)


def test_a_backbone_of_pretrained_parts_travels_as_one_folder(
    pretrained_images: dict[str, Path], tmp_path: Path
) -> None:
    architecture = Architecture(
        size=32, codec=str(pretrained_images["kl"]), pack=1, unet=str(pretrained_images["unet"]),
        motion=str(pretrained_images["motion"]), prediction="epsilon",
    )  # fmt: skip
    torch.manual_seed(0)
    built = Backbone.build(architecture)
    zero_motion_output(built.denoiser.unet)
    built.save(tmp_path / "own")
    loaded = Backbone.load(str(tmp_path / "own"))
    assert loaded.architecture == replace(architecture, codec=None, unet=None, motion=None)
    torch.testing.assert_close(_output(loaded), _output(built), atol=0.02, rtol=0.05)
