"""What the trainings of the small face networks share: how a clip is prepared, and drawing from prepared clips."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fedtalk.data.clip import Clip
from fedtalk.encoders.shipped import ShippedNetwork
from fedtalk.encoders.speech import MelFeatures
from fedtalk.training.module import FederatedModule, Prepared


class FaceModule(FederatedModule):
    """Trains one `ShippedNetwork`; all of its parameters are exchanged."""

    network: ShippedNetwork

    def exchanged_parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.network.named_parameters())

    def cache_key(self) -> str:
        return "face-and-speech-1"

    def export(self, folder: Path, clips: Sequence[Prepared]) -> None:
        """Write the network as it ships."""
        self.network.save(folder / f"{self.network.kind}.safetensors")

    def prepare_clip(self, clip: Clip) -> Prepared:
        """Frames (F, 3, H, W) uint8, points, log-mel (4 F, 64), the person's number, openness (F,) if known."""
        speaker = str(clip.info.get("speaker", clip.info.get("source", "")))
        digest = hashlib.sha256(speaker.encode()).digest()
        prepared = {
            "frames": torch.from_numpy(clip.frames).permute(0, 3, 1, 2),
            "mouth": torch.from_numpy(clip.mouth),
            "eyes": torch.from_numpy(clip.eyes),
            "speech": MelFeatures()(torch.from_numpy(clip.audio)),
            "person": torch.tensor(int.from_bytes(digest[:7], "big")),
        }
        if clip.openness is not None:
            prepared["openness"] = torch.from_numpy(clip.openness)
        return prepared


def draw_integer(high: int, generator: torch.Generator) -> int:
    """Uniform in [0, high)."""
    return int(torch.randint(high, (), generator=generator))


def jitter_points(mouth: Tensor, eyes: Tensor, generator: torch.Generator, amount: float) -> tuple[Tensor, Tensor]:
    """Shift, scale and turn where the mouth's crop will lie, once a group: what an inexact landmark finder would do.

    Args:
        mouth: (G, F, 2) pixels.
        eyes: (G, F, 2, 2) pixels.
        amount: standard deviation of the shift in inter-ocular distances, of the scale, and of the turn in radians.
    """
    groups = len(mouth)
    across = eyes[:, :, 1] - eyes[:, :, 0]  # (G, F, 2)
    unit = across.norm(dim=-1, keepdim=True)
    shift = amount * torch.randn(groups, 1, 2, generator=generator)
    scale = (1 + amount * torch.randn(groups, 1, generator=generator)).clamp(0.7, 1.3)
    turn = amount * torch.randn(groups, 1, generator=generator)
    cos, sin = scale * turn.cos(), scale * turn.sin()
    x, y = across.unbind(-1)
    half = torch.stack([cos * x - sin * y, sin * x + cos * y], -1) / 2
    middle = eyes.mean(2)
    return mouth + shift * unit, torch.stack([middle - half, middle + half], 2)
