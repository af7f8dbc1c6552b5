"""The codec: deterministic, whitened, packed without loss; and its training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch.nn import functional as F

from fedtalk.data.pixels import to_bytes, to_unit
from fedtalk.errors import ArtifactError
from fedtalk.talker.backbone import load_codec, save_codec
from fedtalk.talker.codec import Codec, tiny_codec
from fedtalk.talker.codec_module import CodecModule


def _frames(count: int = 3, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _codec(pack: int = 2) -> Codec:
    torch.manual_seed(0)
    return Codec(tiny_codec(width=8), pack).eval().requires_grad_(False)


def test_bytes_go_through_unchanged() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(to_unit(values)), values)
    assert to_unit(values).min() == -1 and to_unit(values).max() == 1
    assert to_bytes(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


@pytest.mark.parametrize(("pack", "channels", "factor"), [(1, 4, 4), (2, 16, 8)])
def test_packing_moves_cells_into_channels_and_loses_nothing(pack: int, channels: int, factor: int) -> None:
    codec, frames = _codec(pack), _frames()
    assert (codec.latent_channels, codec.factor) == (channels, factor)
    latents = codec.encode(frames)
    assert latents.shape == (3, channels, 32 // factor, 32 // factor)
    plain = codec.autoencoder.encode(frames).latents
    for y, x in ((0, 0), (pack - 1, 0), (0, pack - 1)):  # where each of the block's cells went
        torch.testing.assert_close(latents[:, y * pack + x :: pack**2], plain[:, :, y::pack, x::pack])
    torch.testing.assert_close(codec.decode(latents), codec.autoencoder.decode(plain).sample)


def test_whitening_makes_every_channel_standard_and_is_undone() -> None:
    codec, frames = _codec(), _frames(20)
    before = codec.decode(codec.encode(frames))
    codec.measure_statistics([frames[:12], frames[12:]])
    latents = codec.encode(frames)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(16), atol=1e-4, rtol=0)
    assert not torch.allclose(codec.std, torch.ones(16))
    torch.testing.assert_close(codec.decode(latents), before, atol=1e-4, rtol=1e-3)


def test_stable_diffusions_codec_is_its_mean_times_its_factor(pretrained_images: dict[str, Path]) -> None:
    codec, frames = load_codec(pretrained_images["kl"], 1), _frames(2)
    autoencoder = AutoencoderKL.from_pretrained(pretrained_images["kl"])
    with torch.no_grad():
        expected = autoencoder.encode(frames).latent_dist.mean * 0.18215
        torch.testing.assert_close(codec.encode(frames), expected)
        torch.testing.assert_close(codec.decode(expected), autoencoder.decode(expected / 0.18215).sample)
        assert torch.equal(codec.encode(frames), codec.encode(frames))  # no sampling


def test_taesd_loads(pretrained_images: dict[str, Path]) -> None:
    codec, frames = load_codec(pretrained_images["taesd"], 2), _frames(2)
    plain = AutoencoderTiny.from_pretrained(pretrained_images["taesd"])
    with torch.no_grad():
        torch.testing.assert_close(
            torch.nn.functional.pixel_shuffle(codec.encode(frames), 2), plain.encode(frames).latents
        )


def test_gradient_flows_through_decoding(tiny_codec_folder: Path) -> None:
    codec = load_codec(tiny_codec_folder, 2)
    latents = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    codec.decode(latents).square().mean().backward()
    assert latents.grad is not None and latents.grad.norm() > 0


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    codec = _codec()
    codec.measure_statistics([_frames(8)])
    save_codec(codec, tmp_path / "codec")
    again = load_codec(tmp_path / "codec", 2)
    with torch.no_grad():
        torch.testing.assert_close(again.encode(_frames()), codec.encode(_frames()), atol=0.02, rtol=0.02)  # halves
    torch.testing.assert_close(again.mean, codec.mean)
    assert isinstance(AutoencoderTiny.from_pretrained(tmp_path / "codec"), AutoencoderTiny)  # diffusers' own format


def test_codecs_that_do_not_fit_are_refused(tiny_codec_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="whitened for pack 2, the architecture says 1"):
        load_codec(tiny_codec_folder, 1)
    with pytest.raises(ArtifactError, match=r"expected a folder with config\.json"):
        load_codec(tmp_path, 2)
    (tmp_path / "config.json").write_text('{"_class_name": "VQModel"}')
    with pytest.raises(ArtifactError, match="expected AutoencoderKL, AutoencoderTiny or PatchAutoencoder, got VQModel"):
        load_codec(tmp_path, 2)


@pytest.fixture
def module() -> CodecModule:
    torch.manual_seed(0)
    return CodecModule(patch=8, latent_channels=12, width=16, blocks=1, crop=16, latent_noise=0.05)


def test_components_are_fitted_first_and_stay_and_refining_lowers_the_loss(module: CodecModule, clips: list) -> None:
    prepared = [module.prepare_clip(clip) for clip in clips]
    random = module.held_out_metrics(prepared, torch.Generator())["psnr"]
    module.draw_batch(prepared, 8, torch.Generator())
    fitted = module.held_out_metrics(prepared, torch.Generator())["psnr"]
    assert fitted > random + 6
    components = module.autoencoder.components.clone()
    torch.testing.assert_close(components @ components.T, torch.eye(12), atol=1e-4, rtol=0)
    optimizer = torch.optim.Adam(module.exchanged_parameters().values(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        loss = module.training_step(module.draw_batch(prepared, 8, generator))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(module.autoencoder.components, components)
    assert module.held_out_metrics(prepared, torch.Generator())["psnr"] > fitted + 0.05


def test_no_linear_code_of_as_many_channels_reconstructs_better(module: CodecModule, clips: list) -> None:
    prepared = [module.prepare_clip(clip) for clip in clips]
    module.draw_batch(prepared, 8, torch.Generator())
    frames = to_unit(torch.cat([clip["frames"] for clip in prepared]))
    own = (module.autoencoder.decode(module.autoencoder.encode(frames)) - frames).square().mean()
    small = F.interpolate(F.avg_pool2d(frames, 4), scale_factor=4, mode="bilinear")  # as many numbers a patch of 8 x 8
    assert own < (small - frames).square().mean()


def test_batches_come_from_the_generator_and_hold_textures(module: CodecModule, clips: list) -> None:
    prepared = [module.prepare_clip(clip) for clip in clips]
    draw: Callable[[int], dict] = lambda seed: module.draw_batch(prepared, 8, torch.Generator().manual_seed(seed))  # noqa: E731
    one, same, other = draw(0), draw(0), draw(1)
    assert torch.equal(one["frames"], same["frames"]) and not torch.equal(one["frames"], other["frames"])
    assert one["frames"].shape == (8, 3, 16, 16) and one["noise"].shape == (8, 12, 2, 2)
    assert one["frames"].abs().max() <= 1


def test_export_is_whitened_half_way(module: CodecModule, clips: list, tmp_path: Path) -> None:
    """Channels keep the order of what they carry, and all together have unit variance."""
    prepared = [module.prepare_clip(clip) for clip in clips]
    module.draw_batch(prepared, 8, torch.Generator())
    module.export(tmp_path / "codec", prepared)
    codec = load_codec(tmp_path / "codec", 1)
    with torch.no_grad():
        latents = torch.cat([codec.encode(to_unit(clip["frames"][::4])) for clip in prepared])
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(12), atol=0.02, rtol=0)
    variance = latents.var((0, 2, 3))
    assert float(variance.mean()) == pytest.approx(1.0, abs=0.05) and variance[0] > 4 * variance[-1]
