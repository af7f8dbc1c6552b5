"""Lip sync: does this mouth go with this speech? An own measure, learned on SynthTalk (backend ``sync_synthtalk``).

It is no SyncNet: its scores compare with its own scores only. Shape suffixes: B clips, F frames, W windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtalk.data.pixels import to_unit
from fedtalk.encoders.appearance import vary_appearance
from fedtalk.encoders.face_module import FaceModule, draw_integer, jitter_points
from fedtalk.encoders.mel import BANDS, ROWS_PER_FRAME
from fedtalk.encoders.mouth_crop import PIXELS, mouth_crops
from fedtalk.encoders.shipped import ShippedNetwork, convolution
from fedtalk.encoders.speech import MelFeatures, frame_windows
from fedtalk.errors import ArtifactError
from fedtalk.training.module import Prepared

SPAN = 5
"""Frames of a window."""
REACH = SPAN // 2


class SyncScorer(ShippedNetwork):
    """Embeds five mouths, and the speech of the same 0.2 s; the cosine is high where they belong together."""

    kind = "sync"
    name = "sync_synthtalk"

    def __init__(self, channels: Sequence[int] = (32, 48, 64), dimension: int = 64) -> None:
        """
        Args:
            channels: width of the levels of both encoders, each of half the height and width of the one before;
                multiples of 8.
            dimension: length of an embedding.
        """
        super().__init__(channels=list(channels), dimension=dimension)
        first, second, third = channels
        self.mouths = nn.Sequential(
            convolution(3 * SPAN, first), convolution(first, second), convolution(second, third), nn.Flatten(),
            nn.Linear(third * (PIXELS // 8) ** 2, dimension),
        )  # fmt: skip
        self.speech = nn.Sequential(
            convolution(1, first), convolution(first, second), convolution(second, third), nn.Flatten(),
            nn.Linear(third * 3 * (BANDS // 8), dimension),
        )  # fmt: skip

    def embed_mouths(self, frames_BF: Tensor, mouth_BF2: Tensor, eyes_BF22: Tensor) -> Tensor:
        """One embedding for each frame that has two neighbours on both sides.

        Args:
            frames_BF: (B, F, 3, H, W) float in [-1, 1], F at least 5.
            mouth_BF2: mouth centres in pixels.
            eyes_BF22: eyes in pixels.

        Returns:
            (B, F - 4, 64) of unit length; entry ``w`` is centred on frame ``w + 2``.
        """
        if frames_BF.ndim != 5 or frames_BF.shape[1] < SPAN:
            raise ArtifactError(f"sync: expected frames (B, F, 3, H, W) with F >= {SPAN}, got {tuple(frames_BF.shape)}")
        crops = mouth_crops(frames_BF.flatten(0, 1), mouth_BF2.flatten(0, 1), eyes_BF22.flatten(0, 1))
        return self.embed_crops(crops.unflatten(0, (len(frames_BF), -1)))

    def embed_crops(self, crops_BF: Tensor) -> Tensor:
        """As `embed_mouths`, from crops (B, F, 3, 32, 32) of `mouth_crops`."""
        windows = crops_BF.unfold(1, SPAN, 1)  # (B, W, 3, h, w, 5)
        stacked = windows.permute(0, 1, 5, 2, 3, 4).flatten(2, 3).flatten(0, 1)
        return F.normalize(self.mouths(stacked), dim=-1).unflatten(0, (len(crops_BF), -1))

    def embed_speech(self, windows: Tensor) -> Tensor:
        """(..., 20, 64) log-mel (`MelFeatures`, `frame_windows`) -> (..., 64) of unit length."""
        if windows.shape[-2:] != (SPAN * ROWS_PER_FRAME, BANDS):
            raise ArtifactError(f"sync: expected log-mel windows (..., 20, 64), got {tuple(windows.shape)}")
        embedded = self.speech(windows.reshape(-1, 1, *windows.shape[-2:]))
        return F.normalize(embedded, dim=-1).reshape(*windows.shape[:-2], -1)

    def score_windows(self, frames_BF: Tensor, mouth_BF2: Tensor, eyes_BF22: Tensor, windows_BF: Tensor) -> Tensor:
        """Cosine of mouths and speech at each frame that has two neighbours on both sides; differentiable.

        Args:
            windows_BF: (B, F, 20, 64), one log-mel window a frame; the others as in `embed_mouths`.

        Returns:
            (B, F - 4) in [-1, 1].
        """
        speech = self.embed_speech(windows_BF[:, REACH : windows_BF.shape[1] - REACH])
        return (self.embed_mouths(frames_BF, mouth_BF2, eyes_BF22) * speech).sum(-1)

    def score(self, frames: np.ndarray, audio: np.ndarray, mouth: np.ndarray, eyes: np.ndarray) -> float:
        """Mean cosine of a clip, in [-1, 1]; report it as ``sync_synthtalk``. Arguments as in `offset`."""
        return float(self._cosines(frames, audio, mouth, eyes).diagonal().mean())

    def offset(
        self, frames: np.ndarray, audio: np.ndarray, mouth: np.ndarray, eyes: np.ndarray, reach: int = 7
    ) -> tuple[int, float]:
        """By how many frames the audio is late.

        Args:
            frames: (F, H, W, 3) uint8.
            audio: (640 F,) float in [-1, 1], 16 kHz.
            mouth: (F, 2) pixels.
            eyes: (F, 2, 2) pixels.
            reach: largest offset tried, in frames either way.

        Returns:
            the offset in frames: positive where the speech comes after the lips, 0 in sync; and its mean cosine.

        Raises:
            ArtifactError: the clip is too short for ``reach``.
        """
        cosines = self._cosines(frames, audio, mouth, eyes)
        if len(cosines) <= reach:
            raise ArtifactError(
                f"sync offset: expected at least {reach + SPAN} frames for reach {reach}, got {len(frames)}"
            )
        means = {late: float(cosines.diagonal(late).mean()) for late in range(-reach, reach + 1)}
        best = max(means, key=lambda late: means[late])
        return best, means[best]

    @torch.no_grad()
    def _cosines(self, frames: np.ndarray, audio: np.ndarray, mouth: np.ndarray, eyes: np.ndarray) -> Tensor:
        """(W, W): row a window of mouths, column a window of speech."""
        picture = to_unit(torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2))
        mouths = self.embed_mouths(picture[None], _tensor(mouth)[None], _tensor(eyes)[None])[0]
        windows = frame_windows(MelFeatures()(_tensor(audio)), ROWS_PER_FRAME)[REACH : len(frames) - REACH]
        return mouths @ self.embed_speech(windows).T


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))


class SyncModule(FaceModule):
    """Learns which speech goes with which mouths among other moments of the same clip and of other clips.

    Symmetric cross-entropy over cosines at a temperature (InfoNCE; van den Oord et al. 2018).
    """

    network: SyncScorer

    def __init__(
        self,
        channels: Sequence[int] = (32, 48, 64),
        dimension: int = 64,
        windows_per_clip: int = 16,
        temperature: float = 0.07,
    ) -> None:
        """
        Args:
            channels: see `SyncScorer`.
            dimension: see `SyncScorer`.
            windows_per_clip: consecutive windows of a clip in a batch.
            temperature: divides the cosines.
        """
        super().__init__()
        self.save_hyperparameters()
        self.network = SyncScorer(channels, dimension)

    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        length = self.hparams["windows_per_clip"] + SPAN - 1
        parts: dict[str, list[Tensor]] = {"frames": [], "mouth": [], "eyes": [], "windows": []}
        for _ in range(max(2, size // self.hparams["windows_per_clip"])):
            clip = clips[draw_integer(len(clips), generator)]
            if len(clip["frames"]) < length:
                raise ArtifactError(f"sync: expected clips of at least {length} frames, got {len(clip['frames'])}")
            start = draw_integer(len(clip["frames"]) - length + 1, generator)
            span = slice(start, start + length)
            windows = frame_windows(clip["speech"], ROWS_PER_FRAME)[span]
            for name in ("frames", "mouth", "eyes"):
                parts[name].append(clip[name][span])
            parts["windows"].append(_vary_voice(windows, generator))
        batch = {name: torch.stack(values) for name, values in parts.items()}
        mouth, eyes = jitter_points(batch["mouth"], batch["eyes"], generator, 0.05)
        frames = to_unit(batch["frames"]).flatten(0, 1)
        crops = mouth_crops(frames, mouth.flatten(0, 1), eyes.flatten(0, 1)).unflatten(0, (-1, length))
        crops = vary_appearance(crops, generator, hue=math.pi, colour=0.25, blur=2.0, noise=0.1)
        return {"crops": crops, "windows": batch["windows"]}

    def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
        mouths = self.network.embed_crops(batch["crops"]).flatten(0, 1)
        speech = self.network.embed_speech(batch["windows"][:, REACH:-REACH]).flatten(0, 1)
        logits = mouths @ speech.T / self.hparams["temperature"]
        truth = torch.arange(len(logits), device=logits.device)
        return {"contrast": (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2}

    def held_out_metrics(self, clips: Sequence[Prepared], generator: torch.Generator) -> dict[str, float]:
        """How often the true offset wins among -7 to 7 frames (chance 0.067): by whole clip and by single window."""
        reach = 7
        by_clip, by_window, in_sync = [], [], []
        for clip in clips:
            with torch.no_grad():
                frames = to_unit(clip["frames"].to(self.device))[None]
                points = clip["mouth"].to(self.device)[None], clip["eyes"].to(self.device)[None]
                windows = frame_windows(clip["speech"], ROWS_PER_FRAME)[REACH:-REACH].to(self.device)
                cosines = self.network.embed_mouths(frames, *points)[0] @ self.network.embed_speech(windows).T
            # (W - 14, 15): windows that have speech at every offset
            table = torch.stack([cosines[w, w - reach : w + reach + 1] for w in range(reach, len(cosines) - reach)])
            by_clip.append(float(table.mean(0).argmax() == reach))
            by_window.append(float((table.argmax(1) == reach).float().mean()))
            in_sync.append(float(cosines.diagonal().mean()))
        count = len(clips)
        return {
            "offset_accuracy": sum(by_clip) / count,
            "offset_accuracy_window": sum(by_window) / count,
            "cosine": sum(in_sync) / count,
        }


def _vary_voice(windows: Tensor, generator: torch.Generator) -> Tensor:
    """Another voice and room: the mel axis stretched by up to 12 %, loudness and tilt shifted, noise; (F, 20, 64)."""
    draw = 2 * torch.rand(3, generator=generator) - 1
    position = torch.linspace(-1, 1, BANDS)
    place = ((position + 1) * (1 + 0.12 * draw[0]) - 1).clamp(-1, 1)
    index = (place + 1) / 2 * (BANDS - 1)
    low = index.floor().long().clamp_max(BANDS - 2)
    share = index - low
    warped = windows[..., low] * (1 - share) + windows[..., low + 1] * share
    shifted = warped + 0.25 * draw[1] + 0.25 * draw[2] * position
    return shifted + 0.1 * torch.randn(windows.shape, generator=generator)
