"""What does the person look like? An update played back through the public backbone.

With nothing but noise, silence and no reference to go by, the denoiser answers with the mean of what it was trained on.
The attacker puts an update on the backbone and reads that mean face off; what it differs by from the backbone's own is
the update's client. Its score for candidate j is the cosine of that difference with candidate j's, both in the codec's
latents.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedtalk.encoders.speech import frame_windows
from fedtalk.federation.vector import flatten, unflatten
from fedtalk.randomness import torch_generator
from fedtalk.talker.module import Talker
from fedtalk.talker.schedule import frame_noise
from fedtalk.training.module import load_state

DRAWS = 2
"""Windows of noise that the mean face is averaged over."""


@torch.no_grad()
def mean_face(module: Talker, state: dict[str, Tensor], update: np.ndarray | None, seed: int) -> Tensor:
    """(C, h, w): the latent of the face that the denoiser expects when it knows nothing.

    Args:
        module: the talker; its adapter is overwritten.
        state: what the update was made from.
        update: (d,) added to it; None for the state itself.
        seed: of the noise, the same for all that is compared.
    """
    changed = state if update is None else unflatten(flatten(state) + update, state)
    load_state(module.exchanged_parameters(), changed)
    backbone, frames = module.backbone, module.window
    channels, cells = backbone.codec.latent_channels, backbone.cells
    noise = frame_noise((DRAWS, frames, channels, cells, cells), torch_generator(seed, "mean face")).to(module.device)
    silence = frame_windows(backbone.speech(torch.zeros(frames * 640)), backbone.speech.per_frame)[:frames]
    timestep = torch.full((DRAWS,), len(module.noise_schedule.signal) - 1, device=module.device)
    absent = torch.zeros(DRAWS, dtype=torch.bool, device=module.device)
    output = backbone.denoiser(
        noise, timestep, torch.zeros(DRAWS, channels, cells, cells, device=module.device), torch.zeros_like(noise),
        torch.ones_like(noise[:, :, :1]), silence.to(module.device).expand(DRAWS, -1, -1, -1),
        absent, absent,
    )  # fmt: skip
    clean, _ = module.noise_schedule.clean_and_noise(output, noise, timestep)
    return clean.mean((0, 1)).cpu()


def likeness(difference: Tensor, right: Tensor, decoys: list[Tensor], common: Tensor) -> tuple[float, list[float]]:
    """Cosines of a revealed difference with the right client's and the decoys', each less what all have in common.

    Args:
        difference: (C, h, w) mean face with the update less that without.
        right: (C, h, w) mean latent of the client.
        decoys: the same of others.
        common: (C, h, w) mean over the decoys.
    """

    def cosine(latent: Tensor) -> float:
        other = latent - common
        return float((difference * other).sum() / (difference.norm() * other.norm()).clamp_min(1e-30))

    return cosine(right), [cosine(latent) for latent in decoys]
