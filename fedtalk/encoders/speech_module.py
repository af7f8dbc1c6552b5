"""Training of the shipped speech network, on sound with a teacher's features and on lips that were seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtalk.data.clip import Clip
from fedtalk.data.sound_data import Sound
from fedtalk.encoders.face_module import draw_integer
from fedtalk.encoders.mel import LOWEST, ROWS_PER_FRAME, log_mel
from fedtalk.encoders.speech_network import LIPS, PER_FRAME, SpeechNetwork
from fedtalk.errors import ArtifactError
from fedtalk.training.module import FederatedModule, Prepared


class SpeechModule(FederatedModule):
    """Learns a teacher's features, the lips that belong to them from people who were seen speaking, and to say the same of
    its own features; all in squared error.

    Features are taught in the teacher's principal components, each divided by the root of its own deviation times the
    first one's: half way to whitening, so that what carries little counts little.
    """

    def __init__(
        self,
        width: int = 192,
        dimension: int = 96,
        frames: int = 100,
        lips_weight: float = 1.0,
        feature_noise: float = 0.4,
        colour: float = 0.3,
        silence: float = 0.25,
    ) -> None:
        """
        Args:
            width: see `SpeechNetwork`.
            dimension: see `SpeechNetwork`; the teacher must have as many components at least.
            frames: video frames of a training window.
            lips_weight: weight of each of the lips' terms.
            feature_noise: standard deviation of noise on the teacher's features from which lips are learned, in their own.
            colour: standard deviation of a random smooth tone that windows of sound are given, in the log-mel's.
            silence: share of windows in which a stretch falls silent; lips close there, whatever people do who wait for
                their cue.
        """
        super().__init__()
        self.save_hyperparameters()
        self.network = SpeechNetwork(width, dimension=dimension)

    def exchanged_parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.network.named_parameters())

    def cache_key(self) -> str:
        return "sound-2"

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
        batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        tone = torch.randn(size, 1, 5, generator=generator)
        curve = F.interpolate(tone, batch["mel"].shape[-1], mode="linear", align_corners=True)
        batch["mel"] = batch["mel"] + self.hparams["colour"] * curve
        noise = torch.randn(batch["teacher"].shape, generator=generator)
        batch["noise"] = self.hparams["feature_noise"] * batch["teacher"].std() * noise
        batch["silent"] = torch.zeros(size, frames)
        for silent, mel in zip(batch["silent"], batch["mel"], strict=True):
            if torch.rand((), generator=generator) < self.hparams["silence"]:
                start, length = (draw_integer(frames // 2, generator) for _ in range(2))
                silent[start : start + length] = 1
                mel[start * ROWS_PER_FRAME : (start + length) * ROWS_PER_FRAME] = LOWEST
        return batch

    def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
        network, count = self.network, self.hparams["dimension"]
        features, heard = network(batch["mel"])
        teacher = batch["teacher"][..., :count]
        told = network.lips_of(teacher + batch["noise"][..., :count])
        seen, silent = batch["seen"][..., None], batch["silent"][..., None]
        error = ((told - batch["lips"]) / network.lip_deviation).square() * seen
        network.lips.eval()  # what it says of the teacher without noise and without dropout
        with torch.no_grad():
            known = network.lips_of(teacher)
        network.lips.train(network.training)
        spoken = 1 - silent.repeat_interleave(PER_FRAME, 1)
        return {
            "features": ((features - teacher).square() * spoken).mean() / teacher.square().mean(),
            "lips": self.hparams["lips_weight"] * error.sum() / (len(LIPS) * seen.sum()).clamp_min(1),
            "heard": self.hparams["lips_weight"]
            * ((heard - known * (1 - silent)) / network.lip_deviation).square().mean(),
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
        """Write the network as the one that ships for its lips."""
        self.network.save(folder / "lips.safetensors")


def _cut(clip: Prepared, start: int, frames: int) -> Prepared:
    rates = {"mel": ROWS_PER_FRAME, "teacher": PER_FRAME, "lips": 1, "seen": 1}
    return {name: clip[name][start * rate : (start + frames) * rate].float() for name, rate in rates.items()}
