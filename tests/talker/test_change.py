"""What of a network's change of a picture is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedtalk.talker.change import AROUND, NEAR, NOISE, standing_out


def _gauss(size: int, deviation: float) -> np.ndarray:
    at = np.arange(size)
    kernel = np.exp(-(((at[:, None] - at) / deviation) ** 2) / 2)
    return kernel


def test_the_gain_is_the_share_of_energy_above_that_of_the_surroundings() -> None:
    """Against a second implementation: dense matrices in place of convolutions, far from the borders."""
    change = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * torch.linspace(0, 1, 96)
    energy = change.double().square().mean(1).numpy()
    blurs = [_gauss(96, share * 16) for share in (NEAR, AROUND)]
    near = np.stack([blurs[0] @ one @ blurs[0] / _gauss(96, NEAR * 16)[48].sum() ** 2 for one in energy])
    around = np.stack([blurs[1] @ one @ blurs[1] / _gauss(96, AROUND * 16)[48].sum() ** 2 for one in near])
    expected = change.numpy() * (np.maximum(near - NOISE * around, 0) / near)[:, None]
    inner = slice(34, 62)
    got = standing_out(change, 16).numpy()
    np.testing.assert_allclose(got[..., inner, inner], expected[..., inner, inner], atol=0.01)


def test_lips_stay_and_texture_beside_them_goes() -> None:
    texture = 0.05 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    lips = torch.zeros(1, 3, 64, 64)
    lips[..., 29:35, 20:44] = 0.8
    kept = standing_out(lips + texture, 16)
    core = (..., slice(30, 34), slice(23, 41))
    assert float((kept[core] / (lips + texture)[core]).mean()) > 0.85
    beside = (..., slice(22, 27), slice(20, 44))
    assert float(kept[beside].square().mean()) < 0.1 * float(texture[beside].square().mean())


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_no_change_stays_none_and_an_even_one_is_kept_in_part(value: float) -> None:
    kept = standing_out(torch.full((1, 3, 32, 32), value), 4)
    torch.testing.assert_close(kept, torch.full_like(kept, value * (1 - NOISE)), atol=1e-5, rtol=1e-4)
