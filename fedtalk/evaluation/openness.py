"""How far a mouth is open, read from frames."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np

from fedtalk.data.faces import DlibFinder
from fedtalk.encoders.mouth_probe import MouthProbe
from fedtalk.errors import ConfigurationError


class OpennessProbe(Protocol):
    """Reads the opening of the mouth in each frame."""

    name: str

    def measure(self, frames: np.ndarray, mouth: np.ndarray, eyes: np.ndarray) -> np.ndarray:
        """(F, H, W, 3) uint8, mouth centres (F, 2) and eyes (F, 2, 2) in pixels -> (F,) float."""


class LandmarkProbe:
    """Gap between the inner lips over inter-ocular distance, from dlib's 68 landmarks on enlarged frames; for real faces."""

    name = "landmarks_dlib68"

    def __init__(self, enlarge: int = 4) -> None:
        self._finder, self._enlarge = DlibFinder(), enlarge

    def measure(self, frames: np.ndarray, mouth: np.ndarray, eyes: np.ndarray) -> np.ndarray:
        read = []
        for frame, frame_eyes in zip(frames, eyes, strict=True):
            factor = self._enlarge
            large = cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
            middle = frame_eyes.mean(0) * factor
            unit = float(np.linalg.norm(frame_eyes[1] - frame_eyes[0])) * factor
            # A detector's box: brows to chin, about 2.3 eye distances wide.
            box = np.array(
                [middle[0] - 1.15 * unit, middle[1] - 0.6 * unit, middle[0] + 1.15 * unit, middle[1] + 1.7 * unit]
            )
            read.append(self._finder.place(np.ascontiguousarray(large), box).opening)
        return np.array(read, np.float64)


class SynthTalkProbe:
    """The shipped network for SynthTalk's people."""

    name = "mouth_probe_synthtalk"

    def __init__(self) -> None:
        self._network = MouthProbe.shipped()

    def measure(self, frames: np.ndarray, mouth: np.ndarray, eyes: np.ndarray) -> np.ndarray:
        return self._network.measure(frames, mouth, eyes)


def openness_probe(name: str) -> OpennessProbe:
    """The probe called ``synthtalk`` or ``landmarks``."""
    if name == "synthtalk":
        return SynthTalkProbe()
    if name == "landmarks":
        return LandmarkProbe()
    raise ConfigurationError(f"evaluation.openness: expected 'synthtalk' or 'landmarks', got {name!r}")
