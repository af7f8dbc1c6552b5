"""Sound to learn to hear from: disturbed speech with a teacher's features of it, and lips where they were seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip
from fedtalk.data.source import CentralData, ClipSource
from fedtalk.errors import ArtifactError


@dataclass
class Sound(Clip):
    """A clip that is there for its sound: its pictures are grey dots."""

    teacher: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(2 F, K) float: principal components of the teacher's features of the undisturbed sound."""
    lips: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    """(F, 3) float32: see `fedtalk.encoders.speech_network.LIPS`."""
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """(F,) float32: 1 where the lips were seen, else 0."""

    @classmethod
    def of(cls, audio: np.ndarray, teacher: np.ndarray, lips: np.ndarray, seen: np.ndarray) -> Sound:
        """From arrays of the lengths above; ``audio`` (640 F,)."""
        count = len(audio) // SAMPLES_PER_FRAME
        eyes, mouth = np.zeros((count, 2, 2), np.float32), np.zeros((count, 2), np.float32)
        return cls(np.zeros((count, 2, 2, 3), np.uint8), audio, eyes, mouth, teacher=teacher, lips=lips, seen=seen)


class SoundData(CentralData):
    """Windows of sound from ``root``, one ``.npz`` each (made by ``scripts/speech_set.py``): ``train-*`` and ``held-*``."""

    def __init__(self, root: str) -> None:
        super().__init__()
        folder = Path(root)
        self._training = [self._source(path) for path in sorted(folder.glob("train-*.npz"))]
        self._held_out = [self._source(path) for path in sorted(folder.glob("held-*.npz"))]
        if not self._training or not self._held_out:
            raise ArtifactError(
                f"sound {root}: expected files train-*.npz and held-*.npz as scripts/speech_set.py makes them, got "
                f"{len(self._training)} and {len(self._held_out)}"
            )

    @staticmethod
    def _source(path: Path) -> ClipSource:
        return ClipSource(f"{path.resolve()}/{path.stat().st_mtime_ns}", partial(_load, path))


def _load(path: Path) -> Sound:
    with np.load(path) as stored:
        return Sound.of(*(stored[name].astype(np.float32) for name in ("audio", "teacher", "lips", "seen")))
