"""Talking faces from a backbone: the lower face of given frames, or the whole face from one picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn import functional as F

from fedtalk.ahead import ahead, check_wanted
from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip, Reference
from fedtalk.data.pixels import to_bytes, to_unit
from fedtalk.encoders.speech import frame_windows
from fedtalk.errors import ConfigurationError
from fedtalk.talker.backbone import Backbone
from fedtalk.talker.batches import encode, heard, surrounded
from fedtalk.talker.change import standing_out
from fedtalk.talker.lids import blinks
from fedtalk.talker.masks import around_mouth, lower_face
from fedtalk.talker.mouth_looks import MouthLooks
from fedtalk.talker.pose import swaying_eyes
from fedtalk.talker.puppet import Puppet
from fedtalk.talker.sampler import Frame, sample

NOISE = 0.3
"""Standard deviation of the noise that sampling starts from where the network answers with clean latents, apart for each frame.
Training has 1; from less the answer is nearer to what is to be expected: on people never trained on the mouth's PSNR is
0.3 dB higher than from 1. Networks that answer with the noise (or v) have to start from 1: they say how much of it there is."""
SHARED = 0.9
"""There, the share of the noise's variance that all frames have in common. Training has a half; what differs from frame to frame
is seen as flicker where few steps are taken."""
PART = 16
"""Frames that are drawn and encoded at a time."""
DECODED = 8
"""Frames that are decoded at a time."""


@dataclass(frozen=True)
class _Part:
    """What the network is told of up to `PART` frames that follow one another."""

    pictures: np.ndarray
    """(F, H, W, 3) uint8, the moved reference; the frame itself around what is replaced."""
    masks: Tensor
    """(F, 1, h, w)."""
    shown: Tensor
    """(F, 1, H, W), share of the network's picture in the result."""
    windows: list[Tensor]
    """Audio features by frame."""


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
    looks: MouthLooks | None = None
    """What is added to puppets of the person whose adapter it is."""
    precision: torch.dtype = torch.float32
    """Of the networks' arithmetic; latents stay in float32."""

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
        _, alpha = lower_face(clip.eyes, self.backbone.architecture.size)
        windows = self.windows(torch.from_numpy(clip.audio) if audio is None else audio)
        original = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
        faces = self.dub_faces(zip(clip.frames, clip.eyes, strict=True), len(clip), reference, windows, seed)
        for index, frame in enumerate(faces):
            blend = alpha[index]
            merged = blend * to_unit(frame) + (1 - blend) * to_unit(original[index])
            yield to_bytes(merged).permute(1, 2, 0)

    def dub_faces(
        self,
        faces: Iterable[tuple[np.ndarray, np.ndarray]],
        count: int,
        reference: Reference,
        windows: Iterator[Tensor],
        seed: int = 0,
    ) -> Iterator[Tensor]:
        """The network's own pictures of faces whose lower halves it replaces, to be blended into what surrounds them.

        Args:
            faces: ``count`` frames (H, W, 3) uint8 with their eyes (2, 2); read as they are needed.
            count: frames.
            reference: a picture of the same person.
            windows: audio features by frame, see `windows`.
            seed: of the noise.

        Yields:
            (3, H, W) uint8.
        """
        size = self.backbone.architecture.size

        def parts() -> Iterator[_Part]:
            stream, body = zip(faces, windows, strict=False), Puppet(reference)
            while part := list(itertools.islice(stream, PART)):
                told = [window for _, window in part]
                eyes = np.stack([one for (_, one), _ in part])
                hidden, _ = lower_face(eyes, size)
                puppets = self._moved(body, eyes, told)
                pictures = surrounded(puppets, np.stack([frame for (frame, _), _ in part]), hidden)
                masks = F.avg_pool2d(hidden, self.backbone.codec.factor)
                yield _Part(pictures, masks, self._shown(body, eyes), told)

        yield from self._sample(parts(), count, reference, seed)

    def portrait(
        self, audio: Tensor, reference: Reference, seed: int = 0, eyes: np.ndarray | None = None
    ) -> Iterator[Tensor]:
        """Draw a whole speaking face.

        Args:
            audio: (640 F,) float32, 16 kHz.
            reference: the picture of the person.
            seed: of the noise, and of the head's sway.
            eyes: (F, 2, 2) eye centres in pixels that say how the head is held; by default it sways slowly and the eyes blink.

        Yields:
            F frames (H, W, 3) uint8.
        """
        count = len(audio) // SAMPLES_PER_FRAME
        held = swaying_eyes(reference.eyes, count, seed) if eyes is None else eyes
        if held.shape != (count, 2, 2):
            raise ConfigurationError(
                f"portrait: expected eyes ({count}, 2, 2) for {count} frames of audio, got {held.shape}"
            )
        closed = blinks(count, seed) if eyes is None else None
        for frame in self.portrait_faces(held, reference, self.windows(audio), seed, closed):
            yield frame.permute(1, 2, 0)

    def portrait_faces(
        self,
        eyes: np.ndarray,
        reference: Reference,
        windows: Iterator[Tensor],
        seed: int = 0,
        closed: np.ndarray | None = None,
    ) -> Iterator[Tensor]:
        """The same from audio features that are read as they are needed, and from how far the lids are ``closed`` (F,); yields
        (3, H, W) uint8."""
        cells = self.backbone.cells

        def parts() -> Iterator[_Part]:
            body = Puppet(reference)
            for first in range(0, len(eyes), PART):
                told = list(itertools.islice(windows, PART))
                held = eyes[first : first + len(told)]
                shut = None if closed is None else closed[first : first + len(told)]
                pictures = self._moved(body, held, told, shut)
                yield _Part(pictures, torch.ones(len(told), 1, cells, cells), self._shown(body, held), told)

        yield from self._sample(parts(), len(eyes), reference, seed)

    def _moved(
        self, body: Puppet, eyes: np.ndarray, windows: list[Tensor], closed: np.ndarray | None = None
    ) -> np.ndarray:
        """(F, H, W, 3) uint8: the puppet by what is heard in ``windows``, with the person's looks."""
        lips = heard(self.backbone, windows)
        pictures = body.moved(eyes, lips, closed)
        return pictures if self.looks is None or lips is None else self.looks.added(pictures, eyes, lips)

    def _shown(self, body: Puppet, eyes: np.ndarray) -> Tensor:
        """(F, 1, H, W), see `_Part`; (F, 1, 1, 1) ones for networks that draw the whole face by themselves."""
        if not self.backbone.denoiser.residual:
            return torch.ones(len(eyes), 1, 1, 1)
        return around_mouth(body.mouths(eyes), eyes, self.backbone.architecture.size)

    def windows(self, audio: Tensor) -> Iterator[Tensor]:
        """Audio features by frame of (640 F,) speech that lies in memory."""
        yield from frame_windows(self.backbone.speech(audio), self.backbone.speech.per_frame)

    @torch.no_grad()
    def reconstruct(self, frames: np.ndarray) -> np.ndarray:
        """(F, H, W, 3) uint8 through the codec and back: the best that the talker could do."""
        pictures = to_unit(torch.from_numpy(frames).permute(0, 3, 1, 2)).to(self.device)
        parts = [to_bytes(self.backbone.codec.decode(self.backbone.codec.encode(part))) for part in pictures.split(32)]
        return torch.cat(parts).permute(0, 2, 3, 1).cpu().numpy()

    @torch.no_grad()
    def _sample(self, parts: Iterator[_Part], count: int, reference: Reference, seed: int) -> Iterator[Tensor]:
        """(3, H, W) uint8 frames, streamed; ``parts`` are drawn in another thread while the networks work."""
        channels, cells = self.backbone.codec.latent_channels, self.backbone.cells
        picture = to_unit(torch.from_numpy(reference.frame).permute(2, 0, 1))[None].to(self.device)
        latent = self.backbone.codec.encode(picture)
        noises = self._noises((channels, cells, cells), seed)

        def frames() -> Iterator[Frame]:
            for part in ahead(parts, 2):
                moved = encode(self.backbone, part.pictures, self.device)
                pictures = torch.from_numpy(part.pictures).permute(0, 3, 1, 2)
                of_each = zip(moved, part.masks.to(self.device), part.windows, pictures, part.shown, strict=True)
                for one, mask, window, picture, shown in of_each:
                    yield Frame(next(noises).to(self.device), one, mask, window.to(self.device), picture, shown)

        def predict(groups: list[list[Frame]], timestep: Tensor) -> Tensor:
            def stack(name: str) -> Tensor:
                return torch.stack([torch.stack([getattr(frame, name) for frame in group]) for group in groups])

            check_wanted()
            size = len(groups)
            inputs = [stack("latent_Chw"), timestep.to(self.device).expand(size), latent.expand(size, -1, -1, -1),
                      stack("moved_Chw"), stack("mask_1hw"), stack("window_TD")]  # fmt: skip
            yes = torch.ones(size, dtype=torch.bool, device=self.device)
            with self._arithmetic():
                heard = self.backbone.denoiser(*inputs, yes, yes).float()
                if self.guidance == 1.0:
                    return heard
                unheard = self.backbone.denoiser(*inputs, ~yes, yes).float()
            return unheard + self.guidance * (heard - unheard)

        def decoded(clean: Iterator[Frame]) -> Iterator[Tensor]:
            while part := list(itertools.islice(clean, DECODED)):
                latents, moved = (
                    torch.stack([getattr(frame, name) for frame in part]) for name in ("latent_Chw", "moved_Chw")
                )
                with self._arithmetic():
                    pictures = self.backbone.codec.decode(latents, moved)
                pictures = pictures.float()
                if self.backbone.denoiser.residual:  # answers with a change of the puppet
                    uncoded, shown = (
                        torch.stack([getattr(frame, name) for frame in part]).to(self.device)
                        for name in ("puppet_3HW", "mouth_1HW")
                    )
                    puppets = to_unit(uncoded)
                    pictures = puppets + shown * standing_out(pictures - puppets, self.backbone.codec.factor)
                yield from to_bytes(pictures).cpu()

        stream = sample(frames(), count, predict, self.scheduler, self.sampling_steps, self.window, self.stride)
        yield from decoded(stream)

    def _noises(self, shape: tuple[int, int, int], seed: int) -> Iterator[Tensor]:
        """What each frame's latents start from."""
        generator = torch.Generator().manual_seed(seed)
        if self.scheduler.config.prediction_type == "sample":
            while True:
                yield NOISE * torch.randn(shape, generator=generator)
        shared = torch.randn(shape, generator=generator)
        while True:
            yield SHARED**0.5 * shared + (1 - SHARED) ** 0.5 * torch.randn(shape, generator=generator)

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)
