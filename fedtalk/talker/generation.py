"""Talking faces from a backbone: the lower face of given frames, or the whole face from one picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn import functional as F

from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip, Reference
from fedtalk.data.pixels import to_bytes, to_unit
from fedtalk.encoders.speech import frame_windows
from fedtalk.errors import ConfigurationError
from fedtalk.talker.backbone import Backbone
from fedtalk.talker.batches import moved_reference
from fedtalk.talker.masks import lower_face
from fedtalk.talker.pose import swaying_eyes
from fedtalk.talker.sampler import Frame, sample

Conditions = Iterator[tuple[Tensor, Tensor, Tensor]]
"""By frame: the moved reference and the masked frame (C, h, w), the mask (1, h, w)."""


@dataclass(frozen=True)
class Generation:
    """A backbone with how it is sampled."""

    backbone: Backbone
    scheduler: DDIMScheduler
    guidance: float
    """Weight of the audio; 1 is the plain conditional model, which is twice as fast."""
    sampling_steps: int
    window: int
    """Frames that are sampled together."""
    stride: int
    """Frames from one window to the next."""
    device: torch.device

    def dub(self, clip: Clip, reference: Reference, seed: int = 0, audio: Tensor | None = None) -> Iterator[Tensor]:
        """Replace the lower face of a clip.

        Args:
            clip: whose upper faces and head motion are kept; its lower faces are never seen by the network.
            reference: a picture of the same person, from another time.
            seed: of the noise.
            audio: (N,) other speech of the clip's length; the clip's own by default.

        Yields:
            (H, W, 3) uint8 frames.
        """
        size = self.backbone.architecture.size
        hidden, alpha = lower_face(clip.eyes, size)
        speech = torch.from_numpy(clip.audio) if audio is None else audio
        original = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)

        def conditions() -> Conditions:
            for first in range(0, len(clip), 32):
                part = slice(first, first + 32)
                moved = moved_reference(self.backbone, reference, clip.eyes[part], self.device)
                with torch.no_grad():
                    masked = self.backbone.codec.encode((to_unit(original[part]) * (1 - hidden[part])).to(self.device))
                mask = F.avg_pool2d(hidden[part], self.backbone.codec.factor).to(self.device)
                yield from zip(moved, masked, mask, strict=True)

        for index, frame in enumerate(self._sample(speech, len(clip), reference, conditions(), seed)):
            blend = alpha[index]
            merged = blend * to_unit(frame) + (1 - blend) * to_unit(original[index])
            yield to_bytes(merged).permute(1, 2, 0)

    def portrait(
        self, audio: Tensor, reference: Reference, seed: int = 0, eyes: np.ndarray | None = None
    ) -> Iterator[Tensor]:
        """Draw a whole speaking face.

        Args:
            audio: (640 F,) float32, 16 kHz.
            reference: the picture of the person.
            seed: of the noise, and of the head's sway.
            eyes: (F, 2, 2) eye centres in pixels that say how the head is held; a slow sway (`swaying_eyes`) by default.

        Yields:
            F frames (H, W, 3) uint8.
        """
        count = len(audio) // SAMPLES_PER_FRAME
        held = swaying_eyes(reference.eyes, count, seed) if eyes is None else eyes
        if held.shape != (count, 2, 2):
            raise ConfigurationError(
                f"portrait: expected eyes ({count}, 2, 2) for {count} frames of audio, got {held.shape}"
            )
        channels, cells = self.backbone.codec.latent_channels, self.backbone.cells
        hidden = torch.zeros(channels, cells, cells, device=self.device)
        everywhere = torch.ones(1, cells, cells, device=self.device)

        def conditions() -> Conditions:
            for first in range(0, count, 32):
                for moved in moved_reference(self.backbone, reference, held[first : first + 32], self.device):
                    yield moved, hidden, everywhere

        for frame in self._sample(audio, count, reference, conditions(), seed):
            yield frame.permute(1, 2, 0)

    @torch.no_grad()
    def reconstruct(self, frames: np.ndarray) -> np.ndarray:
        """(F, H, W, 3) uint8 through the codec and back: the best that the talker could do."""
        pictures = to_unit(torch.from_numpy(frames).permute(0, 3, 1, 2)).to(self.device)
        parts = [to_bytes(self.backbone.codec.decode(self.backbone.codec.encode(part))) for part in pictures.split(32)]
        return torch.cat(parts).permute(0, 2, 3, 1).cpu().numpy()

    @torch.no_grad()
    def _sample(
        self,
        audio: Tensor,
        count: int,
        reference: Reference,
        conditions: Conditions,
        seed: int,
    ) -> Iterator[Tensor]:
        """(3, H, W) uint8 frames, streamed."""
        channels, cells = self.backbone.codec.latent_channels, self.backbone.cells
        windows = frame_windows(self.backbone.speech(audio), self.backbone.speech.per_frame)
        picture = to_unit(torch.from_numpy(reference.frame).permute(2, 0, 1))[None].to(self.device)
        latent = self.backbone.codec.encode(picture)
        generator = torch.Generator().manual_seed(seed)
        shared = torch.randn(channels, cells, cells, generator=generator)

        def frames() -> Iterator[Frame]:
            for index, (moved, masked, mask) in enumerate(conditions):
                noise = (shared + torch.randn(channels, cells, cells, generator=generator)) / 2**0.5
                yield Frame(noise.to(self.device), moved, masked, mask, windows[index].to(self.device))

        def predict(groups: list[list[Frame]], timestep: Tensor) -> Tensor:
            def stack(name: str) -> Tensor:
                return torch.stack([torch.stack([getattr(frame, name) for frame in group]) for group in groups])

            size = len(groups)
            inputs = [stack("latent_Chw"), timestep.to(self.device).expand(size), latent.expand(size, -1, -1, -1),
                      stack("moved_Chw"), stack("masked_Chw"), stack("mask_1hw"), stack("window_TD")]  # fmt: skip
            yes = torch.ones(size, dtype=torch.bool, device=self.device)
            heard = self.backbone.denoiser(*inputs, yes, yes)
            if self.guidance == 1.0:
                return heard
            unheard = self.backbone.denoiser(*inputs, ~yes, yes)
            return unheard + self.guidance * (heard - unheard)

        def decoded(latents: Iterator[Tensor]) -> Iterator[Tensor]:
            for value in latents:
                yield to_bytes(self.backbone.codec.decode(value[None]))[0].cpu()

        stream = sample(frames(), count, predict, self.scheduler, self.sampling_steps, self.window, self.stride)
        yield from decoded(stream)
