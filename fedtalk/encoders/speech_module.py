"""Training of the shipped speech network, on sound with a teacher's features and on lips that were seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fedtalk.data.clip import Clip
from fedtalk.data.sound_data import Sound
from fedtalk.encoders.face_module import draw_integer
from fedtalk.encoders.mel import ROWS_PER_FRAME, log_mel
from fedtalk.encoders.speech_network import LIPS, PER_FRAME, SpeechNetwork
from fedtalk.errors import ArtifactError
from fedtalk.federation.module import FederatedModule, Prepared


class SpeechModule(FederatedModule):
    """Learns a teacher's features and the lips of people who were seen speaking, both in squared error.

    Features are taught in the teacher's principal components, each divided by the root of its own deviation times the
    first one's: half way to whitening, so that what carries little counts little.
    """

    def __init__(self, width: int = 144, dimension: int = 96, frames: int = 100, lips_weight: float = 1.0) -> None:
        """
        Args:
            width: see `SpeechNetwork`.
            dimension: see `SpeechNetwork`; the teacher must have as many components at least.
            frames: video frames of a training window.
            lips_weight: weight of the lips' term.
        """
        super().__init__()
        self.save_hyperparameters()
        self.network = SpeechNetwork(width, dimension=dimension)

    def exchanged_parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.network.named_parameters())

    def cache_key(self) -> str:
        return "sound-1"

    def prepare_clip(self, clip: Clip) -> Prepared:
        """Log-mel of the disturbed sound, the teacher's features of the clean one, lips and where they were seen."""
        if not isinstance(clip, Sound):
            raise ArtifactError("the speech network learns from SoundData, got clips of another data module")
        return {
            "mel": log_mel(torch.from_numpy(clip.audio)).half(),
            "teacher": torch.from_numpy(clip.teacher).half(),
            "lips": torch.from_numpy(clip.lips),
            "seen": torch.from_numpy(clip.seen),
        }

    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        frames, rows = self.hparams["frames"], []
        for _ in range(size):
            clip = clips[draw_integer(len(clips), generator)]
            start = draw_integer(max(1, len(clip["seen"]) - frames + 1), generator)
            rows.append(_cut(clip, start, frames))
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
        features, lips = self.network(batch["mel"])
        seen = batch["seen"][..., None]
        error = ((lips - batch["lips"]) / self.network.lip_deviation).square() * seen
        return {
            "features": (features - batch["teacher"][..., : features.shape[-1]]).square().mean(),
            "lips": self.hparams["lips_weight"] * error.sum() / (len(LIPS) * seen.sum()).clamp_min(1),
        }

    def held_out_metrics(self, clips: Sequence[Prepared], generator: torch.Generator) -> dict[str, float]:
        """Share of the teacher's variance that is explained; mean over clips of the correlation of heard and seen lips."""
        explained, correlations = [], []
        training = self.network.training
        self.network.eval()
        for clip in clips:
            with torch.no_grad():
                features, lips = self.network(clip["mel"].float()[None].to(self.device))
            teacher = clip["teacher"].float()[:, : features.shape[-1]]
            residual = (features[0].cpu() - teacher).square().mean()
            explained.append(1 - float(residual / teacher.var(0, correction=0).mean()))
            there = clip["seen"] > 0
            if there.sum() > 2:
                pairs = zip(lips[0].cpu()[there].T, clip["lips"][there].T, strict=True)
                correlations.append([float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs])
        self.network.train(training)
        means = torch.tensor(correlations).mean(0).tolist() if correlations else []
        return {"explained": sum(explained) / len(explained), **dict(zip(LIPS, means, strict=False))}

    def export(self, folder: Path, clips: Sequence[Prepared]) -> None:
        """Write the network."""
        self.network.save(folder / f"{SpeechNetwork.kind}.safetensors")


def _cut(clip: Prepared, start: int, frames: int) -> Prepared:
    rates = {"mel": ROWS_PER_FRAME, "teacher": PER_FRAME, "lips": 1, "seen": 1}
    return {name: clip[name][start * rate : (start + frames) * rate].float() for name, rate in rates.items()}
