"""The codec of patches: what a change of its latents does at the borders between patches."""

from __future__ import annotations

import torch

from fedtalk.talker.codec import Codec
from fedtalk.talker.patch_autoencoder import PatchAutoencoder

PATCH = 8


def _codec(channels: int = 3 * PATCH * PATCH) -> Codec:
    """Keeps every component, so that latents are pictures in other words."""
    torch.manual_seed(0)
    return Codec(PatchAutoencoder(PATCH, channels, width=8, blocks=1)).eval().requires_grad_(False)


def _change(codec: Codec, picture: torch.Tensor) -> torch.Tensor:
    """What of a change (H, W) in every colour is added at the seams."""
    change = codec.encode_raw(picture.expand(1, 3, -1, -1)) - codec.encode_raw(torch.zeros(1, 3, *picture.shape))
    return codec.autoencoder.without_seams(change)[0, 0]


def test_a_smooth_change_is_left_alone() -> None:
    codec, axis = _codec(), torch.arange(32.0) / 32
    slope = axis[:, None] * 0.7 - axis[None, :] * 0.3
    assert float(_change(codec, slope).abs().max()) < 1e-5


def test_a_step_between_patches_is_spread_over_half_of_each_and_one_within_a_patch_is_kept() -> None:
    codec, row = _codec(), torch.arange(32)
    at_border = (row >= 16).float().expand(32, 32)
    smoothed = (at_border + _change(codec, at_border))[5]
    assert float(smoothed.diff().max()) < 0.2  # it was 1
    torch.testing.assert_close(smoothed[[0, 11, 20, 31]], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    upright = at_border.mT + _change(codec, at_border.mT)
    torch.testing.assert_close(upright[:, 5], smoothed)
    within = (row >= 20).float().expand(32, 32)
    assert float(_change(codec, within).abs().max()) < 1e-5


def test_decoding_shows_no_steps_in_what_was_changed_and_keeps_the_steps_of_the_known_picture() -> None:
    codec = _codec()
    border = (torch.arange(32) >= 16).float()
    known = codec.encode(border.expand(1, 3, 32, 32) - 0.5)
    plain = codec.decode(known)
    torch.testing.assert_close(codec.decode(known, known), plain)
    changed = codec.encode(border.expand(1, 3, 32, 32) * 0.6 - 0.5)
    step = codec.decode(changed)[0, 0, 5].diff()[15]
    softer = codec.decode(changed, known)[0, 0, 5].diff()[15]
    torch.testing.assert_close(step, torch.tensor(0.6), atol=1e-4, rtol=0)
    # The true picture's step of 1 stays; the change's step of -0.4 becomes a twentieth of a step a pixel.
    torch.testing.assert_close(softer, torch.tensor(1 - 0.4 / PATCH), atol=1e-4, rtol=0)


def test_other_codecs_decode_as_they_did() -> None:
    from fedtalk.talker.codec import tiny_codec

    codec = Codec(tiny_codec(width=8)).eval().requires_grad_(False)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(codec.decode(latents, 0.5 * latents), codec.decode(latents))
