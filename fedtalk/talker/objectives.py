"""Terms of the local objective. Each is an object listed in the config; a term that is not listed is off."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from fedtalk.errors import ConfigurationError


@dataclass
class Prediction:
    """One training step as the terms see it. Shapes: B windows, F frames, C latent channels, h and w latent cells."""

    output_BFChw: Tensor
    """What the network answered."""
    target_BFChw: Tensor
    clean_BFChw: Tensor
    """True latents."""
    clean_hat_BFChw: Tensor
    """Estimate of the true latents."""
    noise_BFChw: Tensor
    noise_hat_BFChw: Tensor
    weight_BF1hw: Tensor
    """Where errors count, mean 1 over cells: the replaced region when dubbing, more around the mouth."""
    signal_B: Tensor
    """``a`` of ``x_t = a x_0 + s eps``: terms on decoded frames fade out where the estimate can't be sharp."""
    kind: str
    """What the network answers: ``epsilon``, ``v_prediction`` or ``sample``."""
    reference_BChw: Tensor
    decode: Callable[[Tensor], Tensor]
    """(N, C, h, w) latents -> (N, 3, H, W) frames; differentiable, frozen."""
    windows_BFTD: Tensor
    """Feature windows of the true audio."""
    mouth_BF2: Tensor
    """Mouth centres, (x, y) as shares of the frame."""
    eyes_BF22: Tensor
    spread_BC: Tensor
    """How much a unit of each latent channel changes the picture, mean 1."""

    def split(self, parts: int) -> list[Prediction]:
        """Equal parts of the windows, in order."""
        size = len(self.clean_BFChw) // parts
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return [
            replace(self, **{name: value[part * size :][:size] for name, value in tensors.items()})
            for part in range(parts)
        ]

    @cached_property
    def frames_hat(self) -> Tensor:
        """(B, F, 3, H, W): the decoded estimate."""
        shape = self.clean_hat_BFChw.shape
        return self.decode(self.clean_hat_BFChw.flatten(0, 1)).unflatten(0, shape[:2])

    @cached_property
    def frames_true(self) -> Tensor:
        """(B, F, 3, H, W): the decoded true latents, without gradient."""
        with torch.no_grad():
            return self.decode(self.clean_BFChw.flatten(0, 1)).unflatten(0, self.clean_BFChw.shape[:2])


class Objective(ABC):
    """A weighted term."""

    name: str

    def __init__(self, weight: float) -> None:
        if not weight > 0:
            raise ConfigurationError(
                f"objective {self.name}: expected a weight above 0, got {weight}; leave it out to turn it off"
            )
        self.weight = weight

    @abstractmethod
    def __call__(self, prediction: Prediction) -> Tensor:
        """The unweighted term, a scalar."""


class DiffusionLoss(Objective):
    """Mean squared error of the network's answer, weighted by region.

    An answer in clean latents counts as the velocity it stands for, ``||v_hat - v||^2 = ||x_hat - x||^2 / s^2``, at most
    tenfold: predicting the clean signal under a loss on velocity (Li and He 2025) suits networks that are narrow for their
    latents.
    """

    name = "diffusion"

    def __init__(self, weight: float = 1.0, visible: float = 0.0) -> None:
        """
        Args:
            weight: of the term.
            visible: how far channels count by what they change in the picture, as an exponent; 0: all alike, 2: their errors
                count as squared errors of pixels (for a linear codec).
        """
        super().__init__(weight)
        self.visible = visible

    def __call__(self, prediction: Prediction) -> Tensor:
        error = (prediction.output_BFChw - prediction.target_BFChw).square() * prediction.weight_BF1hw
        if self.visible:
            counts = prediction.spread_BC**self.visible
            error = error * (counts / counts.mean(1, keepdim=True))[:, None, :, None, None]
        if prediction.kind == "sample":
            error = error / (1 - prediction.signal_B.square()).clamp_min(0.1)[:, None, None, None, None]
        return error.mean()


class TemporalDenoisingConsistency(Objective):
    """TDC: L1 between frame-to-frame differences of predicted and true noise (PrivFedTalk, L_tdc).

    ``mean |(eps_hat[f+1] - eps_hat[f]) - (eps[f+1] - eps[f])|``
    """

    name = "tdc"

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__(weight)

    def __call__(self, prediction: Prediction) -> Tensor:
        return (prediction.noise_hat_BFChw.diff(dim=1) - prediction.noise_BFChw.diff(dim=1)).abs().mean()


class IdentityLoss(Objective):
    """One minus the cosine between identity embeddings of generated frames and of the reference (PrivFedTalk, L_id)."""

    name = "identity"

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__(weight)
        from fedtalk.encoders.identity import IdentityEncoder

        self.encoder = IdentityEncoder.shipped().requires_grad_(False).eval()

    def __call__(self, prediction: Prediction) -> Tensor:
        frames = prediction.frames_hat
        encoder = self.encoder.to(frames.device)
        with torch.no_grad():
            reference = encoder(prediction.decode(prediction.reference_BChw))
        embedded = encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        cosine = (embedded * reference[:, None]).sum(-1).mean(1)
        return ((1 - cosine) * prediction.signal_B).mean()


class PerceptualLoss(Objective):
    """Mean absolute difference of image pyramids and their gradients, decoded frames against decoded truth.

    A stand-alone perceptual term: a network such as LPIPS would need weights from a hub.
    """

    name = "perceptual"

    def __init__(self, weight: float = 0.1, levels: int = 3) -> None:
        super().__init__(weight)
        self.levels = levels

    def __call__(self, prediction: Prediction) -> Tensor:
        difference = (prediction.frames_hat - prediction.frames_true) * prediction.signal_B[:, None, None, None, None]
        difference = difference.flatten(0, 1)
        total = difference.new_zeros(())
        for _ in range(self.levels):
            total = total + difference.abs().mean()
            total = total + difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
            difference = F.avg_pool2d(difference, 2)
        return total / self.levels


class SyncLoss(Objective):
    """One minus the cosine between the embeddings of generated mouths and of their audio, by the shipped sync scorer."""

    name = "sync"

    def __init__(self, weight: float = 0.05) -> None:
        super().__init__(weight)
        from fedtalk.encoders.sync import SyncScorer

        self.scorer = SyncScorer.shipped().requires_grad_(False).eval()

    def __call__(self, prediction: Prediction) -> Tensor:
        raise_if_not_mel(prediction.windows_BFTD)
        frames = prediction.frames_hat
        scorer = self.scorer.to(frames.device)
        size = frames.shape[-1]
        scores = scorer.score_windows(
            frames, prediction.mouth_BF2 * size, prediction.eyes_BF22 * size, prediction.windows_BFTD
        )
        return ((1 - scores.mean(1)) * prediction.signal_B).mean()


def raise_if_not_mel(windows: Tensor) -> None:
    """The sync scorer hears log-mel windows of 20 x 64."""
    if windows.shape[-2:] != (20, 64):
        raise ConfigurationError(
            f"objective sync: the shipped scorer needs mel features (20 x 64 a window), got {tuple(windows.shape[-2:])}; "
            "use speech: mel or leave the term out"
        )
