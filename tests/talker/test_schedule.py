"""The noise law and the three things a network may predict, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedtalk.errors import ConfigurationError
from fedtalk.talker.schedule import NoiseSchedule, frame_noise, make_schedule

KINDS = ("epsilon", "v_prediction", "sample")


def _published_signal(zero_terminal: bool) -> np.ndarray:
    """sqrt(alpha bar) of Stable Diffusion's schedule, rescaled as Lin et al. 2023, algorithm 1."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    signal = np.sqrt(np.cumprod(1 - betas))
    return (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1]) if zero_terminal else signal


@pytest.mark.parametrize("kind", KINDS)
def test_signal_is_the_published_one(kind: str) -> None:
    schedule = NoiseSchedule(make_schedule(kind))
    expected = _published_signal(zero_terminal=kind != "epsilon")
    np.testing.assert_allclose(schedule.signal.numpy(), expected, atol=2e-3)
    torch.testing.assert_close(schedule.signal.square() + schedule.sigma.square(), torch.ones(1000))


def test_the_last_step_is_pure_noise_unless_the_network_predicts_noise() -> None:
    for kind in ("v_prediction", "sample"):
        scheduler = make_schedule(kind)
        assert float(NoiseSchedule(scheduler).signal[-1]) == 0.0
        scheduler.set_timesteps(10)
        assert int(scheduler.timesteps[0]) == 999  # sampling starts where training saw pure noise
    assert float(NoiseSchedule(make_schedule("epsilon")).signal[-1]) > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_targets_turn_back_into_clean_and_noise(kind: str) -> None:
    schedule = NoiseSchedule(make_schedule(kind))
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 12, 3, 4, 2, 2, generator=generator)
    timestep = torch.tensor([0, 1, 10, 100, 250, 400, 500, 600, 700, 850, 950, 998])
    noisy = schedule.add_noise(clean, noise, timestep)
    got_clean, got_noise = schedule.clean_and_noise(schedule.target(clean, noise, timestep), noisy, timestep)
    torch.testing.assert_close(got_clean, clean, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(got_noise, noise, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_targets_at_pure_noise(kind: str) -> None:
    schedule = NoiseSchedule(make_schedule(kind))
    clean, noise = torch.randn(2, 1, 2, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    last = torch.tensor([999])
    noisy = schedule.add_noise(clean, noise, last)
    torch.testing.assert_close(noisy, noise)
    target = schedule.target(clean, noise, last)
    torch.testing.assert_close(target, -clean if kind == "v_prediction" else clean)
    torch.testing.assert_close(schedule.clean_and_noise(target, noisy, last)[0], clean)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kinds_are_three_views_of_one_estimate(kind: str) -> None:
    """Whatever the network answers, the two estimates add up to the noisy input."""
    schedule = NoiseSchedule(make_schedule(kind))
    generator = torch.Generator().manual_seed(2)
    output, noisy = torch.randn(2, 3, 2, 4, 2, 2, generator=generator)
    timestep = torch.tensor([100, 500, 900])
    clean, noise = schedule.clean_and_noise(output, noisy, timestep)
    torch.testing.assert_close(schedule.add_noise(clean, noise, timestep), noisy, atol=1e-4, rtol=1e-4)


def test_frame_noise_has_unit_variance_and_half_correlation_between_frames_only() -> None:
    noise = frame_noise((4, 3, 8, 32, 32), torch.Generator().manual_seed(0))
    assert noise.shape == (4, 3, 8, 32, 32)
    flat = noise.double().reshape(4, 3, -1)
    error = 5 / np.sqrt(flat.shape[-1])
    for window in flat:
        covariance = window @ window.T / window.shape[-1]
        expected = torch.full((3, 3), 0.5, dtype=torch.float64).fill_diagonal_(1.0)
        assert (covariance - expected).abs().max() < 2 * error
        assert window.mean(-1).abs().max() < 2 * error
    across = flat[0] @ flat[1].T / flat.shape[-1]
    assert across.abs().max() < 2 * error  # windows share nothing
    cells = noise[:, :, 0, :, :-1].double().flatten() @ noise[:, :, 0, :, 1:].double().flatten()
    assert abs(float(cells)) / noise[:, :, 0, :, 1:].numel() < 0.1


def test_frame_noise_comes_from_its_generator_alone() -> None:
    torch.manual_seed(0)
    one = frame_noise((1, 2, 3, 4, 4), torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    assert torch.equal(one, frame_noise((1, 2, 3, 4, 4), torch.Generator().manual_seed(5)))


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="prediction: expected one of epsilon, v_prediction, sample, got 'flow'"
    ):
        make_schedule("flow")
