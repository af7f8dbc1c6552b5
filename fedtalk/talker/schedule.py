"""The noise law and the relation between clean latents, noise and what the network predicts."""

from __future__ import annotations

from typing import Literal

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from fedtalk.checks import check_choice

Predicted = Literal["epsilon", "v_prediction", "sample"]
"""What the network answers: the noise, a mix of noise and clean latents, or the clean latents."""


def make_schedule(prediction: Predicted) -> DDIMScheduler:
    """A DDIM schedule of 1000 steps.

    ``v_prediction`` and ``sample`` get zero terminal signal-to-noise and trailing spacing (Lin et al. 2023), ``epsilon``
    (Stable Diffusion weights) the original schedule, since it can't predict from pure noise.
    """
    check_choice("prediction", prediction, Predicted)
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        rescale_betas_zero_snr=prediction != "epsilon",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def frame_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise for B windows of F frames: ``(shared + independent) / sqrt(2)``, unit variance (PYoCo, Ge et al. 2023, eq. 4).

    Args:
        shape: (B, F, C, h, w).
    """
    shared = torch.randn(shape[0], 1, *shape[2:], generator=generator)
    return (shared + torch.randn(shape, generator=generator)) / 2**0.5


class NoiseSchedule:
    """Coefficients of ``x_t = a x_0 + s eps`` and the targets that follow."""

    def __init__(self, scheduler: DDIMScheduler) -> None:
        self.prediction = str(scheduler.config.prediction_type)
        self.signal = scheduler.alphas_cumprod.sqrt()
        self.sigma = (1 - scheduler.alphas_cumprod).clamp_min(0).sqrt()

    def _coefficients(self, timestep_B: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
        shape = (-1,) + (1,) * (dimensions - 1)
        signal, sigma = self.signal.to(timestep_B.device), self.sigma.to(timestep_B.device)
        return signal[timestep_B].reshape(shape), sigma[timestep_B].reshape(shape)

    def add_noise(self, clean: Tensor, noise: Tensor, timestep_B: Tensor) -> Tensor:
        a, s = self._coefficients(timestep_B, clean.ndim)
        return a * clean + s * noise

    def target(self, clean: Tensor, noise: Tensor, timestep_B: Tensor) -> Tensor:
        """What the network should answer; ``v = a eps - s x_0`` (Salimans and Ho 2022)."""
        a, s = self._coefficients(timestep_B, clean.ndim)
        return {"epsilon": noise, "sample": clean, "v_prediction": a * noise - s * clean}[self.prediction]

    def clean_and_noise(self, output: Tensor, noisy: Tensor, timestep_B: Tensor) -> tuple[Tensor, Tensor]:
        """The estimates of ``x_0`` and ``eps`` that an output stands for."""
        a, s = self._coefficients(timestep_B, noisy.ndim)
        if self.prediction == "epsilon":
            return (noisy - s * output) / a.clamp_min(1e-3), output
        if self.prediction == "sample":
            return output, (noisy - a * output) / s.clamp_min(1e-3)
        return a * noisy - s * output, s * noisy + a * output
