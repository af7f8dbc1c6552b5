"""A probe that reads from a face how far the lips are open; its own error is stated next to what it measures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fedtalk.data.pixels import to_unit
from fedtalk.encoders.appearance import vary_appearance
from fedtalk.encoders.face_module import FaceModule, draw_integer, jitter_points
from fedtalk.encoders.mouth_crop import mouth_crops
from fedtalk.encoders.shipped import ShippedNetwork, as_pictures, convolution
from fedtalk.errors import ArtifactError
from fedtalk.training.module import Prepared


class MouthProbe(ShippedNetwork):
    """Opening of the lips in one frame, from the crop around the mouth."""

    kind = "mouth_probe"

    def __init__(self, channels: Sequence[int] = (24, 48, 96)) -> None:
        """
        Args:
            channels: width of the levels, each of half the height and width of the one before; multiples of 8.
        """
        super().__init__(channels=list(channels))
        first, second, third = channels
        self.layers = nn.Sequential(
            convolution(3, first, stride=1),
            convolution(first, second),
            convolution(second, third),
            convolution(third, third),
        )
        self.out = nn.Sequential(nn.Linear(third * 16, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, frames: Tensor, mouth: Tensor, eyes: Tensor) -> Tensor:
        """
        Args:
            frames: (N, 3, H, W) float in [-1, 1].
            mouth: (N, 2) mouth centres in pixels, (x, y).
            eyes: (N, 2, 2) eyes in pixels.

        Returns:
            (N,) openness in (0, 1); 0 is closed, 1 an open "a".

        Raises:
            ArtifactError: frames of another shape or dtype.
        """
        return self.read_crops(mouth_crops(as_pictures(frames, "the mouth probe"), mouth, eyes))

    def read_crops(self, crops: Tensor) -> Tensor:
        """As `forward`, from crops (N, 3, 32, 32) of `mouth_crops`."""
        return self.out(self.layers(crops).flatten(1)).squeeze(1).sigmoid()

    @torch.no_grad()
    def measure(self, frames: np.ndarray, mouth: np.ndarray, eyes: np.ndarray) -> np.ndarray:
        """Openness of a clip's frames.

        Args:
            frames: (F, H, W, 3) uint8 RGB.
            mouth: (F, 2) pixels.
            eyes: (F, 2, 2) pixels.

        Returns:
            (F,) float32.
        """
        picture = to_unit(torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2))
        points = torch.from_numpy(np.asarray(mouth, np.float32)), torch.from_numpy(np.asarray(eyes, np.float32))
        return self(picture, *points).numpy()


class MouthProbeModule(FaceModule):
    """Learns the true openness of SynthTalk, L1, under any colour of lips, teeth and skin, hair above the lip, crooked
    mouths, softness and noise: the probe must read generated frames and people unlike those that it learned from.
    """

    network: MouthProbe

    def __init__(self, channels: Sequence[int] = (24, 48, 96)) -> None:
        """
        Args:
            channels: see `MouthProbe`.
        """
        super().__init__()
        self.save_hyperparameters()
        self.network = MouthProbe(channels)

    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        chosen = [clips[draw_integer(len(clips), generator)] for _ in range(size)]
        index = [draw_integer(len(clip["frames"]), generator) for clip in chosen]
        frames = to_unit(torch.stack([clip["frames"][i] for clip, i in zip(chosen, index, strict=True)]))[:, None]
        mouth = torch.stack([clip["mouth"][i] for clip, i in zip(chosen, index, strict=True)])[:, None]
        eyes = torch.stack([clip["eyes"][i] for clip, i in zip(chosen, index, strict=True)])[:, None]
        openness = torch.stack([_openness(clip)[i] for clip, i in zip(chosen, index, strict=True)])
        frames = _grow_patch(frames, mouth, eyes, generator)
        mouth, eyes = jitter_points(mouth, eyes, generator, 0.06)
        crops = mouth_crops(frames[:, 0], mouth[:, 0], eyes[:, 0])[:, None]
        crops = vary_appearance(crops, generator, hue=math.pi, colour=0.3, blur=2.7, noise=0.15)
        return {"crops": crops[:, 0], "openness": openness}

    def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
        openness = self.network.read_crops(batch["crops"])
        return {"l1": (openness - batch["openness"]).abs().mean()}

    def held_out_metrics(self, clips: Sequence[Prepared], generator: torch.Generator) -> dict[str, float]:
        """Mean absolute error, and mean over clips of the correlation with the true openness; the worst clip's too."""
        errors, correlations = [], []
        for clip in clips:
            with torch.no_grad():
                frames = to_unit(clip["frames"].to(self.device))
                read = self.network(frames, clip["mouth"].to(self.device), clip["eyes"].to(self.device)).cpu()
            truth = _openness(clip)
            errors.append(float((read - truth).abs().mean()))
            correlations.append(float(torch.corrcoef(torch.stack([read, truth]))[0, 1]))
        return {
            "absolute_error": sum(errors) / len(errors),
            "correlation": sum(correlations) / len(correlations),
            "correlation_worst_clip": min(correlations),
        }


def _openness(clip: Prepared) -> Tensor:
    if "openness" not in clip:
        raise ArtifactError("the mouth probe learns from clips with true openness, got one without; use SynthTalkData")
    return clip["openness"]


def _grow_patch(frames: Tensor, mouth: Tensor, eyes: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the frames get a soft patch of random colour beside or above the lips, as a moustache or a mole would be.

    Args:
        frames: (G, 1, 3, H, W).
        mouth: (G, 1, 2) pixels.
        eyes: (G, 1, 2, 2) pixels.
    """
    count, _, _, height, width = frames.shape
    unit = (eyes[:, 0, 1] - eyes[:, 0, 0]).norm(dim=1)
    draw = torch.rand(count, 7, generator=generator)
    present = (draw[:, 0] < 0.5).float() * (0.5 + 0.5 * draw[:, 1])
    # A wide patch over the upper lip, or a small one on either side of the mouth.
    above = draw[:, 2] < 0.6
    side = torch.where(draw[:, 3] < 0.5, -1.0, 1.0)
    at_x = torch.where(above, 0.1 * (draw[:, 4] - 0.5), side * (0.35 + 0.3 * draw[:, 4]))
    at_y = torch.where(above, -0.2 + 0.08 * (draw[:, 5] - 0.5), 0.5 * draw[:, 5] - 0.15)
    half_x = torch.where(above, 0.3 + 0.2 * draw[:, 6], torch.full_like(unit, 0.055))
    half_y = torch.where(above, 0.06 + 0.07 * draw[:, 6], torch.full_like(unit, 0.055))
    x = torch.arange(width) + 0.5 - (mouth[:, 0, 0] + at_x * unit)[:, None]
    y = torch.arange(height) + 0.5 - (mouth[:, 0, 1] + at_y * unit)[:, None]
    radius = ((x / (half_x * unit)[:, None])[:, None, :] ** 2 + (y / (half_y * unit)[:, None])[:, :, None] ** 2).sqrt()
    edge = (half_y * unit)[:, None, None]  # about one pixel soft
    cover = ((1 - radius) * edge + 0.5).clamp(0, 1) * present[:, None, None]
    colour = 2 * torch.rand(count, 3, 1, 1, generator=generator) ** 2 - 1
    return frames + (cover[:, None] * (colour - frames[:, 0])).unsqueeze(1)
