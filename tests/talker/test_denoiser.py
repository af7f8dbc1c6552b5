"""The denoiser listens: to the right audio in the right frame, to the reference, to nothing when told so."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel, UNetMotionModel

from fedtalk.data.clip import SAMPLES_PER_FRAME
from fedtalk.encoders.speech import REACH, MelFeatures, frame_windows
from fedtalk.errors import ArtifactError
from fedtalk.talker.backbone import Architecture, Backbone
from fedtalk.talker.denoiser import Denoiser, pretrained_unet, tiny_unet, zero_motion_output

FRAMES, CHANNELS, CELLS = 10, 16, 4


@pytest.fixture(scope="module")
def denoiser(tiny_architecture: Architecture) -> Denoiser:
    """Random, its motion modules the identity, so that frames are apart unless the inputs tie them; hears log-mel."""
    torch.manual_seed(2)
    return Backbone.build(replace(tiny_architecture, speech="mel", channels=[32, 64])).denoiser.eval()


def _inputs(seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    audio = 0.1 * torch.randn(FRAMES * SAMPLES_PER_FRAME, generator=g)
    return {
        "noisy_BFChw": torch.randn(1, FRAMES, CHANNELS, CELLS, CELLS, generator=g),
        "timestep_B": torch.tensor([400]),
        "reference_BChw": torch.randn(1, CHANNELS, CELLS, CELLS, generator=g),
        "moved_BFChw": torch.randn(1, FRAMES, CHANNELS, CELLS, CELLS, generator=g),
        "mask_BF1hw": torch.rand(1, FRAMES, 1, CELLS, CELLS, generator=g),
        "windows_BFTD": frame_windows(MelFeatures()(audio), 4)[None],
        "audio_present_B": torch.tensor([True]),
        "reference_present_B": torch.tensor([True]),
    }


def _change(denoiser: Denoiser, one: dict, other: dict) -> torch.Tensor:
    """(F,): how much each frame's output differs between two inputs."""
    with torch.no_grad():
        return (denoiser(**one) - denoiser(**other)).abs().amax((0, 2, 3, 4))


@pytest.mark.parametrize("frame", [0, 4, 9])
def test_audio_of_a_frame_changes_the_frames_within_reach_and_no_others(denoiser: Denoiser, frame: int) -> None:
    one = _inputs()
    other = dict(one)
    # Another sound in one frame's 40 ms, through windows as they are made for training and sampling.
    audio = 0.1 * torch.randn(FRAMES * SAMPLES_PER_FRAME, generator=torch.Generator().manual_seed(3))
    changed = audio.clone()
    middle = slice(frame * SAMPLES_PER_FRAME + 220, frame * SAMPLES_PER_FRAME + 420)
    tone = torch.sin(torch.arange(200) * 0.6)
    changed[middle] = tone * (audio[middle].norm() / tone.norm())
    one["windows_BFTD"] = frame_windows(MelFeatures()(audio), 4)[None]
    other["windows_BFTD"] = frame_windows(MelFeatures()(changed), 4)[None]
    moved = _change(denoiser, one, other)
    near = [i for i in range(FRAMES) if abs(i - frame) <= REACH]
    far = [i for i in range(FRAMES) if abs(i - frame) > REACH]
    assert moved[near].min() > 20 * moved[far].max()
    assert moved[far].max() < 1e-4 < moved[near].min()


def test_each_frame_hears_its_own_window(denoiser: Denoiser) -> None:
    """Windows permuted over frames permute what they change: no pooling over the clip."""
    one = _inputs()
    for name in ("noisy_BFChw", "moved_BFChw", "mask_BF1hw"):
        one[name] = one[name][:, :1].expand_as(one[name])
    order = torch.randperm(FRAMES, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        straight = denoiser(**one)
        permuted = denoiser(**{**one, "windows_BFTD": one["windows_BFTD"][:, order]})
    torch.testing.assert_close(permuted, straight[:, order], atol=1e-5, rtol=1e-4)
    assert (straight[:, 0] - straight[:, 5]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "name", ["noisy_BFChw", "reference_BChw", "moved_BFChw", "mask_BF1hw", "windows_BFTD", "timestep_B"]
)
def test_every_input_matters_in_every_frame(denoiser: Denoiser, name: str) -> None:
    one = _inputs()
    other = torch.tensor([700]) if name == "timestep_B" else _inputs(1)[name]
    assert _change(denoiser, one, {**one, name: other}).min() > 1e-4


def test_a_residual_network_answers_a_change_of_the_moved_reference(denoiser: Denoiser) -> None:
    """Where the network is silent, what comes out is the moved reference itself, or the null without one."""
    one = _inputs()
    unet = copy.deepcopy(denoiser.unet)
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    silent = Denoiser(unet, denoiser.audio, CHANNELS, residual=True)
    with torch.no_grad():
        silent.null_reference.fill_(0.25)
        assert torch.equal(silent(**one), one["moved_BFChw"])
        absent = silent(**{**one, "reference_present_B": torch.tensor([False])})
        assert torch.equal(absent, torch.full_like(absent, 0.25))
        assert not Denoiser(unet, denoiser.audio, CHANNELS, residual=False)(**one).any()


@pytest.mark.parametrize(
    ("flag", "content"),
    [
        ("audio_present_B", "windows_BFTD"),
        ("reference_present_B", "reference_BChw"),
        ("reference_present_B", "moved_BFChw"),
    ],
)
def test_an_absent_condition_is_not_heard(denoiser: Denoiser, flag: str, content: str) -> None:
    one, other = _inputs(), _inputs(1)
    absent = {**one, flag: torch.tensor([False])}
    assert _change(denoiser, absent, {**absent, content: other[content]}).max() == 0
    assert _change(denoiser, one, absent).max() > 1e-4


def test_presence_is_by_window(denoiser: Denoiser) -> None:
    one, other = _inputs(), _inputs(1)
    both = {name: torch.cat([one[name], other[name]]) for name in one}
    both["audio_present_B"] = torch.tensor([True, False])
    both["reference_present_B"] = torch.tensor([False, True])
    with torch.no_grad():
        together = denoiser(**both)
        first = denoiser(**{**one, "reference_present_B": torch.tensor([False])})
        second = denoiser(**{**other, "audio_present_B": torch.tensor([False])})
    torch.testing.assert_close(together, torch.cat([first, second]), atol=1e-5, rtol=1e-4)


def test_motion_modules_start_as_the_identity_and_can_learn() -> None:
    torch.manual_seed(0)
    unet = tiny_unet(4, 4, [32, 64], 16, 2)
    modules = {name: m for name, m in unet.named_modules() if "motion_modules" in name and name.endswith("proj_out")}
    assert len(modules) >= 5
    assert all(not m.weight.any() and not m.bias.any() for m in modules.values())
    inputs = torch.randn(1, 13, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    tokens = torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(2))
    other = inputs.clone()
    other[:, :, 2] += 1.0

    def change() -> torch.Tensor:
        with torch.no_grad():
            difference = unet(inputs, 10, tokens).sample - unet(other, 10, tokens).sample
        return difference.abs().amax((0, 1, 3, 4))

    assert change()[:2].max() == 0 < change()[2]  # frames do not see each other yet
    for module in modules.values():
        torch.nn.init.normal_(module.weight, std=0.3)
    assert change()[:2].min() > 1e-4  # and do once the modules have learned something
    zero_motion_output(unet)
    assert change()[:2].max() == 0


def test_a_widened_first_layer_keeps_the_pretrained_function(pretrained_images: dict[str, Path]) -> None:
    """Whatever references and mask say, the network starts as the one that was saved."""
    flat = UNet2DConditionModel.from_pretrained(pretrained_images["unet"])
    wide = pretrained_unet(str(pretrained_images["unet"]), str(pretrained_images["motion"]), 4)
    assert isinstance(wide, UNetMotionModel) and wide.config.in_channels == 13
    g = torch.Generator().manual_seed(0)
    noisy, extra = torch.randn(1, 4, 1, 8, 8, generator=g), torch.randn(2, 1, 9, 1, 8, 8, generator=g)
    tokens = torch.randn(1, 5, 24, generator=g)
    with torch.no_grad():
        one, other = (wide(torch.cat([noisy, part], 1), 300, tokens).sample for part in extra)
        torch.testing.assert_close(one, other, atol=0, rtol=0)
        zero_motion_output(wide)  # a random motion adapter does something; a flat picture has none
        still = wide(torch.cat([noisy, extra[0]], 1), 300, tokens).sample
        torch.testing.assert_close(still[:, :, 0], flat(noisy[:, :, 0], 300, tokens).sample, atol=1e-5, rtol=1e-4)
    assert wide.conv_in.weight.requires_grad and wide.conv_in.weight.shape[1] == 13


def test_pretrained_parts_that_do_not_fit_are_refused(pretrained_images: dict[str, Path], tmp_path: Path) -> None:
    unet, motion = str(pretrained_images["unet"]), str(pretrained_images["motion"])
    with pytest.raises(ArtifactError, match="takes 4 latent channels, the codec gives 16"):
        pretrained_unet(unet, motion, 16)
    with pytest.raises(ArtifactError, match=r"pretrained motion modules: no folder .*save_pretrained"):
        pretrained_unet(unet, str(tmp_path / "none"), 4)
