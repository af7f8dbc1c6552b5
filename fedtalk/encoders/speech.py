"""Speech encoders: sound to feature vectors, a fixed number a video frame, and windows of them around each frame."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedtalk.checks import check_choice
from fedtalk.data.clip import SAMPLE_RATE, SAMPLES_PER_FRAME
from fedtalk.encoders.mel import log_mel
from fedtalk.encoders.speech_network import LIPS, PER_FRAME, SpeechNetwork
from fedtalk.errors import ArtifactError, ConfigurationError

FrontEnd = Literal["shipped", "mel", "whisper", "wav2vec2"]
REACH = 2
"""Video frames on each side of a frame that its audio window spans."""
TOKENS = 2 * REACH + 1
PART, MARGIN = 450, 25
"""Video frames of a long sound that are read at a time, and those before and after that are heard with them: 20 s in all,
which every front end reads in one piece."""


class SpeechFeatures(ABC):
    """A frozen front end: a fixed number of feature vectors a video frame."""

    per_frame: int
    dimension: int
    name: str

    def __call__(self, audio: Tensor) -> Tensor:
        """(N,) float32, 16 kHz, N = 640 F -> (F * per_frame, dimension) float32; loudness is normalised first."""
        if audio.ndim != 1 or len(audio) == 0 or len(audio) % SAMPLES_PER_FRAME:
            raise ConfigurationError(f"audio: expected (640 F,) samples at 16 kHz, got {tuple(audio.shape)}")
        return self.at_level(audio, float(audio.square().mean().sqrt()))

    def at_level(self, audio: Tensor, level: float) -> Tensor:
        """The same for part of a longer sound, whose root mean square is ``level``."""
        # In single precision throughout: the same sound gives the same bits, whether its level was a tensor or is told.
        return self._features(audio * (0.1 / torch.tensor(level, dtype=torch.float32).clamp_min(1e-4)))

    @abstractmethod
    def _features(self, audio: Tensor) -> Tensor: ...


class MelFeatures(SpeechFeatures):
    """Log-mel spectrum, 4 rows a video frame."""

    per_frame, dimension, name = 4, 64, "mel"

    def _features(self, audio: Tensor) -> Tensor:
        return log_mel(audio)


class ShippedFeatures(SpeechFeatures):
    """What the shipped networks hear: 2 vectors a video frame, and in each what the lips do at that frame."""

    per_frame, name = PER_FRAME, "shipped"

    @property
    def dimension(self) -> int:  # type: ignore[override]
        return int(speech_network().config["dimension"]) + len(LIPS)

    @torch.no_grad()
    def _features(self, audio: Tensor) -> Tensor:
        features, lips = _heard(log_mel(audio))
        network = speech_network()
        normal = (lips - network.lip_mean) / network.lip_deviation
        return torch.cat([features, normal.repeat_interleave(PER_FRAME, 0)], 1)


@lru_cache(maxsize=1)
def speech_network() -> SpeechNetwork:
    """The shipped network whose features backbones know, read once."""
    return SpeechNetwork.shipped().requires_grad_(False)


@lru_cache(maxsize=1)
def lips_network() -> SpeechNetwork:
    """The shipped network that has heard more voices, read once: for its lips alone, its features are its own."""
    return SpeechNetwork.shipped("lips").requires_grad_(False)


def _heard(mel: Tensor) -> tuple[Tensor, Tensor]:
    """Features (2 F, 96) of log-mel (4 F, 64), and lips (F, 3): the mean of both networks'."""
    features, lips = speech_network()(mel[None])
    return features[0], (lips[0] + lips_network()(mel[None])[1][0]) / 2


@torch.no_grad()
def heard_lips(audio: Tensor) -> Tensor:
    """What lips do to make such a sound, by the shipped networks.

    Args:
        audio: (640 F,) float32, 16 kHz.

    Returns:
        (F, 3) float32, see `fedtalk.encoders.speech_network.LIPS`.
    """
    level = audio.square().mean().sqrt().clamp_min(1e-4)
    return _heard(log_mel(audio * (0.1 / level)))[1]


def lips_in(windows: Tensor) -> Tensor:
    """What the lips do at the middle frames of windows of `ShippedFeatures`.

    Args:
        windows: (F, 10, dimension) of `frame_windows`.

    Returns:
        (F, 3), see `fedtalk.encoders.speech_network.LIPS`.
    """
    network = speech_network()
    middle = windows[:, REACH * PER_FRAME : (REACH + 1) * PER_FRAME, -len(LIPS) :].float().mean(1)
    return middle * network.lip_deviation.to(middle.device) + network.lip_mean.to(middle.device)


class _PretrainedFeatures(SpeechFeatures):
    """Hidden states of a transformers speech model, resampled to 2 vectors a video frame (both models give 50 Hz)."""

    per_frame = 2

    def __init__(self, path: str) -> None:
        if not Path(path).is_dir():
            raise ArtifactError(
                f"speech model {path}: no such folder; expected one written by transformers' save_pretrained "
                "(config.json and weights). Download the model there first; fedtalk fetches nothing by itself."
            )
        self.path = path

    def _resample(self, hidden: Tensor, frames: int) -> Tensor:
        return F.interpolate(hidden.T[None], size=frames * self.per_frame, mode="linear", align_corners=False)[0].T


class WhisperFeatures(_PretrainedFeatures):
    """Last hidden states of a Whisper encoder; long speech is read in the model's own windows."""

    name = "whisper"

    @cached_property
    def _model(self) -> tuple:
        from transformers import WhisperFeatureExtractor, WhisperModel

        return WhisperFeatureExtractor.from_pretrained(self.path), WhisperModel.from_pretrained(
            self.path
        ).encoder.eval()

    @property
    def dimension(self) -> int:  # type: ignore[override]
        return int(self._model[1].config.d_model)

    @torch.no_grad()
    def _features(self, audio: Tensor) -> Tensor:
        extractor, encoder = self._model
        span = extractor.n_samples
        parts = []
        for start in range(0, len(audio), span):
            piece = audio[start : start + span]
            inputs = extractor(piece.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
            hidden = encoder(inputs).last_hidden_state[0]
            keep = max(1, round(len(hidden) * len(piece) / span))
            parts.append(self._resample(hidden[:keep], len(piece) // SAMPLES_PER_FRAME))
        return torch.cat(parts)


class Wav2Vec2Features(_PretrainedFeatures):
    """Last hidden states of a wav2vec2 model, read in pieces of 20 s."""

    name = "wav2vec2"

    @cached_property
    def _model(self) -> Any:
        from transformers import Wav2Vec2Model

        return Wav2Vec2Model.from_pretrained(self.path).eval()

    @property
    def dimension(self) -> int:  # type: ignore[override]
        return int(self._model.config.hidden_size)

    @torch.no_grad()
    def _features(self, audio: Tensor) -> Tensor:
        span = 20 * SAMPLE_RATE
        parts = []
        for start in range(0, len(audio), span):
            piece = audio[start : start + span]
            normal = (piece - piece.mean()) / (piece.std() + 1e-7)
            hidden = self._model(normal[None]).last_hidden_state[0]
            parts.append(self._resample(hidden, len(piece) // SAMPLES_PER_FRAME))
        return torch.cat(parts)


def speech_features(name: FrontEnd, path: str | None = None) -> SpeechFeatures:
    """The front end called ``shipped``, ``mel``, ``whisper`` or ``wav2vec2``; the last two need the folder of the model.

    Raises:
        ConfigurationError: unknown name, or a path is missing.
    """
    if name == "mel":
        return MelFeatures()
    if name == "shipped":
        return ShippedFeatures()
    check_choice("speech features", name, FrontEnd)
    if path is None:
        raise ConfigurationError(f"speech features {name!r} need speech_path: the folder of the pretrained model")
    return WhisperFeatures(path) if name == "whisper" else Wav2Vec2Features(path)


def stream_windows(speech: SpeechFeatures, frames: Iterable[np.ndarray], level: float) -> Iterator[Tensor]:
    """`frame_windows` of a sound of any length, of which `PART` frames and `MARGIN` on each side are held at a time.

    Args:
        frames: (640,) float32 each, the sound of one video frame.
        level: root mean square of the whole sound.

    Yields:
        (TOKENS * per_frame, dimension), one a frame.
    """
    stream = iter(frames)
    held: list[np.ndarray] = []
    before = 0  # frames held that lie before the part
    while True:
        held.extend(itertools.islice(stream, before + PART + MARGIN - len(held)))
        count = min(PART, len(held) - before)
        if count <= 0:
            return
        features = speech.at_level(torch.from_numpy(np.concatenate(held)), level)
        windows = frame_windows(features, speech.per_frame)
        yield from windows[before : before + count]
        drop = max(0, before + count - MARGIN)
        held, before = held[drop:], before + count - drop


def frame_windows(features: Tensor, per_frame: int) -> Tensor:
    """One window a video frame, zero beyond the ends.

    Args:
        features: (F * per_frame, dimension).

    Returns:
        (F, TOKENS * per_frame, dimension).
    """
    padded = F.pad(features, (0, 0, REACH * per_frame, REACH * per_frame))
    return padded.unfold(0, TOKENS * per_frame, per_frame).transpose(1, 2)
