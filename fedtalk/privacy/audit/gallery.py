"""What an attacker knows of a person beforehand: a few clips of theirs that were never trained on.

From them it computes where such a person would pull an adapter (the gradient of the objective) and how the person looks
on average (the mean latent). Both are compared with what an update reveals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedtalk.randomness import torch_generator
from fedtalk.talker.module import Talker
from fedtalk.training.module import Prepared, load_state

WINDOWS = 8
"""Windows that a person's gradient is taken over, each at another noise level, evenly spread."""


@dataclass(frozen=True)
class Profile:
    """One person as the attacker knows them."""

    gradient: np.ndarray
    """(d,) float32: of the objective in the exchanged parameters, at the state that clients start from."""
    latent: Tensor
    """(C, h, w): mean over frames."""


def profile_of(module: Talker, state: dict[str, Tensor], clips: Sequence[Prepared], seed: int) -> Profile:
    """Study a person.

    Args:
        module: the talker; its adapter and gradients are overwritten.
        state: what clients start from.
        clips: prepared clips of the person, not those trained on.
        seed: of windows and noise; the same for all people, so that they differ in the people alone.
    """
    parameters = module.exchanged_parameters()
    load_state(parameters, state)
    batch = module.draw_batch(clips, WINDOWS, torch_generator(seed, "gallery"))
    batch["audio_present"][:], batch["reference_present"][:] = True, True
    batch["timestep"] = torch.linspace(0, len(module.noise_schedule.signal) - 1, WINDOWS).round().long()
    batch = {name: value.to(module.device) for name, value in batch.items()}
    loss = torch.stack(list(module.loss_terms(batch).values())).sum()
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    flat = [
        torch.zeros_like(parameter) if gradient is None else gradient
        for gradient, parameter in zip(gradients, parameters.values(), strict=True)
    ]
    latent = torch.cat([clip["latents"].float() for clip in clips]).mean(0)
    return Profile(torch.cat([part.reshape(-1) for part in flat]).cpu().numpy(), latent)
